"""What to do about an error of each reason: a column of docs/errors.md."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.error_table import Reason

ADVICE: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.INVALID_REQUEST: "Correct the members named.",
        Reason.UPSTREAM_INVALID_REQUEST: "Read the upstream's message: it judged the request.",
        Reason.CONTEXT_LENGTH_EXCEEDED: "Send less, ask for fewer tokens, or take a model with a"
        " longer context (`max_context_length` in `/v1/models`).",
        Reason.UNSUPPORTED_MEDIA_TYPE: "Send `application/json`, or a form to the audio paths; else"
        " a file format that the model reads.",
        Reason.REQUEST_TOO_LARGE: "Send less at once, or raise `limits.max_request_bytes` or"
        " `limits.max_upload_bytes`.",
        Reason.UNAUTHENTICATED: "Send `authorization: Bearer KEY` with a key that the configuration"
        " has the hash of (`tetrad keys new`).",
        Reason.MODEL_FORBIDDEN: "Take a model of the key's `models`, or add the model there.",
        Reason.UPSTREAM_AUTH: "The operator corrects the provider's `key`; the caller can do"
        " nothing.",
        Reason.MODEL_NOT_FOUND: "Take a name of `GET /v1/models`. Where the name is right, the"
        " provider's `model_name` is not what the server calls it.",
        Reason.NOT_FOUND: "Correct the path or the id.",
        Reason.DEADLINE_EXCEEDED: "Allow more time, or find out why the upstream is slow; see below"
        " for the limit that struck.",
        Reason.CONFLICT: "Read the upstream's message.",
        Reason.RATE_LIMITED: "Wait as long as told, or have the key's `limits` raised.",
        Reason.UPSTREAM_RATE_LIMITED: "Wait as long as told; more providers, or a lower"
        " `max_concurrency`, avoid it.",
        Reason.QUOTA_EXHAUSTED: "Fill up the account at the upstream, or the budget.",
        Reason.OVERLOADED: "Wait as long as told; more providers, or higher `limits.max_in_flight`"
        " and `max_queue`, avoid it.",
        Reason.CANCELLED: "Nothing: the caller left. Seen in logs only.",
        Reason.UPSTREAM_FAILED: "Look into the upstream's log: it failed on this request.",
        Reason.NOT_OFFERED: "Take a model of the type that the operation needs, or leave out what"
        " the server lacks.",
        Reason.UPSTREAM_UNAVAILABLE: "Look at `/ready` and at whether the upstream runs; a second"
        " provider helps.",
        Reason.UPSTREAM_TRUNCATED: "Send it again if a second answer does no harm; the upstream, or"
        " something before it, broke off.",
        Reason.UPSTREAM_PROTOCOL: "Check the provider's `type` and `url`: something else answers"
        " there, or a proxy in between.",
        Reason.DRAINING: "Send it again: another process takes it.",
        Reason.INTERNAL: "Report it, with the log's lines of this request's id.",
        Reason.METHOD_UNKNOWN: "Use a method of the contract; the client may be newer than the"
        " gateway.",
        Reason.METHOD_NOT_ALLOWED: "Use a verb of the header `allow`.",
    }
)
"""For every reason."""
