"""Chunks of a chat that differ from one before in their text alone, as most of a stream's do: known
by their bytes, counted and put into protobuf without being parsed.

Pure. What it does not know for certain is no such chunk, and goes the long way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from services.codec.jsontext import JsonError, loads
from services.codec.leaves import VARINTS, varint

_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]+')
"""Bytes that stand for themselves in a JSON string."""

_PROBE: Final = "@the text@"
_TEXTS: Final = ("content", "reasoning", "reasoning_content")
_LENGTH_DELIMITED: Final = 2
_LONG: Final = len(VARINTS)
_FIXED: Final = {1: 8, 5: 4}

Encode = Callable[[bytes], bytes]


class ChunkTemplate:
    """One chunk with a hole for its text: `choices[0].delta.content`, or its reasoning."""

    __slots__ = ("_after", "_before", "_encode", "_least", "_levels")

    def __init__(self, before: bytes, after: bytes, encode: Encode) -> None:
        self._before, self._after = before, after
        self._least = len(before) + len(after)
        self._encode = encode
        self._levels: list[tuple[bytes, bytes]] | None = None

    @classmethod
    def of(cls, data: bytes, value: dict[str, Any], encode: Encode) -> ChunkTemplate | None:
        """That of a chunk, and what it parses to; None for one that holds more than its text.

        `encode` makes protobuf of such a JSON text.
        """
        name, text = _text_alone(value)
        raw = text.encode("utf-8", "surrogatepass")
        if not _PLAIN.fullmatch(raw):
            return None
        for key in (f'"{name}":"'.encode(), f'"{name}": "'.encode()):
            before, found, after = data.partition(key + raw + b'"')
            if found:
                made = cls(before + key, b'"' + after, encode)
                return made if made._is_that_of(value, name) else None
        return None

    def text(self, data: bytes) -> str | None:
        """The text of a chunk that is otherwise the same; None for any other."""
        if len(data) > self._least and data.startswith(self._before) and data.endswith(self._after):
            raw = data[len(self._before) : len(data) - len(self._after)]
            if _PLAIN.fullmatch(raw):
                try:
                    return raw.decode()
                except UnicodeDecodeError:
                    return None
        return None

    def wire(self, text: str) -> bytes:
        """The chunk with that text, in protobuf."""
        levels = self._levels
        if levels is None:
            levels = self._levels = _levels(self._encode(self._with(_PROBE)))
        if not levels:
            return self._encode(self._with(text))
        inner = text.encode()
        for before, after in levels:
            size = len(inner)
            inner = before + (VARINTS[size] if size < _LONG else varint(size)) + inner + after
        return inner

    def _with(self, text: str) -> bytes:
        return self._before + text.encode() + self._after

    def _is_that_of(self, value: dict[str, Any], name: str) -> bool:
        """Whether the hole is where the text stands, and nowhere else."""
        if _PROBE.encode() in self._before + self._after:
            return False
        try:
            probe = loads(self._with(_PROBE))
        except JsonError:
            return False
        (choice,) = value["choices"]
        delta = {**choice["delta"], name: _PROBE}
        return bool(probe == {**value, "choices": [{**choice, "delta": delta}]})


def _text_alone(value: dict[str, Any]) -> tuple[str, str]:
    """Name and text of what a chunk adds that does nothing else, to its only choice; else ""."""
    choices = value.get("choices")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
        return "", ""
    if value.get("usage") is not None or value.get("x_groq") is not None:
        return "", ""
    delta = choices[0].get("delta")
    if type(delta) is not dict or choices[0].get("finish_reason"):
        return "", ""
    said = [(name, item) for name, item in delta.items() if item and name != "role"]
    if len(said) != 1 or said[0][0] not in _TEXTS or type(said[0][1]) is not str:
        return "", ""
    return said[0]


def _levels(wire: bytes) -> list[tuple[bytes, bytes]]:
    """Of each field around the probe's text, from inside: what stands before its length in what is
    around it, and what stands behind it there. Empty if the text does not stand there once."""
    probe = _PROBE.encode()
    if wire.count(probe) != 1:
        return []
    at = wire.index(probe)
    found = []
    start, end = 0, len(wire)
    while (start, end) != (at, at + len(probe)):
        told, payload, stop = _field_around(wire, start, at)
        found.append((wire[start:told], wire[stop:end]))
        start, end = payload, stop
    return found[::-1]


def _field_around(wire: bytes, position: int, at: int) -> tuple[int, int, int]:
    """Where the length, the payload and the end are of the field that holds byte `at`."""
    while True:
        tag, position = _varint(wire, position)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            told = position
            size, payload = _varint(wire, position)
            if payload <= at < payload + size:
                return told, payload, payload + size
            position = payload + size
        elif kind in _FIXED:
            position += _FIXED[kind]
        else:
            _, position = _varint(wire, position)


def _varint(wire: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = wire[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
