"""What one call carries from a face to the upstream and back: id, caller, time left, metadata.

Time is the event loop's clock, in seconds. Knows neither face.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, cast

from services.auth import ANONYMOUS, Principal
from services.errors import DeadlineExceeded
from services.telemetry.trace import Trace
from services.usage import UsageRecord

Face = Literal["grpc", "rest"]

_EARLY = 0.1
"""Seconds. A caller's own clock runs out first, by the time that its request took to us, and what
we see then is that it leaves."""


@dataclass(slots=True)
class Call:
    """One call. `deadline` is loop time, None without one; `headers` go to the upstream; `out`
    goes back to the caller with the first message.

    `item`: it is one of a bulk's, which has a line of the log for all that went well.

    What happened to it, for logs, metrics and the ledger: `type` asked for, `model` and `endpoint`
    that answered, its `prices` of a million prompt and completion tokens, `attempts` at upstreams,
    seconds `queued` and spent at upstreams, `chunks` of the answer, `error` (its reason). Moments
    are `time.monotonic()`: `began`; `first_at`, when the first of the answer came; `ended_at`;
    `left_at`, when the caller was seen to leave or a limit struck; `closed_at`, when the
    upstream's connection was closed for that.

    `trace`: what its spans are made of, False if it is not sampled, None until that is decided.
    """

    id: str
    method: str
    face: Face
    deadline: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    principal: Principal = ANONYMOUS
    include_usage: bool = False
    item: bool = False
    out: dict[str, str] = field(default_factory=dict)
    usage: UsageRecord = field(default_factory=UsageRecord)
    model: str = ""
    endpoint: str = ""
    type: str = ""
    prices: tuple[float, float] | None = None
    error: str = ""
    attempts: int = 0
    queued: float = 0.0
    chunks: int = 0
    upstream_seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)
    first_at: float | None = None
    ended_at: float | None = None
    left_at: float | None = None
    closed_at: float | None = None
    trace: Trace | Literal[False] | None = None
    _outer: Limit | None = field(default=None, repr=False)

    @property
    def cancel_delay(self) -> float | None:
        """Seconds from the caller's leaving to the upstream's closed connection, if that was so."""
        if self.left_at is None or self.closed_at is None:
            return None
        return max(0.0, self.closed_at - self.left_at)

    @property
    def cost(self) -> float | None:
        """Cost of the tokens told so far, by the model's prices; None where either is unknown."""
        if self.prices is None:
            return None
        prompt, completion = self.usage.prompt_tokens, self.usage.completion_tokens
        if prompt is None and self.usage.total_tokens is not None:
            prompt = self.usage.total_tokens - (completion or 0)
        if prompt is None and completion is None:
            return None
        millionths = (prompt or 0) * self.prices[0] + (completion or 0) * self.prices[1]
        return round(millionths / 1_000_000, 12)

    def remaining(self) -> float | None:
        """Seconds until the deadline (0 or less: passed), None without one."""
        if self.deadline is None:
            return None
        return self.deadline - asyncio.get_running_loop().time()

    def limit(self, seconds: float | None, which: str) -> Limit:
        """A context that raises DeadlineExceeded once `seconds` or the deadline have passed.

        The error names the one that struck: `which`, or "deadline".
        """
        return Limit(self, seconds, which)

    def tighten(self, seconds: float | None, which: str) -> None:
        """Bring the outermost limit that is entered forward, if `seconds` from now are sooner.

        For streams: a generator must not hold a limit across its yields, where cancelling would
        strike whoever iterates it. That one has entered a limit; without one, nothing happens.
        """
        if self._outer is not None and seconds is not None:
            self._outer.tighten(seconds, which)

    @property
    def expired(self) -> bool:
        """Whether the outermost limit has struck, or the deadline has passed unseen by it."""
        if self._outer is not None and self._outer.expired:
            return True
        remaining = self.remaining()
        return remaining is not None and remaining <= _EARLY


class Limit:
    """A time limit around some awaits of one task: `with call.limit(...)`.

    Like asyncio.timeout, for a tenth of its price, and it knows the call: one whose end is the
    deadline's, inside one that keeps to the deadline already, needs no timer of its own.
    """

    __slots__ = (
        "_call",
        "_cancelling",
        "_end",
        "_loop",
        "_outermost",
        "_seconds",
        "_task",
        "_timer",
        "_which",
        "expired",
    )

    def __init__(self, call: Call, seconds: float | None, which: str) -> None:
        self._call = call
        self._outermost = self.expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = loop = asyncio.get_running_loop()
        self._end = end = call.deadline
        if seconds is None and end is None:
            return
        now = loop.time()
        if seconds is None or (end is not None and end <= now + seconds):
            self._which, self._seconds = "deadline", cast(float, end) - now
        else:
            self._end, self._which, self._seconds = now + seconds, which, seconds

    def tighten(self, seconds: float, which: str) -> None:
        """Bring it forward to `seconds` from now, if that is sooner."""
        end = self._loop.time() + seconds
        if not self.expired and (self._end is None or end < self._end):
            self._end, self._which, self._seconds = end, which, seconds
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(end, self._strike)

    def __enter__(self) -> Limit:
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101  (a call runs in a task)
        self._task, self._cancelling = task, task.cancelling()
        outer = self._call._outer
        if outer is None:
            self._call._outer, self._outermost = self, True
        elif outer._end is not None and outer._end == self._end:
            return self
        if self._end is not None:
            self._timer = self._loop.call_at(self._end, self._strike)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._outermost:
            self._call._outer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.expired:
            return
        asked_by_others = self._task.uncancel() > self._cancelling
        if kind is not None and issubclass(kind, asyncio.CancelledError) and not asked_by_others:
            seconds = round(max(self._seconds, 0.0), 3)
            raise DeadlineExceeded(self._which, seconds=seconds) from None

    def _strike(self) -> None:
        self.expired = True
        self._task.cancel()
