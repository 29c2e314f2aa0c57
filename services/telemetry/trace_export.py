"""The queue between ended calls and the receiver of their spans: a call never waits for it.

One task sends batches by OTLP over HTTP. While the receiver is down, spans wait; those that the
queue has no room for are counted as lost. It is handed what posts, and knows no HTTP client.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from random import Random
from typing import Final

from services.errors import TetradError, retry_after
from services.telemetry import trace_wire
from services.telemetry.traces import Span, Value

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers by names in lower case, body."""

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Sends a body to a URL with headers. Raises errors.TetradError for what is no answer."""

PATH: Final = "/v1/traces"

MAX_QUEUE: Final = 8192
"""Spans that wait for the receiver, a few megabytes."""

BATCH: Final = 512
"""Spans in one request."""

LINGER: Final = 1.0
"""Seconds that a first span waits for others to share its request."""

ANSWER: Final = 10.0
"""Seconds after which a request is taken for lost."""

FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
"""Seconds between attempts at a receiver that is down: doubled from the first to the last."""

AGAIN: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses after which the same spans are sent again."""

_SLICE: Final = 64
"""Spans that are encoded before calls get their turn: a quarter of a millisecond."""

_GRPC_PORT: Final = ":4317"
_LONGEST_REASON: Final = 200

_log = logging.getLogger("tetrad.traces")


class _Down(Exception):
    """The spans were not taken, and may be later. `wait`: seconds that the receiver asks for."""

    def __init__(self, said: str, wait: float | None = None) -> None:
        super().__init__(said)
        self.wait = wait


class TraceExport:
    """Takes spans in the event loop's thread, from `start` to `aclose`.

    endpoint: base URL of the receiver, or with its path. `sent` and `dropped` only grow.
    """

    def __init__(
        self,
        endpoint: str,
        post: Post,
        random: Random,
        *,
        headers: Mapping[str, str] | None = None,
        resource: Mapping[str, Value] | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self._url = endpoint if endpoint.endswith(PATH) else endpoint + PATH
        self._post = post
        self._random = random
        self._headers = {**(headers or {}), "content-type": "application/x-protobuf"}
        self._frame = trace_wire.frame(resource or {}, "tetrad")
        self._max_queue = max_queue
        self._queue: deque[Span] = deque()
        self._sending = 0
        self._some = asyncio.Event()
        self._full_batch = asyncio.Event()
        self._closing = asyncio.Event()
        self._trouble = ""
        self._overflowed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Spans that wait, those of a request under way included."""
        return len(self._queue) + self._sending

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send_all(), name="traces")

    def put(self, spans: Sequence[Span]) -> None:
        """Take the spans of a call, all or none. Neither waits nor raises."""
        if self.queued + len(spans) > self._max_queue:
            self.dropped += len(spans)
            if not self._overflowed:
                self._overflowed = True
                _log.warning("traces: %d spans wait already; further ones are lost", self.queued)
            return
        self._queue.extend(spans)
        self._some.set()
        if len(self._queue) >= BATCH:
            self._full_batch.set()

    async def aclose(self, seconds: float) -> int:
        """Send what waits, for `seconds` at most; how many spans were lost in all."""
        self._closing.set()
        self._some.set()
        self._full_batch.set()
        try:
            if self._task is not None:
                await asyncio.wait({self._task}, timeout=seconds)
        finally:
            left = self.queued
            self.dropped += left
            self._queue.clear()
            self._sending = 0
            self._max_queue = 0  # a call that ends later still is lost, and counted
            if self._task is not None:
                self._task.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})
        if self.dropped:
            _log.warning("traces: %d spans were lost, %d of them at the end", self.dropped, left)
        return self.dropped

    async def _send_all(self) -> None:
        while await self._due():
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._sending = len(batch)
            try:
                body = await self._encoded(batch)
                if not await self._delivered(body):
                    return
            except Exception as error:  # one of ours, too, must not end the task
                self._lost(len(batch), f"{type(error).__name__}", error)
            self._sending = 0
            if self._overflowed and not self._queue:
                self._overflowed = False

    async def _due(self) -> bool:
        """Wait for spans, then for a full batch or LINGER; False once all is sent."""
        if not self._queue:
            self._some.clear()
            if self._closing.is_set():
                return False
            await self._some.wait()
        if len(self._queue) < BATCH and not self._closing.is_set():
            self._full_batch.clear()
            await _wait(self._full_batch, LINGER)
        return bool(self._queue)

    async def _encoded(self, batch: Sequence[Span]) -> bytes:
        offset = time.time_ns() - time.monotonic_ns()
        encoded: list[bytes] = []
        for begin in range(0, len(batch), _SLICE):
            encoded += [trace_wire.span(one, offset) for one in batch[begin : begin + _SLICE]]
            await asyncio.sleep(0)
        return trace_wire.request(self._frame, encoded)

    async def _delivered(self, body: bytes) -> bool:
        """Send a batch until it is taken or refused; False if it ends while it was not."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._deliver(body)
                return True
            except _Down as error:
                self._note(f"are not sent ({error})")
                if self._closing.is_set():
                    return False
                jitter = 0.5 + self._random.random()
                wait = pause * jitter if error.wait is None else error.wait
                await _wait(self._closing, min(wait, LAST_PAUSE))
                pause = min(pause * 2, LAST_PAUSE)

    async def _deliver(self, body: bytes) -> None:
        """Send a batch once. Raises _Down."""
        count = self._sending
        try:
            async with asyncio.timeout(ANSWER):
                status, headers, told = await self._post(self._url, self._headers, body)
        except TimeoutError:
            raise _Down(f"no answer within {ANSWER:g} s") from None
        except TetradError as error:
            raise _Down(self._said(error.message)) from None
        if status in AGAIN:
            raise _Down(f"it answered {status}", retry_after(headers))
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            self._lost(count, self._said(f"it answered {status}"))
            return
        refused, why = trace_wire.rejected(told)
        if refused:
            self.sent += max(0, count - refused)
            self._lost(min(refused, count), why[:_LONGEST_REASON] or "it does not say why")
            return
        self.sent += count
        if self._trouble:
            self._trouble = ""
            _log.info("traces: spans are sent again to %s", self._url)

    def _lost(self, count: int, why: str, error: BaseException | None = None) -> None:
        self.dropped += count
        self._note(f"are refused ({why})", error)

    def _note(self, trouble: str, error: BaseException | None = None) -> None:
        """Log a trouble once, until another one takes its place or it is over."""
        state = trouble.partition(" (")[0]
        if state != self._trouble:
            self._trouble = state
            _log.warning("traces: spans %s: %s", trouble, self._url, exc_info=error)

    def _said(self, words: str) -> str:
        hint = "; that port is gRPC's as a rule, HTTP's is 4318"
        return words + (hint if _GRPC_PORT in self._url else "")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event, or for `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
