"""multipart/form-data (RFC 7578), sans-IO: bytes to parts and parts to bytes.

A reader takes reads of any size and never holds more of a part's content than the start of what
may become a boundary, so that a file streams through. It knows neither what the fields mean
(form.py does) nor where the bytes come from; how large a body may be is its caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote_to_bytes


class MultipartError(ValueError):
    """The body, or what should be written into one, is not well-formed multipart/form-data."""


@dataclass(frozen=True)
class MultipartLimits:
    """`header_bytes` counts one part's headers with their blank line; `parts` fields and files."""

    header_bytes: int = 16 * 1024
    parts: int = 1000


@dataclass(frozen=True)
class PartBegin:
    """A part starts. `filename` is None for a field; `headers` has lower-case names."""

    name: str
    filename: str | None = None
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartData:
    """A piece of the content of the part that began last, never empty."""

    data: bytes


@dataclass(frozen=True)
class PartEnd:
    """The part that began last is complete."""


@dataclass(frozen=True)
class End:
    """The closing boundary came. What follows it is ignored."""


Event = PartBegin | PartData | PartEnd | End

_PREAMBLE = "preamble"
_HEADERS = "headers"
_CONTENT = "content"
_END = "end"

# What makes a delimiter of a boundary's text: the end's hyphens, or padding and a line end.
_AFTER_BOUNDARY = re.compile(rb"--|[ \t]{0,64}\r\n")
_MAYBE_AFTER_BOUNDARY = re.compile(rb"-?|[ \t]{0,64}\r?")

_PARAMETER = re.compile(
    r""";[; \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"[ \t]*(?=;|\Z)|[^;]*)"""
)
_FOLD = re.compile(r"\r\n[ \t]+")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_QUOTED_PAIR = re.compile(r'\\([\\"])')
_BROWSER_ESCAPE = re.compile(r"%(?:22|0D|0A)", re.IGNORECASE)
_TO_ESCAPE = re.compile(r'[\x00-\x1f\x7f"]')
_MEDIA_TYPE = "multipart/form-data"


class MultipartReader:
    """Cuts the body of one request into parts.

    `feed` returns the events that a read completed: PartBegin, PartData (none for an empty part)
    and PartEnd for each part, then End. Where the body was cut into reads moves only the cuts
    between PartData. Raises MultipartError: at the construction if `content_type` is not
    multipart/form-data or has no boundary, else at the read that shows the fault, and from then on.
    """

    def __init__(self, content_type: str, limits: MultipartLimits | None = None) -> None:
        self._limits = limits or MultipartLimits()
        self._delimiter = b"\r\n--" + _boundary_of(content_type)
        self._state = _PREAMBLE
        self._held = b"\r\n"  # read, but not yet decided; the first delimiter may open the body
        self._lead = 0  # so many bytes next in the body belong to the headers, not to the content
        self._parts = 0
        self._name = ""
        self._failure: MultipartError | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completed; raises MultipartError."""
        if self._failure:
            raise self._failure
        events: list[Event] = []
        if self._state == _END or not data:
            return events
        if self._held:
            data = self._held + data
            self._held = b""
        at = 0
        try:
            while at >= 0 and self._state != _END:
                if self._state == _HEADERS:
                    at = self._read_headers(data, at, events)
                else:
                    at = self._read_content(data, at, events)
        except MultipartError as failure:
            self._failure = failure
            raise
        return events

    def close(self) -> list[Event]:
        """The body has ended; no events are left. Raises MultipartError if it was cut short."""
        if self._failure:
            raise self._failure
        if self._state == _PREAMBLE:
            raise MultipartError("the body has no boundary of the one in its content type")
        if self._state == _HEADERS:
            raise MultipartError(f"the body ends inside the headers of part {self._parts}")
        if self._state == _CONTENT:
            raise MultipartError(
                f"the body ends inside part {self._parts} ({self._name!r}): "
                "the closing boundary is missing"
            )
        return []

    def _read_content(self, data: bytes, at: int, events: list[Event]) -> int:
        """Reads content (or preamble) from `at`; returns where to go on, -1 to wait for more."""
        delimiter = self._delimiter
        search = at
        while True:
            found = data.find(delimiter, search)
            if found < 0:
                rest = _start_of(delimiter, data, search)
                break
            end = found + len(delimiter)
            after = _AFTER_BOUNDARY.match(data, end)
            if after:
                self._emit(data, at, found, events)
                self._lead = 0
                if self._state == _CONTENT:
                    events.append(PartEnd())
                if data[end] == ord("-"):
                    self._state = _END
                    events.append(End())
                else:
                    self._state = _HEADERS
                    self._count_part()
                return after.end()
            if _MAYBE_AFTER_BOUNDARY.fullmatch(data, end):
                rest = found
                break
            search = found + 1  # a longer text that starts like the boundary: content
        self._emit(data, at, rest, events)
        if rest > at:
            self._lead = 0
        self._held = data[rest:]
        return -1

    def _emit(self, data: bytes, start: int, end: int, events: list[Event]) -> None:
        start += self._lead
        if start < end and self._state == _CONTENT:
            events.append(PartData(data[start:end]))  # a slice of the whole is no copy

    def _count_part(self) -> None:
        self._parts += 1
        if self._parts > self._limits.parts:
            raise MultipartError(f"the form has more than {self._limits.parts} parts")

    def _read_headers(self, data: bytes, at: int, events: list[Event]) -> int:
        """Reads a part's headers from `at`; returns where its content starts, -1 to wait."""
        limit = self._limits.header_bytes
        if data.startswith(b"\r\n", at):
            raise MultipartError(f"part {self._parts} has no Content-Disposition")
        end = data.find(b"\r\n\r\n", at, at + limit)
        if end < 0:
            if len(data) - at >= limit:
                raise MultipartError(
                    f"the headers of part {self._parts} are larger than {limit} bytes"
                )
            self._held = data[at:]
            return -1
        begin = _part_begin(data[at:end], self._parts)
        self._name = begin.name
        self._state = _CONTENT
        events.append(begin)
        # A part without content may spare its line end: the blank line starts the next delimiter.
        self._lead = 2
        return end + 2


def _start_of(delimiter: bytes, data: bytes, search: int) -> int:
    """Where a delimiter may start that the end of `data` cuts short, else the end of `data`.

    A boundary holds no CR, so that only the last CR can be the start.
    """
    last = data.rfind(b"\r", max(search, len(data) - len(delimiter) + 1))
    return last if last >= 0 and delimiter.startswith(data[last:]) else len(data)


def _boundary_of(content_type: str) -> bytes:
    media_type, parameters = _parameters(content_type, "Content-Type")
    if media_type != _MEDIA_TYPE:
        raise MultipartError(f"the content type is not {_MEDIA_TYPE}: {content_type[:200]!r}")
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise MultipartError("the content type names no boundary")
    if not boundary.isascii() or not boundary.isprintable():
        raise MultipartError(f"the boundary is not printable ASCII: {boundary[:200]!r}")
    return boundary.encode()


def _parameters(value: str, header: str) -> tuple[str, dict[str, str]]:
    """`form-data; name="x"` as ("form-data", {"name": "x"}); of a repeated parameter the first."""
    semicolon = value.find(";")
    at = len(value) if semicolon < 0 else semicolon
    kind = value[:at].strip().lower()
    value = value.rstrip(" \t;")
    parameters: dict[str, str] = {}
    while at < len(value):
        match = _PARAMETER.match(value, at)
        if match is None:
            raise MultipartError(f"malformed parameters in {header}: {value[:200]!r}")
        text = match[2].rstrip(" \t")
        if text.startswith('"'):
            if len(text) < 2 or not text.endswith('"'):
                raise MultipartError(f"malformed parameters in {header}: {value[:200]!r}")
            # Only a quote and a backslash are ever escaped: old clients send paths as they are.
            text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
        parameters.setdefault(match[1].lower(), text)
        at = match.end()
    return kind, parameters


def _part_begin(block: bytes, number: int) -> PartBegin:
    headers = _headers(block, number)
    disposition = headers.get("content-disposition")
    if disposition is None:
        raise MultipartError(f"part {number} has no Content-Disposition")
    kind, parameters = _parameters(disposition, f"Content-Disposition of part {number}")
    if kind != "form-data" or "name" not in parameters:
        raise MultipartError(f"part {number} is not form-data with a name: {disposition[:200]!r}")
    encoding = headers.get("content-transfer-encoding", "binary").lower()
    if encoding not in ("7bit", "8bit", "binary"):
        raise MultipartError(f"part {number} has the transfer encoding {encoding[:50]!r}")
    filename = parameters.get("filename")
    return PartBegin(
        name=_unescaped(parameters["name"]),
        filename=_extended(parameters.get("filename*"))
        or (None if filename is None else _unescaped(filename)),
        content_type=headers.get("content-type"),
        headers=headers,
    )


def _headers(block: bytes, number: int) -> dict[str, str]:
    """The header lines of a part, names in lower case; of a repeated header the first."""
    try:
        text = block.decode()
    except UnicodeDecodeError:
        text = block.decode("latin-1")  # what clients sent before everything was UTF-8
    headers: dict[str, str] = {}
    for line in _FOLD.sub(" ", text).split("\r\n"):
        match = _HEADER.fullmatch(line)
        if match is None:
            raise MultipartError(f"a header of part {number} is malformed: {line[:200]!r}")
        headers.setdefault(match[1].lower(), match[2].strip(" \t"))
    return headers


def _unescaped(text: str) -> str:
    return _BROWSER_ESCAPE.sub(lambda match: chr(int(match[0][1:], 16)), text)


def _extended(value: str | None) -> str | None:
    """The text of RFC 8187's `UTF-8'en'na%C3%AFve.wav`; None if it cannot be read, or is absent."""
    if value is None or value.count("'") < 2:
        return None
    charset, _, text = value.split("'", 2)
    if charset.lower() not in ("utf-8", "iso-8859-1"):
        return None
    try:
        return unquote_to_bytes(text).decode(charset)
    except UnicodeDecodeError:
        return None


class FilePart(NamedTuple):
    """A file of known size, in bytes, to compute a body's length from."""

    name: str
    filename: str
    content_type: str
    size: int


class MultipartWriter:
    """Writes a form piece by piece, so that a file can be streamed between its head and its tail.

    `boundary` must occur in no part, so it is to be random and long. In names, a quote and control
    characters are written as browsers do (%22, %0D, %0A), a backslash twice as the official SDK
    does, since receivers take it for an escape; all else is UTF-8 as it is.
    """

    def __init__(self, boundary: str) -> None:
        if not re.fullmatch(r"[0-9A-Za-z'+_.-]{1,70}", boundary):
            raise MultipartError(f"not fit for a boundary: {boundary[:100]!r}")
        self._open = f"--{boundary}\r\n".encode()
        self._close = f"--{boundary}--\r\n".encode()
        self.content_type = f"{_MEDIA_TYPE}; boundary={boundary}"

    def field(self, name: str, value: str) -> bytes:
        """A whole field; raises MultipartError for text that UTF-8 cannot hold."""
        return self._head(f'name="{_escaped(name)}"') + b"\r\n" + _utf8(value) + b"\r\n"

    def file_head(self, name: str, filename: str, content_type: str) -> bytes:
        """What stands before a file's bytes; raises MultipartError as `field` does."""
        if not content_type.isprintable():
            raise MultipartError(f"not a content type: {content_type[:100]!r}")
        head = self._head(f'name="{_escaped(name)}"; filename="{_escaped(filename)}"')
        return head + b"Content-Type: " + _utf8(content_type) + b"\r\n\r\n"

    def file_tail(self) -> bytes:
        """What stands after a file's bytes."""
        return b"\r\n"

    def end(self) -> bytes:
        """What stands after the last part."""
        return self._close

    def length(self, fields: Iterable[tuple[str, str]], files: Iterable[FilePart] = ()) -> int:
        """The length in bytes of a body with these parts, `end` included."""
        size = sum(len(self.field(name, value)) for name, value in fields) + len(self.end())
        for file in files:
            size += len(self.file_head(file.name, file.filename, file.content_type))
            size += file.size + len(self.file_tail())
        return size

    def _head(self, parameters: str) -> bytes:
        return self._open + b"Content-Disposition: form-data; " + _utf8(parameters) + b"\r\n"


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\")
    return _TO_ESCAPE.sub(lambda match: f"%{ord(match[0]):02X}", text)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise MultipartError(f"not UTF-8: {text[:100]!r}") from error
