"""The playground's files as pages: types, security headers, and an ETag each.

Nothing in them may come from another host, nor run or style inline: the policy forbids it.
"""

from __future__ import annotations

import hashlib
from html import escape
from importlib import resources
from typing import Final

from gateway_http.asgi import Headers
from gateway_http.settings import Page, PageAnswer

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

FOLDER: Final = "/playground/"
"""Where all files but the page itself are."""

_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_HEADERS: Final[Headers] = [
    (b"cache-control", b"no-cache"),  # a browser asks again, and gets a 304 for its ETag
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


def playground(grpc: str, *, tls: bool) -> dict[str, Page]:
    """GET paths of the playground. `grpc`: host:port of the gRPC face as its calls name it."""
    known = {b"{{grpc}}": escape(grpc), b"{{tls}}": "true" if tls else "false"}
    found: dict[str, Page] = {}
    for file in resources.files("gateway_http").joinpath("page").iterdir():
        media_type = _TYPES.get(file.name[file.name.rfind(".") :])
        if media_type is None:
            continue
        body = file.read_bytes()
        if file.name == _INDEX:
            for name, value in known.items():
                body = body.replace(name, value.encode())
        found["/" if file.name == _INDEX else FOLDER + file.name] = _page(media_type, body)
    return found


def _page(media_type: str, body: bytes) -> Page:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode()
    answer = PageAnswer(media_type, body, headers=((b"etag", etag), *_HEADERS))
    return lambda: answer
