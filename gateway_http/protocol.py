"""uvicorn's HTTP protocol, with what ASGI lacks: word of a hang-up at once, ways to close, TLS.

Puts `extensions["tetrad.peer"]` and, with a client certificate, `extensions["tls"]` into the
scope. Everything works without it too, on any ASGI server, only less directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway_http import hangup
from gateway_http.asgi import Headers
from services.auth import identity_of

PEER = "tetrad.peer"

LINGER = 30.0
"""Seconds in which the rest of a body is read and thrown away that was answered before its end.
To close at once would reset the connection, and take the answer from a caller who still sends."""

_PIPELINED = 16

_CLOSE = (b"connection", b"close")


def _identity(certificate: Mapping[str, Any]) -> str:
    """Whom a certificate names, as `getpeercert` gives it."""
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    subject = [pair for pairs in certificate.get("subject", ()) for pair in pairs]
    names = [value for kind, value in subject if kind == "commonName"]
    return identity_of(uris, names[0] if names else "")


Refusal: TypeAlias = Callable[[bytes, bytes, Headers], tuple[int, bytes] | None]
"""Asked with a request's method, target and headers whether it ends here: its status then, and the
rest of the answer from the headers on."""


class Peer:
    """The other end of one request's connection."""

    __slots__ = ("_callback", "_cycle", "_hang_up", "_protocol")

    def __init__(self, protocol: GatewayProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._callback: Callable[[], object] | None = None
        self._hang_up: hangup.HangUpWatch | None = None

    @property
    def lost(self) -> bool:
        """Whether it has hung up."""
        return self._protocol.lost

    def watch(self, callback: Callable[[], object]) -> None:
        """Call back once, when the peer hangs up."""
        self._callback = callback
        self._protocol.watching = self
        # A hang-up is only seen while the connection is read, and a long body may have paused it.
        if self._cycle.more_body:
            self._hang_up = hangup.watch(self._cycle.transport, self.abort)
        else:
            self._cycle.flow.resume_reading()

    def unwatch(self) -> None:
        """No longer call back."""
        self._callback = None
        self._protocol.watching = None
        if self._hang_up is not None:
            self._hang_up.close()
            self._hang_up = None

    def body(self) -> bytes | None:
        """The request's body, once, if all of it has come; None if it is to be received."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        data, cycle.body = bytes(cycle.body), bytearray()
        return data

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """A whole answer in one write, where ASGI's two messages make two; False, and nothing
        sent, if it must go by those. `headers` name the body's length, and are fit for HTTP."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        if cycle.disconnected:
            return True
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        if _CLOSE in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers.append(_CLOSE)
        lines = [name + b": " + value for name, value in (*cycle.default_headers, *headers)]
        head = STATUS_LINE[status] + b"\r\n".join(lines)
        cycle.transport.write(head + b"\r\n\r\n" + body)
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def close_after_answer(self) -> None:
        """Close the connection once the answer is complete."""
        self._cycle.keep_alive = False

    def abort(self) -> None:
        """Close now, without waiting until what was written is read."""
        self._cycle.transport.abort()

    def hung_up(self) -> None:
        """The protocol's word that the connection is gone."""
        # With pipelined requests behind it, uvicorn tells only the last one.
        self._cycle.disconnected = True
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class GatewayProtocol(HttpToolsProtocol):
    """For uvicorn's `Config(http=GatewayProtocol)`."""

    lost = False
    watching: Peer | None = None
    _refusal: Refusal | None = None
    _refused = False
    _lingering: asyncio.TimerHandle | None = None
    _tls: dict[str, Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Notes the client's certificate, if the connection has one (that was checked)."""
        super().connection_made(transport)
        self._refusal = getattr(self.app, "refusal", None)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert() if tls is not None else None
        if certificate:
            self._tls = {"client_cert": certificate, "identity": _identity(certificate)}

    def on_headers_complete(self) -> None:
        """Adds the extensions, before the task that was made for the request starts to run; what
        there is no room for gets no task at all."""
        if self._refuses():
            return
        super().on_headers_complete()
        extensions: dict[str, Any] = {PEER: Peer(self, self.cycle)}
        if self._tls:
            extensions["tls"] = self._tls
        cast(dict[str, Any], self.scope)["extensions"] = extensions
        if self.watching is not None and len(self.pipeline) <= _PIPELINED:
            # uvicorn stops to read when requests wait behind the one in work, and would not see
            # the caller of that one hang up.
            self.flow.resume_reading()

    def _refuses(self) -> bool:
        """Answers a request that an overload ends here, at a fifth of the cost of handing it on."""
        if self._refusal is None or not (self.cycle is None or self.cycle.response_complete):
            return False
        answer = self._refusal(self.parser.get_method(), self.url, self.headers)
        if answer is None:
            return False
        self._refused = True
        lines = [name + b": " + value + b"\r\n" for name, value in self._every_answer_s()]
        status, rest = answer
        self.transport.write(STATUS_LINE[status] + b"".join(lines) + rest)
        self._lingering = self.loop.call_later(LINGER, self.transport.abort)
        return True

    def _every_answer_s(self) -> Headers:
        given = self.server_state.default_headers
        return given if self.parser.should_keep_alive() else [*given, _CLOSE]

    def on_body(self, body: bytes) -> None:
        """Throws away what belongs to a request that was refused."""
        if not self._refused:
            super().on_body(body)

    def on_response_complete(self) -> None:
        """Bounds how long the rest of a body is read that nobody waits for."""
        super().on_response_complete()
        cycle = self.cycle
        if cycle.response_complete and cycle.more_body and not self.transport.is_closing():
            self._lingering = self.loop.call_later(LINGER, self.transport.abort)

    def on_message_complete(self) -> None:
        """After such a rest the connection may idle, as after any answer."""
        if self._refused:
            self._refused = False
            if not self.parser.should_keep_alive():
                self.transport.close()
        else:
            super().on_message_complete()
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the call that is being answered."""
        super().connection_lost(exc)
        self.lost = True
        if self._lingering is not None:
            self._lingering.cancel()
        if self.watching is not None:
            self.watching.hung_up()
