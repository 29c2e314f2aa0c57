"""What a store is, what it may raise, and a thread for those that block.

A store is used by one task at a time. Messages never hold a URL, which may hold a password.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from services.ledger.record import Record

T = TypeVar("T")

_ENDING = 2.0
"""Seconds that a last job may take."""


class StoreDown(Exception):
    """It does not take records now, and may do so later."""


class StoreFault(Exception):
    """It cannot be used as it is configured; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Store(Protocol):
    """Where records go."""

    async def open(self) -> None:
        """Make it ready, and what is missing in it. Raises StoreDown and StoreFault."""

    async def write(self, records: Sequence[Record]) -> int:
        """Write some; how many from the first on are now in it, at least one.

        May be called again with the same records: none is in it twice. Raises StoreDown.
        """

    def interrupt(self) -> None:
        """Make an `open` or `write` that hangs end, where that can be done."""

    def reopen(self) -> None:
        """Have the next write open it anew."""

    async def aclose(self) -> None:
        """Let go of it, without waiting for its answer."""


class Thread:
    """One daemon thread, so that a file system that hangs holds up neither loop nor exit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """What the job returns or raises. Leaving early does not end a job that has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._jobs.put((future, job))
        return await asyncio.wrap_future(future)

    async def end(self, last: Callable[[], None]) -> None:
        """Run one more job once those before it are done; waited for a while, then left alone."""
        if self._thread is not None:
            future: Future[None] = Future()
            self._jobs.put((future, last))
            self._jobs.put(None)
            self._thread = None
            await asyncio.wait({asyncio.wrap_future(future)}, timeout=_ENDING)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            future, job = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)
