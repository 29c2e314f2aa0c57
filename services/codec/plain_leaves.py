"""Hand-written leaves of the plain reader: varints, JSON texts and vectors as they stand in wire.

Each takes the whole wire and the places where its value begins and ends. What is not plain raises
Unplain or one of UNREAD; protobuf's own parser then decides. Wire format: protobuf's encoding
document.
"""

from __future__ import annotations

import struct

import numpy as np
import orjson

from services.codec.leaves import Misfit, base64_text


class Unplain(Exception):
    """The wire is not of the plain form that compiled readers know, which is no fault."""


UNREAD = (Unplain, Misfit, IndexError, ValueError, struct.error, RecursionError)
"""What a reader may raise: unplain, without JSON, cut off, not UTF-8 or JSON, nested too deeply."""

double_at = struct.Struct("<d").unpack_from

_MAX_SHIFT = 56  # of the last byte of a positive int64
_MAX_DEPTH = 50  # well below protobuf's own limit, which the other way keeps
_FLOATS, _PACKED, _OTHER = 0x0A, 0x12, 0x22  # the arms of Vector
_ONLY = 0x0A  # field 1, length-delimited: JsonText.json, FloatVector.values, PackedVector.data


def more(first: int, wire: bytes, at: int) -> tuple[int, int]:
    """The varint that begins with the byte `first` and goes on at `at`, and where it ends.

    Negative numbers and longer spellings than needed are not plain.
    """
    value, shift = first - 128, 7
    while (byte := wire[at]) > 127 and shift < _MAX_SHIFT:
        value += byte - 128 << shift
        shift += 7
        at += 1
    if not 0 < byte < 128:
        raise Unplain
    return value + (byte << shift), at + 1


def deeper(depth: int) -> int:
    """One level further down, for messages that hold themselves."""
    if depth >= _MAX_DEPTH:
        raise Unplain
    return depth + 1


def ints_at(wire: bytes, at: int, end: int, most: int) -> list[int]:
    """Packed varints from 0 to `most`."""
    found = []
    while at < end:
        value = wire[at]
        at += 1
        if value > 0x7F:
            value, at = more(value, wire, at)
            if value > most:
                raise Unplain
        found.append(value)
    if at != end:
        raise Unplain
    return found


def text_at(wire: bytes, at: int, end: int) -> bytes:
    """The text of a JsonText, and of any message whose only field is a string or bytes."""
    size = wire[at + 1]
    begin = at + 2
    if size > 0x7F:
        size, begin = more(size, wire, begin)
    if wire[at] != _ONLY or begin + size != end:
        raise Unplain
    return wire[begin:end]


def fragment_at(wire: bytes, at: int, end: int) -> orjson.Fragment:
    """A JsonText, if a quick look shows JSON."""
    text = text_at(wire, at, end)
    orjson.loads(text)
    return orjson.Fragment(text)


def vector_at(wire: bytes, at: int, end: int) -> object:
    """A Vector as what orjson prints with OPT_SERIALIZE_NUMPY."""
    arm, size = wire[at], wire[at + 1]
    at += 2
    if size > 0x7F:
        size, at = more(size, wire, at)
    if at + size != end:
        raise Unplain
    if arm == _FLOATS:
        return np.frombuffer(text_at(wire, at, end), dtype="<f4")
    if arm == _PACKED:
        return base64_text(text_at(wire, at, end))
    if arm == _OTHER:
        return fragment_at(wire, at, end)
    raise Unplain
