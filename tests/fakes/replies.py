"""What the fake upstream answers: small objects that compose, good behaviour and bad.

A reply is any `async (received, responder) -> None`; one with a true attribute `early` is
called before the request's body has been read. Offsets count bytes of the answer's body as
the client sees it (without chunk framing) unless a reply says "wire".
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tests.fakes.connection import Framing, Headers, Reply, Responder, pairs_of
from tests.fakes.http1 import Received
from tests.fakes.wire import How
from tests.lib import recordings

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
DONE = "[DONE]"

Chunking = int | Iterable[int] | None


def compact(value: Any) -> bytes:
    """JSON text without spaces, as most servers print it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def split(data: bytes, chunking: Chunking) -> list[bytes]:
    """The pieces of `data`: every n bytes, or cut at the given offsets; None = one piece."""
    if chunking is None:
        return [data] if data else []
    offsets = range(chunking, len(data), chunking) if isinstance(chunking, int) else chunking
    cuts = [0, *sorted(offsets), len(data)]
    return [piece for a, b in pairwise(cuts) if (piece := data[a:b])]


@dataclass(frozen=True)
class Raw:
    """Bytes of any type. `chunking` = bytes per write or offsets, `delay` = seconds between."""

    body: bytes = b""
    content_type: str | None = "application/octet-stream"
    status: int = 200
    headers: Headers = None
    framing: Framing = "length"
    chunking: Chunking = None
    delay: float = 0.0

    async def __call__(self, received: Received, responder: Responder) -> None:
        headers = _with_type(self.headers, self.content_type)
        if self.framing == "length" and self.chunking is None:
            await responder.respond(self.status, headers, self.body)
            return
        await responder.start(self.status, headers, framing=self.framing, length=len(self.body))
        await _paced(responder, split(self.body, self.chunking), self.delay)


class Json(Raw):
    """A JSON value, or JSON text given as bytes."""

    def __init__(
        self,
        value: Any,
        status: int = 200,
        headers: Headers = None,
        *,
        framing: Framing = "length",
        chunking: Chunking = None,
        delay: float = 0.0,
    ) -> None:
        body = value if isinstance(value, bytes) else compact(value)
        super().__init__(body, JSON, status, headers, framing, chunking, delay)


@dataclass(frozen=True)
class Sse:
    """An event stream: recorded bytes as they are, or items, each of which becomes one event.

    An item is a JSON value, text (the data as it is) or bytes (wire text of any kind, for
    example a comment). Items may come from an endless iterator: they are taken as they are
    sent. `done` adds `data: [DONE]` after items. One write per event unless `chunking` says
    otherwise (recorded bytes only); `delay` seconds between writes.
    """

    source: bytes | Iterable[Any]
    delay: float = 0.0
    chunking: Chunking = None
    done: bool = True
    status: int = 200
    headers: Headers = None
    framing: Framing = "chunked"

    async def __call__(self, received: Received, responder: Responder) -> None:
        headers = _with_type(self.headers, EVENTS)
        length = len(self.source) if isinstance(self.source, bytes) else None
        await responder.start(self.status, headers, framing=self.framing, length=length)
        await _paced(responder, self._pieces(), self.delay)

    def _pieces(self) -> Iterable[bytes]:
        if not isinstance(self.source, bytes):
            return self._items(self.source)
        if self.chunking is None:
            return [block + b"\n\n" for block in self.source.split(b"\n\n") if block.strip(b"\n")]
        return split(self.source, self.chunking)

    def _items(self, items: Iterable[Any]) -> Iterator[bytes]:
        for item in items:
            yield item if isinstance(item, bytes) else event(item)
        if self.done:
            yield event(DONE)


def event(data: Any) -> bytes:
    """One `data:` event of text or of a JSON value."""
    return b"data: " + (data.encode() if isinstance(data, str) else compact(data)) + b"\n\n"


def Record(file: str, status: int | None = None, headers: Headers = None, **how: Any) -> Reply:
    """The recorded answer of that file: JSON, text or stream, with its status.

    `how` holds `chunking`, `delay` and `framing`.
    """
    recording = recordings.get(file)
    if recording.direction == "request":
        raise ValueError(f"{file} is a request, not an answer")
    status = recording.http_status if status is None else status
    if recording.mode == "sse":
        return Sse(recording.bytes, status=status, headers=headers, **how)
    if recording.mode == "text":
        media_type, text = recording.text_body()
        return Raw(text.encode(), media_type, status, headers, **how)
    return Raw(recording.bytes, JSON, status, headers, **how)


class Sequence:
    """One reply after another; the last one repeats. `taken` counts."""

    def __init__(self, replies: Iterable[Reply]) -> None:
        self._replies = list(replies)
        self.taken = 0

    def next(self) -> Reply:
        """The reply whose turn it is."""
        reply = self._replies[min(self.taken, len(self._replies) - 1)]
        self.taken += 1
        return reply.next() if isinstance(reply, Sequence) else reply

    async def __call__(self, received: Received, responder: Responder) -> None:
        await self.next()(received, responder)


class Echo:
    """JSON that says what was received: method, path, query, headers, body.

    `body` is the parsed JSON, else text under `text`, else base64 under `base64`.
    """

    async def __call__(self, received: Received, responder: Responder) -> None:
        told: dict[str, Any] = {
            "method": received.method,
            "path": received.path,
            "query": received.query,
            "headers": received.headers,
        }
        try:
            told["body"] = received.json()
        except ValueError:
            try:
                told["text"] = received.body.decode()
            except UnicodeDecodeError:
                told["base64"] = base64.b64encode(received.body).decode()
        await Json(told)(received, responder)


class EchoBody:
    """The received body, byte for byte, under its own content type."""

    async def __call__(self, received: Received, responder: Responder) -> None:
        await Raw(received.body, received.headers.get("content-type"))(received, responder)


class _Around:
    """A reply around another one; it is early if the inner one is."""

    def __init__(self, inner: Reply) -> None:
        self.inner = inner

    @property
    def early(self) -> bool:
        return bool(getattr(self.inner, "early", False))


class Stall(_Around):
    """Stops answering and waits for the peer to go, or until `until` is set, and goes on then.

    `stage`: "headers" sends nothing (or `after` bytes on the wire), "first_byte" the head
    alone, "mid" the head and `after` bytes of the body of `inner`.
    """

    def __init__(
        self,
        stage: Literal["headers", "first_byte", "mid"] = "headers",
        inner: Reply | None = None,
        after: int = 0,
        until: asyncio.Event | None = None,
    ) -> None:
        super().__init__(inner or Record("chat/openai-usage-stream.sse"))
        self.stage, self.after, self.until = stage, after, until

    async def __call__(self, received: Received, responder: Responder) -> None:
        async def wait() -> None:
            await (self.until.wait() if self.until else responder.until_disconnected())

        responder.gate("wire" if self.stage == "headers" else "body", self.after, wait)
        await self.inner(received, responder)


class Cut(_Around):
    """Ends the connection after `after` bytes of the inner answer, by FIN or by RST.

    It never ends the answer in order: `after` = the whole body leaves out the last chunk. With
    of="wire" the head counts too.
    """

    def __init__(
        self,
        inner: Reply,
        after: int = 0,
        how: How = "fin",
        of: Literal["body", "wire"] = "body",
    ) -> None:
        super().__init__(inner)
        self.after, self.how, self.of = after, how, of

    async def __call__(self, received: Received, responder: Responder) -> None:
        responder.gate(self.of, self.after, lambda: responder.close(self.how))
        await self.inner(received, responder)


@dataclass(frozen=True)
class CloseConnection:
    """Ends the connection without a byte of answer."""

    how: How = "fin"

    async def __call__(self, received: Received, responder: Responder) -> None:
        await responder.close(self.how)


@dataclass(frozen=True)
class WrongLength:
    """Announces a content-length that is `by` bytes more (or less) than the body sent.

    With more, the connection then closes; with less, the surplus follows on a connection that
    stays open, in the place of the next answer.
    """

    body: bytes
    by: int
    content_type: str = JSON
    status: int = 200

    async def __call__(self, received: Received, responder: Responder) -> None:
        announced = len(self.body) + self.by
        headers = {"content-type": self.content_type}
        await responder.start(self.status, headers, framing="length", length=announced)
        await responder.write(self.body)
        if self.by > 0:
            await responder.close()


class EarlyAnswer:
    """Answers when it has seen the head, before it has read the request's body.

    `then`: "read" reads the body afterwards and keeps the connection, "close" closes at once
    over the unread bytes, "ignore" neither reads nor closes.
    """

    early = True

    def __init__(self, inner: Reply, then: Literal["read", "close", "ignore"] = "read") -> None:
        self.inner, self.then = inner, then

    async def __call__(self, received: Received, responder: Responder) -> None:
        if self.then == "close":
            responder.keep_alive = False
        await self.inner(received, responder)
        await responder.end()
        match self.then:
            case "read":
                await responder.read_body()
            case "close":
                await responder.close()
            case "ignore":
                await responder.until_disconnected()


class HoldBody:
    """Reads `after` bytes of the request's body, then nothing until `until` is set.

    What the sender can get rid of meanwhile is the socket buffers (`receive_buffer` of the
    upstream keeps ours small).
    """

    early = True

    def __init__(self, inner: Reply, until: asyncio.Event, after: int = 0) -> None:
        self.inner, self.until, self.after = inner, until, after

    async def __call__(self, received: Received, responder: Responder) -> None:
        await responder.read_body(upto=self.after)
        responder.stop_reading()
        await self.until.wait()
        await responder.read_body()
        await self.inner(received, responder)


class DelayedUntil(_Around):
    """Answers when `event` is set."""

    def __init__(self, event: asyncio.Event, inner: Reply) -> None:
        super().__init__(inner)
        self.event = event

    async def __call__(self, received: Received, responder: Responder) -> None:
        await self.event.wait()
        await self.inner(received, responder)


class Delayed(_Around):
    """Answers `seconds` late."""

    def __init__(self, inner: Reply, seconds: float) -> None:
        super().__init__(inner)
        self.seconds = seconds

    async def __call__(self, received: Received, responder: Responder) -> None:
        await asyncio.sleep(self.seconds)
        await self.inner(received, responder)


async def _paced(responder: Responder, pieces: Iterable[bytes], delay: float) -> None:
    for index, piece in enumerate(pieces):
        # With no delay this still lets others run: the kernel may take all we have.
        await asyncio.sleep(delay if index else 0)
        await responder.write(piece)


def _with_type(headers: Headers, content_type: str | None) -> list[tuple[str, str]]:
    pairs = pairs_of(headers)
    named = any(name.lower() == "content-type" for name, _ in pairs)
    return pairs if named or content_type is None else [("content-type", content_type), *pairs]
