"""Descriptors to handlers: every RPC of every service, without a line for any of them.

A handler takes bytes and gives bytes, so that another gRPC engine could call it. Errors leave
through one place. Knows nothing of upstreams.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc

from services import codec, errors, metadata
from services.auth import Keyring, identity_of
from services.body import Body
from services.call import Call
from services.codec import MethodPlan
from services.codec.plan import Body as Carries
from services.inflight import InFlight
from services.server import status

Context = grpc.aio.ServicerContext[Any, Any]
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # no generic at run time

_log = logging.getLogger("tetrad.grpc")
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(slots=True)
class Settings:
    """What the gRPC face takes from the configuration; a reload changes it, for calls to come.

    max_request_bytes bounds one message. ended: told of each call that failed and how; a call
    whose service told so itself may be told of again. certified: callers show certificates.
    overload: asked before a call is looked at, the error to refuse it with.
    """

    keyring: Keyring
    in_flight: InFlight
    max_request_bytes: int
    pass_in: Collection[str] = ()
    ended: Callable[[Call, str], None] = lambda call, outcome: None
    certified: bool = False
    overload: Callable[[], errors.TetradError | None] = lambda: None


def handlers(services: Mapping[str, object], settings: Settings) -> list[grpc.GenericRpcHandler]:
    """One handler per service, and one that answers what no service has.

    `services` maps full names to objects with a coroutine for each RPC, in snake case.
    """
    found: list[grpc.GenericRpcHandler] = []
    for plan in codec.service_plans():
        service = services[plan.name]
        methods = {
            method.name: _handler(Bound(method, getattr(service, snake(method.name)), settings))
            for method in plan.methods
        }
        found.append(grpc.method_handlers_generic_handler(plan.name, methods))
    return found


def snake(name: str) -> str:
    """stream_chat for StreamChat."""
    return _WORD.sub("_", name).lower()


def _handler(bound: Bound) -> RpcHandler:
    plan = bound.plan
    if plan.client_streaming:
        return grpc.stream_stream_rpc_method_handler(bound.bidi)
    if plan.server_streaming:
        return grpc.unary_stream_rpc_method_handler(bound.stream)
    return grpc.unary_unary_rpc_method_handler(bound.unary)


class Bound:
    """One RPC and the coroutine that answers it."""

    def __init__(self, plan: MethodPlan, operation: Any, settings: Settings) -> None:
        self.plan = plan
        self._operation = operation
        self._settings = settings
        self._works = plan.rest is None or plan.rest.body is not Carries.NONE

    async def unary(self, request: bytes, context: Context) -> bytes:
        """bytes to bytes."""
        async with Ending(context, self._settings) as ending:
            call = self._begin(context, ending)
            ending.enter()
            answer: Body = await self._operation(self._body(request), call)
            wire = answer.wire()
            # As initial metadata it would cost the call another turn of the completion queue, a
            # fifth of all; a caller gets both together with the message.
            context.set_trailing_metadata(outgoing(call))
            return wire
        raise AssertionError("Ending lets no error through")

    async def stream(self, request: bytes, context: Context) -> None:
        """bytes to messages."""
        async with Ending(context, self._settings) as ending:
            call = self._begin(context, ending)
            ending.enter()
            await self._write(self._operation(self._body(request), call), call, context)

    async def bidi(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Messages to messages."""
        async with Ending(context, self._settings) as ending:
            call = self._begin(context, ending)
            ending.enter()
            await self._write(self._operation(self._bodies(requests), call), call, context)

    def _begin(self, context: Context, ending: Ending) -> Call:
        pairs = context.invocation_metadata() or ()
        given: dict[str, Any] = dict(pairs)
        ending.id = metadata.request_id(given.get(metadata.REQUEST_ID))
        if self._works and (full := self._settings.overload()) is not None:
            raise full.with_traceback(None)  # one object for all, which must hold no frames
        remaining = context.time_remaining()
        deadline = None
        if remaining is not None:
            deadline = asyncio.get_running_loop().time() + remaining
        ending.call = Call(
            id=ending.id,
            method=self.plan.name,
            face="grpc",
            deadline=deadline,
            headers=metadata.passing(pairs, self._settings.pass_in, ending.id),
        )
        ending.call.principal = self._settings.keyring.identify(
            given.get("authorization"), _identity(context) if self._settings.certified else ""
        )
        return ending.call

    def _body(self, data: bytes) -> Body:
        limit = self._settings.max_request_bytes
        if len(data) > limit:
            way_out = (
                "; send longer audio through LiveTranscribe"
                if self.plan.name in ("Transcribe", "StreamTranscribe")
                else ""
            )
            raise errors.RequestTooLarge(
                f"the message has {len(data)} bytes, the limit is {limit}{way_out}",
                metadata={"bytes": str(len(data)), "limit_bytes": str(limit)},
            )
        return Body.from_wire(self.plan.request, data)

    async def _bodies(self, requests: AsyncIterator[bytes]) -> AsyncIterator[Body]:
        async for data in requests:
            yield self._body(data)

    async def _write(
        self, stream: AsyncGenerator[list[Body], None], call: Call, context: Context
    ) -> None:
        # No initial metadata before the first message: it would commit the call and end the
        # client's right to retry.
        started = False
        with call.limit(None, "deadline"):
            async with aclosing(stream) as batches:
                async for batch in batches:
                    for body in batch:
                        wire = body.wire()
                        if not started:
                            await context.send_initial_metadata(outgoing(call))
                            started = True
                        await context.write(wire)


def _identity(context: Context) -> str:
    """Whom the caller's certificate names, which grpc has checked."""
    told = context.auth_context()
    uris = [uri.decode("utf-8", "replace") for uri in told.get("peer_uri", ())]
    names = [name.decode("utf-8", "replace") for name in told.get("x509_common_name", ())]
    return identity_of(uris, names[0] if names else "")


def outgoing(call: Call) -> tuple[tuple[str, str], ...]:
    """Metadata for the caller, before the first message; at most status.BUDGET bytes of it."""
    room = status.BUDGET
    pairs = [(metadata.REQUEST_ID, call.id)]
    for name, value in _told(call):
        room -= len(name) + len(value)
        if room >= 0:
            pairs.append((name, value))
    return tuple(pairs)


def _told(call: Call) -> Iterator[tuple[str, str]]:
    for name, value in metadata.told(call.out):
        # grpc takes bytes under such names, and keeps others for itself.
        if not name.endswith("-bin") and not name.startswith("grpc-"):
            yield name, value


class Ending:
    """The one place where a call's error becomes its status.

    A call that has entered is left before its status goes out, which waits for a caller who does
    not read; only the server's end waits for that (and not for ever).
    """

    def __init__(self, context: Context, settings: Settings) -> None:
        self._context = context
        self._in_flight = settings.in_flight
        self._ended = settings.ended
        self._entered = False
        self.id = ""
        self.call: Call | None = None

    async def __aenter__(self) -> Ending:
        return self

    def enter(self) -> None:
        """The call's work begins. Raises errors.Draining and errors.Overloaded."""
        self._in_flight.__enter__()
        self._entered = True

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not self._in_flight.ending:
            self._leave()
        try:
            if error is not None:
                await self._end(error)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._in_flight.__exit__(None, None, None)

    def _tell(self, outcome: str, reason: str = "") -> None:
        if self.call is not None:
            self.call.error = self.call.error or reason
            self._ended(self.call, outcome)

    async def _end(self, error: BaseException) -> None:
        if isinstance(error, errors.TetradError):
            await self._abort(error)
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
            if not self._in_flight.ending:
                self._tell("CANCELLED")
                return  # the caller or the deadline: cancellation goes on, never swallowed
            task.uncancel()  # it was asked for here, and ends here
            await self._abort(errors.Draining())
        if isinstance(error, (GeneratorExit, KeyboardInterrupt, SystemExit)):
            return
        if isinstance(error, grpc.aio.InternalError):
            # A write met a caller who had gone, before we were told: as if we had been.
            raise asyncio.CancelledError from None
        # Also a CancelledError that our own code raised: passed on, it would hang the client.
        _log.error("%s %s failed", self.id, self._method(), exc_info=error)
        await self._abort(errors.Internal())

    def _method(self) -> str:
        return self.call.method if self.call else "call"

    async def _abort(self, error: errors.TetradError) -> NoReturn:
        self._tell(error.grpc_code, error.reason)
        others = _told(self.call) if self.call else ()
        code, message, trailers = status.details(error, self.id, others)
        try:
            await self._context.abort(code, message, trailers)
        except grpc.aio.InternalError:
            # The caller went while its status waited to be read: as if it had cancelled, which
            # grpc takes quietly.
            raise asyncio.CancelledError from None
        raise AssertionError("abort does not return")


class UnknownMethod(grpc.GenericRpcHandler):
    """Answers what no service has with a status of ours, so that it carries details."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler:
        """A handler for any method."""
        path = handler_call_details.method

        async def refuse(requests: AsyncIterator[bytes], context: Context) -> None:
            async with Ending(context, self._settings) as ending:
                given: dict[str, Any] = dict(context.invocation_metadata() or ())
                ending.id = metadata.request_id(given.get(metadata.REQUEST_ID))
                raise errors.MethodUnknown(
                    f"this server has no method {path}", metadata={"method": path}
                )

        return grpc.stream_stream_rpc_method_handler(refuse)
