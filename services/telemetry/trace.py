"""What is noted of a sampled call while it runs: its place in the trace, its attempts at upstreams.

An attempt becomes a span of its own. Its id is sent along as `traceparent`, so that what the
upstream tells hangs under it. A call that is not sampled has no Trace. Knows no format of spans.
"""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from services.errors import Reason, TetradError

if TYPE_CHECKING:
    from services.call import Call

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

MOST_ATTEMPTS: Final = 100
"""Attempts of one call that are noted: the parts of a large one are tried one by one."""

_SPAN_ID: Final = slice(36, 52)
"""Where the header holds the span's id."""


class Attempted(NamedTuple):
    """An attempt that has ended. `endpoint` has a `url`, a `kind` and a `model`; `route` is what
    callers know it by. Moments are time.monotonic(). error: a reason, "" without one. status:
    the HTTP status that the upstream failed with, 0 where there is none."""

    span: int
    route: str
    endpoint: Any
    began: float
    ended: float
    error: str
    status: int


class Trace:
    """A sampled call: `id` of its trace, its own `span`, `parent`, the caller's span or 0, and
    `state`, the caller's tracestate."""

    __slots__ = ("_random", "attempts", "id", "parent", "span", "state")

    def __init__(self, id: int, parent: int, state: str, random: Random) -> None:
        self.id = id
        self.parent = parent
        self.state = state
        self.span = new_span(random)
        self.attempts: list[Attempted] = []
        self._random = random

    def attempt(self, call: Call) -> None:
        """An attempt begins: it is what the upstream will name as the parent of its spans."""
        headers = dict(call.headers)
        headers[TRACEPARENT] = f"00-{self.id:032x}-{new_span(self._random):016x}-01"
        if self.state:
            headers[TRACESTATE] = self.state
        else:  # it would be that of a trace which we did not go on with
            headers.pop(TRACESTATE, None)
        call.headers = headers

    def attempted(self, call: Call, route: Any, began: float, error: BaseException | None) -> None:
        """The attempt that `call` began last has ended, at a `route` with an adapter."""
        if len(self.attempts) < MOST_ATTEMPTS:
            span = int(call.headers[TRACEPARENT][_SPAN_ID], 16)
            status = error.upstream_status if isinstance(error, TetradError) else 0
            reason = "" if error is None else _reason(call, error)
            self.attempts.append(
                Attempted(
                    span,
                    route.name,
                    route.adapter.endpoint,
                    began,
                    time.monotonic(),
                    reason,
                    status,
                )
            )


def new_span(random: Random) -> int:
    """An id for a span: 64 bits, not all of them zero."""
    return random.getrandbits(64) or 1


def _reason(call: Call, error: BaseException) -> str:
    if isinstance(error, TetradError):
        return error.reason
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Reason.DEADLINE_EXCEEDED if call.expired else Reason.CANCELLED
    return Reason.INTERNAL
