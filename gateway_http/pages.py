"""The files of the playground and of the API reference as pages: types, security headers, ETags.

Nothing in them may come from another host, nor run or style inline: the policy forbids it.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from html import escape
from http import HTTPStatus
from importlib import resources
from importlib.resources.abc import Traversable
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
"""Where all files of the playground but the page itself are."""

DOCS: Final = "/docs"
"""The API reference; its files are below."""

_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_ASK_AGAIN: Final = b"no-cache"  # a browser asks again, and gets a 304 for its ETag
_KEEP: Final = b"public, max-age=31536000, immutable"  # for addresses that hold a version
_HEADERS: Final[Headers] = [
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


def playground(grpc: str, *, tls: bool) -> dict[str, Page]:
    """GET paths of the playground and of the API reference.

    `grpc`: host:port of the gRPC face as the playground's calls name it.
    """
    known = {b"{{grpc}}": escape(grpc), b"{{tls}}": "true" if tls else "false"}
    found: dict[str, Page] = {}
    for file in _files("page"):
        index = file.name == _INDEX
        found["/" if index else FOLDER + file.name] = _page(file, known if index else {})
    return found | _reference()


def _reference() -> dict[str, Page]:
    """The API reference: our page, and the bundle that draws it, which is read when asked for."""
    bundle = f"{DOCS}/swagger-ui-{_bundle_version()}"
    moved = ((b"location", b"../docs"),)
    found: dict[str, Page] = {
        f"{DOCS}/": lambda: PageAnswer("text/plain", b"", HTTPStatus.PERMANENT_REDIRECT, moved)
    }
    for file in _files("docs"):
        index = file.name == _INDEX
        known = {b"{{bundle}}": bundle.lstrip("/")} if index else {}
        found[DOCS if index else f"{DOCS}/{file.name}"] = _page(file, known)
    for file in _files("docs/swagger-ui"):
        found[f"{bundle}/{file.name}"] = _large(file)
    return found


def _bundle_version() -> str:
    """The version that the bundle's folder says it holds."""
    about = resources.files("gateway_http").joinpath("docs/swagger-ui/README.md").read_text("utf-8")
    told = re.match(r"# Swagger UI ([\d.]+)\n", about)
    assert told is not None  # noqa: S101  (a file of ours)
    return told[1]


def _files(folder: str) -> list[Traversable]:
    """The files of a folder that are served."""
    listed = resources.files("gateway_http").joinpath(folder).iterdir()
    return [file for file in listed if _kind(file.name) in _TYPES]


def _kind(name: str) -> str:
    return name[name.rfind(".") :]


def _page(file: Traversable, known: dict[bytes, str]) -> Page:
    """A file with the values of its names in double braces."""
    body = file.read_bytes()
    for name, value in known.items():
        body = body.replace(name, value.encode())
    answer = _answer(file.name, body, _ASK_AGAIN)
    return lambda: answer


def _large(file: Traversable) -> Page:
    """A file that most processes are never asked for."""
    return cache(lambda: _answer(file.name, file.read_bytes(), _KEEP))


def _answer(name: str, body: bytes, keep: bytes) -> PageAnswer:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode()
    headers = ((b"etag", etag), (b"cache-control", keep), *_HEADERS)
    return PageAnswer(_TYPES[_kind(name)], body, headers=headers)
