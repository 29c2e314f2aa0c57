"""Spans as OTLP's protobuf: an ExportTraceServiceRequest, and what is answered to it.

Written by hand, since a span as it is made here takes half the time of a general encoder: what
takes few values is encoded once. Pure. Knows no transport.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final

from services.telemetry.traces import Kind, Span, Value

# Field numbers of opentelemetry/proto/trace/v1/trace.proto and common.proto, with wire types.
_TRACE: Final = b"\x0a\x10"
_ID: Final = b"\x12\x08"
_STATE: Final = b"\x1a"
_PARENT: Final = b"\x22\x08"
_NAME: Final = b"\x2a"
_KIND: Final = b"\x30"
_ATTRIBUTE: Final = b"\x4a"
_FAILED: Final = b"\x7a\x02\x18\x02"
_FIRST: Final = b"\x0a"
_SECOND: Final = b"\x12"
_TIMES_AND_FLAGS: Final = Struct("<BQBQHI")
_BEGAN, _ENDED, _FLAGS = 0x39, 0x41, 0x0185
_DOUBLE: Final = Struct("<cd")
_TRUE, _FALSE = b"\x10\x01", b"\x10\x00"

_PARENT_IS_KNOWN: Final = 0x101
"""Flags: sampled, and that it is told whether the parent is remote."""
_PARENT_IS_REMOTE: Final = 0x200

_NANO: Final = 1_000_000_000
_64_BITS: Final = (1 << 64) - 1


class Malformed(ValueError):
    """An answer that is no protobuf."""


def frame(resource: Mapping[str, Value], scope: str, version: str = "") -> tuple[bytes, bytes]:
    """What stands before all spans, made once: the resource, and who tells of it."""
    attributes = b"".join(_sized(_FIRST, _pair(name, value)) for name, value in resource.items())
    names = _text(_FIRST, scope) + (_text(_SECOND, version) if version else b"")
    return _sized(_FIRST, attributes), _sized(_FIRST, names)


def request(before: tuple[bytes, bytes], encoded: Iterable[bytes]) -> bytes:
    """The request with spans that `span` encoded."""
    resource, scope = before
    spans = b"".join((scope, *encoded))
    return _sized(_FIRST, resource + _sized(_SECOND, spans))


def span(one: Span, offset: int) -> bytes:
    """One span. offset: nanoseconds from time.monotonic() to the Unix epoch's time."""
    kind, trace, id, parent, remote, state, name, began, ended, failed, fixed, own = one
    parts = [
        _TRACE,
        trace.to_bytes(16, "big"),
        _ID,
        id.to_bytes(8, "big"),
        _fixed(kind, name, failed, fixed),
    ]
    if parent:
        parts += _PARENT, parent.to_bytes(8, "big")
    if state:
        parts.append(_text(_STATE, state))
    for key, value in zip(kind.own, own, strict=True):
        if value is not None:
            parts.append(_attribute(key, value))
    flags = _PARENT_IS_KNOWN | (_PARENT_IS_REMOTE if remote else 0)
    begin, end = int(began * _NANO) + offset, int(ended * _NANO) + offset
    parts.append(_TIMES_AND_FLAGS.pack(_BEGAN, begin, _ENDED, end, _FLAGS, flags))
    return _sized(_SECOND, b"".join(parts))


def rejected(answer: bytes) -> tuple[int, str]:
    """Spans that an ExportTraceServiceResponse says were not taken, and why. Raises Malformed."""
    spans, why = 0, ""
    for number, partial in _fields(answer):
        if number == 1 and isinstance(partial, bytes):
            for inner, value in _fields(partial):
                if inner == 1 and isinstance(value, int):
                    spans = value
                elif inner == 2 and isinstance(value, bytes):
                    why = value.decode("utf-8", "replace")
    return spans, why


@lru_cache(maxsize=4096)
def _fixed(kind: Kind, name: str, failed: bool, fixed: tuple[Value, ...]) -> bytes:
    attributes = [
        _attribute(key, value)
        for key, value in zip(kind.fixed, fixed, strict=True)
        if value is not None
    ]
    told = _text(_NAME, name) + _KIND + _varint(kind.number)
    return told + b"".join(attributes) + (_FAILED if failed else b"")


def _attribute(key: str, value: Value) -> bytes:
    return _sized(_ATTRIBUTE, _pair(key, value))


def _pair(key: str, value: Value) -> bytes:
    """A KeyValue."""
    if isinstance(value, str):
        data = _text(_FIRST, value)
    elif isinstance(value, bool):
        data = _TRUE if value else _FALSE
    elif isinstance(value, int):
        data = b"\x18" + _varint(value & _64_BITS)
    else:
        data = _DOUBLE.pack(b"\x21", value)
    return _key(key) + _sized(_SECOND, data)


@lru_cache(maxsize=256)
def _key(key: str) -> bytes:
    return _text(_FIRST, key)


def _text(tag: bytes, text: str) -> bytes:
    return _sized(tag, text.encode("utf-8", "replace"))


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _BYTES[number]
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


_BYTES: Final = [bytes((number,)) for number in range(0x80)]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: numbers, and bytes of all that has a length or a fixed size."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _read_varint(data, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise Malformed("a wire type that protobuf does not have")
        if at + size > len(data):
            raise Malformed("it is cut short")
        yield number, data[at : at + size]
        at += size


_FIXED_SIZES: Final = {1: 8, 5: 4}


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise Malformed("it is cut short")
