"""Upstreams that fail: one status on each face for one cause, the same words on both (G22)."""

from __future__ import annotations

import json

import grpc
import pytest

from tests.fakes.upstream import CloseConnection, Cut, Json, Raw, Record, Reply
from tests.lib.asked import HI, REQUESTS, failed
from tests.lib.cases import check
from tests.lib.faces import (
    Case,
    Failure,
    message,
)
from tests.lib.gateway import details
from tests.lib.world import KEY, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

# What upstreams answer.

OVERFLOW = {
    "error": {
        "message": "This model's maximum context length is 4096 tokens. However, you requested "
        "5000 tokens (4000 in the messages, 1000 in the completion).",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}
TOO_LONG = Failure(
    "CONTEXT_LENGTH_EXCEEDED",
    "INVALID_ARGUMENT",
    400,
    OVERFLOW["error"]["message"],
    error_code="context_length_exceeded",
    param="messages",
    again=False,
    fields=("messages",),
)
REFUSED_ACCOUNT = Failure(
    "UPSTREAM_AUTH",
    "INTERNAL",
    502,
    "Incorrect API key provided: [redacted].",
    "invalid_request_error",
    "invalid_api_key",
    again=False,
)
BAD_KEY = {
    "error": {
        "message": f"Incorrect API key provided: {KEY}.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
}
RATE = Failure(
    "UPSTREAM_RATE_LIMITED",
    "RESOURCE_EXHAUSTED",
    429,
    "Rate limit reached.",
    "requests",
    "rate_limit_exceeded",
    wait=7.0,
    again=False,
)
UNAVAILABLE = Failure(
    "UPSTREAM_UNAVAILABLE",
    "UNAVAILABLE",
    503,
    "The engine is currently busy and cannot accept new requests.",
    "Service Unavailable",
    503,
    again=False,
)
FAILED = Failure(
    "UPSTREAM_FAILED",
    "INTERNAL",
    502,
    "EngineCore encountered an issue.",
    "InternalServerError",
    500,
    again=False,
)
BROKEN = {
    "error": {
        "message": "EngineCore encountered an issue.",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
}
QUOTA = {
    "error": {
        "message": "You exceeded your current quota.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
}


def answered(name: str, reply: Reply, failure: Failure) -> list[Case]:
    """The same refusal by the upstream in each operation."""
    return [failed(name, operation, reply, failure) for operation in REQUESTS]


ANSWERED = [
    *answered("400, too long", Json(OVERFLOW, 400), TOO_LONG),
    *answered("401", Json(BAD_KEY, 401), REFUSED_ACCOUNT),
    *answered("429", Record("errors/openai-rate-limit.json", headers={"retry-after": "7"}), RATE),
    *answered("500", Json(BROKEN, 500), FAILED),
    *answered("503", Record("errors/vllm-queue-overflow.json"), UNAVAILABLE),
    failed(
        "404",
        "Chat",
        Record("errors/openai-model-not-found.json"),
        Failure(
            "MODEL_NOT_FOUND",
            "NOT_FOUND",
            404,
            "The model `x` does not exist.",
            error_code="model_not_found",
            again=False,
        ),
    ),
    failed(
        "422",
        "Rerank",
        Record("errors/tei-batch-too-large.json"),
        Failure(
            "UPSTREAM_INVALID_REQUEST",
            "INVALID_ARGUMENT",
            422,
            "batch size 33 > maximum allowed batch size 32",
            "Validation",
            again=False,
        ),
    ),
    failed(
        "400 with a number as code",
        "Chat",
        Record("errors/vllm-bad-request.json"),
        Failure(
            "UPSTREAM_INVALID_REQUEST",
            "INVALID_ARGUMENT",
            400,
            "max_tokens must be at least 1, got 0.",
            "BadRequestError",
            400,
            "max_tokens",
            again=False,
            fields=("max_tokens",),
        ),
    ),
    failed(
        "llama.cpp's overflow",
        "StreamChat",
        Record("errors/llamacpp-exceed-context.json"),
        Failure(
            "CONTEXT_LENGTH_EXCEEDED",
            "INVALID_ARGUMENT",
            400,
            "request (9000 tokens) exceeds the available context size (8192 tokens)",
            "exceed_context_size_error",
            "context_length_exceeded",
            again=False,
            more={"n_prompt_tokens": 9000, "n_ctx": 8192},
        ),
    ),
    failed(
        "an empty account",
        "Chat",
        Json(QUOTA, 429, {"retry-after": "9"}),
        Failure(
            "QUOTA_EXHAUSTED",
            "RESOURCE_EXHAUSTED",
            429,
            "You exceeded your current quota.",
            "insufficient_quota",
            "insufficient_quota",
            again=False,
        ),
    ),
    failed(
        "an HTML page",
        "Chat",
        Raw(b"<html><body><h1>502 Bad Gateway</h1>nginx</body></html>", "text/html", 502),
        Failure(
            "UPSTREAM_UNAVAILABLE",
            "UNAVAILABLE",
            503,
            "...502",
            "server_error",
            "upstream_unavailable",
            again=False,
        ),
    ),
]


@pytest.mark.parametrize("case", ANSWERED, ids=str)
async def test_a_refusal_by_the_upstream_comes_through_both_faces(world: World, case: Case) -> None:
    await check(world, case)


# A 200 that is none.

IN_A_GOOD_ANSWER = [
    *(
        failed("200 with an error", operation, Json(BROKEN), FAILED)
        for operation in ("Chat", "StreamChat", "Embed", "Transcribe", "Rerank")
    ),
    *(
        failed(
            "200 cut in its JSON",
            operation,
            Cut(Json({"choices": [], "data": [], "results": [], "text": "Quay four."}), 30),
            Failure(
                "UPSTREAM_TRUNCATED",
                "UNAVAILABLE",
                503,
                "...broke off",
                "server_error",
                "upstream_truncated",
                again=False,
            ),
        )
        for operation in ("Chat", "Embed", "Transcribe", "Rerank")
    ),
    *(
        failed(
            "200 that is a page",
            operation,
            Raw(b"<html>Welcome</html>", "text/html"),
            Failure(
                "UPSTREAM_PROTOCOL",
                "INTERNAL",
                502,
                "...",
                "server_error",
                "upstream_protocol",
                again=False,
            ),
        )
        for operation in REQUESTS
    ),
    *(
        failed(
            "no answer at all",
            operation,
            CloseConnection(),
            Failure(
                "UPSTREAM_UNAVAILABLE",
                "UNAVAILABLE",
                503,
                "...closed the connection before it answered",
                "server_error",
                "upstream_unavailable",
                again=False,
            ),
        )
        for operation in ("Chat", "StreamChat", "Embed", "Rerank")
    ),
]


@pytest.mark.parametrize("case", IN_A_GOOD_ANSWER, ids=str)
async def test_a_good_status_without_an_answer_is_no_success(world: World, case: Case) -> None:
    """G2."""
    # A kept connection that ends without an answer is tried anew: here each shall be a new one.
    await world.scripted.drop(only_idle=True)
    await check(world, case)


@pytest.mark.parametrize("operation", ["Chat", "StreamChat"])
async def test_nobody_at_the_upstream_s_port_is_unavailable(world: World, operation: str) -> None:
    failure = Failure(
        "UPSTREAM_UNAVAILABLE",
        "UNAVAILABLE",
        503,
        "...cannot be reached: Connection refused",
        "server_error",
        "upstream_unavailable",
    )
    await check(
        world,
        Case("gone", operation, {"model": "gone", "messages": HI}, None, failure=failure),
    )


async def test_an_upstream_s_body_is_told_to_grpc_callers_without_the_key(world: World) -> None:
    world.script(Json(BAD_KEY, 401))
    request = message("ChatRequest", {"model": "scripted-chat", "messages": HI})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.relaying.stub("ChatService", "Chat")(request)
    told = details(caught.value)["UpstreamError"]
    assert told.endpoint == f"openai 127.0.0.1:{world.scripted.port}"
    assert (told.http_status, told.code) == (401, "invalid_api_key")
    assert json.loads(told.body)["error"]["message"] == "Incorrect API key provided: [redacted]."
    assert KEY not in str(caught.value.trailing_metadata())
