"""One connection of the fake upstream: request after request, and the responder of each.

The responder frames and counts what it writes and acts at set offsets (gates); what a reply
does with it is the business of replies.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from tests.fakes.http1 import MAX_HEAD, BodyReader, Malformed, Received, parse_head
from tests.fakes.wire import Gone, How, Wire

if TYPE_CHECKING:
    from tests.fakes.upstream import FakeUpstream

Framing = Literal["length", "chunked", "close"]
Headers = Mapping[str, str] | Iterable[tuple[str, str]] | None
Reply = Callable[[Received, "Responder"], Awaitable[None]]

_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_SLICE = 65536
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def pairs_of(headers: Headers) -> list[tuple[str, str]]:
    """Headers as (name, value) pairs in order."""
    return list(headers.items() if isinstance(headers, Mapping) else headers or ())


@dataclass
class _Gate:
    of: Literal["body", "wire"]
    after: int
    action: Callable[[], Awaitable[None]]


class Responder:
    """Writes one answer; every method raises Gone once the connection is no more."""

    def __init__(self, connection: Connection, received: Received) -> None:
        self.received = received
        self.keep_alive = not received.wants_close()
        self.started = False
        self._connection = connection
        self._wire = connection.wire
        self._body = BodyReader(received)
        self._continued = received.headers.get("expect", "").lower() != "100-continue"
        self._framing: Framing | None = None
        self._gates: list[_Gate] = []
        self._sent = {"body": 0, "wire": 0}

    async def respond(self, status: int, headers: Headers = None, body: bytes = b"") -> None:
        """A whole answer with its content-length, in one write."""
        head = self._head(status, headers, "length", len(body))
        bodiless = status in _BODILESS or self.received.method == "HEAD"
        await self._emit([(head, False), (b"" if bodiless else body, True)])
        await self.end()

    async def start(
        self,
        status: int = 200,
        headers: Headers = None,
        *,
        framing: Framing = "chunked",
        length: int | None = None,
    ) -> None:
        """The head alone; write() and end() follow. `length` is announced as it is, true or not."""
        await self._emit([(self._head(status, headers, framing, length), False)])

    async def write(self, data: bytes) -> None:
        """Bytes of the body: one chunk if chunked. Empty data writes nothing."""
        if not data:
            return
        if self._framing == "chunked":
            size = f"{len(data):x}\r\n".encode()
            await self._emit([(size, False), (data, True), (b"\r\n", False)])
        else:
            await self._emit([(data, True)])

    async def end(self) -> None:
        """Ends the body; further calls do nothing."""
        if self.received.answered.is_set():
            return
        await self._pass_gates()
        if self._framing == "chunked":
            await self._emit([(b"0\r\n\r\n", False)])
        if self._gates:
            missed = ", ".join(f"{gate.of} byte {gate.after}" for gate in self._gates)
            raise AssertionError(f"the answer ended before {missed}")
        self.received.answered_at = time.monotonic()
        self.received.answered.set()
        self._connection.notify()
        if self._framing == "close":
            await self.close()

    async def raw(self, data: bytes) -> None:
        """Bytes on the wire as they are, in place of a framed answer."""
        self.started = True
        await self._emit([(data, True)])

    async def close(self, how: How = "fin") -> None:
        """Closes ("fin") or resets ("rst") the connection; what was written still arrives."""
        self.keep_alive = False
        await self._wire.close(how)

    async def read_body(self, upto: int | None = None) -> None:
        """Reads the request's body to its end, or until `upto` bytes of it are here."""
        received, wire = self.received, self._wire
        while not received.complete.is_set() and (upto is None or received.body_size < upto):
            if not self._continued:
                self._continued = True
                await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            if self._body.take(wire.inbox):
                self._connection.notify()
            else:
                wire.resume()
                await self._connection.more()

    def stop_reading(self) -> None:
        """Leaves the rest of the request in the kernel until read_body() is called again."""
        self._wire.pause()

    async def until_disconnected(self) -> None:
        """Waits for the peer to go; the exchange ends with it, so this never returns."""
        await asyncio.get_running_loop().create_future()

    def gate(
        self, of: Literal["body", "wire"], after: int, action: Callable[[], Awaitable[None]]
    ) -> None:
        """Awaits `action` when exactly `after` bytes of the body, or of all, have been sent."""
        self._gates.append(_Gate(of, after, action))

    def _head(self, status: int, headers: Headers, framing: Framing, length: int | None) -> bytes:
        if self.started:
            raise AssertionError("the answer has begun already")
        self.started = True
        self._framing = framing
        if framing == "close":
            self.keep_alive = False
        pairs = pairs_of(headers)
        if framing == "chunked":
            pairs.append(("transfer-encoding", "chunked"))
        elif framing == "length" and status not in _BODILESS:
            pairs.append(("content-length", str(length or 0)))
        if not self.keep_alive:
            pairs.append(("connection", "close"))
        elif self.received.version == "1.0":
            pairs.append(("connection", "keep-alive"))
        lines = [f"HTTP/1.1 {status} {_reason(status)}", *(f"{n}: {v}" for n, v in pairs)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _emit(self, segments: list[tuple[bytes, bool]]) -> None:
        if not self._gates:
            data = b"".join(segment for segment, _ in segments)
            if len(data) <= _SLICE:
                await self._send(data, sum(len(s) for s, is_body in segments if is_body))
                return
        for segment, is_body in segments:
            view = memoryview(segment)
            while view:
                room = min([_SLICE, *(self._room(gate, is_body) for gate in self._gates)])
                await self._send(view[:room], len(view[:room]) if is_body else 0)
                view = view[room:]
                await self._pass_gates()

    async def _send(self, data: bytes | memoryview, of_body: int) -> None:
        if data:
            await self._wire.send(data)
        self._sent["wire"] += len(data)
        self._sent["body"] += of_body
        self.received.sent = self._sent["body"]

    def _room(self, gate: _Gate, is_body: bool) -> int:
        if gate.of == "body" and not is_body:
            return _SLICE
        return gate.after - self._sent[gate.of]

    async def _pass_gates(self) -> None:
        for gate in list(self._gates):
            if gate.after <= self._sent[gate.of] and (gate.of == "wire" or self.started):
                self._gates.remove(gate)
                await gate.action()
                if self._wire.closed:
                    raise Gone("closed on our side")


class Connection:
    """Serves one accepted connection until either side ends it."""

    def __init__(self, upstream: FakeUpstream, number: int) -> None:
        self.number = number
        self.closed_by_peer = False
        self.wire: Wire
        self.task: asyncio.Task[None]
        self._upstream = upstream
        self._data = asyncio.Event()
        self._received: Received | None = None

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self._received is None and not self.wire.inbox

    def notify(self) -> None:
        """Wakes whoever waits for something to have happened at the upstream."""
        self._upstream.notify()

    async def more(self) -> None:
        """Waits until more bytes are in the wire's inbox; raises Gone if none will come."""
        if self.wire.gone or self.wire.closed:
            raise Gone("the peer has closed")
        self._data.clear()
        await self._data.wait()

    def on_data(self) -> None:
        self._data.set()

    def on_gone(self) -> None:
        if not self.wire.closed:
            self.closed_by_peer = True
        self._data.set()
        if self._received is not None:
            self._disconnected(self._received)
            self.task.cancel()

    async def run(self) -> None:
        """Request after request."""
        try:
            while await self._exchange():
                pass
            await self.wire.close()
        except Gone:
            return  # an ordinary end: the request, if there is one, has been told
        except Malformed as error:
            self._upstream.failures.append(error)
            with contextlib.suppress(Gone):
                await self.wire.send(_BAD_REQUEST)
            await self.wire.close()
        finally:
            self.wire.release()

    async def _exchange(self) -> bool:
        received = await self._request()
        self._received = received
        self._upstream.arrived(received)
        if self.wire.gone:
            self._disconnected(received)
            return False
        reply = self._upstream.reply_for(received)
        responder = Responder(self, received)
        try:
            if getattr(reply, "early", False):
                responder.stop_reading()
            else:
                await responder.read_body()
            await self._answer(reply, received, responder)
        finally:
            self._received = None
            self.wire.resume()
        return responder.keep_alive and received.complete.is_set() and not self.wire.closed

    async def _answer(self, reply: Reply, received: Received, responder: Responder) -> None:
        try:
            await reply(received, responder)
            if responder.started and not self.wire.closed:
                await responder.end()
            elif not self.wire.closed:
                raise AssertionError(f"the reply to {received} wrote nothing")
        except (Gone, Malformed):
            raise
        except Exception as error:
            self._upstream.failures.append(error)
            responder.keep_alive = False
            if not responder.started and not self.wire.closed:
                body = json.dumps({"error": {"message": repr(error)}}).encode()
                await responder.respond(500, {"content-type": "application/json"}, body)

    async def _request(self) -> Received:
        inbox = self.wire.inbox
        while (end := inbox.find(b"\r\n\r\n")) < 0:
            if len(inbox) > MAX_HEAD:
                raise Malformed("a head without an end")
            await self.more()
        head = bytes(inbox[:end])
        del inbox[: end + 4]
        return parse_head(head, self.number, self._upstream.keep_bodies)

    def _disconnected(self, received: Received) -> None:
        if not received.answered.is_set():
            received.disconnected_at = time.monotonic()
            received.disconnected.set()
            self.notify()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
