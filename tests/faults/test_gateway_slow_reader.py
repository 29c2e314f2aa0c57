"""A caller who reads slowly holds back the upstream, and costs the gateway little memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import Sse
from tests.lib.rig import FACES, rig, still

CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x" * 8192}}]}
OURS = 4 * 1024 * 1024
"""Bytes that may be under way inside the gateway and the client, which shares the process."""


def kernel() -> int:
    """Bytes that the kernel may hold for the two connections of one call."""
    sizes = [
        int(Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text().split()[2])
        for name in ("rmem", "wmem")
    ]
    return 2 * sum(sizes)


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_an_endless_stream_stops_at_a_caller_who_does_not_read(face: Any) -> None:
    """S4, as G34 for uploads: what has been sent stays bounded, and goes on when it is read."""
    async with rig() as one:
        one.up.on("POST", "/*", Sse(iter(lambda: CHUNK, None)))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            caller = await face.start(one, "StreamChat", receive_buffer=16384)
            received = await one.up.received()
            sent = await still(lambda: received.sent)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert sent < kernel() + OURS
        assert grown < OURS
        await caller.first()
        drunk = asyncio.create_task(_read(caller))
        async with asyncio.timeout(10):
            while received.sent < sent + 1_000_000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        drunk.cancel()
        await asyncio.gather(drunk, return_exceptions=True)
        await caller.leave("cancel")
        await asyncio.wait_for(received.disconnected.wait(), 5)
        await one.at_rest()


async def _read(caller: Any) -> None:
    if hasattr(caller, "reader"):
        while await caller.reader.read(65536):
            pass
    while True:
        await caller.first()
