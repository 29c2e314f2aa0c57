"""Every error that a call can end with: the exception tree, each class one row of the table.

Services raise these and nothing else. What callers see of each is decided in `error_table` alone.
This module must not know grpc, nor either face.
"""

# TetradError
# ├── RequestError               the request must change before it can succeed
# │   ├── InvalidRequest             our validation
# │   ├── UnsupportedMediaType       415, ours or the upstream's
# │   ├── RequestTooLarge            over our size limit
# │   ├── Unauthenticated            no valid key of the caller
# │   ├── ModelForbidden             the key may not use the model
# │   ├── ModelNotFound              no such model, here or at the upstream
# │   ├── NotFound                   no such path or id
# │   ├── MethodUnknown              no such RPC
# │   ├── MethodNotAllowed           a path without that verb
# │   └── NotOffered                 the model's type or server lacks the operation
# ├── LimitError                 the same request can succeed later or with more budget
# │   ├── RateLimited                a rate limit of ours
# │   ├── QuotaExhausted             a budget of ours, or our account at the upstream
# │   ├── Overloaded                 we shed load
# │   └── Draining                   this process is going away
# ├── UpstreamError              an upstream was asked and let us down
# │   ├── UpstreamInvalidRequest     it refused the request (400, 413, 422)
# │   │   └── ContextLengthExceeded      since it is longer than the model's context
# │   ├── UpstreamAuth               it refused our account (401, 402, 403)
# │   ├── UpstreamRateLimited        429
# │   ├── UpstreamFailed             500, TEI's 424
# │   ├── UpstreamUnavailable        no connection, 503 and other 5xx, none healthy
# │   ├── UpstreamTruncated          its answer broke off
# │   └── UpstreamProtocol           its answer cannot be read
# │       └── WrongDimension             its vectors are not as long as the model's others
# ├── DeadlineExceeded           one of the time limits struck
# ├── Conflict                   409
# ├── Cancelled                  the caller went away
# └── Internal                   a fault of ours

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Unpack

from services.error_base import Facts, TetradError
from services.error_table import (
    DEFAULT_WAIT,
    LIMITS_SAY,
    TABLE,
    Reason,
    http_status,
    reason_of_status,
)
from services.upstream_error import (
    Clock,
    UpstreamFault,
    Verdict,
    Violation,
    is_error,
    judge,
    judge_value,
    retry_after,
)


class RequestError(TetradError):
    """The request must change before it can succeed. Never raised itself."""


class InvalidRequest(RequestError):
    """Our validation refused the request; `violations` or `param` name the members."""

    reason = Reason.INVALID_REQUEST
    says = "the request is invalid"


class UnsupportedMediaType(RequestError):
    """The content type or codec is not one that we, or the upstream, read."""

    reason = Reason.UNSUPPORTED_MEDIA_TYPE
    says = "the media type is not supported"


class RequestTooLarge(RequestError):
    """The request is larger than our limit; metadata holds the limit in bytes."""

    reason = Reason.REQUEST_TOO_LARGE
    says = "the request is too large"


class Unauthenticated(RequestError):
    """The caller sent no key, or none that we know."""

    reason = Reason.UNAUTHENTICATED
    says = "a valid key is required: authorization: Bearer KEY"


class ModelForbidden(RequestError):
    """The caller's key is good but may not use the model."""

    reason = Reason.MODEL_FORBIDDEN
    says = "this key may not use the model"

    @classmethod
    def named(cls, model: str) -> ModelForbidden:
        """The error for a model of that name."""
        return cls(
            f"this key may not use the model `{model}`", param="model", metadata={"model": model}
        )


class ModelNotFound(RequestError):
    """No model has that name, here or at the upstream."""

    reason = Reason.MODEL_NOT_FOUND
    says = "the model does not exist"

    @classmethod
    def named(cls, model: str) -> ModelNotFound:
        """The error for a model of that name."""
        return cls(f"the model `{model}` does not exist", param="model", metadata={"model": model})


class NotFound(RequestError):
    """A path or id that does not exist, other than a model."""

    reason = Reason.NOT_FOUND
    says = "not found"


class MethodUnknown(RequestError):
    """An RPC that this server does not have."""

    reason = Reason.METHOD_UNKNOWN
    says = "unknown method"


class MethodNotAllowed(RequestError):
    """A REST path that exists, asked with a verb that it does not have."""

    reason = Reason.METHOD_NOT_ALLOWED
    says = "this path does not have that method"


class NotOffered(RequestError):
    """The model's type, its adapter or its server does not offer the operation."""

    reason = Reason.NOT_OFFERED
    says = "this model does not offer the operation"


class LimitError(TetradError):
    """The same request can succeed later, or with more budget. Never raised itself."""


class RateLimited(LimitError):
    """A rate limit of ours struck; give `retry_after`."""

    reason = Reason.RATE_LIMITED
    says = "rate limit reached"


class QuotaExhausted(LimitError):
    """A budget of ours, or our account at the upstream, is used up; `quota` names it."""

    reason = Reason.QUOTA_EXHAUSTED
    says = "the quota is used up"


class Overloaded(LimitError):
    """Too many calls are in flight or waiting: this one was not started. Give `retry_after`."""

    reason = Reason.OVERLOADED
    says = "the gateway is overloaded"


class Draining(LimitError):
    """This process is shutting down: the call was not started."""

    reason = Reason.DRAINING
    says = "this server is shutting down"


class UpstreamError(TetradError):
    """An upstream was asked and let us down. Never raised itself."""


class UpstreamInvalidRequest(UpstreamError):
    """The upstream refused the request as invalid: 400, 413 or 422, which REST keeps."""

    reason = Reason.UPSTREAM_INVALID_REQUEST
    says = "the upstream refused the request"


class ContextLengthExceeded(UpstreamInvalidRequest):
    """The input, or input and answer together, is longer than the model's context."""

    reason = Reason.CONTEXT_LENGTH_EXCEEDED
    says = "the request is longer than the model's context"


class UpstreamAuth(UpstreamError):
    """The upstream refused our own key, credit or permission: 401, 402, 403."""

    reason = Reason.UPSTREAM_AUTH
    says = "the upstream refused the gateway's account"


class UpstreamRateLimited(UpstreamError):
    """The upstream answered 429."""

    reason = Reason.UPSTREAM_RATE_LIMITED
    says = "the upstream's rate limit is reached"


class UpstreamFailed(UpstreamError):
    """The upstream failed on this request: 500, TEI's 424, an error in its stream."""

    reason = Reason.UPSTREAM_FAILED
    says = "the upstream failed"


class UpstreamUnavailable(UpstreamError):
    """No upstream could take the call: connect failure, overload, 5xx, none healthy.

    Give `reached=True` if the connection broke after the request had begun to go out.
    """

    reason = Reason.UPSTREAM_UNAVAILABLE
    says = "no upstream is available"


class UpstreamTruncated(UpstreamError):
    """The upstream's answer or stream broke off before it was complete."""

    reason = Reason.UPSTREAM_TRUNCATED
    says = "the upstream's answer broke off"


class UpstreamProtocol(UpstreamError):
    """The upstream answered what cannot be read: a redirect, a strange status, no JSON in a 200."""

    reason = Reason.UPSTREAM_PROTOCOL
    says = "the upstream's answer cannot be read"


class WrongDimension(UpstreamProtocol):
    """A provider's vectors have another dimension than those of the model's other providers."""


class DeadlineExceeded(TetradError):
    """A time limit struck. `which` of them (a key of LIMITS_SAY) is in metadata; `seconds` too."""

    reason = Reason.DEADLINE_EXCEEDED

    def __init__(
        self,
        which: str,
        message: str = "",
        *,
        seconds: float | None = None,
        **facts: Unpack[Facts],
    ) -> None:
        said = message or LIMITS_SAY.get(which, f"the time limit `{which}` passed")
        if seconds is not None and not message:
            said = f"{said} ({which}: {seconds:g} s)"
        super().__init__(said, **facts)
        self.which = which
        self.metadata["which"] = which
        if seconds is not None:
            self.metadata["seconds"] = f"{seconds:g}"


class Conflict(TetradError):
    """The upstream saw a conflict (409)."""

    reason = Reason.CONFLICT
    says = "the upstream saw a conflict"


class Cancelled(TetradError):
    """The caller went away: only the log sees this."""

    reason = Reason.CANCELLED
    says = "the caller cancelled the call"


class Internal(TetradError):
    """A fault of ours. Raised without a message: what went wrong is for the log only."""

    reason = Reason.INTERNAL
    says = "the gateway failed; its log tells more under this request's id"


def _classes(base: type[TetradError]) -> list[type[TetradError]]:
    return [base, *(leaf for each in base.__subclasses__() for leaf in _classes(each))]


CLASSES: Final[Mapping[Reason, type[TetradError]]] = MappingProxyType(
    {each.reason: each for each in _classes(TetradError) if "reason" in vars(each)}
)
"""The one class of every reason."""


def from_upstream(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    endpoint: str,
    secrets: Iterable[str] = (),
    now: Clock = time.time,
) -> TetradError:
    """The error for a whole answer of an upstream: any status, or a 200 that cannot be read.

    `secrets`: keys that no caller may see. `now`: seconds since 1970, for a Retry-After that is a
    date. Never raises.
    """
    return _error(judge(status, headers, body, endpoint=endpoint, secrets=secrets, now=now))


def error_in_body(value: Any) -> bool:
    """Whether the JSON value of a 200, or of one stream event, is an error and not an answer."""
    return is_error(value)


def from_error_body(
    value: Any, *, endpoint: str, status: int = 200, secrets: Iterable[str] = ()
) -> TetradError:
    """The error for an error object (or text) in an answer or stream that began well.

    `value` is the parsed JSON, `status` what the upstream answered with. Never raises.
    """
    return _error(judge_value(value, endpoint=endpoint, status=status, secrets=secrets))


def _error(verdict: Verdict) -> TetradError:
    kind = CLASSES[verdict.reason]
    facts = Facts(
        param=verdict.fault.param,
        metadata=verdict.metadata,
        violations=verdict.violations,
        retry_after=verdict.retry_after,
        quota=verdict.quota,
        upstream=verdict.fault,
        upstream_status=verdict.status,
        reached=True,
    )
    if issubclass(kind, DeadlineExceeded):
        return kind("upstream", verdict.message, **facts)
    return kind(verdict.message, **facts)


__all__ = [
    "CLASSES",
    "DEFAULT_WAIT",
    "LIMITS_SAY",
    "TABLE",
    "Cancelled",
    "Conflict",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "Draining",
    "Facts",
    "Internal",
    "InvalidRequest",
    "LimitError",
    "MethodNotAllowed",
    "MethodUnknown",
    "ModelForbidden",
    "ModelNotFound",
    "NotFound",
    "NotOffered",
    "Overloaded",
    "QuotaExhausted",
    "RateLimited",
    "Reason",
    "RequestError",
    "RequestTooLarge",
    "TetradError",
    "Unauthenticated",
    "UnsupportedMediaType",
    "UpstreamAuth",
    "UpstreamError",
    "UpstreamFailed",
    "UpstreamFault",
    "UpstreamInvalidRequest",
    "UpstreamProtocol",
    "UpstreamRateLimited",
    "UpstreamTruncated",
    "UpstreamUnavailable",
    "Violation",
    "error_in_body",
    "from_error_body",
    "from_upstream",
    "http_status",
    "reason_of_status",
    "retry_after",
]
