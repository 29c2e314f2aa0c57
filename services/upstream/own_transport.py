"""Requests by our own client for HTTP/1.1: a pool, time limits, and cancel means close.

A request whose body is bytes needs no task and no timer of its own. Leaving its block, also by
cancellation, closes the connection at once unless the answer is complete. Knows no proxies.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterable, Coroutine, Mapping
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final

import httpx  # for its reading of URLs alone, so that both transports read them alike

from services import errors
from services.call import Call
from services.upstream import http1
from services.upstream.background import Background
from services.upstream.base import Timeouts
from services.upstream.connection import Connection, Lost, Struck
from services.upstream.dial import cause
from services.upstream.http1 import Head, Malformed, Unsendable
from services.upstream.pool import Origin, Pool
from services.upstream.response import Response
from services.upstream.sending import send

STALE_WITHIN: Final = 1.0
"""Seconds in which a kept connection that ends without a byte is taken for one that was dead
before; after that, the request itself may be what killed the server."""

_PORTS: Final = {"http": 80, "https": 443}
_MOST_HEADS: Final = 1024
_JOINED: Final = 64 * 1024
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class OwnTransport:
    """The pool, and the heads of requests that were sent before; for one event loop."""

    def __init__(self, tls: ssl.SSLContext, defaults: Mapping[str, str]) -> None:
        self.pool = Pool(tls)
        self._defaults = defaults
        self.background = Background()
        self._heads: dict[tuple[object, ...], tuple[Origin, Head]] = {}

    def head(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[Origin, Head]:
        """Where a request goes, and how it begins. Raises Unsendable."""
        key = (method, url, *headers.items())
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= _MOST_HEADS:  # boundaries of forms are new each time
                self._heads.clear()
            known = self._heads[key] = self._made(method, url, headers)
        return known

    async def settle(self) -> None:
        """Waits until what was left has been closed or kept."""
        await self.background.settle()
        await self.pool.settle()

    async def aclose(self) -> None:
        """Closes all connections, those in use too."""
        await self.settle()
        await self.pool.aclose()

    def _made(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[Origin, Head]:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            raise Unsendable("an address that is none") from None
        if parsed.scheme not in _PORTS or not parsed.raw_host:
            raise Unsendable("an address that is not HTTP's")
        port = parsed.port or _PORTS[parsed.scheme]
        origin = self.pool.origin(parsed.raw_host.decode(), port, tls=parsed.scheme == "https")
        headers = {**self._defaults, **headers}
        return origin, http1.head(method, parsed.raw_path, parsed.netloc, headers)


class _Stale(Exception):
    """A kept connection was dead before anything came back on it."""


class OwnRequest:
    """See `transport.Transport.request`."""

    __slots__ = (
        "_again",
        "_began",
        "_body",
        "_call",
        "_connection",
        "_endpoint",
        "_headers",
        "_method",
        "_passed",
        "_response",
        "_sender",
        "_timeouts",
        "_transport",
        "_url",
    )

    def __init__(
        self,
        transport: OwnTransport,
        method: str,
        url: str,
        headers: Mapping[str, str],
        passed: Mapping[str, str],
        body: bytes | AsyncIterable[bytes],
        timeouts: Timeouts,
        call: Call | None,
        endpoint: str,
        again: bool,
    ) -> None:
        self._transport = transport
        self._method = method
        self._url = url
        self._headers = headers
        self._passed = passed
        self._body = body
        self._timeouts = timeouts
        self._call = call
        self._endpoint = endpoint
        self._again = again
        self._began = 0.0
        self._connection: Connection | None = None
        self._response: OwnResponse | None = None
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Response:
        self._began = time.monotonic()
        try:
            origin, head = self._transport.head(self._method, self._url, self._headers)
            start = self._start(head)
        except Unsendable as error:
            internal = errors.Internal()
            internal.__cause__ = error
            raise internal from error
        # A kept connection may turn out dead: what can be sent only once gets a new one.
        connection = self._transport.pool.take(origin) if self._again else None
        if connection is not None:
            with suppress(_Stale):
                return await self._ask(connection, start, head.length, kept=True)
        connection = await self._connect(origin)
        return await self._ask(connection, start, head.length, kept=False)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, response = self._connection, self._response
        if connection is None or response is None:
            return
        self._connection = None
        leaving = kind is not None and issubclass(kind, (asyncio.CancelledError, GeneratorExit))
        if leaving:
            self._left()
        sent_all = self._sender is None or _sent(self._sender)
        if sent_all and connection.reader.complete:
            self._transport.pool.give(connection)
        elif sent_all and kind is None and response.waits:
            connection.rest(response.rest)
        else:
            connection.abort()
            if leaving and self._call is not None:
                self._call.closed_at = time.monotonic()
        response.over()
        self._ended()
        if not sent_all:
            await self._stop_sending()

    def _start(self, head: Head) -> bytes:
        """The request up to its body."""
        more = http1.more_headers(head, self._passed) if self._passed else b""
        body = self._body
        if not isinstance(body, bytes):
            length = head.length
            more += b"transfer-encoding: chunked\r\n" if length is None else _length(length)
        elif body or self._method in _WITH_BODY:
            more += _length(len(body))
        return head.prefix + more + b"\r\n"

    async def _connect(self, origin: Origin) -> Connection:
        limit = asyncio.timeout(self._timeouts.connect)
        try:
            async with limit:
                return await self._transport.pool.connect(origin)
        except asyncio.CancelledError:
            self._left()
            if self._call is not None:
                self._call.closed_at = time.monotonic()
            raise
        except (OSError, UnicodeError) as error:
            if limit.expired():
                seconds = self._timeouts.connect
                raise errors.DeadlineExceeded("connect", seconds=seconds, reached=False) from None
            raise errors.UpstreamUnavailable(
                f"{self._endpoint} cannot be reached: {cause(error)}"
            ) from None

    async def _ask(
        self, connection: Connection, start: bytes, length: int | None, *, kept: bool
    ) -> OwnResponse:
        """Sends the request and waits for the answer's head."""
        self._connection = connection
        began = time.monotonic()
        connection.start(bodiless=self._method == "HEAD")
        body, timeouts = self._body, self._timeouts
        try:
            if not isinstance(body, bytes):
                connection.write(start)
                self._send(send(connection, body, length, timeouts), connection)
            elif len(body) <= _JOINED:
                connection.write(start + body)
                connection.all_sent(timeouts.first_byte, timeouts.idle)
            else:
                connection.write(start, body)
                connection.all_sent(timeouts.first_byte, timeouts.idle)
            await connection.head()
        except asyncio.CancelledError:
            self._left()
            connection.abort()
            if self._call is not None:
                self._call.closed_at = time.monotonic()
            self._ended()
            await self._stop_sending()
            raise
        except (Lost, Struck, Malformed) as error:
            await self._given_up(connection)
            lost = isinstance(error, Lost) and connection.reader.untouched
            if kept and lost and time.monotonic() - began < STALE_WITHIN:
                raise _Stale from None
            self._ended()
            raise self._ours(error) from None
        except BaseException:
            await self._given_up(connection)
            self._ended()
            raise
        reader = connection.reader
        if self._sender is not None and reader.status >= HTTPStatus.MULTIPLE_CHOICES:
            self._sender.cancel()  # it has its answer; nobody reads the rest
        self._response = OwnResponse(connection, self._endpoint, timeouts)
        return self._response

    async def _given_up(self, connection: Connection) -> None:
        connection.abort()
        await self._stop_sending()

    def _ours(self, error: Lost | Struck | Malformed) -> errors.TetradError:
        """For what came before the answer's head was complete."""
        where = self._endpoint
        match error:
            case Lost():
                did = "reset" if error.reset else "closed"
                return errors.UpstreamUnavailable(
                    f"{where} {did} the connection before it answered", reached=True
                )
            case Struck():
                seconds = getattr(self._timeouts, error.which)
                return errors.DeadlineExceeded(error.which, seconds=seconds, reached=True)
            case Malformed():
                return errors.UpstreamProtocol(f"{where} does not speak HTTP/1.1", reached=True)

    # A body in pieces.

    def _send(self, sending: Coroutine[Any, Any, None], connection: Connection) -> None:
        self._sender = asyncio.get_running_loop().create_task(sending)
        self._sender.add_done_callback(lambda sender: _sender_ended(sender, connection))

    async def _stop_sending(self) -> None:
        """Ends the sender, and waits until the body's source has been told."""
        sender, self._sender = self._sender, None
        if sender is not None and not sender.done():
            sender.cancel()
            await asyncio.shield(self._transport.background.run(_end_of(sender)))

    # What the call is told.

    def _left(self) -> None:
        if self._call is not None and self._call.left_at is None:
            self._call.left_at = time.monotonic()

    def _ended(self) -> None:
        if self._call is not None:
            self._call.upstream_seconds += time.monotonic() - self._began


class OwnResponse(Response):
    """An answer on one of our connections."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection, endpoint: str, timeouts: Timeouts) -> None:
        reader = connection.reader
        super().__init__(reader.status, reader.headers(), endpoint, timeouts)
        self._connection = connection

    @property
    def rest(self) -> float:
        """Seconds that the end may still take once the block was left."""
        return self._rest

    @property
    def waits(self) -> bool:
        """Whether the connection may wait for the end that nobody waits for."""
        return self._rest > 0 and not self._broken

    def over(self) -> None:
        """The block was left: the connection is another's, and nothing more is to be read."""
        self._complete = True

    async def __anext__(self) -> bytes:
        if self._complete:
            raise StopAsyncIteration
        try:
            data = await self._connection.piece(self._timeouts.idle)
        except (Lost, Struck, Malformed) as error:
            self._broken = True
            raise self._ours(error) from None
        except BaseException:
            self._broken = True
            raise
        if not data:
            self._complete = True
            raise StopAsyncIteration
        return data

    async def _whole(self, limit: int) -> bytes:
        if self._complete:
            return b""
        connection = self._connection
        try:
            if connection.reader.complete:
                data = connection.take()
            else:
                data = await connection.whole(self._timeouts.idle, limit)
        except (Lost, Struck, Malformed) as error:
            self._broken = True
            raise self._ours(error) from None
        except BaseException:
            self._broken = True
            raise
        if len(data) > limit:
            self._broken = True
            raise self._too_large(limit)
        self._complete = True
        return data

    def _ours(self, error: Lost | Struck | Malformed) -> errors.TetradError:
        match error:
            case Lost():
                return self._truncated()
            case Struck():
                return self._idle()
            case Malformed():
                return self._unframed()


def _length(number: int) -> bytes:
    return b"content-length: %d\r\n" % number


def _sent(sender: asyncio.Task[None]) -> bool:
    """Whether a sender came to its end."""
    return sender.done() and not sender.cancelled() and sender.exception() is None


def _sender_ended(sender: asyncio.Task[None], connection: Connection) -> None:
    """Whoever waits for the answer learns what the body raised."""
    if sender.cancelled():
        # By us, when the answer is here or nobody waits; else it has cancelled itself.
        if not (connection.closed or connection.reader.has_head):
            connection.fail(errors.Internal())
    elif (error := sender.exception()) is not None:
        connection.fail(error)


async def _end_of(sender: asyncio.Task[None]) -> None:
    await asyncio.wait({sender})
