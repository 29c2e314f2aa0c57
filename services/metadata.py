"""Which names of metadata pass, in and out, and what a request's id may be.

gRPC metadata and HTTP headers are treated alike; names are lower case. Anything else is dropped,
unless the configuration lets it pass by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from random import Random
from urllib.parse import quote

REQUEST_ID = "x-request-id"

PASS_IN = frozenset({"traceparent", "tracestate", "baggage"})
"""From the caller to the upstream, beside the request's id."""

# They describe a connection, or a body that is not passed on, or hold the caller's own key.
NOT_PASSED = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What passes neither in nor out, whatever the configuration allows."""

_MAX_ID = 128
_random = Random()  # noqa: S311  (an id is no secret)
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def request_id(given: str | None) -> str:
    """The caller's id, if it is at most 128 printable ASCII characters, else a new one."""
    if given and len(given) <= _MAX_ID and given.isascii() and given.isprintable():
        return given
    return f"req_{_random.getrandbits(96):024x}"


def passing(
    pairs: Iterable[tuple[str, str | bytes]], allowed: Collection[str], id: str
) -> dict[str, str]:
    """What goes on to the upstream: the names that pass, and the request's id."""
    headers = {REQUEST_ID: id}
    for name, value in pairs:
        if name == REQUEST_ID or name in NOT_PASSED or not isinstance(value, str):
            continue
        if name in PASS_IN or name in allowed:
            headers[name] = value
    return headers


def told(out: Mapping[str, str]) -> list[tuple[str, str]]:
    """What goes back to the caller: the names that may, values as printable ASCII."""
    return [
        (name, value if value.isascii() and value.isprintable() else printable(value))
        for name, value in out.items()
        if name not in NOT_PASSED
    ]


def printable(value: str) -> str:
    """The value; what is not printable ASCII is percent-encoded in UTF-8."""
    if value.isascii() and value.isprintable():
        return value
    return quote(value, safe=_PRINTABLE, errors="replace")
