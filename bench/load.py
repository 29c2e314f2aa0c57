"""Callers that cost little: REST over plain sockets, gRPC through grpc.aio.

What they spend is not counted, but a server that waits for them looks dearer than it is: each
caller sends its next request as soon as its answer is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import grpc

from bench.operations import KEY, Operation

CALLERS: Final = 64
"""Requests that are under way at once."""

_CHANNELS: Final = 4
_LIMITS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
]
_METADATA: Final = (("authorization", f"Bearer {KEY}"),)


def http_request(operation: Operation) -> bytes:
    """A request as it goes over the wire."""
    return (
        b"POST %b HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (operation.path.encode(), KEY.encode(), len(operation.request), operation.request)
    )


class RestCaller(asyncio.Protocol):
    """One connection, on which one request follows another until `left` is used up."""

    def __init__(self, request: bytes, status: bytes, left: list[int]) -> None:
        self._request, self._status, self._left = request, b"HTTP/1.1 " + status, left
        self._size = -1  # of the whole answer; -1: not known, 0: it comes in chunks
        self._came = 0
        self._tail = b""
        self._head = b""
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._next()

    def data_received(self, data: bytes) -> None:
        if self._size < 0:
            self._head += data
            head, blank, _ = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            data, self._head = self._head, b""
            if not head.startswith(self._status):
                self._fail(head[:200] + data[-300:])
                return
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].partition(b"\r\n")[0]) if at >= 0 else 0
            self._size = len(head) + 4 + length if at >= 0 else 0
            if not self.first.done():
                self.first.set_result(None)
        self._came += len(data)
        if self._size:
            if self._came >= self._size:
                self._next()
        else:
            self._tail = data[-5:] if len(data) >= 5 else (self._tail + data)[-5:]
            if self._tail == b"0\r\n\r\n":
                self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._fail(b"the connection was closed")

    def _next(self) -> None:
        if not self._left[0]:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._left[0] -= 1
        self._size, self._came, self._tail = -1, 0, b""
        self.transport.write(self._request)

    def _fail(self, why: bytes) -> None:
        for waiting in (self.first, self.done):
            if not waiting.done():
                waiting.set_exception(RuntimeError(f"not the answer expected: {why!r}"))
                waiting.exception()  # perhaps only one of them is awaited
        self.transport.abort()


async def rest(
    port: int, operation: Operation, calls: int, *, callers: int = CALLERS, status: bytes = b"200"
) -> None:
    """So many calls, each answered with that status. Raises RuntimeError."""
    loop, left = asyncio.get_running_loop(), [calls]
    request = http_request(operation)
    made = [
        await loop.create_connection(lambda: RestCaller(request, status, left), "127.0.0.1", port)
        for _ in range(min(callers, calls))
    ]
    try:
        await asyncio.gather(*(caller.done for _, caller in made))
    finally:
        for transport, _ in made:
            transport.abort()


@asynccontextmanager
async def rest_streams(port: int, operation: Operation, count: int) -> AsyncIterator[None]:
    """Streams that have begun, held open."""
    loop, request = asyncio.get_running_loop(), http_request(operation)
    made = []
    try:
        for _ in range(count):
            transport, caller = await loop.create_connection(
                lambda: RestCaller(request, b"200", [1]), "127.0.0.1", port
            )
            made.append(transport)
            await caller.first
        yield
    finally:
        for transport in made:
            transport.abort()


@asynccontextmanager
async def _channels(port: int) -> AsyncIterator[list[Any]]:
    made = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_LIMITS) for _ in range(_CHANNELS)
    ]
    try:
        yield made
    finally:
        for channel in made:
            await channel.close()


async def rpc(port: int, operation: Operation, calls: int, *, callers: int = CALLERS) -> None:
    """So many calls. Raises grpc.aio.AioRpcError."""
    path, wire, left = f"/tetrad.v1.{operation.rpc}", operation.wire, [calls]
    streamed = operation.parts > 1

    async def caller(channel: Any) -> None:
        make = channel.unary_stream(path) if streamed else channel.unary_unary(path)
        while left[0]:
            left[0] -= 1
            call = make(wire, metadata=_METADATA)
            if streamed:
                while await call.read() is not grpc.aio.EOF:
                    pass
            else:
                await call

    async with _channels(port) as channels:
        count = min(callers, calls)
        await asyncio.gather(*(caller(channels[n % len(channels)]) for n in range(count)))


@asynccontextmanager
async def rpc_streams(port: int, operation: Operation, count: int) -> AsyncIterator[None]:
    """Streams that have begun, held open."""
    path, wire = f"/tetrad.v1.{operation.rpc}", operation.wire
    async with _channels(port) as channels:
        calls = []
        try:
            for number in range(count):
                channel = channels[number % len(channels)]
                call = channel.unary_stream(path)(wire, metadata=_METADATA)
                calls.append(call)
                await call.read()
            yield
        finally:
            for call in calls:
                call.cancel()
