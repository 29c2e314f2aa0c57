"""A programmable HTTP/1.1 upstream on 127.0.0.1 that misbehaves on demand, in our own loop.

    async with FakeUpstream() as up:
        up.on("POST", "/v1/chat/completions", Record("chat/openai-text-response.json"))

What it received is in `up.requests`. A fault of a reply, or malformed HTTP, fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Self

from tests.fakes.connection import Connection, Reply, Responder
from tests.fakes.http1 import BodyPart, Malformed, Received
from tests.fakes.replies import (
    DONE,
    CloseConnection,
    Cut,
    Delayed,
    DelayedUntil,
    EarlyAnswer,
    Echo,
    EchoBody,
    HoldBody,
    Json,
    Raw,
    Record,
    Sequence,
    Sse,
    Stall,
    WrongLength,
    compact,
    event,
)
from tests.fakes.wire import Gone, How, TlsWire, Wire

__all__ = [
    "DONE",
    "BodyPart",
    "CloseConnection",
    "Connections",
    "Cut",
    "Delayed",
    "DelayedUntil",
    "EarlyAnswer",
    "Echo",
    "EchoBody",
    "FakeUpstream",
    "Gone",
    "HoldBody",
    "Json",
    "Malformed",
    "Raw",
    "Received",
    "Record",
    "Reply",
    "Responder",
    "Sequence",
    "Sse",
    "Stall",
    "WrongLength",
    "compact",
    "event",
]


class Connections:
    """Counts of connections: open now, most at once, ever, and ended by the peer first."""

    def __init__(self) -> None:
        self.open = 0
        self.peak = 0
        self.total = 0
        self.closed_by_peer = 0


async def _unknown_path(received: Received, responder: Responder) -> None:
    error = {
        "message": f"Unknown request URL: {received.method} {received.path}.",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }
    await Json({"error": error}, 404)(received, responder)


class FakeUpstream:
    """The server. `keep_bodies=False` only counts and hashes request bodies (big uploads).

    `send_buffer` and `receive_buffer` are sizes of the kernel's buffers in bytes, for tests of
    back-pressure; `tls` is a server's context.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        keep_bodies: bool = True,
        send_buffer: int | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.connections = Connections()
        self.failures: list[BaseException] = []
        self.default: Reply = _unknown_path
        self.keep_bodies = keep_bodies
        self.host = "127.0.0.1"
        self.port = port
        self._tls = tls
        self._buffers = {socket.SO_SNDBUF: send_buffer, socket.SO_RCVBUF: receive_buffer}
        self._routes: dict[tuple[str, str], Reply] = {}
        self._listener: socket.socket | None = None
        self._live: set[Connection] = set()
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def busy(self) -> int:
        """Open connections that are not between two requests."""
        return sum(not one.idle for one in self._live)

    def on(self, method: str, path: str, reply: Reply) -> Self:
        """Answers `method path` with `reply` from now on.

        A path that ends in `*` takes every path with that beginning (the longest wins); the
        method `*` takes every method.
        """
        self._routes[method.upper(), path] = reply
        return self

    def forget(self) -> None:
        """Forgets the requests received so far; routes and connections stay."""
        self.requests.clear()

    async def until(self, condition: Callable[[], bool], within: float = 10.0) -> None:
        """Waits until the condition on this upstream holds; raises TimeoutError after
        `within` seconds."""
        async with asyncio.timeout(within):
            while not condition():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)

    async def received(self, count: int = 1, within: float = 10.0) -> Received:
        """Waits until `count` requests have arrived (their heads) and returns that last one."""
        await self.until(lambda: len(self.requests) >= count, within)
        return self.requests[count - 1]

    async def drop(self, how: How = "fin", *, only_idle: bool = False) -> int:
        """Ends the open connections, as a server that restarts does; returns how many."""
        chosen = [one for one in self._live if one.idle or not only_idle]
        for connection in chosen:
            await connection.wire.close(how)
            connection.task.cancel()
        await asyncio.gather(*(one.task for one in chosen), return_exceptions=True)
        return len(chosen)

    async def stop_listening(self, how: How = "fin") -> None:
        """Refuses new connections and drops the open ones, like a dead process."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self.drop(how)

    async def listen(self) -> None:
        """Takes connections, on the same port as before if there was one."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option, size in self._buffers.items():
            if size is not None:
                listener.setsockopt(socket.SOL_SOCKET, option, size)
        listener.setblocking(False)
        listener.bind((self.host, self.port))
        listener.listen(1024)
        self.port = listener.getsockname()[1]
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        await self.stop_listening()
        if self.failures and error is None:
            raise self.failures[0]
        for failure in self.failures:
            assert error is not None
            error.add_note(f"and the fake upstream met {failure!r}")

    # For the connections.

    def reply_for(self, received: Received) -> Reply:
        """The reply that the routes name for a request."""
        reply = self._route(received.method, received.path)
        return reply.next() if isinstance(reply, Sequence) else reply

    def arrived(self, received: Received) -> None:
        """Notes a request whose head is here."""
        self.requests.append(received)
        self.notify()

    def notify(self) -> None:
        """Wakes everybody in until()."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _route(self, method: str, path: str) -> Reply:
        for key in ((method, path), ("*", path)):
            if key in self._routes:
                return self._routes[key]
        matching = [
            (len(pattern), verb != "*", reply)
            for (verb, pattern), reply in self._routes.items()
            if verb in (method, "*") and pattern.endswith("*") and path.startswith(pattern[:-1])
        ]
        return max(matching, key=lambda found: found[:2])[2] if matching else self.default

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        counts = self.connections
        counts.total += 1
        counts.open += 1
        counts.peak = max(counts.peak, counts.open)
        connection = Connection(self, counts.total)
        if self._tls is None:
            connection.wire = Wire(sock, connection.on_data, connection.on_gone)
        else:
            connection.wire = TlsWire(sock, connection.on_data, connection.on_gone, self._tls)
        connection.task = asyncio.get_running_loop().create_task(connection.run())
        self._live.add(connection)
        connection.task.add_done_callback(lambda task: self._ended(connection, task))
        self.notify()

    def _ended(self, connection: Connection, task: asyncio.Task[None]) -> None:
        connection.wire.release()  # a task that was cancelled before its first step
        self._live.discard(connection)
        self.connections.open -= 1
        self.connections.closed_by_peer += connection.closed_by_peer
        with contextlib.suppress(asyncio.CancelledError):
            error = task.exception()
            if error is not None:
                self.failures.append(error)
        self.notify()
