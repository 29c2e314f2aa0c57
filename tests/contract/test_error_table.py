"""The error table against a literal copy of the contract, both ways, and the recorded bodies."""

from __future__ import annotations

import json

import pytest
from tetrad.v1 import error_details_pb2

from gateway_http.errors import response
from services.error_table import INVALID_STATUSES, UPSTREAM_STATUS, Retry, Wait
from services.errors import (
    CLASSES,
    TABLE,
    Reason,
    error_in_body,
    from_upstream,
    http_status,
    reason_of_status,
)
from services.server.status import details
from tests.lib import recordings

STATUSES = range(100, 600)
UNREADABLE = ("INTERNAL", "UPSTREAM_PROTOCOL", 502)

# The contract's table, read by upstream status: gRPC code, reason, REST status.
OF_STATUS: dict[int, tuple[str, str, int]] = {
    400: ("INVALID_ARGUMENT", "UPSTREAM_INVALID_REQUEST", 400),
    401: ("INTERNAL", "UPSTREAM_AUTH", 502),
    402: ("INTERNAL", "UPSTREAM_AUTH", 502),
    403: ("INTERNAL", "UPSTREAM_AUTH", 502),
    404: ("NOT_FOUND", "MODEL_NOT_FOUND", 404),
    408: ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 504),
    409: ("ABORTED", "CONFLICT", 409),
    413: ("INVALID_ARGUMENT", "UPSTREAM_INVALID_REQUEST", 413),
    415: ("INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE", 415),
    422: ("INVALID_ARGUMENT", "UPSTREAM_INVALID_REQUEST", 422),
    424: ("INTERNAL", "UPSTREAM_FAILED", 502),
    429: ("RESOURCE_EXHAUSTED", "UPSTREAM_RATE_LIMITED", 429),
    498: ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE", 503),
    500: ("INTERNAL", "UPSTREAM_FAILED", 502),
    501: ("UNIMPLEMENTED", "NOT_OFFERED", 501),
    504: ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 504),
}


def expected(status: int) -> tuple[str, str, int]:
    """What the contract says of any status: the rows above, other 5xx, and all the rest."""
    if status >= 500 and status not in OF_STATUS:
        return ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE", 503)
    return OF_STATUS.get(status, UNREADABLE)


# The contract's table, read by reason: gRPC code, REST status ("same" is the upstream's number),
# OpenAI's type and code, whether the row itself forbids a retry, and when it carries a wait.
OF_REASON: dict[str, tuple[str, int | str, str, str | None, bool, str]] = {
    "INVALID_REQUEST": (
        "INVALID_ARGUMENT", 400, "invalid_request_error", None, False, "never",
    ),
    "UPSTREAM_INVALID_REQUEST": (
        "INVALID_ARGUMENT", "same", "invalid_request_error", None, True, "never",
    ),
    "CONTEXT_LENGTH_EXCEEDED": (
        "INVALID_ARGUMENT", "same", "invalid_request_error", "context_length_exceeded", True,
        "never",
    ),
    "UNSUPPORTED_MEDIA_TYPE": (
        "INVALID_ARGUMENT", 415, "invalid_request_error", "unsupported_media_type", False, "never",
    ),
    "REQUEST_TOO_LARGE": (
        "RESOURCE_EXHAUSTED", 413, "invalid_request_error", "request_too_large", False, "never",
    ),
    "UNAUTHENTICATED": (
        "UNAUTHENTICATED", 401, "authentication_error", "invalid_api_key", False, "never",
    ),
    "MODEL_FORBIDDEN": (
        "PERMISSION_DENIED", 403, "permission_error", "model_forbidden", False, "never",
    ),
    "UPSTREAM_AUTH": ("INTERNAL", 502, "server_error", "upstream_auth", True, "never"),
    "MODEL_NOT_FOUND": ("NOT_FOUND", 404, "not_found_error", "model_not_found", False, "never"),
    "NOT_FOUND": ("NOT_FOUND", 404, "not_found_error", "not_found", False, "never"),
    "DEADLINE_EXCEEDED": (
        "DEADLINE_EXCEEDED", 504, "timeout_error", "deadline_exceeded", True, "never",
    ),
    "CONFLICT": ("ABORTED", 409, "conflict_error", "conflict", False, "never"),
    "RATE_LIMITED": (
        "RESOURCE_EXHAUSTED", 429, "rate_limit_error", "rate_limit_exceeded", False, "always",
    ),
    "UPSTREAM_RATE_LIMITED": (
        "RESOURCE_EXHAUSTED", 429, "rate_limit_error", "rate_limit_exceeded", True, "always",
    ),
    "QUOTA_EXHAUSTED": (
        "RESOURCE_EXHAUSTED", 429, "insufficient_quota", "insufficient_quota", True, "never",
    ),
    "OVERLOADED": ("RESOURCE_EXHAUSTED", 503, "server_error", "overloaded", False, "always"),
    "CANCELLED": ("CANCELLED", 499, "invalid_request_error", "cancelled", False, "never"),
    "UPSTREAM_FAILED": ("INTERNAL", 502, "server_error", "upstream_failed", True, "never"),
    "NOT_OFFERED": ("UNIMPLEMENTED", 501, "not_supported_error", "not_offered", False, "never"),
    "UPSTREAM_UNAVAILABLE": (
        "UNAVAILABLE", 503, "server_error", "upstream_unavailable", False, "if known",
    ),
    "UPSTREAM_TRUNCATED": (
        "UNAVAILABLE", 503, "server_error", "upstream_truncated", True, "never",
    ),
    "UPSTREAM_PROTOCOL": ("INTERNAL", 502, "server_error", "upstream_protocol", True, "never"),
    "DRAINING": ("UNAVAILABLE", 503, "server_error", "draining", False, "if known"),
    "INTERNAL": ("INTERNAL", 500, "server_error", "internal_error", True, "never"),
    "METHOD_UNKNOWN": (
        "UNIMPLEMENTED", 404, "invalid_request_error", "method_unknown", False, "never",
    ),
    "METHOD_NOT_ALLOWED": (
        "UNIMPLEMENTED", 405, "invalid_request_error", "method_not_allowed", False, "never",
    ),
}  # fmt: skip

# Every recorded error body: reason, REST status, and what REST prints as the error object.
RECORDED: dict[str, tuple[str, int, dict[str, object]]] = {
    "cohere-error": ("UPSTREAM_AUTH", 502, {
        "message": "invalid api token", "type": "server_error", "param": None,
        "code": "upstream_auth", "id": "e-1",
    }),
    "fastapi-detail-string": ("UPSTREAM_AUTH", 502, {
        "message": "Invalid API key.", "type": "server_error", "param": None,
        "code": "upstream_auth",
    }),
    "fastapi-validation": ("UPSTREAM_INVALID_REQUEST", 422, {
        "message": "file: Field required; messages[0].content: m",
        "type": "invalid_request_error", "param": "file", "code": None,
        "detail": [
            {"type": "missing", "loc": ["body", "file"], "msg": "Field required", "input": None},
            {"type": "x", "loc": ["body", "messages", 0, "content"], "msg": "m",
             "input": {"a": None}, "ctx": {"error": {}}},
        ],
    }),
    "llamacpp-exceed-context": ("CONTEXT_LENGTH_EXCEEDED", 400, {
        "message": "request (9000 tokens) exceeds the available context size (8192 tokens)",
        "type": "exceed_context_size_error", "param": None, "code": "context_length_exceeded",
        "n_prompt_tokens": 9000, "n_ctx": 8192,
    }),
    "ollama-not-found": ("MODEL_NOT_FOUND", 404, {
        "message": 'model "x" not found', "type": "not_found_error", "param": None,
        "code": "model_not_found",
    }),
    "openai-invalid-request": ("UPSTREAM_INVALID_REQUEST", 400, {
        "message": "Invalid type for 'messages[0].content'.", "type": "invalid_request_error",
        "param": "messages[0].content", "code": None,
    }),
    "openai-model-not-found": ("MODEL_NOT_FOUND", 404, {
        "message": "The model `x` does not exist.", "type": "invalid_request_error",
        "param": None, "code": "model_not_found",
    }),
    "openai-rate-limit": ("UPSTREAM_RATE_LIMITED", 429, {
        "message": "Rate limit reached.", "type": "requests", "param": None,
        "code": "rate_limit_exceeded",
    }),
    "tei-batch-too-large": ("UPSTREAM_INVALID_REQUEST", 422, {
        "message": "batch size 33 > maximum allowed batch size 32", "type": "Validation",
        "param": None, "code": None,
    }),
    "tei-openai-error": ("UPSTREAM_INVALID_REQUEST", 422, {
        "message": "batch size 33 > maximum allowed batch size 32", "type": "Validation",
        "param": None, "code": 422,
    }),
    "tei-overloaded": ("UPSTREAM_RATE_LIMITED", 429, {
        "message": "Model is overloaded", "type": "Overloaded", "param": None,
        "code": "rate_limit_exceeded",
    }),
    "vllm-bad-request": ("UPSTREAM_INVALID_REQUEST", 400, {
        "message": "max_tokens must be at least 1, got 0.", "type": "BadRequestError",
        "param": "max_tokens", "code": 400,
    }),
    "vllm-queue-overflow": ("UPSTREAM_UNAVAILABLE", 503, {
        "message": "The engine is currently busy and cannot accept new requests.",
        "type": "Service Unavailable", "param": None, "code": 503,
    }),
    "vllm-unauthorized": ("UPSTREAM_AUTH", 502, {
        "message": "Unauthorized", "type": "server_error", "param": None, "code": "upstream_auth",
    }),
    "whispercpp-error": ("UPSTREAM_INVALID_REQUEST", 400, {
        "message": "no 'file' field in the request", "type": "invalid_request_error",
        "param": None, "code": None,
    }),
}  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
def test_every_upstream_status_gives_the_contracts_code_reason_and_rest_status(status: int) -> None:
    """G22: one total table."""
    code, reason, rest = expected(status)
    error = from_upstream(status, {}, b"", endpoint="an upstream")
    assert (error.grpc_code, error.reason, int(error.http_status)) == (code, reason, rest)
    assert reason_of_status(status) == reason
    assert details(error, "r")[0].name == code
    assert response(error, "r")[0] == rest


def test_statuses_outside_http_are_an_answer_that_cannot_be_read() -> None:
    for status in (-1, 0, 99, 600, 999, 2**40):
        error = from_upstream(status, {}, b"", endpoint="an upstream")
        assert (error.grpc_code, error.reason, int(error.http_status)) == UNREADABLE


def test_every_reason_has_the_contracts_row() -> None:
    """G22: code and reason -> REST status, names and retry rule, for every reason."""
    waits = {Wait.NEVER: "never", Wait.ALWAYS: "always", Wait.IF_KNOWN: "if known"}
    rows = {
        reason.value: (
            row.grpc,
            "same" if row.http is None else int(row.http),
            row.type,
            row.code,
            row.retry is Retry.NEVER,
            waits[row.wait],
        )
        for reason, row in TABLE.items()
    }
    assert rows == OF_REASON


def test_only_a_row_without_a_status_keeps_the_upstreams_number() -> None:
    for reason, row in TABLE.items():
        for status in (0, *STATUSES):
            kept = status if status in INVALID_STATUSES else 400
            assert http_status(reason, status) == (kept if row.http is None else row.http)


def test_the_reasons_are_the_values_of_the_protos_enum() -> None:
    prefix = "ERROR_REASON_"
    names = error_details_pb2.ErrorReason.keys()
    assert names[0] == prefix + "UNSPECIFIED"
    assert [name.removeprefix(prefix) for name in names[1:]] == sorted(
        Reason, key=lambda reason: error_details_pb2.ErrorReason.Value(prefix + reason)
    )
    assert all(reason.name == reason.value for reason in Reason)


def test_every_reason_has_one_row_and_one_class() -> None:
    assert set(TABLE) == set(CLASSES) == set(Reason)
    assert all(CLASSES[reason].reason is reason for reason in Reason)


def test_every_reason_is_reached_by_a_status_or_only_by_ourselves() -> None:
    ours = {
        "INVALID_REQUEST", "REQUEST_TOO_LARGE", "UNAUTHENTICATED", "MODEL_FORBIDDEN", "NOT_FOUND",
        "RATE_LIMITED", "OVERLOADED", "CANCELLED", "UPSTREAM_TRUNCATED", "DRAINING", "INTERNAL",
        "METHOD_UNKNOWN", "METHOD_NOT_ALLOWED",
    }  # fmt: skip
    by_body = {"CONTEXT_LENGTH_EXCEEDED", "QUOTA_EXHAUSTED"}
    by_status = {reason_of_status(status).value for status in STATUSES}
    assert by_status | by_body | ours == set(Reason)
    assert not by_status & ours
    assert set(UPSTREAM_STATUS) == set(OF_STATUS)


def test_every_recorded_error_body_is_in_this_test() -> None:
    recorded = {one.file for one in recordings.all(operation="error")}
    assert recorded == {f"errors/{name}.json" for name in RECORDED}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_error_body_reaches_rest_callers_as_the_upstream_meant_it(name: str) -> None:
    """G22: message, type, param and code survive; the status is the table's."""
    one = recordings.get(f"errors/{name}.json")
    reason, rest, shown = RECORDED[name]
    error = from_upstream(one.http_status, {}, one.bytes, endpoint=one.source)
    status, _, body = response(error, "r")
    assert (error.reason, status) == (reason, rest)
    assert json.loads(body) == {"error": shown}
    assert list(json.loads(body)["error"])[:4] == ["message", "type", "param", "code"]
    assert error.grpc_code == OF_REASON[reason][0]
    assert not error.retryable_by_client


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_error_body_reaches_grpc_callers_whole(name: str) -> None:
    """G22."""
    one = recordings.get(f"errors/{name}.json")
    error = from_upstream(one.http_status, {}, one.bytes, endpoint=one.source)
    assert error.upstream is not None
    assert json.loads(error.upstream.body) == one.json()
    assert error.message == RECORDED[name][2]["message"]
    assert (error.upstream.endpoint, error.upstream.http_status) == (one.source, one.http_status)


def test_no_recorded_answer_is_taken_for_an_error() -> None:
    for one in recordings.all(direction="response", mode="json"):
        if one.operation != "error":
            assert not error_in_body(one.json()), one.file


def test_exactly_the_error_events_of_recorded_streams_are_errors() -> None:
    for one in recordings.all(mode="sse"):
        assert not any(map(error_in_body, one.events())), one.file
        if "error_event" in one.compare:
            assert error_in_body(one.error_event()), one.file
