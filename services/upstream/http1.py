"""HTTP/1.1 as bytes, without a socket: heads of requests written, answers read.

Sans-IO: it is fed what arrived and says how far the answer has come. What is no HTTP, or more of
it than an answer needs, is `Malformed`. Knows neither time nor connections nor errors of callers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import httptools

MAX_HEAD: Final = 64 * 1024
"""Bytes of an answer that may come in a row without a byte of its body: the head, interim answers,
the frames of chunks, trailers."""

FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "host"})
"""Headers that say where messages end and begin; ours alone."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Malformed(Exception):
    """What came is not HTTP/1.1, or is not what was asked for."""


class Unsendable(Exception):
    """What was to be sent does not fit into HTTP; the message holds no value of a header."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a request: its first line and the headers that are always the same.

    `names` are those headers', lower case. `length` is the content-length that was asked for.
    """

    prefix: bytes
    names: frozenset[str]
    length: int | None = None


def head(method: str, target: bytes, host: bytes, headers: Mapping[str, str]) -> Head:
    """The head of requests to a target (path and query, percent-encoded). Raises Unsendable.

    A later header replaces an earlier one whose name differs in case only.
    """
    if not _NAME.fullmatch(method):
        raise Unsendable("a method that HTTP cannot hold")
    lines = {name.lower(): _line(name, value) for name, value in headers.items()}
    told = lines.pop("content-length", b"").partition(b":")[2].strip()
    if told and not told.isdigit():
        raise Unsendable("a content-length that is no number")
    for name in ("transfer-encoding", "connection"):
        lines.pop(name, None)
    first = b"%s %s HTTP/1.1\r\n" % (method.encode(), target)
    prefix = first + lines.pop("host", b"host: %s\r\n" % host) + b"".join(lines.values())
    return Head(prefix, frozenset(lines) | FRAMING, int(told) if told else None)


def more_headers(known: Head, headers: Mapping[str, str]) -> bytes:
    """The lines of headers that the head does not have yet. Raises Unsendable."""
    return b"".join(
        [_line(name, value) for name, value in headers.items() if name.lower() not in known.names]
    )


def chunk(data: bytes) -> bytes:
    """A piece of a body whose length is not known beforehand."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


@lru_cache(maxsize=1024)
def _named(name: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise Unsendable("a header whose name HTTP cannot hold")
    return name.encode() + b": "


@lru_cache(maxsize=1024)
def _told(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _line(name: str, value: str) -> bytes:
    if not _VALUE.fullmatch(value):
        raise Unsendable("a header that HTTP cannot hold")
    return _named(name) + value.encode("latin-1") + b"\r\n"


class Reader:
    """One answer after another, on one connection.

    `pieces` is the body as it was framed, for the owner to take out. `has_head`: `status` and
    `headers()` are there. `complete`: so is the last byte. `keep`: the server goes on after it.
    `surplus`: something came that belongs to no answer.
    """

    __slots__ = (
        "_barren",
        "_bodiless",
        "_pairs",
        "_parser",
        "complete",
        "has_head",
        "keep",
        "on_body",
        "pieces",
        "status",
        "surplus",
    )

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append
        self.surplus = False
        self._parser = httptools.HttpResponseParser(self)
        # As everybody else reads it: chunks win over a length, and a line may end in \n alone.
        self._parser.set_dangerous_leniencies(
            lenient_chunked_length=True, lenient_optional_cr_before_lf=True
        )
        self.begin()

    def begin(self, *, bodiless: bool = False) -> None:
        """A request goes out: what comes from now on answers it. `bodiless`: it is a HEAD."""
        self.pieces.clear()
        self.status = 0
        self.has_head = False
        self.complete = False
        self.keep = False
        self._bodiless = bodiless
        self._barren = 0
        self._pairs: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> None:
        """Takes what arrived. Raises Malformed; after that, no more may be fed."""
        had, had_head = len(self.pieces), self.has_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:
                raise Malformed(str(error)) from None
            self.surplus = True
        except httptools.HttpParserUpgrade:
            raise Malformed("it switches protocols, which nobody asked for") from None
        if len(self.pieces) > had or self.complete:
            barren, self._barren = self._barren + len(data), 0
            if had_head or barren <= MAX_HEAD or self._small():
                return
        else:
            self._barren += len(data)
            if self._barren <= MAX_HEAD:
                return
        raise Malformed("its head has no end")

    def end(self) -> None:
        """The connection has ended in order: so does a body that does not say where it ends."""
        if self.has_head and not self.complete and not self._delimited():
            self.complete = True

    def take(self) -> bytes:
        """What there is of the body since the last time."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    @property
    def untouched(self) -> bool:
        """Whether nothing at all has come."""
        return not (self.has_head or self._barren)

    def headers(self) -> dict[str, str]:
        """By lower-case names; the values of a name that comes twice are joined."""
        found: dict[str, str] = {}
        for raw_name, raw_value in self._pairs:
            name = _told(raw_name)
            try:
                value = raw_value.decode()
            except UnicodeDecodeError:
                value = raw_value.decode("latin-1")
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    # For the parser.

    def on_message_begin(self) -> None:
        if self.complete:
            self.surplus = True
            raise Malformed("a second answer")  # ends this feed, before its body joins ours

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # else it is a trailer
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:
            self._pairs = []
            return
        self.status = status
        self.has_head = True
        if self._bodiless:
            self.complete = True

    def on_message_complete(self) -> None:
        if self.has_head and not self.complete:
            self.complete = True
            self.keep = self._parser.should_keep_alive()

    def _small(self) -> bool:
        """Whether the head that came with the beginning of the body keeps to the limit."""
        return sum(len(name) + len(value) + 4 for name, value in self._pairs) <= MAX_HEAD

    def _delimited(self) -> bool:
        """Whether the parser finds the body's end by itself."""
        coded = False
        for name, value in self._pairs:
            match name.lower():
                case b"content-length":
                    return True
                case b"transfer-encoding":
                    coded = value.lower().rstrip().endswith(b"chunked")
        return coded
