"""Changes top-level members of a JSON object in its text, leaving every other byte as it is.

Found by a scanner that knows strings and depth, never by searching and replacing text. Where the
text gives the member twice it is read and printed exactly instead.
"""

from __future__ import annotations

import json
import re
from typing import Any

from services.codec.jsontext import dumps, dumps_exact, loads_exact

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_COLON = re.compile(rb"\s*:\s*")
_SCALAR = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s,}\]\[{"]+', re.DOTALL)


def with_member(text: bytes, parsed: dict[str, Any], name: str, value: Any) -> bytes:
    """The text with the member set to `value`; `parsed` is what the text says.

    With None the member is removed. The text must be a JSON object.
    """
    if name not in parsed:
        if value is None:
            return text
        start = text.index(b"{") + 1
        comma = b"," if parsed else b""
        return text[:start] + dumps(name) + b":" + dumps(value) + comma + text[start:]
    span = None if value is None else _value_span(text, name)
    if span is None:
        members = {k: v for k, v in loads_exact(text).items() if k != name or value is not None}
        if value is not None:
            members[name] = value
        return dumps_exact(members)
    return text[: span[0]] + dumps(value) + text[span[1] :]


def _value_span(text: bytes, name: str) -> tuple[int, int] | None:
    """Where the member's value stands, if it is a scalar and the member is there once."""
    needle = b'"' + name.encode() + b'"'
    if text.count(needle) == 1 and b"\\u" not in text:
        # Without \u no other spelling of the name exists, so this one must be the member.
        return _scalar_after(text, text.index(needle) + len(needle))
    spans = []
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        elif depth == 1 and _COLON.match(text, token.end()) and json.loads(token[0]) == name:
            spans.append(_scalar_after(text, token.end()))
    return spans[0] if len(spans) == 1 else None


def _scalar_after(text: bytes, position: int) -> tuple[int, int] | None:
    colon = _COLON.match(text, position)
    scalar = _SCALAR.match(text, colon.end()) if colon else None
    return scalar.span() if scalar else None
