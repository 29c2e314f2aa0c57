"""Memory of streams that are open and idle: what the gateway's process grows by, per stream.

A stream is idle once its first event has reached its caller; the upstream then says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import uvloop

from bench import load, rig
from bench.operations import IDLE, Operation
from bench.pinned import REST, on
from bench.table import Table, number

STREAMS: Final = 1000
GOALS: Final = {"REST": 20.0, "gRPC": 40.0}
"""KiB a stream."""

_FIRST: Final = 50
_QUIET: Final = 0.5

Streams = Callable[[int, Operation, int], AbstractAsyncContextManager[None]]


async def _growth(server: rig.Server, port: int, streams: Streams, count: int) -> float:
    """KiB a stream; a few streams have gone before, so that what is made once is made."""
    async with streams(port, IDLE, _FIRST):
        pass
    await asyncio.sleep(_QUIET)
    before = server.process.resident()
    async with streams(port, IDLE, count):
        return (server.process.resident() - before) / count / 1024


def measure(face: str, count: int = STREAMS) -> float:
    """KiB a stream over one face of a new gateway."""
    with rig.upstream() as upstream, rig.gateway(upstream) as server, on(REST):
        if face == "REST":
            return uvloop.run(_growth(server, server.rest, load.rest_streams, count))
        return uvloop.run(_growth(server, server.grpc, load.rpc_streams, count))


def run(rounds: int) -> Iterator[Table]:
    """One table: a row for each face."""
    table = Table(
        f"idle: {STREAMS} open streams",
        ["face", "KiB a stream", "goal"],
        notes=["Growth of the gateway's resident memory, once, a new gateway for each face."],
    )
    for face, goal in GOALS.items():
        table.rows.append([face, number(measure(face)), f"{goal:g}"])
    yield table
