"""THE table: for every reason its gRPC code, HTTP status, OpenAI names and retry rule.

Both directions stand here as literals: upstream status -> reason, and reason -> what callers see.
Codes of gRPC are names: this module knows neither grpc nor any other module of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple


class Reason(StrEnum):
    """Why a call failed: the names of `tetrad.v1.ErrorReason` without their prefix."""

    INVALID_REQUEST = "INVALID_REQUEST"
    UPSTREAM_INVALID_REQUEST = "UPSTREAM_INVALID_REQUEST"
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    MODEL_FORBIDDEN = "MODEL_FORBIDDEN"
    UPSTREAM_AUTH = "UPSTREAM_AUTH"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    NOT_FOUND = "NOT_FOUND"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CONFLICT = "CONFLICT"
    RATE_LIMITED = "RATE_LIMITED"
    UPSTREAM_RATE_LIMITED = "UPSTREAM_RATE_LIMITED"
    QUOTA_EXHAUSTED = "QUOTA_EXHAUSTED"
    OVERLOADED = "OVERLOADED"
    CANCELLED = "CANCELLED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    NOT_OFFERED = "NOT_OFFERED"
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    UPSTREAM_TRUNCATED = "UPSTREAM_TRUNCATED"
    UPSTREAM_PROTOCOL = "UPSTREAM_PROTOCOL"
    DRAINING = "DRAINING"
    INTERNAL = "INTERNAL"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"


class Retry(Enum):
    """What the answer says to a client's own retry policy."""

    CLIENT = "nothing: the client's policy decides, unless the call reached an upstream"
    NEVER = "grpc-retry-pushback-ms: -1 and x-should-retry: false"


class Wait(Enum):
    """Whether RetryInfo and retry-after go with the error."""

    NEVER = "never, even if the upstream sent one"
    IF_KNOWN = "when the upstream or the raiser named a time"
    ALWAYS = "always; DEFAULT_WAIT when nobody named a time"


class Row(NamedTuple):
    """What callers of either face see of one reason. `http` None: the upstream's own number."""

    grpc: str
    http: HTTPStatus | int | None
    type: str
    code: str | None
    retry: Retry
    wait: Wait


DEFAULT_WAIT: Final = 1.0
"""Seconds to wait when a row says ALWAYS and nobody named a time."""

MAX_WAIT: Final = 365 * 24 * 3600.0
"""Seconds; whoever asks for a longer wait means: not again."""

CLIENT_CLOSED_REQUEST: Final = 499
"""No name in http.HTTPStatus: the caller went away (nginx's number, seen in logs only)."""

_S = HTTPStatus
_INVALID, _SERVER = "invalid_request_error", "server_error"

# fmt: off
TABLE: Final[Mapping[Reason, Row]] = MappingProxyType({
    Reason.INVALID_REQUEST: Row(
        "INVALID_ARGUMENT", _S.BAD_REQUEST, _INVALID, None, Retry.CLIENT, Wait.NEVER),
    Reason.UPSTREAM_INVALID_REQUEST: Row(
        "INVALID_ARGUMENT", None, _INVALID, None, Retry.NEVER, Wait.NEVER),
    Reason.CONTEXT_LENGTH_EXCEEDED: Row(
        "INVALID_ARGUMENT", None, _INVALID, "context_length_exceeded", Retry.NEVER, Wait.NEVER),
    Reason.UNSUPPORTED_MEDIA_TYPE: Row(
        "INVALID_ARGUMENT", _S.UNSUPPORTED_MEDIA_TYPE, _INVALID, "unsupported_media_type",
        Retry.CLIENT, Wait.NEVER),
    Reason.REQUEST_TOO_LARGE: Row(
        "RESOURCE_EXHAUSTED", _S.REQUEST_ENTITY_TOO_LARGE, _INVALID, "request_too_large",
        Retry.CLIENT, Wait.NEVER),
    Reason.UNAUTHENTICATED: Row(
        "UNAUTHENTICATED", _S.UNAUTHORIZED, "authentication_error", "invalid_api_key",
        Retry.CLIENT, Wait.NEVER),
    Reason.MODEL_FORBIDDEN: Row(
        "PERMISSION_DENIED", _S.FORBIDDEN, "permission_error", "model_forbidden",
        Retry.CLIENT, Wait.NEVER),
    Reason.UPSTREAM_AUTH: Row(
        "INTERNAL", _S.BAD_GATEWAY, _SERVER, "upstream_auth", Retry.NEVER, Wait.NEVER),
    Reason.MODEL_NOT_FOUND: Row(
        "NOT_FOUND", _S.NOT_FOUND, "not_found_error", "model_not_found", Retry.CLIENT, Wait.NEVER),
    Reason.NOT_FOUND: Row(
        "NOT_FOUND", _S.NOT_FOUND, "not_found_error", "not_found", Retry.CLIENT, Wait.NEVER),
    Reason.DEADLINE_EXCEEDED: Row(
        "DEADLINE_EXCEEDED", _S.GATEWAY_TIMEOUT, "timeout_error", "deadline_exceeded",
        Retry.NEVER, Wait.NEVER),
    Reason.CONFLICT: Row(
        "ABORTED", _S.CONFLICT, "conflict_error", "conflict", Retry.CLIENT, Wait.NEVER),
    Reason.RATE_LIMITED: Row(
        "RESOURCE_EXHAUSTED", _S.TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded",
        Retry.CLIENT, Wait.ALWAYS),
    Reason.UPSTREAM_RATE_LIMITED: Row(
        "RESOURCE_EXHAUSTED", _S.TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded",
        Retry.NEVER, Wait.ALWAYS),
    Reason.QUOTA_EXHAUSTED: Row(
        "RESOURCE_EXHAUSTED", _S.TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota",
        Retry.NEVER, Wait.NEVER),
    Reason.OVERLOADED: Row(
        "RESOURCE_EXHAUSTED", _S.SERVICE_UNAVAILABLE, _SERVER, "overloaded",
        Retry.CLIENT, Wait.ALWAYS),
    Reason.CANCELLED: Row(
        "CANCELLED", CLIENT_CLOSED_REQUEST, _INVALID, "cancelled", Retry.CLIENT, Wait.NEVER),
    Reason.UPSTREAM_FAILED: Row(
        "INTERNAL", _S.BAD_GATEWAY, _SERVER, "upstream_failed", Retry.NEVER, Wait.NEVER),
    Reason.NOT_OFFERED: Row(
        "UNIMPLEMENTED", _S.NOT_IMPLEMENTED, "not_supported_error", "not_offered",
        Retry.CLIENT, Wait.NEVER),
    Reason.UPSTREAM_UNAVAILABLE: Row(
        "UNAVAILABLE", _S.SERVICE_UNAVAILABLE, _SERVER, "upstream_unavailable",
        Retry.CLIENT, Wait.IF_KNOWN),
    Reason.UPSTREAM_TRUNCATED: Row(
        "UNAVAILABLE", _S.SERVICE_UNAVAILABLE, _SERVER, "upstream_truncated",
        Retry.NEVER, Wait.NEVER),
    Reason.UPSTREAM_PROTOCOL: Row(
        "INTERNAL", _S.BAD_GATEWAY, _SERVER, "upstream_protocol", Retry.NEVER, Wait.NEVER),
    Reason.DRAINING: Row(
        "UNAVAILABLE", _S.SERVICE_UNAVAILABLE, _SERVER, "draining", Retry.CLIENT, Wait.IF_KNOWN),
    # A fault of ours may strike after the upstream did its work: nobody repeats it unasked.
    Reason.INTERNAL: Row(
        "INTERNAL", _S.INTERNAL_SERVER_ERROR, _SERVER, "internal_error", Retry.NEVER, Wait.NEVER),
    Reason.METHOD_UNKNOWN: Row(
        "UNIMPLEMENTED", _S.NOT_FOUND, _INVALID, "method_unknown", Retry.CLIENT, Wait.NEVER),
    Reason.METHOD_NOT_ALLOWED: Row(
        "UNIMPLEMENTED", _S.METHOD_NOT_ALLOWED, _INVALID, "method_not_allowed",
        Retry.CLIENT, Wait.NEVER),
})
# fmt: on

UPSTREAM_STATUS: Final[Mapping[int, Reason]] = MappingProxyType(
    {
        400: Reason.UPSTREAM_INVALID_REQUEST,
        401: Reason.UPSTREAM_AUTH,
        402: Reason.UPSTREAM_AUTH,
        403: Reason.UPSTREAM_AUTH,
        404: Reason.MODEL_NOT_FOUND,
        408: Reason.DEADLINE_EXCEEDED,
        409: Reason.CONFLICT,
        413: Reason.UPSTREAM_INVALID_REQUEST,
        415: Reason.UNSUPPORTED_MEDIA_TYPE,
        422: Reason.UPSTREAM_INVALID_REQUEST,
        424: Reason.UPSTREAM_FAILED,
        429: Reason.UPSTREAM_RATE_LIMITED,
        498: Reason.UPSTREAM_UNAVAILABLE,
        500: Reason.UPSTREAM_FAILED,
        501: Reason.NOT_OFFERED,
        504: Reason.DEADLINE_EXCEEDED,
    }
)
"""The statuses that have a meaning of their own; UPSTREAM_CLASS tells all others."""

UPSTREAM_CLASS: Final[Mapping[int, Reason]] = MappingProxyType(
    {
        1: Reason.UPSTREAM_PROTOCOL,
        2: Reason.UPSTREAM_PROTOCOL,  # an answer that cannot be read; good ones never come here
        3: Reason.UPSTREAM_PROTOCOL,
        4: Reason.UPSTREAM_PROTOCOL,
        5: Reason.UPSTREAM_UNAVAILABLE,
    }
)

INVALID_STATUSES: Final = (400, 413, 422)
"""The upstream statuses that keep their number towards REST callers."""

QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Upstream codes or types that say: the account is empty. They make any refusal QUOTA_EXHAUSTED."""

OPENAI_CODES: Final = frozenset(
    {"context_length_exceeded", "model_not_found", "insufficient_quota", "rate_limit_exceeded"}
)
"""Codes that clients of OpenAI branch on: they replace a code that only repeats the status."""

_STATUS_OF_WORD: Final[Mapping[str, int]] = MappingProxyType(
    {
        # An error inside a 200 or a stream has no status: its code or type stands for one. Letters
        # and digits only, lower case, so that "Bad Request" and "bad_request" are one.
        "badrequest": 400,
        "badrequesterror": 400,
        "contextlengthexceeded": 400,
        "empty": 400,
        "exceedcontextsizeerror": 400,
        "invalidrequesterror": 400,
        "authenticationerror": 401,
        "invalidapikey": 401,
        "unauthorized": 401,
        "insufficientbalance": 402,
        "forbidden": 403,
        "permissionerror": 403,
        "modelnotfound": 404,
        "notfound": 404,
        "notfounderror": 404,
        "requesttimeout": 408,
        "timeout": 408,
        "timeouterror": 408,
        "conflicterror": 409,
        "tokenizer": 422,
        "unprocessableentity": 422,
        "unprocessableentityerror": 422,
        "validation": 422,
        "backend": 424,
        "billinghardlimitreached": 429,
        "insufficientquota": 429,
        "overloaded": 429,
        "ratelimiterror": 429,
        "ratelimitexceeded": 429,
        "requests": 429,
        "tokens": 429,
        "toomanyrequests": 429,
        "apierror": 500,
        "internalservererror": 500,
        "servererror": 500,
        "notimplementederror": 501,
        "notsupportederror": 501,
        "badgateway": 502,
        "serviceunavailable": 503,
        "serviceunavailableerror": 503,
        "unavailableerror": 503,
        "unhealthy": 503,
        "gatewaytimeout": 504,
        "overloadederror": 529,
    }
)

LIMITS_SAY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "queue": "no place became free in time",
        "connect": "no upstream could be connected in time",
        "first_byte": "the upstream did not begin to answer in time",
        "idle": "the upstream fell silent for too long",
        "total": "the call took longer than it may",
        "deadline": "the caller's deadline passed",
        "upstream": "the upstream gave up on time",
        "upload": "the caller sent nothing of its body for too long",
    }
)
"""The time limits that a call can meet, and the message of each."""


def reason_of_status(status: int) -> Reason:
    """The reason that an upstream's HTTP status stands for; total, also outside 100..599."""
    known = UPSTREAM_STATUS.get(status)
    return known or UPSTREAM_CLASS.get(status // 100, Reason.UPSTREAM_PROTOCOL)


def http_status(reason: Reason, upstream_status: int = 0) -> HTTPStatus | int:
    """The REST status of a reason; `upstream_status` matters only where the number is kept."""
    status = TABLE[reason].http
    if status is not None:
        return status
    return HTTPStatus(upstream_status if upstream_status in INVALID_STATUSES else 400)


def status_of_words(*words: object) -> int:
    """The HTTP status that an error's code and type stand for, first match; 500 if none is known.

    A number from 400 to 599, also in decimal text, stands for itself.
    """
    for word in words:
        if isinstance(word, int) and not isinstance(word, bool) and 400 <= word <= 599:
            return word
        if not isinstance(word, str):
            continue
        if word.isascii() and word.isdigit() and len(word) == 3 and 400 <= int(word) <= 599:
            return int(word)
        status = _STATUS_OF_WORD.get("".join(filter(str.isalnum, word)).lower())
        if status:
            return status
    return int(HTTPStatus.INTERNAL_SERVER_ERROR)
