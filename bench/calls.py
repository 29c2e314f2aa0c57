"""What the whole gateway costs: CPU of its process a call, or a chunk of a stream.

The gateway has a core of its own; the callers and the upstream have the rest, and are never the
limit. Each kind runs once a round, beside its reference: for REST a bare ASGI application that
answers the same bytes by itself, for gRPC a bare grpc.aio handler with the same upstream call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal

import uvloop

from bench import load, rig
from bench.measure import Measured
from bench.operations import (
    BUSY,
    EMBED_1,
    EMBED_32,
    FLOATS_32,
    HOLDER,
    RERANK_100,
    STREAM,
    UNARY,
    Operation,
)
from bench.pinned import REST, on
from bench.table import Table, number

Which = Literal["relay", "codec", "full", "reference"]


@dataclass(frozen=True, slots=True)
class Case:
    """`calls` of an operation a round over one face. budget: us that a part may cost.

    most: how many times its reference it may cost. refused: there is no place and no room to wait.
    """

    name: str
    operation: Operation
    face: Literal["rest", "grpc"]
    which: Which
    calls: int
    budget: float | None = None
    most: float | None = None
    refused: bool = False

    def __str__(self) -> str:
        return self.name


FULL: Final = "REST chat, refused: gateway full"

CASES: Final = (
    Case("REST chat, relayed", UNARY, "rest", "relay", 2500, 60),
    Case("REST chat, through the codec", UNARY, "rest", "codec", 2000, 90),
    Case("REST chat, refused: model full", BUSY, "rest", "relay", 2500, refused=True),
    Case(FULL, BUSY, "rest", "full", 2500, refused=True),
    Case("REST chunk, relayed", STREAM, "rest", "relay", 192, 8),
    Case("REST chunk, through the codec", STREAM, "rest", "codec", 128, 12),
    Case("REST embed 1 x 1024", EMBED_1, "rest", "relay", 1500),
    Case("REST embed 32 x 1024", EMBED_32, "rest", "relay", 300),
    Case("REST embed 32 x 1024, numbers", FLOATS_32, "rest", "relay", 150),
    Case("REST rerank 100", RERANK_100, "rest", "relay", 600),
    Case("gRPC chat", UNARY, "grpc", "relay", 900, 250, 1.25),
    Case("gRPC chunk", STREAM, "grpc", "relay", 64, 34, 1.25),
    Case("gRPC embed 1 x 1024", EMBED_1, "grpc", "relay", 700),
    Case("gRPC embed 32 x 1024", EMBED_32, "grpc", "relay", 250),
    Case("gRPC rerank 100", RERANK_100, "grpc", "relay", 300),
)


def reference_of(case: Case) -> Case:
    """The case that it is compared with."""
    operation = UNARY if case.refused else case.operation
    return Case(f"{case.face} {operation.name}", operation, case.face, "reference", case.calls)


async def _load(case: Case, server: rig.Server, calls: int) -> None:
    if case.refused:
        async with load.rest_streams(server.rest, HOLDER, 1):
            await load.rest(server.rest, case.operation, calls, status=b"503")
    elif case.face == "rest":
        await load.rest(server.rest, case.operation, calls)
    else:
        await load.rpc(server.grpc, case.operation, calls)


async def _cost(case: Case, server: rig.Server) -> float:
    """CPU microseconds of the server a part."""
    began = server.process.cpu()
    await _load(case, server, case.calls)
    return (server.process.cpu() - began) / (case.calls * case.operation.parts) / 1000


async def _rounds(
    cases: Sequence[Case], servers: Mapping[Which, rig.Server], rounds: int
) -> dict[str, Measured]:
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    for turn in range(rounds + 1):  # the first warms up
        for case in cases:
            cost = await _cost(case, servers[case.which])
            if turn:
                found[case.name].append(cost)
    return {name: Measured(costs) for name, costs in found.items()}


def measure(cases: Sequence[Case], rounds: int) -> Mapping[str, Measured]:
    """The costs of cases and of their references, by name."""
    wanted = {one.name: one for case in cases for one in (reference_of(case), case)}
    with ExitStack() as stack:
        upstream = stack.enter_context(rig.upstream())
        servers: dict[Which, rig.Server] = {
            "relay": stack.enter_context(rig.gateway(upstream)),
            "reference": stack.enter_context(rig.references(upstream)),
        }
        if any(case.which == "codec" for case in cases):
            servers["codec"] = stack.enter_context(rig.gateway(upstream, relay=False))
        if any(case.which == "full" for case in cases):
            servers["full"] = stack.enter_context(rig.gateway(upstream, places=1))
        stack.enter_context(on(REST))
        return uvloop.run(_rounds(list(wanted.values()), servers, rounds))


def run(rounds: int) -> Iterator[Table]:
    """One table: a row for each case."""
    table = Table(
        "calls: the whole gateway, one process, everything on",
        ["what", "us", "budget", "reference us", "times", "at most"],
        notes=[
            "CPU of the gateway's process, user and system, all threads, a call or a chunk.",
            "Reference: REST a bare ASGI application with constant answers, gRPC a bare handler",
            "with the same upstream call; times is the median of the rounds' ratios.",
        ],
    )
    found = measure(CASES, rounds)
    for case in CASES:
        cost, reference = found[case.name], found[reference_of(case).name]
        table.rows.append(
            [
                case.name,
                number(cost.median),
                "" if case.budget is None else f"{case.budget:g}",
                number(reference.median),
                f"{reference.times(cost):.2f}",
                "" if case.most is None else f"{case.most:g}",
            ]
        )
    share = found["REST chat, relayed"].times(found[FULL])
    table.notes = [
        *table.notes,
        f"A call that a full gateway refuses costs {share:.2f} of one that is served.",
    ]
    yield table
