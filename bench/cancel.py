"""How long it takes from a caller's leaving until the upstream sees its connection closed.

Callers, gateway and upstream share one process and one core, so that both moments are of one clock;
the figures are milliseconds, not CPU time. Built on the test kit's rig.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from bench.table import Table
from tests.fakes.upstream import Json, Reply, Sse, Stall
from tests.lib.adapters import sse
from tests.lib.rig import FACES, Rig, full_listener, rig, until

CANCELS = 1000
"""Of each phase and face in a whole run, which is one of at least FULL rounds."""

FULL = 15

_STREAM = sse("chat/openai-usage-stream.sse")
_LONG = Json({"text": "x" * 1000})

PHASES: Mapping[str, tuple[str, Reply]] = {
    "before the headers": ("Chat", Stall("headers")),
    "before the first byte": ("Embed", Stall("first_byte", _LONG)),
    "unary, in the middle": ("Transcribe", Stall("mid", _LONG, after=100)),
    "stream, before the headers": ("StreamChat", Stall("headers")),
    "stream, in the middle": ("StreamChat", Stall("mid", Sse(_STREAM), len(_STREAM) // 2)),
}


def run(rounds: int) -> Iterable[Table]:
    """A table of milliseconds: the median and the longest, for each phase and face."""
    cancels = CANCELS if rounds >= FULL else max(20, CANCELS * rounds // FULL)
    table = Table(
        f"From a caller's leaving to the upstream's closed connection, ms, {cancels} cancels each",
        ["phase", *(f"{face.name} {what}" for face in FACES for what in ("p50", "max"))],
        notes=["waiting and connecting: until the call has ended, since no upstream was asked"],
    )
    for phase, (operation, reply) in PHASES.items():
        figures = [asyncio.run(_delays(face, operation, reply, cancels)) for face in FACES]
        table.rows.append([phase, *_cells(figures)])
    for phase, measure in (("waiting for a place", _waiting), ("connecting", _connecting)):
        figures = [asyncio.run(measure(face, cancels)) for face in FACES]
        table.rows.append([phase, *_cells(figures)])
    yield table


def _cells(figures: Iterable[list[float]]) -> list[str]:
    return [f"{value * 1000:.2f}" for delays in figures for value in (median(delays), max(delays))]


async def _delays(face: Any, operation: str, reply: Reply, cancels: int) -> list[float]:
    async with rig(breaker={"failures": 10_000}) as one:
        one.up.on("POST", "/*", reply)
        delays = []
        for number in range(1, cancels + 1):
            caller = await face.start(one, operation)
            received = await one.up.received(number)
            await received.complete.wait()
            if operation == "StreamChat" and reply is PHASES["stream, in the middle"][1]:
                await caller.first()
            elif "Transcribe" in operation:
                await until(lambda received=received: received.sent >= 100)  # type: ignore[misc]
            left = await caller.leave("cancel")
            await received.disconnected.wait()
            assert received.disconnected_at is not None
            delays.append(max(0.0, received.disconnected_at - left))
        await one.at_rest()
        return delays


async def _waiting(face: Any, cancels: int) -> list[float]:
    async with rig(limits={"max_in_flight": 1}) as one:
        one.up.on("POST", "/*", Stall("headers"))
        first = await face.start(one, "Chat")
        await one.up.received(1)
        admission = one.gate.running.runtime.admission
        delays = await _until_ended(one, face, cancels, lambda: bool(admission.waiting))
        await first.leave("cancel")
        await one.at_rest()
        return delays


async def _connecting(face: Any, cancels: int) -> list[float]:
    async with full_listener() as url, rig(url) as one:
        delays = await _until_ended(
            one, face, cancels, lambda: any(route.in_flight for route in one.routes)
        )
        await one.at_rest()
        return delays


async def _until_ended(one: Rig, face: Any, cancels: int, begun: Any) -> list[float]:
    delays = []
    for number in range(1, cancels + 1):
        caller = await face.start(one, "Chat")
        await until(begun)
        left = await caller.leave("cancel")
        call = await one.record(number)
        assert call.ended_at is not None
        delays.append(max(0.0, call.ended_at - left))
    return delays
