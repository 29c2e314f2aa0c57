"""From an answer of the services to HTTP: headers, and the bytes of a body or of events."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gateway_http.asgi import Headers
from gateway_http.dialects.base import Converted
from gateway_http.routes import Operation
from services import codec, errors, metadata, sse
from services.body import Body
from services.call import Call

_REQUEST_ID = metadata.REQUEST_ID.encode()
_JSON = (b"content-type", b"application/json")
_EVENTS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    # nginx collects answers unless it is told not to.
    (b"x-accel-buffering", b"no"),
]


def rendered(operation: Operation, answer: Body, converted: Converted | None) -> tuple[str, bytes]:
    """Media type and bytes of an answer, in the JSON of its caller.

    Raises UpstreamProtocol for an answer that has no such JSON.
    """
    if answer.document is not None:
        return answer.document.media_type, answer.document.text.encode()
    try:
        if converted is not None:
            return "application/json", codec.dumps(converted.answer(_object(answer)))
        member = operation.rest.response_member
        if member:
            value = _object(answer).get(member)
            if value is None:
                raise errors.UpstreamProtocol(f"the answer lacks its member `{member}`")
            return "application/json", codec.dumps(value)
        return "application/json", answer.json()
    except errors.InvalidRequest as error:
        raise unreadable(error) from error


def unreadable(error: errors.InvalidRequest) -> errors.UpstreamProtocol:
    """The error of an answer that is not what it should be: it is not the caller who is wrong."""
    return errors.UpstreamProtocol(f"the upstream's answer cannot be read: {error.message}")


def events(batch: list[Body]) -> bytes:
    """One event a body."""
    try:
        if len(batch) == 1:
            return sse.event(batch[0].json())
        return b"".join([sse.event(body.json()) for body in batch])
    except errors.InvalidRequest as error:
        raise unreadable(error) from error


def json_headers(media_type: str, call: Call) -> Headers:
    """Headers of a whole answer, without content-length."""
    kind = _JSON if media_type == "application/json" else (b"content-type", _plain(media_type))
    return [kind, *call_headers(call)]


def event_headers(call: Call) -> Headers:
    """Headers of a stream."""
    return [*_EVENTS, *call_headers(call)]


def call_headers(call: Call) -> Headers:
    """What the services tell of the call: its id, model, endpoint, limits."""
    return [(_REQUEST_ID, _printable(call.id)), *out_headers(call.out)]


def out_headers(out: Mapping[str, str]) -> Headers:
    """Metadata as headers; what is not printable ASCII is percent-encoded in UTF-8."""
    return [(_name(name), value.encode("ascii")) for name, value in metadata.told(out)]


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return name.encode("ascii")


def _printable(value: str) -> bytes:
    return metadata.printable(value).encode("ascii")


def _plain(media_type: str) -> bytes:
    if media_type.startswith("text/") and "charset" not in media_type:
        media_type += "; charset=utf-8"
    return _printable(media_type or "text/plain; charset=utf-8")


def _object(answer: Body) -> dict[str, Any]:
    value = answer.value()
    if not isinstance(value, dict):
        raise errors.UpstreamProtocol("the upstream's answer is not a JSON object")
    return value
