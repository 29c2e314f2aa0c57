"""A running gateway for tests: both faces on real sockets, in the test's own loop.

    async with gateway(config_text) as gate:
        answer = await gate.rest.post("/v1/chat/completions", json=...)
        reply = await gate.call("ChatService", "Chat", {"messages": [...]})

gRPC is on a unix socket, REST on a free port.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from google.rpc import error_details_pb2, status_pb2
from tetrad.v1 import error_details_pb2 as tetrad_errors

from services import app, codec
from services.config import parse

_DETAILS = {
    message.DESCRIPTOR.full_name: message
    for message in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.QuotaFailure,
        error_details_pb2.BadRequest,
        error_details_pb2.RequestInfo,
        tetrad_errors.UpstreamError,
    )
}


def _wire(message: Any) -> bytes:
    wire: bytes = message.SerializeToString()
    return wire


@dataclass
class Gateway:
    """A gateway under test. `rest` has no retries."""

    channel: grpc.aio.Channel
    rest: httpx.AsyncClient
    url: str
    address: str
    running: app.Running

    def stub(self, service: str, method: str) -> Any:
        """The callable of an RPC, messages as generated classes."""
        plan = next(s for s in codec.service_plans() if s.name == f"tetrad.v1.{service}")
        rpc = plan.method(method)
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }
        return kinds[rpc.client_streaming, rpc.server_streaming](
            rpc.path,
            request_serializer=_wire,
            response_deserializer=codec.message_class(rpc.response).FromString,
        )

    async def call(self, service: str, method: str, request: Any, **options: Any) -> Any:
        """A unary RPC, request and answer as JSON values."""
        rpc = _plan(service, method)
        answer = await self.stub(service, method)(message(rpc.request, request), **options)
        return json.loads(codec.to_json(rpc.response, answer))

    async def stream(
        self, service: str, method: str, request: Any, **options: Any
    ) -> AsyncIterator[Any]:
        """A streaming RPC (one request), request and answers as JSON values."""
        rpc = _plan(service, method)
        call = self.stub(service, method)(message(rpc.request, request), **options)
        try:
            async for answer in call:
                yield json.loads(codec.to_json(rpc.response, answer))
        finally:
            call.cancel()

    async def bidi(
        self, service: str, method: str, requests: Iterable[Any] | AsyncIterable[Any]
    ) -> AsyncIterator[Any]:
        """A bidirectional RPC, messages as generated classes."""
        call = self.stub(service, method)(requests)
        try:
            async for answer in call:
                yield answer
        finally:
            call.cancel()


def message(name: str, value: Any) -> Any:
    """A message from its JSON value (or itself, if it is one)."""
    if not isinstance(value, Mapping):
        return value
    return codec.message_class(name).FromString(codec.encode_value(name, value))


def _plan(service: str, method: str) -> codec.MethodPlan:
    plan = next(s for s in codec.service_plans() if s.name == f"tetrad.v1.{service}")
    return plan.method(method)


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The google.rpc details of a failed call, by short name: {"ErrorInfo": message, ...}."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    found = {}
    for packed in status.details:
        kind = _DETAILS[packed.type_url.rpartition("/")[2]]
        unpacked = kind()
        packed.Unpack(unpacked)
        found[kind.DESCRIPTOR.name] = unpacked
    return found


@asynccontextmanager
async def gateway(config: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Gateway]:
    """Start a gateway on a configuration text that says nothing of addresses."""
    with tempfile.TemporaryDirectory(prefix="tetrad-") as folder:
        settings = parse(config, "test.yaml", environ or {}).with_overrides(
            grpc=f"unix:{folder}/grpc", http="127.0.0.1:0"
        )
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(app.gateway(settings))
            assert running.http is not None
            url = f"http://{running.http}"
            rest = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
            options = [
                ("grpc.max_receive_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ]
            address = str(running.grpc)
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(address, options=options)
            )
            yield Gateway(channel, rest, url, address, running)
