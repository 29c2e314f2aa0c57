"""What one call carries from a face to the upstream and back: id, caller, time left, metadata.

Time is the event loop's clock, in seconds. Knows neither face.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from services.auth import ANONYMOUS, Principal
from services.errors import DeadlineExceeded
from services.usage import UsageRecord

Face = Literal["grpc", "rest"]


@dataclass(slots=True)
class Call:
    """One call. `deadline` is loop time, None without one; `headers` go to the upstream; `out`
    goes back to the caller with the first message."""

    id: str
    method: str
    face: Face
    deadline: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    principal: Principal = ANONYMOUS
    include_usage: bool = False
    out: dict[str, str] = field(default_factory=dict)
    usage: UsageRecord = field(default_factory=UsageRecord)
    model: str = ""

    def remaining(self) -> float | None:
        """Seconds until the deadline (0 or less: passed), None without one."""
        if self.deadline is None:
            return None
        return self.deadline - asyncio.get_running_loop().time()

    def limit(self, seconds: float | None, which: str) -> Limit:
        """A context that raises DeadlineExceeded once `seconds` or the deadline have passed.

        The error names the one that struck: `which`, or "deadline".
        """
        return Limit(self.deadline, seconds, which)


class Limit:
    """A time limit around some awaits of one task."""

    __slots__ = ("_seconds", "_timeout", "_which")

    def __init__(self, deadline: float | None, seconds: float | None, which: str) -> None:
        now = asyncio.get_running_loop().time()
        end = deadline
        self._which, self._seconds = "deadline", None if deadline is None else deadline - now
        if seconds is not None and (deadline is None or now + seconds < deadline):
            end, self._which, self._seconds = now + seconds, which, seconds
        self._timeout = asyncio.timeout_at(end)

    async def __aenter__(self) -> Limit:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if not self._timeout.expired():
                raise
            seconds = None if self._seconds is None else round(max(self._seconds, 0.0), 3)
            raise DeadlineExceeded(self._which, seconds=seconds) from None
