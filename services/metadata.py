"""Which names of metadata pass, in and out, and what a request's id may be.

gRPC metadata and HTTP headers are treated alike; names are lower case. Anything else is dropped,
unless the configuration lets it pass by name.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable

REQUEST_ID = "x-request-id"

PASS_IN = frozenset({"traceparent", "tracestate", "baggage"})
"""From the caller to the upstream, beside the request's id."""

_MAX_ID = 128


def request_id(given: str | None) -> str:
    """The caller's id, if it is at most 128 printable ASCII characters, else a new one."""
    if given and len(given) <= _MAX_ID and given.isascii() and given.isprintable():
        return given
    return f"req_{secrets.token_hex(12)}"


def passing(
    pairs: Iterable[tuple[str, str | bytes]], allowed: Collection[str], id: str
) -> dict[str, str]:
    """What goes on to the upstream: the names that pass, and the request's id."""
    headers = {REQUEST_ID: id}
    for name, value in pairs:
        if name == REQUEST_ID or not isinstance(value, str):
            continue
        if name in PASS_IN or name in allowed:
            headers[name] = value
    return headers
