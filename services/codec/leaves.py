"""Hand-written leaves of the codec: varints, vectors, data URLs, remainders.

Each `*_wire` function gives the bytes of a field's value, or None where the JSON value does not fit
the field (then the remainder keeps it). Wire format: protobuf's encoding document.
"""

from __future__ import annotations

import binascii
import struct
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pybase64

from services.codec.jsontext import ExactFloat, Packed, loads, loads_exact

INT32 = range(-(2**31), 2**31)
INT64 = range(-(2**63), 2**63)
EXACT_IN_DOUBLE = range(-(2**53), 2**53 + 1)
MAX_NESTED = 32
"""Levels of a message that holds itself; protobuf's parsers read 100 in all."""

_NUMBERS = {float, int, ExactFloat}


class Misfit(Exception):
    """A message holds what has no JSON; `explain` finds what and where."""


@lru_cache(maxsize=4096)  # the chunks of a stream all say when it was created
def varint(value: int) -> bytes:
    """An unsigned integer, or a negative one as 64 bits of two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


VARINTS = tuple(varint(value) for value in range(16384))


def length_delimited(tag: bytes, value: bytes) -> bytes:
    """A field of wire type 2."""
    size = len(value)
    return tag + (VARINTS[size] if size < 16384 else varint(size)) + value


def heads(tag: bytes) -> tuple[bytes, ...]:
    """What stands before a value of wire type 2, by its size, below 128."""
    return tuple(tag + VARINTS[size] for size in range(128))


def ints_wire(value: Any, allowed: range) -> bytes | None:
    """A JSON list of integers as packed varints."""
    if type(value) is not list or not value:
        return None
    for item in value:
        if type(item) is not int or item not in allowed:
            return None
    return b"".join([VARINTS[i] if 0 <= i < 16384 else varint(i) for i in value])


def shallow(items: list[Any], member: str) -> bool:
    """Whether a list whose items hold such lists themselves, under `member`, ends within MAX_NESTED
    levels. Deeper ones do not fit: no protobuf parser would read them."""
    for _ in range(MAX_NESTED):
        below: list[Any] = []
        for item in items:
            if type(item) is dict and type(nested := item.get(member)) is list:
                below += nested
        if not below:
            return True
        items = below
    return False


def in_order(value: Any, members: tuple[str, ...]) -> bool:
    """Whether an object's typed members come first, in this order, and none is null.

    So they are printed. True for what is no object.
    """
    if type(value) is not dict:
        return True
    typed = [name for name in members if name in value]
    return list(value)[: len(typed)] == typed and None not in map(value.get, typed)


def floats_wire(value: Any) -> bytes | None:
    """A JSON list of numbers as packed float32, little-endian."""
    if type(value) is not list or not value:
        return None
    kinds = list(map(type, value))
    if kinds.count(float) != len(kinds):  # the common case is cheaper to see than a set
        if not set(kinds) <= _NUMBERS:
            return None
        if ExactFloat in kinds and any(item - item != 0 for item in value):
            return None  # 1e400
    try:
        return struct.pack(f"<{len(value)}f", *value)
    except (OverflowError, struct.error):  # beyond the type's range
        return None


def byte_list_wire(value: Any) -> bytes | None:
    """A JSON list of integers from 0 to 255 as bytes."""
    if type(value) is not list:
        return None
    if any(type(item) is not int or not 0 <= item <= 255 for item in value):
        return None
    return bytes(value)


def base64_wire(value: Any) -> bytes | None:
    """Canonical base64 as the bytes that it stands for."""
    if type(value) is not str or not value.isascii():
        return None
    return base64_bytes(value.encode())


def base64_bytes(value: bytes) -> bytes | None:
    """What canonical base64 stands for; None if it is none."""
    try:
        data = pybase64.b64decode(value, validate=True)
    except binascii.Error:
        return None
    # Unused bits in the last group would not come back.
    tail = len(data) - len(data) % 3 if len(data) % 3 else max(len(data) - 3, 0)
    if not value.endswith(pybase64.b64encode(data[tail:])):
        return None
    return data


def base64_text(data: bytes) -> str:
    """Base64 with padding, without line breaks."""
    return pybase64.b64encode_as_string(data)


def data_url(data: bytes, media_type: str) -> str:
    """A data URL (RFC 2397)."""
    return f"data:{media_type or 'application/octet-stream'};base64,{base64_text(data)}"


# --- vectors (Vector in embed_service.proto) -----------------------------------------------------

_FLOATS, _PACKED, _SPARSE = b"\x0a", b"\x12", b"\x1a"
_VALUES = b"\x0a"
_DATA = b"\x0a"
_INDICES, _SPARSE_VALUES = b"\x0a", b"\x12"


def vector_wire(value: Any) -> bytes | None:
    """A list of numbers, base64, or a list of {"index", "value"} as a Vector.

    Also a row of float32, and Packed.
    """
    if type(value) is np.ndarray:
        return length_delimited(
            _FLOATS, length_delimited(_VALUES, value.tobytes()) if value.size else b""
        )
    if type(value) is Packed:
        return _packed_wire(value.data)
    if type(value) is list:
        if not value:
            return length_delimited(_FLOATS, b"")
        packed = floats_wire(value)
        if packed is not None:
            return length_delimited(_FLOATS, length_delimited(_VALUES, packed))
        return _sparse_wire(value)
    data = base64_wire(value)
    return None if data is None else _packed_wire(data)


def _packed_wire(data: bytes) -> bytes:
    return length_delimited(_PACKED, length_delimited(_DATA, data) if data else b"")


def _sparse_wire(value: list[Any]) -> bytes | None:
    indices, values = [], []
    for item in value:
        if type(item) is not dict or item.keys() != {"index", "value"}:
            return None
        index, number = item["index"], item["value"]
        if type(index) is not int or not 0 <= index < 2**32:
            return None
        indices.append(varint(index))
        values.append(number)
    packed = floats_wire(values)
    if packed is None:
        return None
    return length_delimited(
        _SPARSE,
        length_delimited(_INDICES, b"".join(indices)) + length_delimited(_SPARSE_VALUES, packed),
    )


def vector_json(vector: Any) -> Any:
    """A Vector message as what orjson prints with OPT_SERIALIZE_NUMPY."""
    arm = vector.WhichOneof("values")
    if arm == "floats":
        return np.array(vector.floats.values, dtype=np.float32)
    if arm == "packed":
        return base64_text(vector.packed.data)
    if arm == "sparse":
        indices, values = vector.sparse.indices, vector.sparse.values
        if len(indices) != len(values):
            raise Misfit
        numbers = np.array(values, dtype=np.float32)
        return [{"index": i, "value": n} for i, n in zip(indices, numbers, strict=True)]
    if arm == "other":
        return json_fragment(vector.other)
    return None


# --- JSON text in messages -----------------------------------------------------------------------

OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def json_fragment(text: Any) -> orjson.Fragment:
    """A JsonText message, checked. Raises Misfit if it is not JSON."""
    json = text.json
    try:
        loads(json)
    except ValueError:
        raise Misfit from None
    return orjson.Fragment(json.encode())


def merged(members: dict[str, Any], text: str, typed: dict[str, Any]) -> orjson.Fragment:
    """Print `members` and, after them, those of the remainder's text, byte for byte.

    `typed` maps the names of typed members to a function that tells whether a JSON value fits the
    field. Raises Misfit if the text is no object, or repeats a member that is set or would fit.
    """
    try:
        remainder = loads(text)
    except ValueError:
        raise Misfit from None
    if type(remainder) is not dict:
        raise Misfit
    for name in remainder:
        if name in typed or name in members:
            value = loads_exact(text)[name]  # a number that was changed might seem to fit
            if members.get(name) is not None or (name in typed and typed[name](value)):
                raise Misfit
            members.pop(name, None)
    inner = text.strip()[1:-1].strip().encode()
    if not inner:
        return orjson.Fragment(orjson.dumps(members, option=OPTIONS))
    if not members:
        return orjson.Fragment(b"{" + inner + b"}")
    return orjson.Fragment(orjson.dumps(members, option=OPTIONS)[:-1] + b"," + inner + b"}")


def tagged(tag: str, name: str, value: Any) -> Any:
    """Put the tag of an internally tagged union before the members of its arm."""
    if type(value) is dict:
        return {tag: name, **value}
    rest = orjson.dumps(value)[1:]
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    return orjson.Fragment(b"{" + orjson.dumps(tag) + b":" + orjson.dumps(name) + comma + rest)
