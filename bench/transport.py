"""Our HTTP client beside httpx's, behind the same seam, towards the same stub in another process.

What is counted is the CPU time of this process alone: a request with its answer read to the end,
and an event of a stream. Both clients run in every round, each on connections that it keeps.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench.measure import Measured
from bench.table import Table, number
from bench.transport_stub import CHUNKS
from services.upstream import Timeouts, Transport

OWN: Final = "own"
HTTPX: Final = "httpx"

_ROOT = Path(__file__).resolve().parent.parent
_BODY = b'{"model":"m","messages":[{"role":"user","content":"When does the ferry leave?"}]}'
_HEADERS = {
    "authorization": "Bearer sk-0123456789abcdef",
    "content-type": "application/json",
    "accept": "application/json",
}
_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Case:
    """`callers` at once, each `turns` requests to `path` a round; a request is `parts` units.

    `goal`: how many times cheaper than httpx it should be.
    """

    name: str
    path: str
    callers: int
    turns: int
    parts: int = 1
    goal: float | None = None

    def __str__(self) -> str:
        return self.name


CASES: Final = (
    Case("request, 1 at a time", "/unary", 1, 200, goal=10),
    Case("request, 64 at once", "/unary", 64, 8, goal=20),
    Case("event, 10 ms apart, 16 streams", "/paced", 16, 1, CHUNKS, goal=3),
    Case("event, as fast as they go, 16 streams", "/burst", 16, 2, CHUNKS, goal=3),
)


async def _read(transport: Transport, url: str) -> None:
    async with transport.request("POST", url, _HEADERS, _BODY, _TIMEOUTS) as response:
        await response.read()


async def _iterate(transport: Transport, url: str) -> None:
    async with transport.request("POST", url, _HEADERS, _BODY, _TIMEOUTS) as response:
        async for _ in response.chunks():
            pass


async def _cost(
    case: Case, once: Callable[[Transport, str], Awaitable[None]], transport: Transport, url: str
) -> float:
    """CPU microseconds per unit."""

    async def caller() -> None:
        for _ in range(case.turns):
            await once(transport, url)

    began = time.process_time_ns()
    await asyncio.gather(*(caller() for _ in range(case.callers)))
    spent = time.process_time_ns() - began
    return spent / (case.callers * case.turns * case.parts) / 1000


async def _rounds(case: Case, rounds: int, base: str) -> dict[str, Measured]:
    once = _read if case.path == "/unary" else _iterate
    clients = {via: Transport(via=via) for via in (OWN, HTTPX)}
    found: dict[str, list[float]] = {via: [] for via in clients}
    try:
        for turn in range(rounds + 1):  # the first connects and warms up
            for via, transport in clients.items():
                cost = await _cost(case, once, transport, base + case.path)
                if turn:
                    found[via].append(cost)
    finally:
        for transport in clients.values():
            await transport.aclose()
    return {via: Measured(costs) for via, costs in found.items()}


def measure(case: Case, rounds: int) -> Mapping[str, Measured]:
    """The costs of both, by OWN and HTTPX."""
    with _stub() as base:
        return uvloop.run(_rounds(case, rounds, base))


@contextmanager
def _stub() -> Iterator[str]:
    """The stub's URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.transport_stub"],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'gen'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate()  # closes its input, which ends it


def run(rounds: int) -> Iterator[Table]:
    """One table: a row for each case."""
    table = Table(
        "transport: a request to an upstream and its answer",
        ["unit", "own us", "httpx us", "times cheaper", "goal"],
        notes=["CPU of the client's process alone, the seam included; loopback, uvloop."],
    )
    for case in CASES:
        found = measure(case, rounds)
        own, other = found[OWN], found[HTTPX]
        goal = "" if case.goal is None else f"{case.goal:g}"
        row = [case.name, number(own.median), number(other.median)]
        table.rows.append([*row, f"{own.times(other):.1f}", goal])
    yield table
