"""One session of realtime transcription over a WebSocket: sound in as it comes, text out.

Leaving it, also by cancellation, closes the connection at once. Which messages are spoken is the
wire's business. Nothing of the WebSocket library comes out.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from services import codec, errors
from services.call import Call
from services.upstream.base import Endpoint
from services.upstream.realtime_wires import Event, Failed, Wire, sound
from services.upstream.stream import read_json

MOST: Final = 16 * 1024 * 1024
"""Bytes of one message of a server."""

PIECE: Final = 48 * 1024
"""Bytes of sound in one message of ours; in base64 they are a third more."""

_CLOSING: Final = 1.0
_NO_SUCH_THING: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,  # what Starlette answers where it has no such WebSocket
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.UPGRADE_REQUIRED,
        HTTPStatus.NOT_IMPLEMENTED,
    }
)


class NoRealtime(Exception):
    """The server has no such WebSocket: nothing of the sound was read."""


class Session:
    """A session with one endpoint, for one call. Iterate `events` to its end, or close it."""

    def __init__(self, endpoint: Endpoint, wire: Wire, call: Call) -> None:
        self._endpoint = endpoint
        self._wire = wire
        self._call = call
        self._socket: ClientConnection
        self._failure: BaseException | None = None
        self._until: float | None = None
        self._patience: asyncio.Timeout | None = None
        self._which = "first_byte"

    async def events(self, content: AsyncIterator[bytes]) -> AsyncGenerator[list[Event], None]:
        """What each message of the server gives the caller; `wire.final` is there at its end.

        Raises NoRealtime before it reads of `content`, whatever `content` raises, and the errors
        of `transport.Transport.request`.
        """
        began = time.monotonic()
        self._socket = await self._connect()
        sender: asyncio.Task[None] | None = None
        ended = False
        try:
            await self._opened()
            sender = asyncio.create_task(self._feed(content))
            while self._wire.final is None:
                batch = self._taken(await self._next())
                for message in self._wire.replies():
                    await self._send(message)
                if batch:
                    yield batch
            ended = True
        except (asyncio.CancelledError, GeneratorExit):
            self._left()
            raise
        finally:
            if not ended:
                self._socket.transport.abort()
                self._call.closed_at = self._call.closed_at or time.monotonic()
            self._call.upstream_seconds += time.monotonic() - began
            await self._end(sender, in_order=ended)

    async def _connect(self) -> ClientConnection:
        endpoint, seconds = self._endpoint, self._endpoint.timeouts.connect
        try:
            async with asyncio.timeout(seconds):
                return await connect(
                    _address(endpoint.url) + self._wire.path,
                    additional_headers=self._headers(),
                    user_agent_header="tetrad",
                    compression=None,
                    ssl=_authorities() if endpoint.url.startswith("https") else None,
                    proxy=True if endpoint.transport == "httpx" else None,
                    open_timeout=None,
                    close_timeout=_CLOSING,
                    max_size=MOST,
                )
        except asyncio.CancelledError:
            self._left()
            self._call.closed_at = time.monotonic()
            raise
        except TimeoutError:
            raise errors.DeadlineExceeded("connect", seconds=seconds, reached=False) from None
        except InvalidStatus as refused:
            raise self._refused(refused) from None
        except (InvalidHandshake, InvalidURI) as error:
            raise errors.UpstreamProtocol(
                f"{endpoint.name} does not speak WebSocket: {type(error).__name__}", reached=True
            ) from None
        except (OSError, EOFError, WebSocketException) as error:
            raise errors.UpstreamUnavailable(
                f"{endpoint.name} cannot be reached: {type(error).__name__}"
            ) from None

    def _refused(self, refused: InvalidStatus) -> Exception:
        response = refused.response
        if response.status_code in _NO_SUCH_THING:
            return NoRealtime()
        return errors.from_upstream(
            response.status_code,
            {name.lower(): value for name, value in response.headers.raw_items()},
            bytes(response.body or b""),
            endpoint=self._endpoint.name,
            secrets=self._secrets,
        )

    def _headers(self) -> dict[str, str]:
        endpoint = self._endpoint
        passed = {k: v for k, v in self._call.headers.items() if v.isascii() and v.isprintable()}
        own = {name.lower(): value for name, value in endpoint.headers.items()}
        if endpoint.key:
            own["authorization"] = f"Bearer {endpoint.key}"
        return passed | own

    async def _opened(self) -> None:
        """Waits for the server's greeting, and says what the session is to be."""
        self._allow(self._endpoint.timeouts.first_byte)
        self._taken(await self._next())
        self._allow(None)
        for message in self._wire.opening():
            await self._send(message)

    async def _feed(self, content: AsyncIterator[bytes]) -> None:
        """Sends the sound to its end; whoever waits for the server learns what went wrong."""
        try:
            async for piece in content:
                for at in range(0, len(piece), PIECE):
                    await self._send(sound(piece[at : at + PIECE]))
            for message in self._wire.closing():
                await self._send(message)
            self._which = "idle"
            self._allow(self._endpoint.timeouts.idle)
        except Exception as error:
            self._failure = error
            self._socket.transport.abort()
        finally:
            closing = getattr(content, "aclose", None)
            if closing is not None:
                await closing()

    async def _send(self, message: Event) -> None:
        try:
            async with asyncio.timeout(self._endpoint.timeouts.idle):
                await self._socket.send(orjson.dumps(message).decode())
        except ConnectionClosed:
            raise self._broken_off() from None
        except TimeoutError:
            raise self._late("idle") from None

    async def _next(self) -> Event:
        """The server's next message."""
        if self._which == "idle":
            self._allow(self._endpoint.timeouts.idle)
        try:
            async with asyncio.timeout_at(self._until) as self._patience:
                text = await self._socket.recv()
        except ConnectionClosed:
            raise self._failure or self._broken_off() from None
        except TimeoutError:
            raise self._late(self._which) from None
        finally:
            self._patience = None
        try:
            event = read_json(text.encode() if isinstance(text, str) else text)
        except codec.JsonError:
            event = None
        if not isinstance(event, dict):
            raise errors.UpstreamProtocol(
                f"the session of {self._endpoint.name} holds what is no JSON object", reached=True
            )
        return event

    def _taken(self, event: Event) -> list[Event]:
        try:
            return self._wire.take(event)
        except Failed as failed:
            raise errors.from_error_body(
                failed.value, endpoint=self._endpoint.name, secrets=self._secrets
            ) from None

    def _allow(self, seconds: float | None) -> None:
        """The server has so long for its next message."""
        self._until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(self._until)

    def _broken_off(self) -> errors.TetradError:
        return errors.UpstreamTruncated(
            f"{self._endpoint.name} ended the session before its answer was complete", reached=True
        )

    def _late(self, which: str) -> errors.TetradError:
        seconds: Any = getattr(self._endpoint.timeouts, which)
        return errors.DeadlineExceeded(which, seconds=seconds, reached=True)

    def _left(self) -> None:
        if self._call.left_at is None:
            self._call.left_at = time.monotonic()

    async def _end(self, sender: asyncio.Task[None] | None, *, in_order: bool) -> None:
        """Waits until the sound's source has been told, and the connection is closed."""
        try:
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender])
            await (self._socket.close() if in_order else self._socket.wait_closed())
        except BaseException:
            self._socket.transport.abort()
            raise

    @property
    def _secrets(self) -> tuple[str, ...]:
        return (self._endpoint.key,) if self._endpoint.key else ()


def _address(url: str) -> str:
    """http://host as ws://host."""
    return urlsplit(url)._replace(scheme="wss" if url.startswith("https") else "ws").geturl()


@cache
def _authorities() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
