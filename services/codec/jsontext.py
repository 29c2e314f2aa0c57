"""JSON text: read fast, read exactly, written without loss.

orjson reads and writes; where it would change a value (integers past 64 bits, floats with more
digits than a double) or give up (depth, lone surrogates) the exact reader and writer step in.
Knows nothing of messages.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import numpy as np
import orjson
import pybase64

MAX_DEPTH = 512

_LONG = 8192  # bytes
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile("[\ud800-\udfff]")
# Integers past 64 bits, which orjson reads as floats. Looked for only where a run of as many digits
# is, which is cheaper to see; digits after a point do not count.
_DIGITS = bytes(0x30 if byte in b"0123456789" else 0x20 for byte in range(256))
_LONG_RUN = b"0" * 19
_PAST_64_BITS = re.compile(rb"-\d{19}|(?<![\d.])\d{20}")
# A number that orjson may have changed: past 64 bits (printed with an exponent), or with as many
# digits as a double can hold. Text inside strings may match too, which only costs time.
_SUSPECT = re.compile(rb"\d(?:[eE][-+]?\d|[.\d]{16})")


class JsonError(ValueError):
    """The text is not JSON, nested too deeply, or holds what UTF-8 cannot (a lone surrogate)."""


class NeedExact(Exception):
    """A value may have changed when it was read fast; read the text again with `loads_exact`."""


class ExactFloat(float):
    """A float that remembers how it was written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> ExactFloat:
        self = super().__new__(cls, text)
        self.text = text
        return self


class Packed:
    """A vector as the bytes of its numbers; it prints as base64."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def text(self) -> str:
        """The base64."""
        return pybase64.b64encode_as_string(self.data)


def _packed(value: Any) -> str:
    if isinstance(value, Packed):
        return value.text()
    raise TypeError


def loads(data: bytes | str, *, replace_surrogates: bool = False) -> Any:
    """Parse, fast where that loses nothing: integers are exact. Raises JsonError.

    A lone surrogate is an error, or U+FFFD with `replace_surrogates`.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return loads_exact(data, replace_surrogates=replace_surrogates)
    text = data if isinstance(data, bytes) else data.encode()
    if _LONG_RUN in text.translate(_DIGITS) and _PAST_64_BITS.search(text):
        return loads_exact(text)
    check_depth(text)
    return value


def loads_exact(data: bytes | str, *, replace_surrogates: bool = False) -> Any:
    """Parse so that `dumps` gives every number back as it was written. Raises JsonError.

    A lone surrogate is an error, or U+FFFD with `replace_surrogates`.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 at byte {error.start}") from None
    check_depth(text.encode("utf-8", "surrogatepass"))
    value = _read(text)
    if "\\u" in text or text is data:
        # Looked for in what was read, since an escaped pair is no lone surrogate.
        printed = _printed(value)
        if _SURROGATE.search(printed):
            if not replace_surrogates:
                raise JsonError("a lone surrogate (half of a UTF-16 pair) in a string")
            value = _read(_SURROGATE.sub("\ufffd", printed))
    return value


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_float=ExactFloat, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except ValueError as error:  # more digits in an integer than Python converts
        raise JsonError(str(error)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON")


def check_depth(data: bytes) -> None:
    """Raise JsonError if the text nests deeper than MAX_DEPTH."""
    if len(data) <= MAX_DEPTH or _openers(data) <= MAX_DEPTH:
        return
    depth = 0
    for byte in _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise JsonError(f"nested deeper than {MAX_DEPTH} levels")
        else:
            depth -= 1


def _openers(data: bytes) -> int:
    """How many [ and { there are, strings included."""
    if len(data) < _LONG:
        # Three times cheaper than `count`, which looks at one byte after the other.
        return len(data) - len(data.replace(b"[", b"").replace(b"{", b""))
    # The two differ in one bit: seven times cheaper.
    return int(np.count_nonzero((np.frombuffer(data, np.uint8) | 0x20) == 0x7B))


def dumps(value: Any) -> bytes:
    """Print compactly and without loss: integers of any size, any depth, numbers as read.

    Vectors may be rows of float32, printed as numbers, and Packed.
    """
    try:
        return orjson.dumps(value, default=_packed, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return dumps_exact(value)


def dumps_exact(value: Any) -> bytes:
    """As `dumps`, for values of `loads_exact`."""
    return _printed(value).encode()


def _printed(value: Any) -> str:
    pieces: list[str] = []
    _print(value, pieces.append)
    return "".join(pieces)


def _print(value: Any, add: Any) -> None:
    if isinstance(value, dict):
        separator = "{"
        for name, member in value.items():
            add(separator + json.dumps(name, ensure_ascii=False) + ":")
            _print(member, add)
            separator = ","
        add("}" if value else "{}")
    elif isinstance(value, list):
        separator = "["
        for item in value:
            add(separator)
            _print(item, add)
            separator = ","
        add("]" if value else "[]")
    elif isinstance(value, ExactFloat):
        add(value.text)
    elif isinstance(value, np.ndarray):
        add(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode())
    elif isinstance(value, Packed):
        add(f'"{value.text()}"')
    else:
        add(json.dumps(value, ensure_ascii=False, allow_nan=False))


def raw(value: Any) -> bytes:
    """Print a value that `loads` gave. Raises NeedExact where the text may not be the one read."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        raise NeedExact from None
    if _SUSPECT.search(text):
        raise NeedExact
    return text
