"""TetradError -> gRPC status: code, message, and trailers with google.rpc details.

One budget bounds everything, since proxies and clients drop trailers past about 8 KiB: the
percent-encoded message, 4/3 of the details (base64) and all other trailers fit in 6 KiB. This
module decides no code and no reason; those are the table's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status
from tetrad.v1 import error_details_pb2 as tetrad

from services.error_base import TetradError
from services.error_table import Reason
from services.error_text import valid_utf8
from services.upstream_error import UpstreamFault

Trailers = tuple[tuple[str, str | bytes], ...]

DOMAIN: Final = "gateway.tetrad.dev"
BUDGET: Final = 6144
"""Bytes that the message, the details and all other trailers may take together, names included."""

_DETAILS = "grpc-status-details-bin"
_CUT = "..."
# Bytes. What is bounded by these leaves the message at least 900 of the budget.
_OTHERS = 768
_METADATA = 768
_VIOLATIONS = 1024
_NAME = 128
_SENTENCE = 256


def details(
    error: TetradError, request_id: str, others: Iterable[tuple[str, str]] = ()
) -> tuple[grpc.StatusCode, str, Trailers]:
    """The arguments of `context.abort`: status code, message, trailers.

    `others` are further trailers (x-tetrad-model, x-ratelimit-*); those that are not printable
    ASCII, or past 768 bytes together, are left out. Whatever is too long for the budget is cut on
    a character boundary: first UpstreamError.body, then the message. The message equals that of
    the Status in the details, as clients of grpc-status demand. Never raises.
    """
    plain = _plain_trailers(error, request_id, others)
    spent = sum(len(name) + len(value) for name, value in plain)
    spent += len(_DETAILS) + len("grpc-message") + len("grpc-status") + 2
    status = _within(error, request_id, BUDGET - spent)
    code: grpc.StatusCode = grpc.StatusCode[error.grpc_code]
    return code, status.message, (*plain, (_DETAILS, status.SerializeToString()))


def rpc_status(error: TetradError, request_id: str) -> Status:
    """The google.rpc.Status alone, within the same budget: an item's error in BulkEmbed."""
    return _within(error, request_id, BUDGET)


def cost(status: Status) -> int:
    """Bytes that a status takes in trailers: percent-encoded message, and base64 of the whole."""
    return _percent_encoded(status.message) + math.ceil(int(status.ByteSize()) * 4 / 3)


def _plain_trailers(
    error: TetradError, request_id: str, others: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    shown_id = _printable(request_id)
    trailers = [("x-request-id", shown_id)] if shown_id else []
    if not error.retryable_by_client:
        trailers.append(("grpc-retry-pushback-ms", "-1"))
    room = _OTHERS
    for name, value in others:
        room -= len(name) + len(value)
        if room < 0:
            break
        if value == _printable(value, _OTHERS):
            trailers.append((name, value))
    return trailers


def _within(error: TetradError, request_id: str, budget: int) -> Status:
    # No longer prefix can fit, since a character costs more than a byte.
    message = valid_utf8(error.message[: BUDGET + 1])
    body = valid_utf8(error.upstream.body[: BUDGET + 1]) if error.upstream else ""

    def whole(message: str, body: str) -> Status:
        return _status(error, request_id, message, body)

    status = whole(message, body)
    if cost(status) <= budget:
        return status
    body = _longest(body, lambda cut: cost(whole(message, cut)) <= budget)
    message = _longest(message, lambda cut: cost(whole(cut, body)) <= budget)
    return whole(message, body)


def _longest(text: str, fits: Callable[[str], bool]) -> str:
    """The text if it fits, else its longest prefix that does, with an ellipsis; "" if none does."""
    if fits(text):
        return text
    fitting, failing = -1, len(text)
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        if fits(text[:middle] + _CUT):
            fitting = middle
        else:
            failing = middle
    return text[:fitting] + _CUT if fitting >= 0 else ""


def _status(error: TetradError, request_id: str, message: str, body: str) -> Status:
    status = Status(code=grpc.StatusCode[error.grpc_code].value[0], message=message)
    for detail in _details(error, request_id, message, body):
        status.details.add().Pack(detail)
    return status


def _details(error: TetradError, request_id: str, message: str, body: str) -> Iterable[Message]:
    yield rpc.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=_metadata(error))
    if error.wait is not None:
        yield rpc.RetryInfo(retry_delay=_duration(error.wait))
    if error.reason is Reason.QUOTA_EXHAUSTED:
        subject = _clip(error.quota or "account", _NAME)
        yield rpc.QuotaFailure(
            violations=[{"subject": subject, "description": _clip(message, _SENTENCE)}]
        )
    violations = _violations(error, message)
    if violations:
        yield rpc.BadRequest(field_violations=violations)
    shown_id = _printable(request_id)
    if shown_id:
        yield rpc.RequestInfo(request_id=shown_id)
    if error.upstream:
        yield _upstream_error(error.upstream, body)


def _upstream_error(fault: UpstreamFault, body: str) -> tetrad.UpstreamError:
    return tetrad.UpstreamError(
        endpoint=_clip(fault.endpoint, _NAME),
        http_status=fault.http_status,
        type=_clip(fault.type or "", _NAME),
        code=_clip(fault.code or "", _NAME),
        param=_clip(fault.param or "", _NAME),
        body=body,
    )


def _metadata(error: TetradError) -> dict[str, str]:
    shown: dict[str, str] = {}
    room = _METADATA
    for name, value in error.metadata.items():
        name, value = _clip(name, 64), _clip(value, _NAME)
        room -= len(name.encode()) + len(value.encode()) + 6
        if room < 0:
            break
        shown[name] = value
    return shown


def _violations(error: TetradError, message: str) -> list[rpc.BadRequest.FieldViolation]:
    told = [(each.field, each.description) for each in error.violations]
    if not told and error.param and error.grpc_code == "INVALID_ARGUMENT":
        told = [(error.param, message)]
    shown: list[rpc.BadRequest.FieldViolation] = []
    room = _VIOLATIONS
    for field, description in told:
        violation = rpc.BadRequest.FieldViolation(
            field=_clip(field, _NAME), description=_clip(description, _SENTENCE)
        )
        room -= violation.ByteSize() + 3
        if room < 0:
            break
        shown.append(violation)
    return shown


def _duration(seconds: float) -> Duration:
    whole = math.floor(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1_000_000_000))


def _clip(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, whole characters."""
    return valid_utf8(text).encode()[:limit].decode("utf-8", "ignore")


def _printable(text: str, limit: int = _NAME) -> str:
    """The printable ASCII of a text, which is all that a text trailer may hold."""
    return "".join(c for c in text[:limit] if " " <= c <= "~").strip()


def _percent_encoded(message: str) -> int:
    """Length of grpc-message: printable ASCII except "%" is one byte, any other byte is three."""
    encoded = message.encode()
    plain = sum(0x20 <= byte <= 0x7E and byte != 0x25 for byte in encoded)
    return 3 * len(encoded) - 2 * plain
