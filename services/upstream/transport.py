"""The only HTTP client: one request, one answer, with time limits that say which of them struck.

Two are inside, ours and httpx's; nothing of either comes out, neither exceptions nor types.
Leaving a request's block, also by cancellation, closes the connection unless the answer was
complete. Knows no dialect of upstreams.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Mapping
from functools import cache
from typing import Final

import httpx

from services.call import Call
from services.upstream.base import Timeouts
from services.upstream.httpx_transport import HttpxRequest, HttpxTransport
from services.upstream.own_transport import OwnRequest, OwnTransport

OWN: Final = "own"
HTTPX: Final = "httpx"

Request = OwnRequest | HttpxRequest

_DEFAULT_HEADERS: Final = {"accept-encoding": "identity", "user-agent": "tetrad"}
_NONE: Final[Mapping[str, str]] = {}


class Transport:
    """Pools of connections to any number of upstreams; for one event loop.

    `via`: the client of requests that name none, "own" or "httpx".
    """

    def __init__(self, *, verify: ssl.SSLContext | None = None, via: str = OWN) -> None:
        self._tls = verify or _public_authorities()
        self._via = via
        self._own = OwnTransport(self._tls, _DEFAULT_HEADERS)
        self._httpx: HttpxTransport | None = None

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
        via: str = "",
    ) -> Request:
        """One request, to be entered with `async with`; the block's value is its Response.

        `call.headers` go along where `headers` do not say otherwise, less those that HTTP cannot
        hold; `endpoint` is for messages; `via` is the client, "own" or "httpx". A body that is an
        iterable is read in another task, and what it raises comes out as it is; `again` tells that
        it can be read twice.
        Entering raises DeadlineExceeded ("connect", "first_byte", "idle" for a write that does not
        get through), UpstreamUnavailable (`reached` tells whether anything was sent), or
        UpstreamProtocol. A kept connection that turns out dead is replaced once, by a new one, if
        the body can be sent again.
        The call is told when it was left and when the connection was closed for that, and how long
        the upstream was at work.
        """
        passed = _passable(call.headers) if call is not None and call.headers else _NONE
        again = again or isinstance(body, bytes)
        endpoint = endpoint or "the upstream"
        if (via or self._via) == OWN:
            return OwnRequest(
                self._own, method, url, headers, passed, body, timeouts, call, endpoint, again
            )
        headers = {**_DEFAULT_HEADERS, **passed, **headers}
        if self._httpx is None:
            self._httpx = HttpxTransport(self._tls)
        return HttpxRequest(
            self._httpx, method, url, headers, body, timeouts, call, endpoint, again
        )

    async def aclose(self) -> None:
        """Closes all connections, those in use too."""
        await self._own.aclose()
        if self._httpx is not None:
            await self._httpx.aclose()

    async def settle(self) -> None:
        """Waits until what was left has been closed or given back."""
        await self._own.settle()
        if self._httpx is not None:
            await self._httpx.settle()


def _passable(headers: Mapping[str, str]) -> dict[str, str]:
    """What a caller's metadata may hold and HTTP too: printable ASCII."""
    return {k: v for k, v in headers.items() if v.isascii() and v.isprintable()}


@cache
def _public_authorities() -> ssl.SSLContext:
    context = httpx.create_ssl_context()  # takes tens of milliseconds
    context.set_alpn_protocols(["http/1.1"])
    return context
