"""What upstreams say when they fail: shapes of bodies, codes, errors in good answers, waits."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_http.errors import response
from services import errors
from services.errors import (
    Reason,
    TetradError,
    Violation,
    from_error_body,
    from_upstream,
    retry_after,
)

JSON_TYPE = {"content-type": "application/json"}
NOON = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


def told(status: int, body: object, **headers: str) -> TetradError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return from_upstream(status, JSON_TYPE | named, raw, endpoint="vllm a:1", now=lambda: NOON)


# --- shapes ---------------------------------------------------------------------------------------

SHAPES: list[tuple[str, object, dict[str, object]]] = [
    ("an error object whose code is a number and whose extras are kept",
     {"error": {"code": 400, "message": "m", "metadata": {"provider_name": "p"}}, "user_id": "u"},
     {"message": "m", "type": "invalid_request_error", "param": None, "code": 400,
      "metadata": {"provider_name": "p"}, "user_id": "u"}),
    ("an error that is text",
     {"error": "m"},
     {"message": "m", "type": "invalid_request_error", "param": None, "code": None}),
    ("TEI's own",
     {"error": "m", "error_type": "Validation"},
     {"message": "m", "type": "Validation", "param": None, "code": None}),
    ("TEI's at /v1/embeddings",
     {"message": "m", "code": 400, "type": "Validation"},
     {"message": "m", "type": "Validation", "param": None, "code": 400}),
    ("a detail with hints",
     {"detail": "m", "hint": "h", "suggested_fixes": ["f"], "error_id": "e"},
     {"message": "m", "type": "invalid_request_error", "param": None, "code": None,
      "hint": "h", "suggested_fixes": ["f"], "error_id": "e"}),
    ("Cohere's",
     {"message": "m", "id": "e-1"},
     {"message": "m", "type": "invalid_request_error", "param": None, "code": None, "id": "e-1"}),
    ("old vLLM's",
     {"object": "error", "message": "m", "type": "T", "param": None, "code": 400},
     {"message": "m", "type": "T", "param": None, "code": 400, "object": "error"}),
    ("Mistral's nested details",
     {"object": "error", "message": {"detail": [{"type": "missing", "loc": ["body", "model"],
                                                 "msg": "Field required"}]}, "type": "T"},
     {"message": "model: Field required", "type": "T", "param": "model", "code": None,
      "object": "error",
      "detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required"}]}),
    ("an unsuccessful answer",
     {"success": False, "error": {"message": "m", "type": "T"}},
     {"message": "m", "type": "T", "param": None, "code": None, "success": False}),
    ("Azure's, with an inner error",
     {"error": {"message": "m", "type": None, "param": "prompt", "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
     {"message": "m", "type": "invalid_request_error", "param": "prompt", "code": "content_filter",
      "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
    ("a list of one, as Google's",
     [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}],
     {"message": "m", "type": "invalid_request_error", "param": None, "code": 400,
      "status": "INVALID_ARGUMENT"}),
    ("a JSON text",
     "m",
     {"message": "m", "type": "invalid_request_error", "param": None, "code": None}),
    ("a short error beside a long message",
     {"error": "Bad Request", "message": "m", "path": "/v1"},
     {"message": "m", "type": "Bad Request", "param": None, "code": None, "path": "/v1"}),
    ("an object that says nothing known",
     {"oops": 1},
     {"message": "vllm a:1 answered 400 Bad Request", "type": "invalid_request_error",
      "param": None, "code": None, "oops": 1}),
    ("members of odd types",
     {"error": {"message": ["a", "b"], "type": 7, "param": ["x"], "code": True}},
     {"message": "a; b", "type": 7, "param": ["x"], "code": True}),
    ("a number",
     5,
     {"message": "vllm a:1 answered 400 Bad Request", "type": "invalid_request_error",
      "param": None, "code": None}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "shown"), [case[1:] for case in SHAPES], ids=[c[0] for c in SHAPES]
)
def test_every_shape_of_body_becomes_one_error_object(
    body: object, shown: dict[str, object]
) -> None:
    """G22: message, type, param and code, and the upstream's own members beside them."""
    error = told(400, body)
    assert error.openai_error() == shown
    assert error.message == shown["message"]
    assert error.upstream is not None
    assert json.loads(error.upstream.body) == body


def test_numbers_and_text_stand_in_the_fault_as_text() -> None:
    fault = told(400, {"error": {"message": "m", "type": 7, "param": ["x"], "code": 400}}).upstream
    assert fault is not None
    assert (fault.type, fault.code, fault.param) == ("7", "400", '["x"]')


def test_fastapi_complaints_become_violations_with_paths() -> None:
    loc = ["body", "messages", 0, "content"]
    error = told(422, {"detail": [{"loc": loc, "msg": "m"}, {"loc": ["body"], "msg": "n"}, "odd"]})
    assert error.violations == (Violation("messages[0].content", "m"), Violation("body", "n"))
    assert error.param == "messages[0].content"


def test_integers_past_64_bits_survive() -> None:
    error = told(400, b'{"error":{"message":"m","seed":123456789012345678901234567890}}')
    assert error.openai_error()["seed"] == 123456789012345678901234567890


def test_numbers_that_json_cannot_print_become_null() -> None:
    error = told(400, b'{"error":{"message":"m","a":NaN,"b":1e400,"c":-Infinity,"d":1.5}}')
    shown = json.loads(response(error, "r")[2])["error"]
    assert [shown[name] for name in "abcd"] == [None, None, None, 1.5]


# --- codes that replace one another ---------------------------------------------------------------

VLLM_OVERFLOWS = [
    ("This model's maximum context length is 8192 tokens. However, you requested 9000 tokens "
     "(8900 in the messages, 100 in the completion).", "8192", "9000"),
    ("'max_tokens' or 'max_completion_tokens' is too large: 100. This model's maximum context "
     "length is 64 tokens and your request has 6 input tokens (100 > 64 - 6).", "64", "106"),
    ("You passed 9000 input tokens and requested 100 output tokens. However, the model's context "
     "length is only 8192 tokens, resulting in a maximum input length of 8092 tokens.",
     "8192", "9100"),
    ("The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
     "8192", "9000"),
    ("this model's maximum context length is 8192 tokens, but the prompt contains 9000 input "
     "tokens", "8192", "9000"),
    ("The input (9000 tokens) is longer than the model's context length (8192 tokens).",
     "8192", "9000"),
    ("Prompt contains 9000 tokens and 0 draft tokens, too large for model with 8192 maximum "
     "context length", "8192", "9000"),
    ("`inputs` must have less than 512 tokens. Given: 600", "512", "600"),
    ("the input length exceeds the context length", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("message", "limit", "asked"), VLLM_OVERFLOWS)
def test_a_context_overflow_is_told_apart_and_its_figures_are_metadata(
    message: str, limit: str | None, asked: str | None
) -> None:
    """G22: the code replaces one that only repeats the status; the upstream's type stays."""
    error = told(400, {"error": {"message": message, "type": "BadRequestError", "code": 400}})
    assert error.reason is Reason.CONTEXT_LENGTH_EXCEEDED
    assert error.openai_error()["code"] == "context_length_exceeded"
    assert error.openai_error()["type"] == "BadRequestError"
    assert error.metadata.get("context_length") == limit
    assert error.metadata.get("requested_tokens") == asked
    assert error.upstream is not None
    assert error.upstream.code == "400"


def test_a_code_of_the_upstreams_own_is_never_replaced() -> None:
    """G22."""
    overflow = "maximum context length is 5"
    error = told(400, {"error": {"message": overflow, "code": "string_above_max_length"}})
    assert error.openai_error()["code"] == "string_above_max_length"
    error = told(400, {"error": {"message": "m", "code": "context_length_exceeded", "type": "x"}})
    assert (error.openai_error()["code"], error.openai_error()["type"]) == (
        "context_length_exceeded", "x",
    )  # fmt: skip
    assert error.reason is Reason.CONTEXT_LENGTH_EXCEEDED


def test_a_code_that_repeats_the_status_gives_way_only_to_openais_names() -> None:
    assert told(404, {"error": {"code": 404}}).openai_error()["code"] == "model_not_found"
    assert told(404, {"error": {"code": "404"}}).openai_error()["code"] == "model_not_found"
    assert told(429, {"error": {"code": 429}}).openai_error()["code"] == "rate_limit_exceeded"
    assert told(503, {"error": {"code": 503}}).openai_error()["code"] == 503
    assert told(404, {"error": {"code": 40401}}).openai_error()["code"] == 40401


def test_a_server_that_breaks_on_a_long_prompt_has_not_refused_it() -> None:
    error = told(500, {"error": "maximum context length is 5"})
    assert error.reason is Reason.UPSTREAM_FAILED


@pytest.mark.parametrize("member", ["code", "type"])
def test_an_empty_account_is_a_quota_without_a_wait(member: str) -> None:
    error = told(429, {"error": {"message": "m", member: "insufficient_quota"}}, retry_after="5")
    assert error.reason is Reason.QUOTA_EXHAUSTED
    assert (error.wait, error.quota, error.retryable_by_client) == (
        None,
        "account at vllm a:1",
        False,
    )


def test_teis_424_is_a_wrong_operation_when_it_says_so() -> None:
    wrong = told(424, {"error": "model is not a re-ranker model", "error_type": "Backend"})
    broken = told(424, {"error": "CUDA error", "error_type": "Backend"})
    assert (wrong.reason, broken.reason) == (Reason.NOT_OFFERED, Reason.UPSTREAM_FAILED)


# --- errors in answers that began well ------------------------------------------------------------

IN_BODY: list[tuple[object, Reason, int]] = [
    ({"error": {"message": "m", "type": "BadRequestError", "code": 400}},
     Reason.UPSTREAM_INVALID_REQUEST, 400),
    ({"error": {"message": "m", "code": 413}}, Reason.UPSTREAM_INVALID_REQUEST, 413),
    ({"error": {"message": "m", "code": "422"}}, Reason.UPSTREAM_INVALID_REQUEST, 422),
    ({"error": {"message": "m", "type": "invalid_request_error", "code": "odd"}},
     Reason.UPSTREAM_INVALID_REQUEST, 400),
    ({"error": {"message": "m", "type": "Service Unavailable"}}, Reason.UPSTREAM_UNAVAILABLE, 503),
    ({"error": {"message": "m", "code": 502}, "choices": [], "id": "x"},
     Reason.UPSTREAM_UNAVAILABLE, 503),
    ({"error": {"message": "m", "type": "server_error", "code": None}},
     Reason.UPSTREAM_FAILED, 502),
    ({"error": "Model is overloaded", "error_type": "Overloaded"},
     Reason.UPSTREAM_RATE_LIMITED, 429),
    ({"error": {"message": "m", "code": "insufficient_quota"}}, Reason.QUOTA_EXHAUSTED, 429),
    ({"error": {"message": "m", "code": 401}}, Reason.UPSTREAM_AUTH, 502),
    ({"error": {"message": "m", "code": 12}}, Reason.UPSTREAM_FAILED, 502),
    ({"error": "something"}, Reason.UPSTREAM_FAILED, 502),
    ({"x_groq": {"id": "r", "error": "over capacity"}, "choices": []},
     Reason.UPSTREAM_FAILED, 502),
    ("plain words", Reason.UPSTREAM_FAILED, 502),
    (None, Reason.UPSTREAM_FAILED, 502),
    ({"error": {"message": "maximum context length is 5", "code": 400}},
     Reason.CONTEXT_LENGTH_EXCEEDED, 400),
]  # fmt: skip


@pytest.mark.parametrize(("value", "reason", "rest"), IN_BODY)
def test_an_error_without_a_status_is_judged_by_its_code_and_type(
    value: object, reason: Reason, rest: int
) -> None:
    error = from_error_body(value, endpoint="e")
    assert (error.reason, int(error.http_status)) == (reason, rest)
    assert error.upstream is not None
    assert error.upstream.http_status == 200
    assert not error.retryable_by_client


def test_an_error_beside_choices_does_not_carry_the_chunk_along() -> None:
    value = {"id": "c", "choices": [{"delta": {}}], "error": {"message": "m", "code": 502}}
    assert from_error_body(value, endpoint="e").openai_error() == {
        "message": "m", "type": "server_error", "param": None, "code": 502,
    }  # fmt: skip


def test_a_200_with_an_error_body_is_that_error() -> None:
    """G2."""
    error = told(200, {"error": {"message": "m", "code": 429}}, retry_after="3")
    assert (error.reason, error.wait) == (Reason.UPSTREAM_RATE_LIMITED, 3.0)


def test_a_200_that_is_no_answer_is_a_protocol_error_and_not_echoed() -> None:
    """G2."""
    error = told(200, {"choices": "secret words"})
    assert error.reason is Reason.UPSTREAM_PROTOCOL
    assert error.openai_error() == {
        "message": "vllm a:1 answered 200 OK with JSON that is no answer",
        "type": "server_error", "param": None, "code": "upstream_protocol",
    }  # fmt: skip


@pytest.mark.parametrize("value", [
    {"error": None, "choices": []}, {"choices": []}, {"object": "list", "data": []}, [], [1.0],
    {"success": True}, {"x_groq": {"id": "r"}}, {"x_groq": None}, "text", None, 5,
])  # fmt: skip
def test_an_answer_is_not_taken_for_an_error(value: object) -> None:
    assert not errors.error_in_body(value)


@pytest.mark.parametrize("value", [
    {"error": "m"}, {"error": {"message": "m"}, "choices": []}, {"object": "error"},
    {"success": False}, {"x_groq": {"error": "m"}},
])  # fmt: skip
def test_an_error_in_an_answer_is_seen(value: object) -> None:
    assert errors.error_in_body(value)


# --- waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("headers", "seconds"), [
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0.25"}, 0.25),
    ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:30 -0000"}, 30.0),
    ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
    ({"retry-after": "999999999999"}, 365 * 24 * 3600.0),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "1_0"}, None),
    ({"retry-after": "tomorrow"}, None),
    ({"retry-after": "Wed, 99 Oct 99999 07:27:00 GMT"}, None),
    ({"retry-after": ""}, None),
    ({}, None),
])  # fmt: skip
def test_an_upstreams_wait_is_read_in_every_form(
    headers: dict[str, str], seconds: float | None
) -> None:
    """G19: Retry-After obeyed and forwarded."""
    assert retry_after(headers, lambda: NOON) == seconds


def test_a_date_without_a_zone_is_not_of_this_machines_zone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        wait = retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:30 -0000"}, lambda: NOON)
    time.tzset()
    assert wait == 30.0


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_retry_after_header_is_too_odd(text: str) -> None:
    wait = retry_after({"retry-after": text}, lambda: NOON)
    assert wait is None or 0 <= wait <= 365 * 24 * 3600


def test_header_names_are_read_in_any_case() -> None:
    error = from_upstream(429, {"Retry-After": "9"}, b"", endpoint="e")
    assert error.wait == 9.0


def test_a_wait_is_shown_only_where_the_table_says() -> None:
    assert told(429, {}).wait == errors.DEFAULT_WAIT
    assert told(503, {}).wait is None
    assert told(503, {}, retry_after="4").wait == 4.0
    assert told(500, {}, retry_after="4").wait is None
    assert told(500, {}, retry_after="4").retry_after == 4.0
