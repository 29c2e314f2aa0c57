"""JSON text with vectors in it, read without a Python float for each number.

The vectors are cut out of the text as rows of float32 or as bytes; what is left is read as any
JSON is. A text that is not plainly such is not cut: `cut` says so, and it is read the usual way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from services.codec import leaves
from services.codec.jsontext import JsonError, Packed, loads, loads_exact

# Without a wheel for this Python: lists of floats, then, one vector at a time.
_simdjson: Any = import_module("simdjson") if find_spec("simdjson") else None

Row: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Vector: TypeAlias = Row | Packed

FLOAT32: Final = np.dtype("<f4")

_LIST, _MEMBER = "data", "embedding"
_NEEDLE = b'"embedding"'
_OPENING = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*[\["]')
_BRACKET = 0x5B
_KEPT: Final = 8 * 1024 * 1024
"""Bytes of text whose parser is kept: its buffers stay as large as the largest text was."""

_parser: Any = _simdjson.Parser() if _simdjson else None
_UNREAD = (TypeError, ValueError, RuntimeError, KeyError, AttributeError)
"""What simdjson says to text that is no JSON, no list of numbers, or has integers past 64 bits."""


@dataclass(frozen=True, slots=True)
class VectorText:
    """An embeddings answer. `pieces` are the text between the vectors, one more than those; `value`
    is what the text says, each vector of its `data` a Row or Packed."""

    pieces: Sequence[bytes]
    vectors: Sequence[Vector]
    value: dict[str, Any]

    def text(self) -> bytes:
        """The JSON text, every byte outside the vectors as it came."""
        parts = [self.pieces[0]]
        for vector, piece in zip(self.vectors, self.pieces[1:], strict=True):
            parts += printed(vector), piece
        return b"".join(parts)

    def exact(self) -> dict[str, Any]:
        """`value`, its numbers outside the vectors as they were written."""
        value: dict[str, Any] = loads_exact(_skeleton(self.pieces))
        return _filled(value, self.vectors)

    def with_vectors(self, vectors: Sequence[Vector]) -> VectorText:
        """The same answer with as many other vectors."""
        items = [
            item | {_MEMBER: vector}
            for item, vector in zip(self.value[_LIST], vectors, strict=True)
        ]
        return replace(self, vectors=vectors, value=self.value | {_LIST: items})


def printed(vector: Vector) -> bytes:
    """A vector as JSON: numbers in the shortest form that is the same float32, or base64."""
    if isinstance(vector, Packed):
        return b'"%b"' % vector.text().encode()
    return orjson.dumps(vector, option=leaves.OPTIONS)


def cut(text: bytes) -> VectorText | None:
    """The text of an embeddings answer, cut; None if it has another shape, or is no JSON."""
    spans = list(_spans(text))
    if not spans:
        return None
    ends = [0, *(end for _, end in spans)]
    begins = [*(begin for begin, _ in spans), len(text)]
    pieces = [text[end:begin] for end, begin in zip(ends, begins, strict=True)]
    try:
        rest = loads(_skeleton(pieces))
    except JsonError:
        return None
    items = rest.get(_LIST) if type(rest) is dict else None
    if type(items) is not list or len(items) != len(spans):
        return None
    for place, item in enumerate(items):
        if type(item) is not dict or item.get(_MEMBER) != place:
            return None
    vectors = _vectors(text, spans)
    if vectors is None:
        return None
    return VectorText(pieces, vectors, _filled(rest, vectors))


def _spans(text: bytes) -> Iterator[tuple[int, int]]:
    """Where members of that name have a list without lists, or a string without escapes.

    What else looks so is found out by the pieces, which are no such answer then.
    """
    at = 0
    while (found := text.find(_NEEDLE, at)) >= 0:
        at = found + len(_NEEDLE)
        value = _OPENING.match(text, at)
        if value is None:
            continue
        begin = value.end() - 1
        end = text.find(b"]" if text[begin] == _BRACKET else b'"', begin + 1) + 1
        if not end:
            return
        yield begin, end
        at = end


def _skeleton(pieces: Sequence[bytes]) -> bytes:
    """The text with each vector's place in its stead."""
    parts = [pieces[0]]
    for place, piece in enumerate(pieces[1:]):
        parts += b"%d" % place, piece
    return b"".join(parts)


def _filled(value: dict[str, Any], vectors: Sequence[Vector]) -> dict[str, Any]:
    for item, vector in zip(value[_LIST], vectors, strict=True):
        item[_MEMBER] = vector
    return value


def _vectors(text: bytes, spans: Sequence[tuple[int, int]]) -> list[Vector] | None:
    """The vectors of an answer whose rest is known to be one; None if one of them is none."""
    strings = [text[begin] == 0x22 for begin, _ in spans]
    if not any(strings):
        return _rows(text, spans)
    if not all(strings):
        return None
    found: list[Vector] = []
    for begin, end in spans:
        data = leaves.base64_bytes(text[begin + 1 : end - 1])
        if data is None:
            return None
        found.append(Packed(data))
    return found


def _rows(text: bytes, spans: Sequence[tuple[int, int]]) -> list[Vector] | None:
    if _parser is None:
        return cut_rows(_joined(text, spans))
    try:
        return _split([item[_MEMBER] for item in _parsed(text)[_LIST]])
    except _UNREAD:  # perhaps for what stands beside the vectors, an integer past 64 bits
        return cut_rows(_joined(text, spans))


def cut_rows(text: bytes) -> list[Vector] | None:
    """The vectors of a text that is a list of them and nothing else; None if it is not that."""
    if _parser is None:
        return _plain_rows(text)
    try:
        # Lists within the vectors would be taken for parts of them.
        rows = [*_parsed(text)]
        return _split(rows) if rows and text.count(b"[") == len(rows) + 1 else None
    except _UNREAD:
        return None


def _parsed(text: bytes) -> Any:
    return (_parser if len(text) <= _KEPT else _simdjson.Parser()).parse(text)


def _split(lists: list[Any]) -> list[Vector] | None:
    """simdjson's lists of numbers as rows; None if a number is beyond float32."""
    rows = [np.frombuffer(one.as_buffer(of_type="d"), "<f8") for one in lists]
    try:
        with np.errstate(over="raise"):
            numbers = np.concatenate(rows).astype(FLOAT32)
    except FloatingPointError:
        return None  # beyond float32
    ends = list(accumulate(row.size for row in rows))
    return [numbers[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _joined(text: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    """The vectors as one list."""
    return b"[%b]" % b",".join([text[begin:end] for begin, end in spans])


def _plain_rows(text: bytes) -> list[Vector] | None:
    try:
        lists = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if type(lists) is not list or not lists:
        return None
    rows: list[Vector] = []
    for one in lists:
        data = b"" if one == [] else leaves.floats_wire(one)
        if data is None:
            return None
        rows.append(np.frombuffer(data, FLOAT32))
    return rows
