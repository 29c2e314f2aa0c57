"""HTTP/1.1 as a strict server reads it: what was received, and the parser of its body.

Sans-IO: fed with a byte buffer from which it takes what it understands. A request that a
lenient server would repair is Malformed here. It knows nothing of routes and replies.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.lib import form

MAX_HEAD = 65536

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/1\.([01])")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)


class Malformed(ValueError):
    """The bytes are not a well-formed HTTP/1.1 request."""


@dataclass(frozen=True)
class BodyPart:
    """Bytes of a request body that arrived together. `at` is in time.monotonic() seconds."""

    data: bytes
    size: int
    at: float


@dataclass(eq=False)
class Received:
    """One request, from its head on; it grows while the body arrives.

    Times are in time.monotonic() seconds. `disconnected` is set as soon as the peer closes or
    resets the connection while this exchange is under way (until the last byte of the answer
    has been taken by the kernel); `complete` when the whole body is here; `answered` when the
    whole answer is sent. `sent` counts bytes of the answer's body so far.
    """

    method: str
    target: str
    version: str
    raw_headers: Sequence[tuple[str, str]]
    connection: int
    keep_body: bool = True
    arrived_at: float = field(default_factory=time.monotonic)
    body_parts: list[BodyPart] = field(default_factory=list)
    body_size: int = 0
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    complete_at: float | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    answered_at: float | None = None
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected_at: float | None = None
    sent: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def path(self) -> str:
        """The path, decoded, without the query."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> str:
        """The query as sent, without the question mark."""
        return urlsplit(self.target).query

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; repeated ones joined by a comma."""
        joined: dict[str, str] = {}
        for name, value in self.raw_headers:
            name = name.lower()
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return joined

    @property
    def body(self) -> bytes:
        """The body so far, without its framing; empty if bodies are not kept."""
        return b"".join(part.data for part in self.body_parts)

    @property
    def body_sha256(self) -> str:
        """Hex digest of the body so far, also when bodies are not kept."""
        return str(self._digest.hexdigest())

    def json(self) -> Any:
        """The body parsed as JSON, integers exact."""
        return json.loads(self.body)

    def form(self) -> list[form.Part]:
        """The parts of a multipart body, read strictly (raises form.FormError)."""
        return form.parse(self.headers.get("content-type", ""), self.body)

    def form_values(self, name: str) -> list[str]:
        """The texts of a form's members of that name; `name` stands for `name[]` too."""
        return [part.text for part in self.form() if part.plain_name == name]

    def wants_close(self) -> bool:
        """Whether the peer ends the connection after this exchange."""
        tokens = {t.strip().lower() for t in self.headers.get("connection", "").split(",")}
        return "close" in tokens or (self.version == "1.0" and "keep-alive" not in tokens)

    def add(self, data: bytes) -> None:
        """Appends arrived bytes of the body."""
        self._digest.update(data)
        self.body_size += len(data)
        kept = data if self.keep_body else b""
        self.body_parts.append(BodyPart(kept, len(data), time.monotonic()))

    def __repr__(self) -> str:
        return f"<{self.method} {self.target}, {self.body_size} bytes>"


def parse_head(head: bytes, connection: int, keep_body: bool) -> Received:
    """The request of a head (without its empty line); raises Malformed."""
    line, *lines = head.split(b"\r\n")
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise Malformed(f"not a request line: {line[:100]!r}")
    headers = [_header(line) for line in lines]
    received = Received(
        method=matched[1].decode(),
        target=matched[2].decode("latin-1"),
        version=f"1.{matched[3].decode()}",
        raw_headers=headers,
        connection=connection,
        keep_body=keep_body,
    )
    hosts = sum(name.lower() == "host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and received.version == "1.1"):
        raise Malformed(f"{hosts} host headers")
    return received


def _header(line: bytes) -> tuple[str, str]:
    matched = _HEADER_LINE.fullmatch(line)
    if matched is None or b"\n" in line or b"\r" in line or b"\x00" in line:
        raise Malformed(f"not a header line: {line[:100]!r}")
    return matched[1].decode(), matched[2].decode("latin-1")


class BodyReader:
    """Takes a request's body out of a buffer, by content-length or chunk by chunk."""

    def __init__(self, received: Received) -> None:
        self._received = received
        headers = received.headers
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        self._chunked = coding is not None
        if coding is not None and (coding.lower() != "chunked" or length is not None):
            raise Malformed(f"transfer-encoding {coding!r} with content-length {length!r}")
        if length is not None and not length.isdecimal():
            raise Malformed(f"content-length {length!r}")
        self._left = int(length or 0)
        self._state = "size" if self._chunked else "data"
        if not self._chunked and not self._left:
            self._finish()

    def take(self, buffer: bytearray) -> bool:
        """Moves what is there into the request; True if anything was understood."""
        size = len(buffer)
        while not self._received.complete.is_set() and self._step(buffer):
            pass
        return len(buffer) != size or self._received.complete.is_set()

    def _step(self, buffer: bytearray) -> bool:
        match self._state:
            case "data":
                return self._data(buffer)
            case "size":
                return self._size(buffer)
            case "end":
                return self._chunk_end(buffer)
            case _:
                return self._trailer(buffer)

    def _data(self, buffer: bytearray) -> bool:
        piece = bytes(buffer[: self._left])
        if not piece:
            return False
        del buffer[: len(piece)]
        self._left -= len(piece)
        self._received.add(piece)
        if not self._left:
            if self._chunked:
                self._state = "end"
            else:
                self._finish()
        return True

    def _size(self, buffer: bytearray) -> bool:
        line = _line(buffer)
        if line is None:
            return False
        digits = line.split(b";")[0].strip()
        if re.fullmatch(rb"[0-9A-Fa-f]{1,16}", digits) is None:
            raise Malformed(f"not a chunk size: {line[:100]!r}")
        self._left = int(digits, 16)
        self._state = "data" if self._left else "trailers"
        return True

    def _chunk_end(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:
            return False
        if buffer[:2] != b"\r\n":
            raise Malformed(f"no line end after a chunk: {bytes(buffer[:20])!r}")
        del buffer[:2]
        self._state = "size"
        return True

    def _trailer(self, buffer: bytearray) -> bool:
        line = _line(buffer)
        if line is None:
            return False
        if line:
            self._received.trailers.append(_header(line))
        else:
            self._finish()
        return True

    def _finish(self) -> None:
        self._received.complete_at = time.monotonic()
        self._received.complete.set()


def _line(buffer: bytearray) -> bytes | None:
    end = buffer.find(b"\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD:
            raise Malformed("a line without an end")
        return None
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line
