"""One connection to an upstream: a request goes out, its answer comes in, nothing waits for ever.

A reader who takes his time holds the upstream back: beyond `HOLD` bytes the socket is not read.
One timer serves all limits; it is moved lazily. Knows what `http1` tells, and no caller's errors.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Final, Protocol, cast

from services.upstream.dial import Dialled, hang_up
from services.upstream.http1 import Malformed, Reader

HOLD: Final = 64 * 1024
"""Bytes that may lie here unread; one read of the socket (256 KiB at most) comes on top."""

_REST: Final = 64 * 1024

# What the next bytes are for.
_NOTHING: Final = 0
_HEAD: Final = 1
_PIECE: Final = 2
_WHOLE: Final = 3
_END: Final = 4


class Lost(Exception):
    """The connection ended before the answer did; `reset` tells whether in disorder."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class Struck(Exception):
    """A time limit has passed: `which` is "first_byte" or "idle"."""

    def __init__(self, which: str) -> None:
        super().__init__(which)
        self.which = which


class Owner(Protocol):
    """Who is told what becomes of a connection."""

    def rested(self, connection: Connection) -> None:
        """The rest of an answer that nobody waited for has come."""

    def leaves(self, connection: Connection) -> None:
        """It is closed, or nobody waits for it any more."""

    def gone(self, connection: Connection) -> None:
        """Its socket is no more."""


class Connection(Dialled):
    """Use it from `start` to `rest` or `abort`, for one request at a time.

    `error` is why it ended in the middle of an answer, `closed` that it is of no use any more,
    `sending` that the kernel has not taken everything yet.
    """

    __slots__ = (
        "_deadline",
        "_first_byte",
        "_held",
        "_limit",
        "_loop",
        "_most",
        "_owner",
        "_paused",
        "_timer",
        "_timer_at",
        "_transport",
        "_unsent",
        "_waiter",
        "_wanted",
        "_which",
        "_writer",
        "born",
        "closed",
        "error",
        "idle_since",
        "reader",
        "sending",
    )

    def __init__(self, owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._transport: asyncio.Transport
        self._wanted = _NOTHING
        self._waiter: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._which = ""
        self._limit = 0.0
        self._first_byte = 0.0
        self._held = 0
        self._most = 0
        self._unsent = -1
        self._paused = False
        self.reader = Reader()
        self.sending = False
        self.closed = False
        self.error: BaseException | None = None
        self.born = self.idle_since = self._loop.time()

    @property
    def reusable(self) -> bool:
        """Whether the answer is complete and another one may follow."""
        reader = self.reader
        return (
            reader.complete
            and reader.keep
            and not (self.closed or self.sending or reader.surplus or self.error)
        )

    # Sending.

    def start(self, *, bodiless: bool = False) -> None:
        """What is written from here on is one request; `bodiless` means HEAD."""
        self.reader.begin(bodiless=bodiless)
        self._wanted = _HEAD
        self._first_byte = 0.0
        self._held = 0

    def write(self, *data: bytes) -> None:
        """Sends, or keeps what the kernel does not take, without a copy."""
        if not self.closed:
            if len(data) == 1:
                self._transport.write(data[0])
            else:
                self._transport.writelines(data)

    async def flushed(self, idle: float) -> None:
        """Returns once the kernel has taken everything, or the connection has ended.

        Ends it with Struck("idle") when it takes nothing for so many seconds.
        """
        if self.sending and not self.closed:
            if not self.reader.has_head:
                self._arm("idle", idle, writing=True)
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    def all_sent(self, first_byte: float, idle: float) -> None:
        """The request is whole: its limits run until the answer's head is here."""
        if self.reader.has_head or self.closed:
            return
        if self.sending:
            self._first_byte = first_byte
            self._arm("idle", idle, writing=True)
        else:
            self._arm("first_byte", first_byte)

    # Receiving: each raises `error` if the connection ended before.

    async def head(self) -> None:
        """Waits for the answer's head."""
        reader = self.reader
        while not reader.has_head:
            if self.error is not None:
                raise self.error
            await self._wait(_HEAD)

    async def piece(self, idle: float) -> bytes:
        """What there is of the body, once there is something; b"" at its end."""
        reader = self.reader
        while not reader.pieces:
            if reader.complete:
                return b""
            if self.error is not None:
                raise self.error
            self._arm("idle", idle)
            await self._wait(_PIECE)
        return self.take()

    async def whole(self, idle: float, most: int) -> bytes:
        """The body, or more than `most` bytes of it if it is longer."""
        reader = self.reader
        while not reader.complete:
            self._held = sum(map(len, reader.pieces))
            if self._held > most:
                break
            if self.error is not None:
                raise self.error
            self._most = most
            self._flow()
            self._arm("idle", idle)
            await self._wait(_WHOLE)
        return self.take()

    def take(self) -> bytes:
        """What there is of the body."""
        data = self.reader.take()
        self._held = 0
        self._flow()
        return data

    # The end.

    def rest(self, seconds: float = 0.0) -> None:
        """Nobody reads on. An incomplete answer has so many seconds, and 64 KiB, to end."""
        self.reader.pieces.clear()
        self._held = 0
        if self.reader.complete:
            self._wanted = _NOTHING
            self._deadline = 0.0
            return
        if self.closed:  # it is gone, or going
            return
        self._owner.leaves(self)
        self._wanted = _END
        self._flow()
        self._arm("rest", seconds)

    def fail(self, error: BaseException) -> None:
        """Closes it; whoever waits gets `error`."""
        if self.error is None:
            self.error = error
        self.abort()
        self._wake()

    def abort(self) -> None:
        """Closes it; the upstream is told before this returns."""
        if self.closed:
            return
        self.closed = True
        self._stop_timer()
        self._owner.leaves(self)
        where: socket.socket | None = self._transport.get_extra_info("socket")
        if where is not None:
            hang_up(where.fileno(), at_once=self.sending)
        self._transport.abort()

    # For the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # So that `sending` means what it says; TLS counts "at least", the others "more than".
        self._transport.set_write_buffer_limits(high=1, low=0)

    def data_received(self, data: bytes) -> None:
        """Feeds the reader, and wakes whoever waits if it is what he waits for."""
        wanted, reader = self._wanted, self.reader
        if wanted == _NOTHING or self.closed:
            self.abort()  # it belongs to no request of ours
            return
        try:
            reader.feed(data)
        except Malformed as error:
            self.fail(error)
            return
        self._held += len(data)
        if wanted == _END:
            self._rest_came()
        elif self._waiter is None:
            if self._held > HOLD and not (reader.complete or self._paused):
                self._paused = True
                self._transport.pause_reading()
        elif (
            reader.complete
            or (wanted == _HEAD and reader.has_head)
            or (wanted == _PIECE and reader.pieces)
            or (wanted == _WHOLE and self._held > self._most)
        ):
            self._wake()
        elif wanted != _HEAD:
            self._deadline = self._loop.time() + self._limit

    def eof_received(self) -> None:
        if not self.closed:
            self._ended(None)
            self.abort()
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self._stop_timer()
            self._ended(exc)
        elif self.error is None and not self.reader.complete:  # by us, under somebody's hands
            self.error = Lost(reset=False)
        self._wake()
        self._owner.gone(self)

    def pause_writing(self) -> None:
        self.sending = True

    def resume_writing(self) -> None:
        self.sending = False
        if not self.reader.has_head:
            self._deadline = 0.0
            if self._first_byte:
                self._arm("first_byte", self._first_byte)
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # Inside.

    async def _wait(self, wanted: int) -> None:
        self._wanted = wanted
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
            self._deadline = 0.0

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        for one in (waiter, self._writer if self.closed else None):
            if one is not None and not one.done():
                one.set_result(None)

    def _flow(self) -> None:
        if self._paused:
            self._paused = False
            if not self.closed:
                self._transport.resume_reading()

    def _ended(self, exc: Exception | None) -> None:
        """The upstream has closed the connection, in order or not."""
        reader = self.reader
        if exc is None:
            reader.end()
        elif not reader.has_head:
            self._last_words()
        if self.error is None and not reader.complete:
            self.error = Lost(reset=exc is not None)

    def _last_words(self) -> None:
        """Reads what came before a reset that a write of ours met first: perhaps the answer says
        why it took no more."""
        where: socket.socket | None = self._transport.get_extra_info("socket")
        if where is None or self._transport.get_extra_info("ssl_object") is not None:
            return
        with suppress(OSError, Malformed):
            while data := os.read(where.fileno(), HOLD):
                self.reader.feed(data)

    def _rest_came(self) -> None:
        self.reader.pieces.clear()
        if self.reader.complete:
            self._wanted = _NOTHING
            self._deadline = 0.0
            self._owner.rested(self)
        elif self._held > _REST:
            self.abort()

    def _arm(self, which: str, seconds: float, *, writing: bool = False) -> None:
        self._which, self._limit = which, seconds
        self._unsent = self._transport.get_write_buffer_size() if writing else -1
        self._deadline = at = self._loop.time() + seconds
        if self._timer is None or at < self._timer_at:
            self._set_timer(at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._tick)

    def _stop_timer(self) -> None:
        self._deadline = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if not self._deadline:
            return
        now = self._loop.time()
        if self._unsent >= 0 and self._deadline <= now:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:  # slow, but it moves
                self._unsent = unsent
                self._deadline = now + self._limit
        if now < self._deadline:
            self._set_timer(self._deadline)
        else:
            self.fail(Struck(self._which))
