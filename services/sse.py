"""Server-sent events, sans-IO: bytes to events and events to bytes.

A reader takes whole network reads, cut anywhere, and returns the events that they completed, as
a list; where the stream was cut never changes its events. It knows framing only: what an event
means, and whether a stream that ended was a success, is decided by whoever reads the events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

MAX_EVENT_BYTES = 16 * 1024 * 1024
DONE = b"data: [DONE]\n\n"

_BOM = b"\xef\xbb\xbf"
_LF = 10
_CR = 13
_SPACE = 32
_COLON = 58


class SseError(ValueError):
    """A line or an event is larger than the reader's limit, or a reader was fed after its end."""


@dataclass(slots=True)
class SseEvent:
    """One event: `data` without its framing, several data lines joined with LF.

    `event` and `id` are what this block said itself, else "". `terminated` is False
    for an event whose blank line had not come when the stream ended (see SseReader.close).
    """

    data: bytes
    event: str = ""
    id: str = ""
    terminated: bool = True


class SseReader:
    """Cuts a stream of bytes into events by the WHATWG rules, and forgives what upstreams do.

    Lines end in LF, CRLF or CR, a BOM may start the stream, one space after the colon belongs to
    the framing. Two deviations from the rules: an event whose data is only white space is a
    keepalive and is dropped; a line `error: ...` (llama.cpp), no field of the rules, becomes an
    event with that text as data and "error" as name, after the block's data event if it has one.

    `comments` counts the comment lines so far; `retry` is the last reconnection time named, in ms.
    A line (without its end) and an event's data may have `max_event_bytes` each.
    """

    __slots__ = (
        "_clean",
        "_data",
        "_error",
        "_event",
        "_failure",
        "_id",
        "_line",
        "_max",
        "_skip_lf",
        "_start",
        "comments",
        "retry",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.comments = 0
        self.retry: int | None = None
        self._max = max_event_bytes
        self._clean = False  # nothing is pending, so that a read may be cut by the fast path
        self._start = True  # still before the place of the BOM
        self._skip_lf = False  # the last read ended in CR: a LF that comes first belongs to it
        self._line = bytearray()  # the line that has no end yet
        self._data: bytes | bytearray | None = None  # the fields of the block that has no end yet
        self._error: bytes | bytearray | None = None
        self._event = ""
        self._id = ""
        self._failure: SseError | None = None

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that `data` completed.

        Raises SseError for a line or an event beyond the limit; if complete events came before it
        in the same read they are returned, and the next call raises.
        """
        if self._clean:
            if _CR in data:
                data = data.replace(b"\r\n", b"\n")
                if _CR in data:
                    return self._feed_any(data)
            size = len(data)
            if data[:6] == b"data: " and size <= self._max:
                if data.find(b"\n") == size - 2:
                    if data[-1] == _LF and data[6] > _SPACE:
                        return [SseEvent(data[6:-2])]
                elif data[-2:] == b"\n\n":
                    # Each separator holds two LF and the end has two: any other LF means other
                    # lines. What is not above "!" may be blank.
                    parts = data[6:-2].split(b"\n\ndata: ")
                    if data.count(b"\n") == 2 * len(parts) and min(parts) > b"!":
                        return list(map(SseEvent, parts))
        return self._feed_any(data)

    def close(self) -> list[SseEvent]:
        """The end of the stream: the event that lacks its blank line, if it is whole all the same.

        By the WHATWG rules it would be dropped. Upstreams leave the blank line (or even the line's
        end) out after `[DONE]` and after a last JSON text; both show by themselves that they are
        whole, so they are returned with `terminated` False. Anything else is what a cut left over,
        and is dropped. The reader is finished afterwards: further calls raise SseError.
        """
        if self._failure is not None:
            raise self._failure
        line = bytes(self._line)
        self._line.clear()
        if line.startswith((b"data:", b"error:")):  # another field may be cut short: it is ignored
            self._take(line)
        self._data = self._data if _is_whole(self._data) else None
        self._error = self._error if _is_whole(self._error) else None
        events: list[SseEvent] = []
        self._dispatch(events, terminated=False)
        self._clean = False
        self._failure = SseError("the reader was used after the end of its stream")
        return events

    def _feed_any(self, data: bytes) -> list[SseEvent]:
        """`feed` by the full rules, whatever is pending."""
        if self._failure is not None:
            raise self._failure
        if self._start:
            data = bytes(self._line) + data
            self._line.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._line += data
                return []
            data = data.removeprefix(_BOM)
            self._start = False
        if not data:
            return []
        if self._skip_lf and data[0] == _LF:
            data = data[1:]
        self._skip_lf = data.endswith(b"\r")
        if _CR in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        events: list[SseEvent] = []
        cut = data.rfind(b"\n")  # only what is new is searched: a line fed by bytes stays linear
        try:
            if cut >= 0:
                block = data[:cut]
                if self._line:
                    block = bytes(self._line) + block
                    self._line.clear()
                long = len(block) > self._max
                for line in block.split(b"\n"):
                    if long:
                        self._check(len(line))
                    if not line:
                        self._dispatch(events, terminated=True)
                    elif line[:6] == b"data: " and self._data is None:
                        self._data = line[6:]
                    else:
                        self._take(line)
            rest = data[cut + 1 :]
            if rest:
                self._line += rest
                self._check(len(self._line))
        except SseError as failure:
            self._failure = failure
            self._clean = False
            if not events:
                raise
            return events
        self._clean = not (
            self._line
            or self._skip_lf
            or self._data is not None
            or self._error is not None
            or self._event
            or self._id
        )
        return events

    def _take(self, line: bytes) -> None:
        """One line that is not blank, without its end."""
        if line.startswith(b"data:"):
            self._data = self._joined(self._data, line[6:] if line[5:6] == b" " else line[5:])
            return
        if line[0] == _COLON:
            self.comments += 1
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data = self._joined(self._data, value)
        elif name == b"error":
            self._error = self._joined(self._error, value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 16:
            self.retry = int(value)

    def _joined(self, block: bytes | bytearray | None, value: bytes) -> bytes | bytearray:
        if block is None:
            return value
        if isinstance(block, bytes):
            block = bytearray(block)  # grows in place, for a block may have very many lines
        block += b"\n"
        block += value
        self._check(len(block))
        return block

    def _dispatch(self, events: list[SseEvent], *, terminated: bool) -> None:
        data = self._data
        if data and not data.isspace():
            events.append(SseEvent(bytes(data), self._event, self._id, terminated))
        error = self._error
        if error and not error.isspace():
            events.append(SseEvent(bytes(error), "error", self._id, terminated))
        self._data = self._error = None
        self._event = self._id = ""

    def _check(self, size: int) -> None:
        if size > self._max:
            raise SseError(f"an event is larger than {self._max} bytes")


def _is_whole(data: bytes | bytearray | None) -> bool:
    """Whether `data` can lack nothing: it is `[DONE]`, or an object or array to its last bracket.

    A bare number is not whole: 12 may be the start of 123.
    """
    if data is None:
        return False
    text = data.strip()
    if text == b"[DONE]":
        return True
    if not text.startswith((b"{", b"[")):
        return False
    try:
        json.loads(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def event(data: bytes, name: str | None = None) -> bytes:
    """One event as bytes. Line ends inside `data` become several data lines (so all become LF).

    Raises ValueError for data of nothing but white space, which clients fail on (`comment` is the
    keepalive), and for a name that holds a line end.
    """
    if not data or data.isspace():
        raise ValueError("an event needs data; a keepalive is a comment")
    if _LF in data or _CR in data:
        data = _one_line_end(data).replace(b"\n", b"\ndata: ")
    if name is None:
        return b"data: " + data + b"\n\n"
    if "\n" in name or "\r" in name:
        raise ValueError("the name of an event is one line")
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def comment(text: str = "") -> bytes:
    """A comment, which readers skip: the keepalive of a stream. Each line becomes a comment."""
    lines = _one_line_end(text.encode()).split(b"\n")
    return b"".join(b": " + line + b"\n" if line else b":\n" for line in lines) + b"\n"


def _one_line_end(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
