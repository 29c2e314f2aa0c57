"""multipart/form-data as a strict server reads it and as a plain client writes it.

Written apart from the product's own module, so that the two check each other. A body
that a lenient server would repair is an error here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any

BOUNDARY = "tetrad-test-boundary-5b1e"

_PARAMETER = re.compile(r';\s*([\w*]+)=("(?:[^"\\]|\\.)*"|[^;\s"]+)')


class FormError(ValueError):
    """The bytes are not a well-formed multipart/form-data body."""


@dataclass(frozen=True)
class Part:
    """One part of a form; `filename` is None for a plain member."""

    name: str
    data: bytes
    filename: str | None = None
    content_type: str | None = None

    @property
    def text(self) -> str:
        """The member's text (UTF-8)."""
        return self.data.decode()

    @property
    def plain_name(self) -> str:
        """The name without the brackets that mark a list."""
        return self.name.removesuffix("[]")


def build(parts: Iterable[Part], boundary: str = BOUNDARY) -> tuple[str, bytes]:
    """The parts in order as (content type, body)."""
    out = bytearray()
    for part in parts:
        out += f"--{boundary}\r\n".encode()
        disposition = f'form-data; name="{_quoted(part.name)}"'
        if part.filename is not None:
            disposition += f'; filename="{_quoted(part.filename)}"'
        out += f"Content-Disposition: {disposition}\r\n".encode()
        if part.content_type is not None:
            out += f"Content-Type: {part.content_type}\r\n".encode()
        out += b"\r\n" + part.data + b"\r\n"
    out += f"--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", bytes(out)


def parse(content_type: str, body: bytes) -> list[Part]:
    """The parts of a body in order; raises FormError for anything that is not exactly a form."""
    delimiter = b"--" + _boundary(content_type)
    if not body.startswith(delimiter):
        raise FormError(f"the body does not start with the boundary: {body[:80]!r}")
    pieces = (b"\r\n" + body).split(b"\r\n" + delimiter)
    last = pieces.pop()
    if last not in (b"--", b"--\r\n"):
        raise FormError(f"the body does not end with the closing boundary: {last[:80]!r}")
    return [_part(piece) for piece in pieces[1:]]


def differences(expected: Sequence[Part], actual: Sequence[Part]) -> list[str]:
    """How two forms differ: `name` equals `name[]`; order counts within one name only.

    Files must be equal byte for byte, with their names and types; a member's text is equal
    as it stands, or as the same number (0.0, 0), truth value (True, true) or JSON value.
    """
    want, got = _by_name(expected), _by_name(actual)
    found = [f"{name}: missing" for name in want if name not in got]
    found += [f"{name}: unexpected" for name in got if name not in want]
    for name in want.keys() & got.keys():
        if len(want[name]) != len(got[name]):
            found.append(f"{name}: {len(want[name])} parts expected, {len(got[name])} found")
        for index, (one, two) in enumerate(zip(want[name], got[name], strict=False)):
            if not _same(one, two):
                found.append(f"{name}[{index}]: expected {_shown(one)}, got {_shown(two)}")
    return sorted(found)


def _quoted(value: str) -> str:
    return value.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise FormError(f"not a form: {content_type!r}")
    return boundary.encode()


def _part(piece: bytes) -> Part:
    if not piece.startswith(b"\r\n"):
        raise FormError(f"no line end after a boundary: {piece[:80]!r}")
    head, separator, data = piece[2:].partition(b"\r\n\r\n")
    if not separator:
        raise FormError(f"a part without the empty line after its headers: {piece[:80]!r}")
    try:
        headers = _headers(head.decode())
    except ValueError:
        raise FormError(f"a part whose headers cannot be read: {head!r}") from None
    kind, _, parameters = headers.get("content-disposition", "").partition(";")
    told = dict(_PARAMETER.findall(";" + parameters))
    if kind.strip().lower() != "form-data" or "name" not in told or "filename*" in told:
        raise FormError(f"a part that is not form-data with a name: {head!r}")
    filename = told.get("filename")
    return Part(
        name=_unquoted(told["name"]),
        data=data,
        filename=None if filename is None else _unquoted(filename),
        content_type=headers.get("content-type"),
    )


def _headers(head: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in head.split("\r\n"))
    return {name.lower(): value.strip() for name, value in pairs}


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        value = value[1:-1].replace('\\"', '"')
    return value.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _by_name(parts: Iterable[Part]) -> dict[str, list[Part]]:
    grouped: dict[str, list[Part]] = {}
    for part in parts:
        grouped.setdefault(part.plain_name, []).append(part)
    return grouped


def _same(one: Part, two: Part) -> bool:
    if (one.filename, one.content_type if one.filename else None) != (
        two.filename,
        two.content_type if two.filename else None,
    ):
        return False
    if one.data == two.data:
        return True
    return one.filename is None and _scalar(one.text) == _scalar(two.text)


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text
    return (type(value) is bool, value)


def _shown(part: Part) -> str:
    kind = f"{part.filename} ({part.content_type}) " if part.filename is not None else ""
    return kind + repr(part.data[:60])
