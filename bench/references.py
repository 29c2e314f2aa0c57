"""What the gateway's cost is compared with: `python -m bench.references UPSTREAM`.

On one port a bare ASGI application in uvicorn, which answers constant bytes; on another bare
handlers in grpc.aio, which make the gateway's upstream calls by the gateway's own transport and
pass on the bytes. No checks, no routing, no codec. It prints both ports, REST's first.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import uvicorn
import uvloop

from bench.operations import (
    CHAT,
    EMBED_1,
    EMBED_32,
    RERANK_100,
    STREAM,
    UNARY,
    Operation,
    answer_key,
    answers,
    events,
)
from services.sse import SseReader
from services.upstream import Timeouts, Transport

_ANSWERS = answers()
_EVENTS = events()
_TIMEOUTS = Timeouts()
_HEADERS = {"content-type": "application/json", "accept": "application/json"}


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Reads a request and answers it; a stream one event a message."""
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    path = scope["path"].encode()
    if path == CHAT.encode() and b'"stream":true' in body:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for event in _EVENTS:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    answer = _ANSWERS[answer_key(path, body)]
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(answer)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


class Handlers(grpc.GenericRpcHandler):
    """gRPC methods that call the upstream."""

    def __init__(self, upstream: str, transport: Transport) -> None:
        self._upstream, self._transport = upstream, transport
        self._requests = {
            operation.wire: operation
            for operation in (UNARY, STREAM, EMBED_1, EMBED_32, RERANK_100)
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method."""
        if handler_call_details.method.endswith("/StreamChat"):
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    def _ask(self, operation: Operation) -> Any:
        url = self._upstream + operation.path
        return self._transport.request("POST", url, _HEADERS, operation.request, _TIMEOUTS)

    async def _unary(self, request: bytes, context: Any) -> bytes:
        async with self._ask(self._requests[request]) as response:
            answer: bytes = await response.read()
            return answer

    async def _stream(self, request: bytes, context: Any) -> None:
        reader = SseReader()
        async with self._ask(self._requests[request]) as response:
            async for data in response.chunks():
                for event in reader.feed(data):
                    await context.write(event.data)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(upstream: str) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    config: Any = uvicorn.Config(
        application, lifespan="off", ws="none", log_config=None, access_log=False
    )
    rest = _Server(config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    running = asyncio.create_task(rest.serve(sockets=[listener]))
    transport = Transport()
    grpc_server = grpc.aio.server()
    grpc_server.add_generic_rpc_handlers((Handlers(upstream, transport),))
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    print(listener.getsockname()[1], port, flush=True)
    await ended.wait()
    await grpc_server.stop(0)
    rest.should_exit = True
    await running
    await transport.aclose()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
