"""What web pages of other origins may do: the headers of the Fetch standard, by configuration."""

from __future__ import annotations

from collections.abc import Iterable

from gateway_http.asgi import HeaderMap, Headers

EXPOSED = (
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    "x-should-retry",
    "x-tetrad-endpoint",
    "x-tetrad-model",
    *(
        f"x-ratelimit-{figure}-{unit}"
        for figure in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    ),
)
"""Headers of answers that a page may read."""

_MAX_AGE = b"600"


class Cors:
    """The rules of one configuration: `origins` as "scheme://host", "*" for any."""

    def __init__(self, origins: Iterable[str], exposed: Iterable[str] = ()) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = b"*" in self._origins
        self._exposed = ", ".join((*EXPOSED, *sorted(exposed))).encode()

    def answer(self, headers: HeaderMap) -> Headers:
        """Headers of the answer to a request with these."""
        if not self._origins:
            return []
        return [*self._allow_origin(headers), (b"access-control-expose-headers", self._exposed)]

    def preflight(self, headers: HeaderMap, allow: str) -> Headers:
        """Headers of the answer to OPTIONS on a path with these verbs."""
        found: Headers = [(b"allow", allow.encode())]
        if not self._origins or b"access-control-request-method" not in headers:
            return found
        found += self._allow_origin(headers)
        found.append((b"access-control-allow-methods", allow.encode()))
        # "*" would leave `authorization` out: what is asked for is named.
        asked = headers.get(b"access-control-request-headers")
        if asked is not None:
            found.append((b"access-control-allow-headers", asked))
        found.append((b"access-control-max-age", _MAX_AGE))
        return found

    def _allow_origin(self, headers: HeaderMap) -> Headers:
        if self._any:
            return [(b"access-control-allow-origin", b"*")]
        found: Headers = [(b"vary", b"origin")]
        origin = headers.get(b"origin")
        if origin in self._origins and origin is not None:
            found.append((b"access-control-allow-origin", origin))
        return found
