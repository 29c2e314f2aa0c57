"""The few ASGI things that this package uses: types, and headers as one mapping."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Of an answer; names in lower case."""

HeaderMap: TypeAlias = Mapping[bytes, bytes]
"""Of a request; names in lower case, a repeated header joined with commas."""


def header_map(scope: Scope) -> HeaderMap:
    """The headers of a request."""
    pairs: Headers = scope["headers"]
    found = dict(pairs)
    if len(found) != len(pairs):
        found = {}
        for name, value in pairs:
            found[name] = found[name] + b", " + value if name in found else value
    return found
