"""The only HTTP client: one request, one answer, with time limits that say which of them struck.

What is inside is httpx's own transport, called without a client object; nothing of httpx comes
out, neither exceptions nor types, so that it can be replaced. Leaving a request's block, also by
cancellation, closes the connection unless the answer was complete. Knows no dialect of upstreams.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterable, Coroutine, Mapping
from functools import cache
from types import TracebackType
from typing import Any, Final

import httpx

from services import errors
from services.call import Call
from services.upstream.base import Timeouts
from services.upstream.response import Response, is_end

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept: less than the 5 s of uvicorn (vLLM) and llama.cpp, so
that it is we who close, and no request meets a connection that the server just gave up."""

_STALE_WITHIN = 1.0
_LIMITS = httpx.Limits(
    max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE
)
_ALWAYS_FRESH = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_DEFAULT_HEADERS = {"accept-encoding": "identity", "user-agent": "tetrad"}


class Transport:
    """A pool of connections to any number of upstreams; for one event loop."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        tls = verify or _public_authorities()
        self._inner = inner or httpx.AsyncHTTPTransport(verify=tls, limits=_LIMITS)
        self._fresh = inner or httpx.AsyncHTTPTransport(verify=tls, limits=_ALWAYS_FRESH)
        self._urls: dict[str, httpx.URL] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes],
        timeouts: Timeouts,
        call: Call | None = None,
        *,
        endpoint: str = "",
        again: bool = False,
    ) -> Request:
        """One request, to be entered with `async with`; the block's value is its Response.

        `call.headers` go along where `headers` do not say otherwise, less those that HTTP cannot
        hold; `endpoint` is for messages. A body that is an iterable is read in another task, and
        what it raises comes out as it is; `again` tells that it can be read twice.
        Entering raises DeadlineExceeded ("connect", "first_byte", "idle" for a write that does not
        get through), UpstreamUnavailable (`reached` tells whether anything was sent), or
        UpstreamProtocol. A kept connection that turns out dead is replaced once, by a new one, if
        the body can be sent again.
        """
        passed = _passable(call.headers) if call is not None else {}
        sent = {**_DEFAULT_HEADERS, **passed, **headers}
        again = again or isinstance(body, bytes)
        return Request(self, method, url, sent, body, timeouts, endpoint, again)

    async def aclose(self) -> None:
        """Closes all connections, those in use too."""
        await self.settle()
        await self._inner.aclose()
        await self._fresh.aclose()

    async def settle(self) -> None:
        """Waits until what was left has been closed or given back."""
        while self._closing:
            await asyncio.wait(set(self._closing))

    def _url(self, url: str) -> httpx.URL:
        parsed = self._urls.get(url)
        if parsed is None:
            parsed = self._urls[url] = httpx.URL(url)
        return parsed

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs what must not be cut short when the caller's task is cancelled (again)."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


def _passable(headers: Mapping[str, str]) -> dict[str, str]:
    """What a caller's metadata may hold and HTTP too: printable ASCII."""
    return {k: v for k, v in headers.items() if v.isascii() and v.isprintable()}


@cache
def _public_authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # takes tens of milliseconds


class _Stale(Exception):
    """A kept connection was dead before anything came back on it."""


class _Attempt:
    """How far one try has come, as httpcore's trace tells; keeps its time limits meanwhile."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.reused = True
        self.sent = False
        self.sent_at = 0.0
        self.struck = ""
        # httpcore looks these up when it needs them: `read` is set once the body is read.
        self.limits: dict[str, float | None] = {
            "connect": None, "read": None, "write": timeouts.idle, "pool": None,
        }  # fmt: skip
        self.task: asyncio.Task[httpx.Response]
        self._timeouts = timeouts
        self._timer: asyncio.TimerHandle | None = None

    async def trace(self, name: str, _: Mapping[str, Any]) -> None:
        """Called by httpcore with "connection.connect_tcp.started" and the like."""
        match name.partition(".")[2]:
            case "connect_tcp.started" | "connect_unix_socket.started":
                self.reused = False
                self._arm("connect", self._timeouts.connect)
            case "send_request_headers.started":
                self.disarm()
                self.sent = True
            case "receive_response_headers.started":
                self.sent_at = asyncio.get_running_loop().time()
                self._arm("first_byte", self._timeouts.first_byte)

    def disarm(self) -> None:
        """No limit runs from here on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def is_stale(self) -> bool:
        """Whether what just failed is a kept connection that the server had closed before."""
        since = asyncio.get_running_loop().time() - self.sent_at
        return self.reused and (not self.sent_at or since < _STALE_WITHIN)

    def _arm(self, which: str, seconds: float) -> None:
        self.disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._strike, which)

    def _strike(self, which: str) -> None:
        self.struck = which
        self.task.cancel()


class Request:
    """See `Transport.request`."""

    def __init__(
        self,
        transport: Transport,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes],
        timeouts: Timeouts,
        endpoint: str,
        again: bool,
    ) -> None:
        self._transport = transport
        self._method = method
        self._url = url
        self._headers = headers
        self._body = body
        self._timeouts = timeouts
        self._again = again
        self._endpoint = endpoint or "the upstream"
        self._response: Response | None = None

    async def __aenter__(self) -> Response:
        transport = self._transport
        try:
            self._response = await self._attempt(transport._inner, retry_stale=True)
        except _Stale:
            self._response = await self._attempt(transport._fresh, retry_stale=False)
        return self._response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        response, self._response = self._response, None
        if response is None:
            return
        closing = self._transport._in_background(response.close())
        if not (response.released and kind is None):
            await asyncio.shield(closing)

    async def _attempt(self, inner: httpx.AsyncBaseTransport, *, retry_stale: bool) -> Response:
        attempt = _Attempt(self._timeouts)
        try:
            request = httpx.Request(
                self._method,
                self._transport._url(self._url),
                headers=self._headers,
                content=self._body,
                extensions={"timeout": attempt.limits, "trace": attempt.trace},
            )
        except (httpx.InvalidURL, UnicodeEncodeError, TypeError) as error:
            raise errors.Internal() from error
        # A task of its own: however often ours is cancelled, httpx is cancelled once and can
        # give its connection back in peace.
        task = asyncio.get_running_loop().create_task(inner.handle_async_request(request))
        attempt.task = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.shield(self._transport._in_background(_abandoned(task)))
            raise
        finally:
            attempt.disarm()
        if attempt.struck and task.cancelled():
            raise self._deadline(attempt.struck, reached=attempt.sent)
        try:
            answer = task.result()
        except httpx.HTTPError as error:
            lost = isinstance(error, httpx.NetworkError) or is_end(error)
            if lost and retry_stale and self._again and attempt.is_stale():
                raise _Stale from None
            raise self._failure(error, attempt) from None
        except asyncio.CancelledError:  # the body's iterator cancelled itself: that is not us
            raise errors.Internal() from None
        attempt.limits["read"] = self._timeouts.idle
        return Response(answer, self._endpoint, self._timeouts)

    def _deadline(self, which: str, *, reached: bool) -> errors.DeadlineExceeded:
        seconds = getattr(self._timeouts, which)
        return errors.DeadlineExceeded(which, seconds=seconds, reached=reached)

    def _failure(self, error: httpx.HTTPError, attempt: _Attempt) -> errors.TetradError:
        """Ours for an exception of httpx before the answer's headers were complete."""
        where, sent = self._endpoint, attempt.sent
        match error:
            case httpx.WriteTimeout():
                return self._deadline("idle", reached=True)
            case httpx.ConnectTimeout():
                return self._deadline("connect", reached=False)
            case httpx.ConnectError() | httpx.ProxyError():
                return errors.UpstreamUnavailable(f"{where} cannot be reached: {_cause(error)}")
            case httpx.NetworkError():
                return errors.UpstreamUnavailable(
                    f"{where} reset the connection before it answered", reached=sent
                )
            case httpx.RemoteProtocolError() if is_end(error):
                return errors.UpstreamUnavailable(
                    f"{where} closed the connection before it answered", reached=sent
                )
            case httpx.RemoteProtocolError():
                return errors.UpstreamProtocol(f"{where} does not speak HTTP/1.1", reached=sent)
        internal = errors.Internal()
        internal.__cause__ = ValueError(_unsendable(error))
        return internal


async def _abandoned(task: asyncio.Task[httpx.Response]) -> None:
    """Waits for the end of a cancelled request, and closes the answer that still came."""
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await task.result().aclose()


def _unsendable(error: httpx.HTTPError) -> str:
    """Why a request of ours was not sent, for the log; a header's value may hold a key."""
    return "a header that HTTP cannot hold" if "header" in str(error).lower() else str(error)


def _cause(error: BaseException) -> str:
    """The system's words for why there is no connection, e.g. "Connection refused"."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):  # one for each address of the host
            seen = seen.exceptions[0]
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {seen.verify_message}"
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed: {(seen.reason or 'no handshake').replace('_', ' ').lower()}"
        if isinstance(seen, OSError) and seen.errno:
            # asyncio repeats the address here, which not every caller is to know.
            return os.strerror(seen.errno) if seen.errno > 0 else str(seen.strerror)
        seen = seen.__cause__ or seen.__context__
    return "no connection"
