"""Requests, answers and errors, as far from ASGI as the handlers need to be.

A handler takes a Request, whose body is complete, and returns a Reply or an EventStream, or
raises ApiError. Errors have OpenAI's shape on every route.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson

JSON: Final = "application/json"
PLAIN: Final = "text/plain; charset=utf-8"

DONE: Final = b"data: [DONE]\n\n"


class ApiError(Exception):
    """An answer that is an error. `param` names the member at fault, `code` the kind of fault."""

    def __init__(
        self,
        message: str,
        *,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def reply(self) -> Reply:
        """As it goes out."""
        ours = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        error = {
            "message": self.message,
            "type": "server_error" if ours else "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }
        return Reply(dumps({"error": error}), status=self.status, headers=self.headers)


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose body has come in whole. Header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; raises ApiError for anything else."""
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise ApiError(f"The body is not valid JSON: {error}", code="invalid_json") from error
        if not isinstance(value, dict):
            raise ApiError("The body must be a JSON object.", code="invalid_json")
        return value


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in one piece."""

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventStream:
    """Server-sent events, written as they come. `name` is what the log calls the stream."""

    name: str
    events: AsyncGenerator[bytes, None]


Answer = Reply | EventStream
Handler = Callable[[Request], Awaitable[Answer]]


def dumps(value: Any) -> bytes:
    """Compact JSON; numpy arrays are lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def reply_json(value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer."""
    return Reply(dumps(value), headers=headers or {})


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + dumps(value) + b"\n\n"


# What several handlers ask of a body.


def integer(
    body: Mapping[str, Any], name: str, least: int, most: int | None = None, default: int = 0
) -> int:
    """A whole number from least to most; absent or null gives the default."""
    value = body.get(name)
    if value is None:
        return default
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        wanted = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ApiError(f"`{name}` must be a whole number, {wanted}.", param=name)
    return int(value)


def boolean(body: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """True or false; absent or null gives the default."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ApiError(f"`{name}` must be true or false.", param=name)
    return value


def text(body: Mapping[str, Any], name: str) -> str:
    """A string that is there and not empty."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ApiError(f"`{name}` must be a string, and not an empty one.", param=name)
    return value
