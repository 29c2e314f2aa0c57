"""One HTTP request and its answer, whatever gives it: a call, a page, an error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from http import HTTPStatus

from gateway_http import errors as shown
from gateway_http.asgi import HeaderMap, Headers, Message, Receive, Scope, Send
from gateway_http.protocol import PEER, Peer
from gateway_http.response import out_headers
from gateway_http.settings import State
from services import errors
from services.errors import TetradError

_log = logging.getLogger("tetrad.rest")


class Exchange:
    """What is known of a request from its headers, and the ways to answer it.

    id: of the request. peer: its connection, where the server is ours. error_body: makes the body
    around an error object. extra: headers that every answer gets. closing: whether the connection
    is closed after the answer, as it is while the process drains. started: whether an answer is on
    its way.
    """

    __slots__ = (
        "_send",
        "_state",
        "closing",
        "error_body",
        "extra",
        "headers",
        "id",
        "peer",
        "receive",
        "scope",
        "started",
    )

    def __init__(
        self,
        scope: Scope,
        headers: HeaderMap,
        receive: Receive,
        send: Send,
        id: str,
        state: State,
    ) -> None:
        self.scope, self.headers, self.receive, self._send = scope, headers, receive, send
        self.peer: Peer | None = scope.get("extensions", {}).get(PEER)
        self.id = id
        self._state = state
        self.error_body = shown.standard
        self.extra: Headers = []
        self.closing = False
        self.started = False

    async def send(self, message: Message) -> None:
        """ASGI's send, noting that the answer has begun."""
        self.started = True
        await self._send(message)

    def completed(self, headers: Headers) -> Headers:
        """An answer's headers with those that every answer of this request gets."""
        headers += self.extra
        if self.closing or self._state.draining:
            headers.append((b"connection", b"close"))
        return headers

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer; `headers` come without content-length."""
        if status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            headers.append((b"content-length", b"%d" % len(body)))
        self.started = True
        headers = self.completed(headers)
        if self.peer is not None and self.peer.answer(status, headers, body):
            return
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: TetradError, out: Mapping[str, str], more: Headers) -> None:
        """An error as answer. `out` is what the services told of the call; `more` are headers."""
        status, headers, body = shown.response(error, self.id, self.error_body)
        if b"expect" in self.headers:
            # The body that was announced never comes, or comes as we answer: whatever follows on
            # this connection could be taken for it.
            self.closing = True
        await self.answer(status, [*headers, *out_headers(out), *more], body)

    def as_error(self, raised: BaseException, what: str) -> TetradError:
        """The error to show for whatever was raised; what is none of ours is logged, `what` failed.

        For a cancellation of the task it is Draining: only the server's end cancels a call whose
        caller is still there. Raises again what means the end of the program.
        """
        if isinstance(raised, TetradError):
            return raised
        if cancelled(raised):
            return errors.Draining()
        if not isinstance(raised, Exception | asyncio.CancelledError):
            raise raised
        _log.error("%s: %s failed", self.id, what, exc_info=raised)
        return errors.Internal()


def cancelled(raised: BaseException) -> bool:
    """Whether the task was cancelled, which must go on its way.

    Code may raise CancelledError by itself, without anybody being cancelled: a fault like others.
    """
    task = asyncio.current_task()
    return isinstance(raised, asyncio.CancelledError) and bool(task and task.cancelling())
