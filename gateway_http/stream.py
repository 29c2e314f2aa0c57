"""One SSE answer: headers held back until there is something to send, signs of life, stalls.

One timer serves a whole stream. Knows bytes only: not what an event means, nor who makes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway_http.asgi import Headers, Send
from services import sse

HEARTBEAT: Final = sse.comment("keep-alive")


class EventStream:
    """Writes events. `started` tells whether the headers are out, so that no error status is left.

    headers: called once, when they are sent. After `first` seconds without an event the headers go
    out with a comment, and after each further `every` seconds of silence another comment. A write
    that the caller does not take for `stall` seconds has `stalled` called. To be closed.
    """

    def __init__(
        self,
        send: Send,
        headers: Callable[[], Headers],
        *,
        first: float,
        every: float,
        stall: float,
        stalled: Callable[[], object],
    ) -> None:
        self.started = False
        self._send, self._headers, self._stalled = send, headers, stalled
        self._every, self._stall = every, stall
        self._loop = asyncio.get_running_loop()
        self._writing = False
        self._since = self._loop.time()  # the last write began then, or nothing did before
        self._first = self._since + first
        self._beat: asyncio.Task[None] | None = None
        self._timer = self._loop.call_at(self._since + min(first, every), self._tick)

    async def write(self, data: bytes) -> None:
        """Send whole events, after the headers if need be."""
        if self._beat is not None:
            await self._beat_done()
        await self._put(data)

    async def finish(self, data: bytes) -> None:
        """Send the last bytes and end the answer; nothing may follow."""
        if self._beat is not None:
            await self._beat_done()
        await self._put(data, more=False)

    async def close(self) -> None:
        """Stop the timer and what it began."""
        self._timer.cancel()
        beat, self._beat = self._beat, None
        if beat is not None and not beat.done():
            beat.cancel()
            await asyncio.wait([beat])

    async def _put(self, data: bytes, *, more: bool = True) -> None:
        self._since = self._loop.time()
        self._writing = True
        if not self.started:
            await self._start()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._writing = False

    async def _start(self) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers()})

    async def _beat_done(self) -> None:
        """Writes keep their order: the comment's comes to its end first."""
        beat = self._beat
        if beat is not None:
            await beat
            self._beat = None

    def _tick(self) -> None:
        now = self._loop.time()
        if self._writing:
            due = self._since + self._stall
            if now >= due:
                self._stalled()
                return
            due = min(due, now + self._every)
        else:
            due = self._since + self._every if self.started else self._first
            if now >= due:
                self._beat = self._loop.create_task(self._put(HEARTBEAT))
                due = now + min(self._every, self._stall)
        self._timer = self._loop.call_at(due, self._tick)
