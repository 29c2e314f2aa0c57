"""Limits in a real Valkey: exact over processes, and a store that freezes or goes away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from services.config import parse
from services.errors import Overloaded
from services.limits import Limiter, shared
from services.limits.shared import SharedWindows
from tests.lib.limited import admitted, call_of
from tests.lib.ports import free_port
from tests.lib.valkey import Server, valkey

TIMEOUT = 0.5


@pytest.fixture
def store() -> Iterator[Server]:
    with valkey() as server:
        yield server


@pytest.fixture
async def limiter(store: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Limiter]:
    monkeypatch.setattr(shared, "PAUSE", 0.05)
    limiter = Limiter(SharedWindows(store.url, TIMEOUT))
    yield limiter
    await limiter.aclose()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def away(limiter: Limiter) -> bool:
    assert limiter._shared is not None
    return limiter._shared.away


def let_in(store: Server, *arguments: str) -> int:
    """How many of the calls of four processes at once are let in."""
    command = [sys.executable, "-m", "tests.lib.limited", store.url, *arguments]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(int(process.communicate(timeout=60)[0]) for process in running)


def test_four_processes_let_in_exactly_as_many_as_the_limit(store: Server) -> None:
    """G14: 800 calls of four processes, 100 let in; a refused one costs nothing of the day."""
    assert let_in(store, "200", "0", "rpm=100", "rpd=1000") == 100
    assert store.count("tetrad:{ann}:rpm") == 100
    assert store.count("tetrad:{ann}:rpd") == 100


def test_no_token_is_lost_between_four_processes(store: Server) -> None:
    """G14."""
    assert let_in(store, "50", "7", "tpm=1000000", "tpd=1000000") == 200
    assert store.count("tetrad:{ann}:tpm") == 1400
    assert store.count("tetrad:{ann}:tpd") == 1400


async def test_a_call_refused_by_tokens_costs_no_request(store: Server, limiter: Limiter) -> None:
    """G14."""
    call = call_of(tokens=5, rpm=9, tpm=5)
    await limiter.admit(call)
    limiter.charge(call)
    await until(lambda: store.count("tetrad:{ann}:tpm") == 5)
    assert not await admitted(limiter, call)
    assert store.count("tetrad:{ann}:rpm") == 1
    assert call.out["x-ratelimit-remaining-tokens"] == "0"
    assert call.out["x-ratelimit-reset-tokens"] in ("1m0s", "59s", "58s")


@pytest.mark.parametrize("says", ["open", "closed"])
async def test_a_frozen_store_holds_calls_up_once_and_then_not_at_all(
    store: Server, limiter: Limiter, says: str
) -> None:
    """G38."""
    call = call_of(rpm=50, on_store_failure=says)

    async def ask() -> None:
        if says == "open":
            await limiter.admit(call)
        else:
            with pytest.raises(Overloaded) as caught:
                await limiter.admit(call)
            assert caught.value.retry_after == 1.0

    await limiter.admit(call)
    store.freeze()
    began = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(20)))
    assert time.monotonic() - began < TIMEOUT * 10
    began = time.process_time()
    for _ in range(100):
        await asyncio.wait_for(ask(), TIMEOUT / 2)
    assert limiter.store_failures >= 1
    store.thaw()
    await until(lambda: not away(limiter))
    await limiter.admit(call)
    # What was on its way while it stood still is not counted by it afterwards.
    assert store.count("tetrad:{ann}:rpm") == 2


async def test_tokens_used_while_the_store_stood_still_are_charged_afterwards(
    store: Server, limiter: Limiter
) -> None:
    call = call_of(tokens=3, tpm=50)
    await limiter.admit(call)
    store.freeze()
    limiter.charge(call)
    await until(lambda: away(limiter))
    limiter.charge(call)
    store.thaw()
    await until(lambda: not away(limiter) and store.count("tetrad:{ann}:tpm") == 6)


async def test_an_outage_is_logged_once(
    store: Server, limiter: Limiter, caplog: pytest.LogCaptureFixture
) -> None:
    await limiter.admit(call_of(rpm=50))
    store.stop()
    for _ in range(20):
        await limiter.admit(call_of(rpm=50))
    await until(lambda: limiter.store_failures > 3)
    assert [record.name for record in caplog.records] == ["tetrad.limits"]


async def test_a_store_that_was_started_anew_is_used_again(store: Server, limiter: Limiter) -> None:
    call = call_of(rpm=1)
    assert [await admitted(limiter, call) for _ in range(2)] == [True, False]
    store.stop()
    assert [await admitted(limiter, call) for _ in range(2)] == [True, True]
    store.start()
    await until(lambda: not away(limiter))
    assert [await admitted(limiter, call) for _ in range(2)] == [True, False]


async def test_a_limit_of_zero_lets_nobody_in_without_its_store(
    store: Server, limiter: Limiter
) -> None:
    store.stop()
    assert not await admitted(limiter, call_of(rpm=0))


async def test_a_start_without_the_store_warns_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = parse(
        "models: [{name: a, type: text-generation, providers: [{url: 'http://h'}]}]\n"
        f"required_types: []\nstate: {{url: 'redis://:secret@127.0.0.1:{free_port()}'}}\n",
        "t.yaml",
        {},
    )
    limiter = Limiter.of(config)
    await limiter.start()
    await limiter.admit(call_of(rpm=1))
    await limiter.aclose()
    assert "does not answer" in caplog.text
    assert "secret" not in caplog.text
