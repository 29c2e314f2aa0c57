"""One REST call from end to end: who calls, what, the service's work, and the answer.

Errors leave as exceptions while there is a status left to give, else as a stream's last event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, cast

from gateway_http import errors as shown
from gateway_http import opengatellm
from gateway_http.asgi import Scope
from gateway_http.caller import Caller, HungUp
from gateway_http.exchange import Exchange, cancelled
from gateway_http.request import Names, Request, deadline, new_call, read
from gateway_http.response import event_headers, events, json_headers, rendered, unreadable
from gateway_http.routes import Operation
from gateway_http.settings import RestSettings
from gateway_http.stream import EventStream
from services import errors, sse
from services.body import Body
from services.call import Call
from services.errors import TetradError
from services.transcript import done_event


class RestCall:
    """A call of one operation."""

    __slots__ = ("_exchange", "_operation", "_settings", "call")

    def __init__(self, operation: Operation, exchange: Exchange, settings: RestSettings) -> None:
        self._operation, self._exchange, self._settings = operation, exchange, settings
        self.call: Call | None = None

    async def run(self, path_members: Mapping[str, str], passes: Names) -> None:
        """Answer it. Raises whatever went wrong before the answer began, and HungUp."""
        exchange, settings, operation = self._exchange, self._settings, self._operation
        self.call = call = new_call(operation, exchange.id, exchange.headers, passes)
        authorization = exchange.headers.get(b"authorization")
        call.principal = settings.keyring.identify(
            None if authorization is None else authorization.decode("latin-1"),
            _identity(exchange.scope),
        )
        call.deadline = deadline(exchange.headers)
        settings.state.enter()
        try:
            with call.limit(None, "deadline"):
                request = await read(operation, path_members, exchange, settings)
            try:
                if settings.opengatellm:
                    request = opengatellm.asked(request)
                if call.deadline is None:
                    self._default_deadline(call, request)
                if request.streamed:
                    await self._stream(request, call)
                else:
                    await self._unary(request, call)
            except TetradError as error:
                if request.files is not None and request.files.hung_up:
                    raise HungUp from None
                if request.form is not None:
                    raise request.form.renamed(error) from None
                raise
            finally:
                request.close()
        finally:
            settings.state.leave()

    def _default_deadline(self, call: Call, request: Request) -> None:
        settings = self._settings
        # A file that is still arriving may take as long as streams may.
        long = request.streamed or request.arriving
        seconds = settings.stream_timeout if long else settings.timeout
        if seconds is not None:
            call.deadline = asyncio.get_running_loop().time() + seconds

    async def _unary(self, request: Request, call: Call) -> None:
        exchange, operation = self._exchange, self._operation
        receive = request.receive or exchange.receive
        with Caller(exchange.scope, receive) as caller, call.limit(None, "deadline"):
            answer = await operation.unary(self._relayed(request.body), call)
        if caller.gone:
            raise HungUp
        answer = self._answered(answer, call)
        if request.streamed_late:
            events_of = events([done_event(answer)]) + operation.ending
            await exchange.answer(200, event_headers(call), events_of)
            return
        if self._settings.opengatellm and request.converted is None:
            answer = opengatellm.answered(answer, call)
        media_type, data = rendered(operation, answer, request.converted)
        await exchange.answer(200, json_headers(media_type, call), data)

    async def _stream(self, request: Request, call: Call) -> None:
        exchange, operation, settings = self._exchange, self._operation, self._settings
        assert operation.stream is not None  # noqa: S101  (else it is not streamed)
        call.method = operation.stream_name
        call.include_usage = request.usage_asked
        with Caller(exchange.scope, request.receive or exchange.receive) as caller:

            def stalled() -> None:
                caller.abort()
                caller.give_up()

            answer = EventStream(
                exchange.send,
                lambda: exchange.completed(event_headers(call)),
                first=settings.heartbeat_first,
                every=settings.heartbeat_every,
                stall=settings.stall,
                stalled=stalled,
            )
            try:
                await self._write(request, call, answer)
            except BaseException as raised:
                if caller.gone or not answer.started:
                    raise
                error = exchange.as_error(raised, call.method)
                caller.close_after_answer()
                await answer.finish(sse.event(shown.sse_event(error, call.id, exchange.error_body)))
                if cancelled(raised):
                    raise
            finally:
                await answer.close()

    async def _write(self, request: Request, call: Call, answer: EventStream) -> None:
        operation, relay = self._operation, self._settings.relay
        assert operation.stream is not None  # noqa: S101
        final = None
        if self._settings.opengatellm and operation.event == opengatellm.CHUNK:
            final = opengatellm.FinalUsage(call)
        # Services give async generators: leaving one early closes the upstream at once.
        stream = cast(Any, operation.stream(self._relayed(request.body), call))
        # Also without a deadline: the service brings this limit forward to its own.
        with call.limit(None, "deadline"):
            async with aclosing(stream) as batches:
                async for batch in batches:
                    if batch:
                        if not relay:
                            batch = [self._answered(body, call) for body in batch]
                        if final is not None:
                            batch = final.seen(batch)
                        await answer.write(events(batch))
        due = [] if final is None else final.last()
        await answer.finish(events(due) + operation.ending)

    def _relayed(self, body: Body) -> Body:
        return body if self._settings.relay else body.recoded()

    def _answered(self, body: Body, call: Call) -> Body:
        if self._settings.relay:
            return body
        try:
            return body.recoded(usage_asked=call.include_usage)
        except errors.InvalidRequest as error:
            raise unreadable(error) from error


def _identity(scope: Scope) -> str:
    """Whom the caller's certificate names."""
    tls = (scope.get("extensions") or {}).get("tls")
    return str(tls.get("identity", "")) if tls else ""
