"""Every shape of error body through both faces: the table's status, the upstream's own words.

Covers G22: REST prints the upstream's error object with all its members, gRPC carries it in
UpstreamError, and both say the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from services import codec
from tests.fakes.upstream import Json, Record, Reply, Sse
from tests.lib import recordings
from tests.lib.lossless import GRPC, OPERATIONS, WAYS, Lab, Way, lab
from tests.lib.recordings import Recording

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = OPERATIONS["chat.completions"]
INVALID, SERVER = "invalid_request_error", "server_error"


class Told(NamedTuple):
    """What callers are told: the gRPC code and reason, the REST status, the error's members.

    `{}` in the message stands for the endpoint. `more` are the upstream's own further members,
    `fields` the members named in BadRequest.
    """

    code: str
    reason: str
    status: int
    message: str
    type: Any
    error_code: Any = None
    param: Any = None
    more: Mapping[str, Any] = {}
    fields: tuple[str, ...] = ()

    def error(self, endpoint: str) -> dict[str, Any]:
        """The error object over REST."""
        return {
            "message": self.message.replace("{}", endpoint),
            "type": self.type,
            "param": self.param,
            "code": self.error_code,
            **self.more,
        }


REFUSED = ("INVALID_ARGUMENT", "UPSTREAM_INVALID_REQUEST")
UNAVAILABLE = ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE", 503)
FAILED = ("INTERNAL", "UPSTREAM_FAILED", 502)
ACCOUNT = ("INTERNAL", "UPSTREAM_AUTH", 502)
DETAIL = [
    {
        "type": "int_parsing",
        "loc": ["body", "messages", 0, "n"],
        "msg": "Input should be a valid integer",
        "input": "two",
        "ctx": {"error": {}},
    },
    {"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": None},
]

# By the shapes that upstreams print.
EXPECTED: Mapping[str, Told] = {
    # {"error": {message, type, param, code as text}}
    "azure-content-filter": Told(
        *(*REFUSED, 400, "The response was filtered.", INVALID, "content_filter", "prompt"),
        more={
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {
                    "hate": {"filtered": False, "severity": "safe"},
                    "jailbreak": None,
                },
            },
            "request_id": "r-1",
        },
        fields=("prompt",),
    ),
    "openai-request-id": Told(
        *("ABORTED", "CONFLICT", 409, "{} answered 409 Conflict", "conflict", "conflict"),
        more={"": {"a": None}},
    ),
    "groq-capacity": Told(
        *(*FAILED, "Failed to call a function.", "internal_server_error", "tool_use_failed"),
        more={"failed_generation": '<f>{"a": 1</f>', "n": 1e5, "status_code": None},
    ),
    # code a number, or no param
    "vllm-code-int": Told(
        *(*REFUSED, 400, "temperature must be non-negative, got -1.0.", "BadRequestError", 400),
        more={"x": 2**64},
    ),
    "llamacpp-no-param": Told(
        *("UNIMPLEMENTED", "NOT_OFFERED", 501),
        "This server does not support embeddings. Start it with `--embeddings`",
        *("not_supported_error", 501),
    ),
    "openrouter-metadata": Told(
        *(*ACCOUNT, "Insufficient credits", SERVER, 402),
        more={
            "metadata": {"raw": '{"error":1}', "provider_name": None, "limits": [1.0, 2**53 + 1]},
            "user_id": "u-1",
        },
    ),
    # {"error": "text"}
    "ollama-native": Told(
        *UNAVAILABLE,
        "server busy, please try again.  maximum pending requests exceeded",
        *(SERVER, "upstream_unavailable"),
    ),
    # {"error": "text", "error_type"}
    "tei-backend": Told(*FAILED, "Could not run the model", "Backend", "upstream_failed"),
    # {message, code, type} without a frame
    "tei-flat": Told(
        *("RESOURCE_EXHAUSTED", "UPSTREAM_RATE_LIMITED", 429),
        *("Model is overloaded", "overloaded", "rate_limit_exceeded"),
    ),
    # {"detail": "text"}
    "speaches-detail-text": Told(
        *("INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE", 415),
        *("Failed to decode audio.", INVALID, "unsupported_media_type"),
        more={"hint": "Unsupported codec", "suggested_fixes": ["Use wav", None], "error_id": 7},
    ),
    # {"detail": [...]}
    "fastapi-detail-list": Told(
        *(*REFUSED, 422),
        "messages[0].n: Input should be a valid integer; model: Field required",
        *(INVALID, None, "messages[0].n"),
        more={"object": "error", "detail": DETAIL},
        fields=("messages[0].n", "model"),
    ),
    # {message, id}
    "cohere-flat": Told(
        *(*UNAVAILABLE, "invalid token", SERVER, "upstream_unavailable"), more={"id": "0f1e"}
    ),
    # {"object": "error", message, type, code}
    "mistral-object": Told(
        *(*REFUSED, 400, "Invalid model: x", "invalid_model", 1500, ["model", 0]),
        more={"object": "error", "raw_status_code": 400},
        fields=('["model", 0]',),
    ),
    # {"success": false, "error": {...}}
    "proxy-success-false": Told(
        *(*UNAVAILABLE, "Overloaded", ["a"], {"n": 1}),
        more={"success": False, "result": None},
    ),
    # no JSON
    "envoy-text": Told(
        *("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 504),
        "{} answered 504 with text/plain, 24 bytes: upstream request timeout",
        *("timeout_error", "deadline_exceeded"),
    ),
    "axum-text": Told(
        *(*REFUSED, 422),
        "{} answered 422 with text/plain, 100 bytes: Failed to deserialize the JSON body into the "
        "target type: missing field `inputs` at line 1 column 17",
        INVALID,
    ),
    "nginx-page": Told(
        *(*REFUSED, 413),
        "{} answered 413 with text/html, 183 bytes: 413 Request Entity Too Large "
        "413 Request Entity Too Large nginx/1.27.0",
        INVALID,
    ),
    "tei-empty": Told(
        *(*ACCOUNT, "{} answered 401 with an empty body", SERVER, "upstream_auth"),
    ),
}

SHAPES = recordings.own(operation="error")
by_way = pytest.mark.parametrize("way", WAYS, ids=str)


def name(one: Recording) -> str:
    return one.file.removeprefix("own/errors/").removesuffix(".json")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="rig")
async def _rig() -> AsyncIterator[Lab]:
    async with lab() as one:
        yield one


async def test_every_shape_is_expected() -> None:
    assert {name(one) for one in SHAPES} == set(EXPECTED)
    assert len(SHAPES) == 18


async def failure(rig: Lab, way: Way, reply: Reply, *, streamed: bool) -> tuple[Any, Any, Any]:
    """How a good request fails: the status, the error object or details by name, the message."""
    rig.script(reply)
    members = {"messages": [{"role": "user", "content": "hi"}], "stream": streamed}
    got = await rig.ask(way, CHAT, codec.dumps(members), streamed=streamed)
    if got.failure is None:  # in a stream that began well
        event = json.loads(got.texts[-1])
        assert not got.done
        got.failure, got.said = (200, event["error"]), event["error"]["message"]
    return *got.failure, got.said


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@by_way
@pytest.mark.parametrize("one", SHAPES, ids=name)
async def test_an_error_of_any_shape_comes_through(
    rig: Lab, one: Recording, way: Way, streamed: bool
) -> None:
    """G22."""
    told, endpoint = EXPECTED[name(one)], f"openai 127.0.0.1:{rig.upstream.port}"
    status, shown, said = await failure(rig, way, Record(one.file), streamed=streamed)
    assert said == told.error(endpoint)["message"]
    if way is not GRPC:
        assert (status, shown) == (told.status, told.error(endpoint))
        return
    assert (status, shown["ErrorInfo"].reason) == (told.code, told.reason)
    assert _fields(shown) == told.fields
    upstream = shown["UpstreamError"]
    assert (upstream.endpoint, upstream.http_status) == (endpoint, one.http_status)
    if one.mode == "text":
        assert told.message == f"{{}} answered {one.http_status} with {upstream.body}"
        assert (upstream.type, upstream.code, upstream.param) == ("", "", "")
    else:
        assert json.loads(upstream.body) == json.loads(one.bytes)
        theirs = (upstream.type, upstream.code, upstream.param)
        assert theirs == tuple(map(_text, _own(one)))


def _fields(details: Mapping[str, Any]) -> tuple[str, ...]:
    bad = details.get("BadRequest")
    return tuple(each.field for each in bad.field_violations) if bad else ()


def _own(one: Recording) -> tuple[Any, Any, Any]:
    """Type, code and param as the upstream printed them, wherever that was."""
    body = one.json()
    error = body.get("error")
    error = error if isinstance(error, dict) else body
    param = error.get("param") or (EXPECTED[name(one)].param if "detail" in body else None)
    return error.get("type") or error.get("error_type"), error.get("code"), param


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


# Errors inside what began as a success.

OWN = {"message": "Out of memory", "type": "x", "param": None, "code": "oom", "n": [1.0, None]}
IN_A_SUCCESS: Mapping[str, Any] = {
    "error": {"error": OWN},
    "error beside choices": {"error": OWN, "choices": [{"index": 0, "delta": {"content": "a"}}]},
    "error in x_groq": {"x_groq": {"id": "q", "error": OWN}},
    "object error": {"object": "error", **OWN},
    "success false": {"success": False, "error": OWN},
}


@by_way
@pytest.mark.parametrize("shape", IN_A_SUCCESS)
async def test_an_error_in_a_success_comes_through(rig: Lab, shape: str, way: Way) -> None:
    """G22."""
    body = IN_A_SUCCESS[shape]
    for reply, streamed in ((Json(body), False), (Sse([body]), True), (_late(body), True)):
        status, shown, said = await failure(rig, way, reply, streamed=streamed)
        assert said == OWN["message"]
        if way is GRPC:
            assert (status, shown["ErrorInfo"].reason) == ("INTERNAL", "UPSTREAM_FAILED")
            upstream = shown["UpstreamError"]
            assert (upstream.http_status, upstream.type, upstream.code) == (200, "x", "oom")
            assert json.loads(upstream.body) == body
        else:
            assert status in (502, 200)
            assert {name: shown[name] for name in OWN} == OWN


def _late(body: Any) -> Reply:
    """A stream that begins well and then holds the error."""
    return Sse([{"choices": [{"index": 0, "delta": {"content": "a"}}]}, body])
