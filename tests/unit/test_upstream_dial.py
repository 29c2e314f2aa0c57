"""Connections to hosts with several addresses: one that hangs or refuses holds nobody up."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services import errors
from services.upstream import Timeouts, dial
from services.upstream.exchange import Answer
from tests.fakes.upstream import FakeUpstream, Json
from tests.lib.adapters import transport

TIMEOUTS = Timeouts(connect=5.0, first_byte=5.0, idle=5.0)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that every host has: the resolver's part is all that is not real here."""
    found: list[str] = []

    async def resolved(host: str, port: int) -> list[tuple[int, str]]:
        return [(socket.AF_INET, one) for one in found]

    monkeypatch.setattr(dial, "_resolved", resolved)
    return found


@contextmanager
def hanging(address: str, port: int) -> Iterator[None]:
    """An address whose queue of connections is full."""
    with socket.socket() as full:
        full.bind((address, port))
        full.listen(0)
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex((address, port))
        try:
            yield
        finally:
            for other in others:
                other.close()


def sockets() -> int:
    """How many this process has open."""
    found = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return sum(one.is_socket() for one in found)


async def post(up: FakeUpstream, connect: float = 5.0) -> bytes:
    timeouts = Timeouts(connect, 5.0, 5.0)
    async with (
        transport() as one,
        one.request("POST", f"http://host.example:{up.port}/x", {}, b"", timeouts) as response,
    ):
        return (await Answer.of(response)).body


async def test_an_address_that_hangs_has_a_quarter_of_a_second(
    upstream: FakeUpstream, addresses: list[str]
) -> None:
    upstream.on("POST", "/x", Json({}))
    addresses += ["127.0.0.2", "127.0.0.1"]
    with hanging("127.0.0.2", upstream.port):
        began = time.monotonic()
        assert await post(upstream) == b"{}"
        assert dial.HEAD_START <= time.monotonic() - began < 2.5
    assert upstream.requests[0].headers["host"] == f"host.example:{upstream.port}"


async def test_an_address_that_refuses_is_passed_over_at_once(
    upstream: FakeUpstream, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "HEAD_START", 60.0)
    upstream.on("POST", "/x", Json({}))
    addresses += ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
    assert await post(upstream) == b"{}"


async def test_addresses_that_all_refuse_are_told(
    upstream: FakeUpstream, addresses: list[str]
) -> None:
    addresses += ["127.0.0.2", "127.0.0.3"]
    with pytest.raises(errors.UpstreamUnavailable, match="Connection refused"):
        await post(upstream)


async def test_the_other_family_is_tried_second() -> None:
    four, six = (int(socket.AF_INET), "1"), (int(socket.AF_INET6), "::1")
    assert dial._mixed([six, (six[0], "::2"), four]) == [six, four, (six[0], "::2")]
    assert dial._mixed([four, (four[0], "2")]) == [four, (four[0], "2")]


@pytest.mark.parametrize("cancel", [False, True])
async def test_attempts_that_were_not_needed_leave_no_socket(
    upstream: FakeUpstream, addresses: list[str], cancel: bool
) -> None:
    """G7. Whether another one won, the limit struck, or the caller left."""
    addresses += ["127.0.0.2", "127.0.0.3"]
    with hanging("127.0.0.2", upstream.port), hanging("127.0.0.3", upstream.port):
        before = sockets()
        task = asyncio.ensure_future(post(upstream, 30.0 if cancel else 0.4))
        if cancel:
            await asyncio.sleep(0.4)
            task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError if cancel else errors.DeadlineExceeded)
        await asyncio.sleep(0)
        assert sockets() == before
