"""What reaches callers of an upstream's words: no key, no page, no stack trace, valid text."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_http.errors import response
from services import errors
from services.errors import Reason, TetradError, from_error_body, from_upstream
from services.server.status import details

KEY = "sk-proj-Ab12Cd34Ef56Gh78"


def told(status: int, body: object, media_type: str = "application/json") -> TetradError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_upstream(status, {"content-type": media_type}, raw, endpoint="vllm a:1")


def shown_anywhere(error: TetradError) -> str:
    """Everything that callers and logs can read of an error."""
    _, message, trailers = details(error, "r")
    _, headers, body = response(error, "r")
    raw = b"".join(value if isinstance(value, bytes) else value.encode() for _, value in trailers)
    return "\n".join((
        message, str(error), repr(error), repr(vars(error)), repr(error.upstream),
        raw.decode("utf-8", "replace"), body.decode(), repr(headers),
    ))  # fmt: skip


# --- bodies that are not JSON ---------------------------------------------------------------------

PAGE = b"""<!DOCTYPE html><html><head><title>504 Gateway Time-out</title>
<style>body{color:red}</style><script>alert("x")</script></head><!-- build 7 -->
<body><h1>504 &lt;b&gt;Gateway&lt;/b&gt; Time-out</h1><hr>
<center>nginx/1.25</center></body></html>"""


def test_html_never_reaches_a_caller() -> None:
    """G22."""
    error = told(502, PAGE, media_type="text/html; charset=utf-8")
    assert error.message == (
        f"vllm a:1 answered 502 with text/html, {len(PAGE)} bytes: "
        "504 Gateway Time-out 504 Gateway Time-out nginx/1.25"
    )
    everything = shown_anywhere(error)
    for trace in ("<h1", "<b>", "<html", "alert", "color:red", "build 7"):
        assert trace not in everything
    assert error.openai_error()["code"] == "upstream_unavailable"
    assert error.upstream is not None
    assert error.upstream.error is None


def test_html_inside_json_never_reaches_a_caller() -> None:
    """G22: proxies of proxies put the page in the message."""
    everything = shown_anywhere(
        told(502, {"error": {"message": PAGE.decode(), "x": [PAGE.decode()]}})
    )
    assert "<h1" not in everything
    assert "504 Gateway Time-out" in everything


TRACES = [
    'Boom\nTraceback (most recent call last):\n  File "/srv/app.py", line 3, in f\nKeyError: 1',
    "Boom\n  at com.acme.Secret.run(Secret.java:12)\n  at java.Thread.run(Native Method)",
    "Boom\n    at Object.<anonymous> (/srv/app.js:3:9)",
    "Boom\n    at async /srv/app.js:3:9\n    at /srv/app.js:3:9",
    "<pre>Boom<br> &nbsp; &nbsp;at f (/srv/app.js:3:9)<br> &nbsp; &nbsp;at /srv/app.js:1:1</pre>",
    "Boom thread 'main' panicked at src/app.rs:3:9",
    "Boom\ngoroutine 17 [running]:\nmain.main()\n\t/srv/app.go:3",
    "Boom\nstack backtrace:\n   0: app::f",
]


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
def test_stack_traces_never_reach_a_caller(trace: str, media_type: str) -> None:
    """G22."""
    body = json.dumps({"error": {"message": trace, "x": trace}}) if "json" in media_type else trace
    everything = shown_anywhere(told(500, body.encode(), media_type))
    assert "Boom" in everything
    assert "[stack trace removed]" in everything
    for line in ("app.", "Secret", "main()", "Thread.run"):
        assert line not in everything


def test_plain_text_is_quoted_with_its_media_type_and_size() -> None:
    text = b"Failed to deserialize the JSON body: missing field `inputs` at line 1 column 13"
    error = told(422, text, media_type="text/plain; charset=utf-8")
    assert error.message == f"vllm a:1 answered 422 with text/plain, 79 bytes: {text.decode()}"
    assert error.http_status == 422


def test_an_empty_body_is_called_empty() -> None:
    error = told(401, b"")
    assert error.message == "vllm a:1 answered 401 with an empty body"
    assert error.openai_error()["code"] == "upstream_auth"


def test_a_binary_body_is_not_quoted() -> None:
    body = bytes(range(256)) * 8
    assert told(500, body, media_type="application/octet-stream").message == (
        "vllm a:1 answered 500 with application/octet-stream, 2048 bytes"
    )


def test_a_body_without_a_media_type_says_so() -> None:
    error = from_upstream(500, {}, b"oops", endpoint="")
    assert error.message == "the upstream answered 500 with no media type, 4 bytes: oops"


@pytest.mark.parametrize("body", [
    b"<" * 5_000_000, b"<!--" * 1_000_000, b"<script>" * 500_000, b"a " * 3_000_000,
    b" " * 5_000_000, b"[" * 3_000_000, b'{"error":' * 500_000, b"9" * 5_000_000,
    b'{"error":{"message":"' + b"9" * 3_000_000 + b'"}}', b"\n at " * 1_000_000,
    json.dumps({"error": {"message": "\n at a.b " * 300_000, "x": ["***" * 300_000]}}).encode(),
])  # fmt: skip
def test_a_huge_body_is_bounded_in_time_and_in_what_is_quoted(body: bytes) -> None:
    begun = time.process_time()
    error = from_upstream(500, {}, body, endpoint="e", secrets=[KEY])
    details(error, "r")
    assert time.process_time() - begun < 5
    if error.upstream is not None and error.upstream.error is None:
        assert len(error.message) < 400


def test_json_nested_too_deeply_is_quoted_as_text() -> None:
    deep = b'{"error":' + b"[" * 80 + b"]" * 80 + b"}"
    error = told(400, deep)
    assert error.reason is Reason.UPSTREAM_INVALID_REQUEST
    assert error.message.startswith("vllm a:1 answered 400 with application/json, 170 bytes: ")
    assert from_error_body(json.loads(deep), endpoint="e").reason is Reason.UPSTREAM_FAILED


def test_lone_surrogates_become_replacement_characters() -> None:
    error = told(400, b'{"error":{"message":"a\\ud800b","\\udfff":"\\udc00"}}')
    assert error.openai_error() == {
        "message": "a\ufffdb", "type": "invalid_request_error", "param": None, "code": None,
        "\ufffd": "\ufffd",
    }  # fmt: skip
    assert errors.InvalidRequest("a\ud800").message == "a\ufffd"


# --- keys -----------------------------------------------------------------------------------------

LEAKS = [
    b'{"error":{"message":"Incorrect API key provided: KEY.","type":"t","code":"KEY","KEY":"KEY"}}',
    b'{"error":{"message":"m","param":"KEY","metadata":{"raw":"{\\"k\\":\\"KEY\\"}","l":["KEY"]}}}',
    b'{"detail":[{"loc":["header","KEY"],"msg":"bad KEY","input":"Bearer KEY"}]}',
    b"KEY",
    b"Bearer KEY is wrong",
    b"<html><body>" + b"x" * 170 + b" KEY</body></html>",
    b"<p>" * 6000 + b"KEY",
    b"x" * 16370 + b"KEY",
    b" " * 16370 + b"KEY and more" + b" " * 99,
    b'{"error":"Incorrect API key provided: sk-proj-****Gh78."}',
    b'{"error":"Incorrect API key provided: sk-pr...Gh78 (masked)"}',
]


@pytest.mark.parametrize("body", LEAKS)
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_our_keys_never_reach_a_caller(body: bytes, status: int) -> None:
    """G22."""
    raw = body.replace(b"KEY", KEY.encode())
    error = from_upstream(
        status, {"content-type": f"text/html; {KEY}"}, raw, endpoint="e", secrets=["", KEY, "EMPTY"]
    )
    everything = shown_anywhere(error)
    assert KEY not in everything
    assert KEY[-4:] not in everything
    assert KEY[:8] not in everything


def test_a_key_in_another_spelling_is_found() -> None:
    key = 'p@ss/"w&rd"\\x'
    for written in (key, "p%40ss%2F%22w%26rd%22%5Cx", "p@ss/&quot;w&amp;rd&quot;\\x"):
        error = from_upstream(
            400, {}, json.dumps({"error": f"bad {written}!"}).encode(), endpoint="e", secrets=[key]
        )
        assert error.message == "bad [redacted]!"


def test_a_very_short_key_is_only_replaced_as_a_word() -> None:
    error = from_upstream(400, {}, b'{"error":"key x is not in max"}', endpoint="e", secrets=["x"])
    assert error.message == "key [redacted] is not in max"


def test_a_key_in_a_stream_error_is_redacted() -> None:
    error = from_error_body({"error": f"bad {KEY}"}, endpoint="e", secrets=iter([KEY]))
    assert KEY not in shown_anywhere(error)


def test_text_with_dots_is_not_taken_for_a_masked_key() -> None:
    text = "the value... is ** bad **"
    error = from_upstream(400, {}, json.dumps(text).encode(), endpoint="e", secrets=[KEY])
    assert error.message == text


# --- anything at all ------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
names = st.sampled_from(["error", "message", "type", "param", "code", "detail", "loc", "msg",
                         "object", "success", "x_groq", "choices", KEY])  # fmt: skip
texts = st.text() | st.sampled_from([KEY, f"x {KEY} y", PAGE.decode(), "error", "404", *TRACES])
near_values = st.recursive(
    texts | st.none() | st.integers(),
    lambda inner: st.dictionaries(names, inner, max_size=5) | st.lists(inner, max_size=3),
    max_leaves=15,
)


@settings(deadline=None)
@given(
    status=st.integers(0, 700),
    body=st.binary() | (json_values | near_values).map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(st.sampled_from(["content-type", "retry-after"]), st.text()),
)
def test_from_upstream_takes_anything_and_shows_valid_text_without_keys(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    """G22."""
    error = from_upstream(status, headers, body, endpoint="e", secrets=[KEY])
    everything = shown_anywhere(error)
    assert KEY not in everything
    assert "<html" not in everything
    assert "Traceback (most" not in everything
    shown = json.loads(response(error, "r")[2])["error"]
    assert list(shown)[:4] == ["message", "type", "param", "code"]
    assert isinstance(shown["message"], str)
    assert shown["message"]


@settings(deadline=None)
@given(value=json_values | near_values)
def test_from_error_body_takes_anything(value: Any) -> None:
    error = from_error_body(value, endpoint="e", secrets=[KEY])
    assert KEY not in shown_anywhere(error)
    assert json.loads(response(error, "r")[2])["error"]["message"]


@settings(deadline=None)
@given(st.dictionaries(names, json_values))
def test_error_in_body_takes_anything(value: Any) -> None:
    assert errors.error_in_body(value) in (True, False)
