"""Requests by httpx's own transport, called without a client object: for proxies, and for HTTP/2
where the package h2 is installed.

Nothing of httpx comes out, neither exceptions nor types. Slower than ours by far: a provider asks
for it by `transport: httpx`. Proxies are those of the environment (HTTPS_PROXY, NO_PROXY, ...).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any, cast
from urllib.request import getproxies, proxy_bypass

import httpx

from services import errors
from services.call import Call
from services.upstream.background import Background
from services.upstream.base import Timeouts
from services.upstream.dial import cause
from services.upstream.pool import KEEP_ALIVE
from services.upstream.response import Response

LEAVING = (asyncio.CancelledError, GeneratorExit)
"""What a block ends with when nobody wants its answer any more."""

_STALE_WITHIN = 1.0
_LIMITS = httpx.Limits(
    max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE
)
_ALWAYS_FRESH = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_OURSELVES = ("localhost", "127.0.0.1", "::1")
_HTTP2 = find_spec("h2") is not None


class HttpxTransport:
    """httpx's pools, one for each proxy; for one event loop."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.background = Background()
        self._tls = tls
        self._pools: dict[str | None, tuple[httpx.AsyncHTTPTransport, ...]] = {}
        self._urls: dict[str, httpx.URL] = {}

    def url(self, url: str) -> httpx.URL:
        """The URL, parsed once. Raises httpx.InvalidURL."""
        parsed = self._urls.get(url)
        if parsed is None:
            parsed = self._urls[url] = httpx.URL(url)
        return parsed

    def pool(self, url: httpx.URL, *, fresh: bool = False) -> httpx.AsyncHTTPTransport:
        """What takes requests to a URL; `fresh` keeps no connection. Raises ValueError."""
        proxy = _proxy(url)
        made = self._pools.get(proxy)
        if made is None:
            made = self._pools[proxy] = tuple(
                httpx.AsyncHTTPTransport(verify=self._tls, limits=limits, proxy=proxy, http2=_HTTP2)
                for limits in (_LIMITS, _ALWAYS_FRESH)
            )
        return made[fresh]

    async def settle(self) -> None:
        """Waits until what was left has been closed or given back."""
        await self.background.settle()

    async def aclose(self) -> None:
        """Closes all connections, those in use too."""
        await self.settle()
        for pools in self._pools.values():
            for pool in pools:
                await pool.aclose()


def _proxy(url: httpx.URL) -> str | None:
    """The environment's proxy for a URL."""
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or url.host in _OURSELVES or proxy_bypass(url.host):
        return None
    return found if "://" in found else f"http://{found}"


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


class HttpxRequest:
    """See `transport.Transport.request`."""

    def __init__(
        self,
        transport: HttpxTransport,
        method: str,
        url: str,
        headers: Mapping[str, str],
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
        self._body = body
        self._timeouts = timeouts
        self._call = call
        self._again = again
        self._endpoint = endpoint
        self._began = 0.0
        self._response: HttpxResponse | None = None

    async def __aenter__(self) -> Response:
        self._began = time.monotonic()
        try:
            self._response = await self._attempt(retry_stale=True)
        except _Stale:
            self._response = await self._attempt(retry_stale=False)
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
        leaving = isinstance(error, LEAVING)
        if leaving:
            self._left()
        try:
            closing = self._transport.background.run(response.close())
            if not (response.released and kind is None):
                await asyncio.shield(closing)
        finally:
            self._ended(closed=leaving and not response.complete)

    def _left(self) -> None:
        if self._call is not None and self._call.left_at is None:
            self._call.left_at = time.monotonic()

    def _ended(self, *, closed: bool) -> None:
        if self._call is not None:
            now = time.monotonic()
            self._call.upstream_seconds += now - self._began
            if closed:
                self._call.closed_at = now

    async def _attempt(self, *, retry_stale: bool) -> HttpxResponse:
        attempt = _Attempt(self._timeouts)
        try:
            url = self._transport.url(self._url)
            pool = self._transport.pool(url, fresh=not retry_stale)
            request = httpx.Request(
                self._method,
                url,
                headers=self._headers,
                content=self._body,
                extensions={"timeout": attempt.limits, "trace": attempt.trace},
            )
        except (httpx.InvalidURL, ValueError, TypeError, ImportError) as error:
            raise errors.Internal() from error
        # A task of its own: however often ours is cancelled, httpx is cancelled once and can
        # give its connection back in peace.
        task = asyncio.get_running_loop().create_task(pool.handle_async_request(request))
        attempt.task = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            self._left()
            task.cancel()
            await asyncio.shield(self._transport.background.run(_abandoned(task)))
            self._ended(closed=True)
            raise
        finally:
            attempt.disarm()
        if attempt.struck and task.cancelled():
            self._ended(closed=False)
            raise self._deadline(attempt.struck, reached=attempt.sent)
        try:
            answer = task.result()
        except httpx.HTTPError as error:
            lost = isinstance(error, httpx.NetworkError) or _is_end(error)
            if lost and retry_stale and self._again and attempt.is_stale():
                raise _Stale from None
            self._ended(closed=False)
            raise self._failure(error, attempt) from None
        except asyncio.CancelledError:  # the body's iterator cancelled itself: that is not us
            raise errors.Internal() from None
        attempt.limits["read"] = self._timeouts.idle
        return HttpxResponse(answer, self._endpoint, self._timeouts)

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
                return errors.UpstreamUnavailable(f"{where} cannot be reached: {cause(error)}")
            case httpx.NetworkError():
                return errors.UpstreamUnavailable(
                    f"{where} reset the connection before it answered", reached=sent
                )
            case httpx.RemoteProtocolError() if _is_end(error):
                return errors.UpstreamUnavailable(
                    f"{where} closed the connection before it answered", reached=sent
                )
            case httpx.RemoteProtocolError():
                return errors.UpstreamProtocol(f"{where} does not speak HTTP/1.1", reached=sent)
        internal = errors.Internal()
        internal.__cause__ = ValueError(_unsendable(error))
        return internal


class HttpxResponse(Response):
    """An answer by httpx."""

    __slots__ = ("_answer", "_pieces", "_stream")

    def __init__(self, answer: httpx.Response, endpoint: str, timeouts: Timeouts) -> None:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        super().__init__(answer.status_code, headers, endpoint, timeouts)
        self._answer = answer
        self._stream = cast(httpx.AsyncByteStream, answer.stream)
        self._pieces: AsyncIterator[bytes] = self._stream.__aiter__()

    @property
    def complete(self) -> bool:
        """Whether it was read to its end."""
        return self._complete

    async def __anext__(self) -> bytes:
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            self._complete = not self._broken
            raise
        except httpx.HTTPError as error:
            self._broken = True
            raise self._failure(error) from None
        except BaseException:
            self._broken = True
            raise

    def _failure(self, error: httpx.HTTPError) -> errors.TetradError:
        if isinstance(error, httpx.ReadTimeout):
            return self._idle()
        if isinstance(error, httpx.NetworkError) or _is_end(error):
            return self._truncated()
        return self._unframed()

    async def close(self) -> None:
        """Gives the connection back if the body was read to its end, and closes it if not."""
        if self._rest and not (self._complete or self._broken):
            await self._drain(self._rest, [])
        if not self._complete and self._answer.http_version != "HTTP/2":  # which shares it
            socket = self._answer.extensions.get("network_stream")
            if socket is not None:
                await socket.aclose()
        await self._stream.aclose()
        closing = getattr(self._pieces, "aclose", None)
        if closing is not None:
            await closing()


async def _abandoned(task: asyncio.Task[httpx.Response]) -> None:
    """Waits for the end of a cancelled request, and closes the answer that still came."""
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await task.result().aclose()


def _unsendable(error: httpx.HTTPError) -> str:
    """Why a request of ours was not sent, for the log; a header's value may hold a key."""
    return "a header that HTTP cannot hold" if "header" in str(error).lower() else str(error)


def _is_end(error: httpx.HTTPError) -> bool:
    """Whether it stands for a peer that closed in the middle: httpcore's and h11's own words."""
    return isinstance(error, httpx.RemoteProtocolError) and str(error).startswith(
        ("Server disconnected", "peer closed connection")
    )
