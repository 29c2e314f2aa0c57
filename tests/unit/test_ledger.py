"""The ledger's records and its queue: nothing waits, nothing is written twice, memory is bounded.

The stores are real files here; PostgreSQL has a module of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.ledger import Ledger, LedgerFault, ledger, record, stores, totals
from services.ledger.record import NAMES
from tests.lib.process import ROOT, Program
from tests.lib.rig import until
from tests.unit.ledger_calls import PRICES, added_up, ended, some_calls

FILES = ["jsonl", "sqlite"]
by_file = pytest.mark.parametrize("kind", FILES)


@asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[Ledger]:
    one = Ledger(url, PRICES.get, **options)
    await one.start()
    try:
        yield one
    finally:
        await one.aclose(10)


def row(**members: Any) -> dict[str, Any]:
    """The record of a call, by its columns."""
    return dict(zip(NAMES, record.of(ended(**members), PRICES.get), strict=True))


def test_a_record_tells_what_happened_to_the_call() -> None:
    call = ended("req_7", prompt_tokens=10, completion_tokens=0, total_tokens=10, source="upstream")
    call.began, call.first_at, call.ended_at, call.queued = 100.0, 100.25, 101.5, 0.125
    made = dict(zip(NAMES, record.of(call, PRICES.get), strict=True))
    assert made.pop("uuid") != made.pop("time")
    assert made == {
        "id": "req_7",
        "key": "indexer",
        "method": "Chat",
        "face": "grpc",
        "model": "chat",
        "endpoint": "chat-a",
        "attempts": 1,
        "outcome": "OK",
        "prompt_tokens": 10,
        "completion_tokens": 0,
        "total_tokens": 10,
        "audio_seconds": None,
        "documents": None,
        "source": "upstream",
        "cost": pytest.approx(5e-6),
        "duration_ms": 1500.0,
        "first_ms": 250.0,
        "queued_ms": 125.0,
    }


@pytest.mark.parametrize(
    ("figures", "cost"),
    [
        ({"prompt_tokens": 2_000_000, "completion_tokens": 1_000_000}, 2.5),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 0.0),
        ({"completion_tokens": 1_000_000}, 1.5),
        ({"total_tokens": 2_000_000}, 1.0),
        ({"audio_seconds": 3.0}, None),
        ({}, None),
        ({"prompt_tokens": 10, "model": "unknown"}, None),
        ({"prompt_tokens": 10, "model": "free"}, 0.0),
    ],
)
def test_cost_comes_from_known_tokens_and_is_else_unknown(
    figures: dict[str, Any], cost: float | None
) -> None:
    """G12: zero is a value, None is unknown."""
    assert row(**figures)["cost"] == cost


@pytest.mark.parametrize("number", [10**30, -(10**30)])
def test_a_figure_that_nobody_can_have_counted_is_unknown(number: int) -> None:
    made = row(prompt_tokens=number, audio_seconds=math.inf)
    assert (made["prompt_tokens"], made["audio_seconds"], made["cost"]) == (None, None, None)


async def test_a_reload_changes_the_prices(tmp_path: Path) -> None:
    prices = {"chat": (1.0, 0.0)}
    url = f"jsonl:{tmp_path}/usage"
    one = Ledger(url, lambda name: prices.get(name))
    await one.start()
    one.put(ended(prompt_tokens=1_000_000))
    prices = {"chat": (5.0, 0.0)}
    one.put(ended(prompt_tokens=1_000_000))
    assert await one.aclose(10) == 0
    assert totals.read(url, [], None, None).total()[-1] == pytest.approx(6.0)


@by_file
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_totals_are_the_sums_over_the_calls(kind: str, seed: int, tmp_path: Path) -> None:
    """G9, G11, G12: to the token, with a fifth of the calls cancelled."""
    url = f"{kind}:{tmp_path}/usage"
    calls = some_calls(seed, 1200)
    async with running(url) as one:
        for number, call in enumerate(calls):
            one.put(call)
            if number % 100 == 0:
                await asyncio.sleep(0)
    assert (one.written, one.dropped, one.queued) == (1200, 0, 0)
    found = totals.read(url, ["key", "model"], None, None)
    expected = added_up(calls, PRICES)
    assert found.rows.keys() == expected.keys()
    for key, figures in found.rows.items():
        assert figures == pytest.approx(expected[key], rel=1e-9), key
    assert found.total()[2] == 240


@by_file
async def test_a_record_is_written_soon_and_not_only_at_the_end(kind: str, tmp_path: Path) -> None:
    async with running(f"{kind}:{tmp_path}/usage") as one:
        one.put(ended())
        assert one.queued == 1
        await until(lambda: one.written == 1)
        assert one.queued == 0
        assert totals.read(f"{kind}:{tmp_path}/usage", [], None, None).total()[0] == 1


@by_file
async def test_a_full_batch_waits_for_no_more(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "LINGER", 3600)
    async with running(f"{kind}:{tmp_path}/usage") as one:
        one.put(ended())
        await asyncio.sleep(0)  # the first record is seen, and further ones are waited for
        for _ in range(ledger.BATCH - 1):
            one.put(ended())
        await until(lambda: one.written == ledger.BATCH)


@by_file
async def test_a_drain_writes_what_waits(kind: str, tmp_path: Path) -> None:
    url = f"{kind}:{tmp_path}/usage"
    one = Ledger(url, PRICES.get)
    await one.start()
    for call in some_calls(1, 3000):
        one.put(call)
    assert one.written == 0
    assert await one.aclose(10) == 0
    assert (one.written, one.queued) == (3000, 0)
    assert totals.read(url, [], None, None).total()[0] == 3000


@by_file
async def test_an_outage_is_waited_out_and_what_waited_is_written_once(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is gone, and comes back."""
    monkeypatch.setattr(ledger, "LAST_PAUSE", 0.2)
    caplog.set_level(logging.INFO, "tetrad.ledger")
    folder = tmp_path / "mount"
    folder.mkdir()
    url = f"{kind}:{folder}/usage"
    async with running(url) as one:
        one.put(ended("req_before"))
        await until(lambda: one.written == 1)
        shutil.rmtree(folder)
        for call in some_calls(1, 700):
            one.put(call)
        await until(lambda: "are not written" in caplog.text)
        assert (one.queued, one.dropped) == (700, 0)
        folder.mkdir()
        await until(lambda: one.queued == 0)
        assert totals.read(url, [], None, None).total()[0] == 700
    assert caplog.text.count("are not written") == 1
    assert caplog.text.count("are written again") == 1


async def test_a_store_that_is_down_holds_up_nobody_and_takes_no_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """G35, G38: what does not fit is counted, and told once."""
    folder = tmp_path / "mount"
    folder.mkdir()
    one = Ledger(f"jsonl:{folder}/usage", PRICES.get, max_queue=2000)
    await one.start()
    shutil.rmtree(folder)
    call = ended(prompt_tokens=1, completion_tokens=2)
    for _ in range(3000):
        one.put(call)
    await until(lambda: "are not written" in caplog.text)
    tracemalloc.start()
    try:
        begun = time.monotonic()
        for _ in range(50_000):
            one.put(call)
        took = time.monotonic() - begun
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 100_000
    assert took < 5
    assert (one.queued, one.dropped) == (2000, 51_000)
    assert caplog.text.count("further ones are lost") == 1
    began = time.monotonic()
    assert await one.aclose(0.3) == 53_000
    assert time.monotonic() - began < 5
    assert (one.queued, one.dropped, one.written) == (0, 53_000, 0)
    assert caplog.text.count("are not written") == 1


async def test_a_call_that_cannot_be_recorded_fails_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def prices(name: str) -> tuple[float, float]:
        raise KeyError(name)

    one = Ledger(f"jsonl:{tmp_path}/usage", prices)
    await one.start()
    one.put(ended())
    one.put(ended())
    assert await one.aclose(10) == 2
    assert caplog.text.count("was not recorded") == 1


async def test_a_store_with_a_fault_of_ours_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Ledger(f"jsonl:{tmp_path}/usage", PRICES.get)
    await one.start()
    with monkeypatch.context() as broken:
        broken.setattr("services.ledger.jsonl.NAMES", ("one",))
        one.put(ended())
        await until(lambda: "are not written (ValueError)" in caplog.text)
        assert "Traceback" in caplog.text
    assert await one.aclose(10) == 0
    assert one.written == 1


async def test_a_call_that_ends_after_the_drain_is_lost_and_counted(tmp_path: Path) -> None:
    one = Ledger(f"jsonl:{tmp_path}/usage", PRICES.get)
    await one.start()
    assert await one.aclose(10) == 0
    one.put(ended())
    assert (one.queued, one.dropped) == (0, 1)


async def test_a_writer_that_hangs_is_given_up_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """G38: a pipe that nobody reads, once full, blocks its writer for ever."""
    monkeypatch.setattr(ledger, "WRITE", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        one = Ledger(f"jsonl:{pipe}", PRICES.get)
        await one.start()
        for call in some_calls(1, 2000):
            one.put(call)
        await until(lambda: "does not answer" in caplog.text)
        lost = await one.aclose(0.3)
        assert lost + one.written == 2000
        assert lost > 0
    finally:
        os.close(reader)


HANGS = """
import asyncio, sys
from services.ledger import Ledger
from tests.unit.ledger_calls import PRICES, some_calls

async def main():
    one = Ledger(sys.argv[1], PRICES.get)
    await one.start()
    for call in some_calls(1, 2000):
        one.put(call)
    print("lost", await one.aclose(0.3))

asyncio.run(main())
"""


def test_a_writer_that_hangs_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    """G38."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Program("python", "-c", HANGS, f"jsonl:{tmp_path}/pipe", cwd=ROOT) as program:
            program.wait_for(r"lost [1-9]")
            assert program.wait(10) == 0
    finally:
        os.close(reader)


@by_file
@pytest.mark.parametrize("path", ["nowhere/usage", "", "/"])
async def test_a_file_that_cannot_be_opened_stops_the_start(
    kind: str, path: str, tmp_path: Path
) -> None:
    with pytest.raises(LedgerFault, match=r"^ledger\.url: .*; .*this user write there$"):
        await Ledger(f"{kind}:{tmp_path}/{path}", PRICES.get).start()


def test_a_url_of_no_ledger_is_refused() -> None:
    with pytest.raises(ValueError, match="jsonl:PATH"):
        stores.store("mysql://h")
