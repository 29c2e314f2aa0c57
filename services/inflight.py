"""The calls in work on both faces together: how many, and how all of them are ended."""

from __future__ import annotations

import asyncio
from types import TracebackType

from services import errors


class InFlight:
    """Used as a context around each call. `limit` None is unlimited, 0 allows none.

    Entering raises errors.Draining once `drain` was called, and errors.Overloaded at the limit.
    A call is left in the task that entered it. `ending` tells a call that is cancelled whether it
    was `end_all`: then it owes its caller errors.Draining.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.count = 0
        self.draining = False
        self.ending = False
        self._tasks: set[asyncio.Task[object]] = set()
        self.limit = limit
        self._idle: asyncio.Event | None = None

    def __enter__(self) -> InFlight:
        if self.draining:
            raise errors.Draining
        if self.limit is not None and self.count >= self.limit:
            raise errors.Overloaded(
                f"{self.count} calls are in work or wait, as many as limits.max_in_flight and "
                "limits.max_queue allow",
                metadata={"limit": str(self.limit)},
                retry_after=1.0,
            )
        self.count += 1
        task = _task()
        if task is not None:
            self._tasks.add(task)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.count -= 1
        task = _task()
        if task is not None:
            self._tasks.discard(task)
        if self.count == 0 and self._idle is not None:
            self._idle.set()

    def drain(self) -> None:
        """Let no further call in."""
        self.draining = True

    def end_all(self) -> None:
        """Let no further call in, and cancel those in work; they end as errors.Draining."""
        self.draining = self.ending = True
        for task in self._tasks:
            task.cancel()

    async def idle(self, seconds: float | None = None) -> bool:
        """Wait until no call is in work; False if that took longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self.count:
                    self._idle = self._idle or asyncio.Event()
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True


def _task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop, as in a plain test
        return None
