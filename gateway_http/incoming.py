"""A request's body as it arrives: refused before it is read if it is too large, counted if its
length is not told, and not waited for without end."""

from __future__ import annotations

import asyncio

from gateway_http.asgi import Message
from gateway_http.caller import HungUp
from gateway_http.exchange import Exchange
from services import errors


class Incoming:
    """The body of one request, to be read once.

    Raises RequestTooLarge at once if content-length exceeds `limit` (bytes), or when the bytes
    do; DeadlineExceeded ("upload") after `stall` seconds without any; HungUp when the caller is
    gone. `advice` is what the error of a body that is too large says to do.
    """

    __slots__ = ("_advice", "_limit", "_over", "_peer", "_receive", "_stall", "ended", "size")

    def __init__(self, exchange: Exchange, *, limit: int, stall: float, advice: str = "") -> None:
        self._peer, self._receive = exchange.peer, exchange.receive
        self._limit, self._stall, self._advice = limit, stall, advice
        self._over: asyncio.Future[None] | None = None
        self.size = 0
        self.ended = False
        told = exchange.headers.get(b"content-length")
        if told is not None:
            if not told.isdigit():
                raise errors.InvalidRequest("the header content-length is not a number")
            self._check(int(told))

    async def piece(self) -> bytes:
        """The next bytes; b"" may come in between. Only while not `ended`."""
        try:
            async with asyncio.timeout(self._stall):
                message = await self._receive()
        except TimeoutError:
            raise errors.DeadlineExceeded(
                "upload",
                f"the request's body did not arrive: nothing came for {self._stall:g} s",
                seconds=self._stall,
            ) from None
        if message["type"] == "http.disconnect":
            self._end()
            raise HungUp
        data: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            self._end()
        return self._taken(data)

    async def whole(self) -> bytes:
        """All of it."""
        if self._peer is not None and (data := self._peer.body()) is not None:
            self.ended = True
            return self._taken(data)
        pieces = []
        while not self.ended:
            pieces.append(await self.piece())
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def beyond(self) -> Message:
        """ASGI's receive for whoever waits for the caller's end while the body is still read."""
        if not self.ended:
            if self._over is None:
                self._over = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._over)
        return await self._receive()

    def _taken(self, data: bytes) -> bytes:
        self.size += len(data)
        self._check(self.size)
        return data

    def _end(self) -> None:
        self.ended = True
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise errors.RequestTooLarge(
                f"the request's body is larger than {self._limit} bytes{self._advice}",
                metadata={"limit_bytes": str(self._limit)},
            )
