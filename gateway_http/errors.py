"""TetradError -> HTTP: status, headers and OpenAI's error body, or the last event of a stream.

Decides no status and no name: those are the table's. Knows nothing of ASGI, nor of SSE framing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeAlias

import orjson

from services.error_base import TetradError

Headers = list[tuple[bytes, bytes]]

_LONGEST = 128

ErrorBody: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""An error object to the body around it."""


def standard(shown: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI has it."""
    return {"error": shown}


def with_detail(shown: dict[str, Any]) -> dict[str, Any]:
    """The same, and the message once more as OpenGateLLM has it."""
    return {"error": shown, "detail": shown["message"]}


def response(
    error: TetradError, request_id: str, body: ErrorBody = standard
) -> tuple[int, Headers, bytes]:
    """The HTTP answer: status, headers (lower-case names; content-length is the caller's), body.

    The error object is {"message", "type", "param", "code", ...}. Never raises.
    """
    headers: Headers = [(b"content-type", b"application/json")]
    shown_id = _header_value(request_id)
    if shown_id:
        headers.append((b"x-request-id", shown_id))
    if error.wait is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.wait)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(error.wait * 1000)))
    if not error.retryable_by_client:
        headers.append((b"x-should-retry", b"false"))
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    return int(error.http_status), headers, _print(body(error.openai_error()))


def sse_event(error: TetradError, request_id: str, body: ErrorBody = standard) -> bytes:
    """The data of the final event of a stream that fails after its headers: one line of JSON.

    It is the error body with one member more, `request_id`, unless the upstream put its own there:
    an SDK that raises on the event shows its user the error object, but not the headers.
    """
    shown = error.openai_error()
    shown.setdefault("request_id", request_id)
    return _print(body(shown))


def _print(value: Any) -> bytes:
    """Compact JSON in UTF-8 on one line; a lone surrogate, which UTF-8 cannot hold, becomes "?"."""
    try:
        return orjson.dumps(value)
    except TypeError:  # integers and texts that it does not know
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def _header_value(text: str) -> bytes:
    """At most so many characters of printable ASCII, which no header can be split with."""
    if len(text) > _LONGEST or not (text.isascii() and text.isprintable()):
        text = "".join(c for c in text[:_LONGEST] if " " <= c <= "~")
    return text.strip().encode("ascii")
