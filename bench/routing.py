"""What routing, limits of a key, metrics, the log and accounts cost for one call with one answer.

`Dispatch.unary` with all of it on, towards an adapter that answers at once, against the call of
that adapter alone; in this process, without faces, network or log lines (the level is WARNING).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator
from typing import Any, Final

from bench.measure import Measured
from bench.operations import ANSWER, UNARY
from bench.table import Table, number
from services.auth import Principal
from services.body import Body
from services.call import Call
from services.config import KeyLimits
from services.dispatch import Dispatch
from services.limits import Limiter
from services.routing.admission import Admission
from services.routing.budget import RetryBudget
from services.routing.table import Route, RoutedModel, Router
from services.routing.table import Table as Models
from services.telemetry.logs import calls as log
from services.telemetry.logs import log_call
from services.telemetry.metrics import Metrics
from services.upstream import Endpoint

GOAL: Final = 30.0
"""CPU microseconds that all of it may cost a call."""

_CALLS: Final = 2000
_PLENTY: Final = 10**12
_TYPE: Final = "text-generation"


class NoOp:
    """An adapter that answers at once, and tells what it used."""

    def __init__(self) -> None:
        self.endpoint = Endpoint("no-op", "http://nowhere", "openai")

    async def chat(self, request: Body, call: Call) -> Body:
        """ChatRequest to ChatResponse."""
        call.usage.prompt_tokens, call.usage.completion_tokens = 80, 40
        call.usage.total_tokens, call.usage.source = 120, "upstream"
        return Body.from_json("ChatResponse", ANSWER)


def dispatch() -> Dispatch:
    """All of it on, three providers, least_busy."""
    routes = [Route(f"no-op {number}", NoOp(), ready=True) for number in range(3)]
    router = Router(Models([RoutedModel("chat", _TYPE, routes)]), random.Random(1))
    limiter = Limiter()
    admission = Admission(
        router.random, time.monotonic, max_in_flight=10_000, max_queue=10_000, models=1
    )
    return Dispatch(
        router,
        [log_call, Metrics().call_ended, limiter.charge],
        admission=admission,
        budget=RetryBudget(0.2, time.monotonic),
        limiter=limiter,
    )


def _call(principal: Principal) -> Call:
    return Call("req_0123456789abcdef01234567", "Chat", "grpc", principal=principal)


async def _routed(target: Dispatch, request: Body, principal: Principal) -> None:
    for _ in range(_CALLS):
        await target.unary(_TYPE, request, _call(principal), _operation)


def _operation(adapter: Any) -> Any:
    return adapter.chat


async def _bare(adapter: NoOp, request: Body, principal: Principal) -> None:
    for _ in range(_CALLS):
        await adapter.chat(request, _call(principal))


def measure(rounds: int) -> tuple[Measured, Measured]:
    """With all of it, and the adapter alone."""
    target, adapter = dispatch(), NoOp()
    principal = Principal("bench", limits=KeyLimits(rpm=_PLENTY, tpm=_PLENTY))
    request = Body.from_json("ChatRequest", UNARY.request)
    request.value()
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with asyncio.Runner() as runner:
            found: tuple[list[float], list[float]] = ([], [])
            for turn in range(rounds + 1):  # the first warms up
                for one, work in enumerate(
                    (_routed(target, request, principal), _bare(adapter, request, principal))
                ):
                    began = time.process_time_ns()
                    runner.run(work)
                    if turn:
                        found[one].append((time.process_time_ns() - began) / _CALLS / 1000)
    finally:
        log.setLevel(level)
    return Measured(found[0]), Measured(found[1])


def run(rounds: int) -> Iterator[Table]:
    """One table of one row."""
    routed, bare = measure(rounds)
    extra = Measured(
        [with_ - alone for with_, alone in zip(routed.rounds, bare.rounds, strict=True)]
    )
    table = Table(
        "routing: limits, routing, admission, breaker, metrics, log and accounts of a call",
        ["what", "us", "adapter alone us", "costs us", "goal"],
        notes=["Three providers by least_busy, a key with rpm and tpm in memory, log at WARNING."],
    )
    table.rows.append(
        [
            "call with one answer",
            number(routed.median),
            number(bare.median),
            number(extra.median),
            f"{GOAL:g}",
        ]
    )
    yield table
