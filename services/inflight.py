"""Counts the calls in work, on both faces together, so that a drain knows when the last ended."""

from __future__ import annotations

import asyncio
from types import TracebackType

from services import errors


class InFlight:
    """Used as a context around each call. `limit` None is unlimited, 0 allows none.

    Entering raises errors.Draining once `drain` was called, and errors.Overloaded at the limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.count = 0
        self.draining = False
        self._limit = limit
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> InFlight:
        if self.draining:
            raise errors.Draining
        if self._limit is not None and self.count >= self._limit:
            raise errors.Overloaded(
                f"{self.count} calls are in work, as many as limits.max_in_flight allows",
                metadata={"limit": str(self._limit)},
                retry_after=1.0,
            )
        self.count += 1
        self._idle.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    def drain(self) -> None:
        """Let no further call in."""
        self.draining = True

    async def idle(self, seconds: float | None = None) -> bool:
        """Wait until no call is in work; False if that took longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
