"""The queue between calls and the store: a call never waits, and memory is bounded.

One task writes in batches. While the store is down, records wait; those that the queue has no
room for are counted as lost. Knows no store but by its Protocol.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from itertools import islice

from services.call import Call
from services.ledger import record
from services.ledger.record import Prices, Record
from services.ledger.store import StoreDown, StoreFault
from services.ledger.stores import store

MAX_QUEUE = 10_000
"""Records that wait for the store, a few megabytes."""

BATCH = 500
"""Records in one write."""

LINGER = 0.1
"""Seconds that a first record waits for others to share its write."""

WRITE = 10.0
"""Seconds after which a write is taken for hanging."""

FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
"""Seconds between attempts at a store that is down: doubled from the first to the last."""

_ENDING = 1.0
"""Seconds that a write that was given up gets to end."""

_SILENT = "it does not answer"

_log = logging.getLogger("tetrad.ledger")


class LedgerFault(Exception):
    """The gateway cannot start with this ledger; `message` and `hint` are for the user."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"ledger.url: {message}; {hint}")
        self.message = message
        self.hint = hint


class Ledger:
    """Takes calls in the event loop's thread, from `start` to `aclose`.

    `prices` is asked once per call. `written` and `dropped` only grow.
    """

    def __init__(self, url: str, prices: Prices, max_queue: int = MAX_QUEUE) -> None:
        self.written = 0
        self.dropped = 0
        self._store = store(url)
        self._prices = prices
        self._max_queue = max_queue
        self._queue: deque[Record] = deque()
        self._some = asyncio.Event()
        self._full_batch = asyncio.Event()
        self._closing = asyncio.Event()
        self._down_since: float | None = None
        self._lost_before = 0
        self._told = False
        self._failed_to_record = False
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Records that wait, those of a write under way included."""
        return len(self._queue)

    async def start(self) -> None:
        """Open the store and begin to write. Raises LedgerFault.

        A database that does not answer is no fault: a warning, and further attempts.
        """
        try:
            async with asyncio.timeout(WRITE):
                await self._store.open()
        except StoreFault as error:
            await self._store.aclose()
            raise LedgerFault(str(error), error.hint) from None
        except StoreDown as error:
            self._down(error)
        except TimeoutError:
            self._store.interrupt()
            self._down(StoreDown(_SILENT))
        self._task = asyncio.create_task(self._write_all(), name="ledger")

    def put(self, call: Call) -> None:
        """Record a call that has ended: the sink. Neither waits nor raises."""
        if len(self._queue) >= self._max_queue:
            self._drop()
            return
        try:
            self._queue.append(record.of(call, self._prices))
        except Exception:
            self.dropped += 1
            if not self._failed_to_record:  # a fault of ours, which must not be the call's
                self._failed_to_record = True
                _log.exception("ledger: a call was not recorded; further ones are only counted")
            return
        self._some.set()
        if len(self._queue) >= BATCH:
            self._full_batch.set()

    def reopen(self) -> None:
        """Have the next write open the store anew, as after a rotation of its file."""
        self._store.reopen()

    async def aclose(self, seconds: float) -> int:
        """Write what waits, for `seconds` at most; how many records were lost in all."""
        self._closing.set()
        self._some.set()
        self._full_batch.set()
        try:
            if self._task is not None:
                await asyncio.wait({self._task}, timeout=seconds)
        finally:
            left = len(self._queue)
            self.dropped += left
            self._queue.clear()
            self._max_queue = 0  # a call that ends later still is lost, and counted
            self._end()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_ENDING)
        await self._store.aclose()
        if self.dropped:
            _log.warning("ledger: %d records were lost, %d of them at the end", self.dropped, left)
        return self.dropped

    def _end(self) -> None:
        """End the task at once. Interrupted first: a cancelled query would ask a dead server."""
        if self._task is not None and not self._task.done():
            self._store.interrupt()
            self._task.cancel()

    async def _write_all(self) -> None:
        pause = FIRST_PAUSE
        while await self._due():
            batch = list(islice(self._queue, BATCH))
            try:
                done = await self._write(batch)
            except Exception as error:  # one of ours, too, must not end the task
                self._down(error)
                await self._pause(pause)
                pause = min(pause * 2, LAST_PAUSE)
                continue
            for _ in range(done):
                self._queue.popleft()
            self.written += done
            pause = FIRST_PAUSE
            self._up()

    async def _due(self) -> bool:
        """Wait for records, then for a full batch or LINGER; False once all is written."""
        if not self._queue:
            self._some.clear()
            if self._closing.is_set():
                return False
            await self._some.wait()
        if len(self._queue) < BATCH and not self._closing.is_set():
            self._full_batch.clear()
            await _wait(self._full_batch, LINGER)
        return bool(self._queue)

    async def _write(self, batch: list[Record]) -> int:
        """How many were written. Raises StoreDown.

        A write that hangs is never left for a second one: that could write its records twice.
        """
        work = asyncio.create_task(self._store.write(batch))
        try:
            while not (await asyncio.wait({work}, timeout=WRITE))[0]:
                self._down(StoreDown(_SILENT))
                self._store.interrupt()
        finally:
            work.cancel()
        return work.result()

    async def _pause(self, seconds: float) -> None:
        """Between two attempts: short once the gateway ends."""
        if self._closing.is_set():
            await asyncio.sleep(FIRST_PAUSE)
        else:
            await _wait(self._closing, seconds)

    def _drop(self) -> None:
        self.dropped += 1
        if not self._told:
            self._told = True
            _log.warning("ledger: %d records wait already; further ones are lost", len(self._queue))

    def _down(self, error: Exception) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            known = isinstance(error, StoreDown)
            _log.warning(
                "ledger: records are not written (%s); up to %d wait",
                error if known else type(error).__name__,
                self._max_queue,
                exc_info=None if known else error,
            )

    def _up(self) -> None:
        if self._down_since is not None:
            seconds = time.monotonic() - self._down_since
            self._down_since = None
            _log.info("ledger: records are written again, after %.1f s", seconds)
        if self._told and len(self._queue) <= self._max_queue // 2:
            lost = self.dropped - self._lost_before
            self._told, self._lost_before = False, self.dropped
            _log.warning("ledger: there is room again; %d records were lost", lost)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event, or for `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
