"""The official OpenAI SDK, unchanged: the gateway's failures are the SDK's own exceptions (G42)."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fakes.upstream import Json, Record, Reply
from tests.lib.sdk import Sdk
from tests.lib.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

HI: Any = [{"role": "user", "content": "hi"}]


async def failure(sdk: Sdk, kind: type[openai.APIStatusError], **asked: Any) -> Any:
    with pytest.raises(kind) as caught:
        await sdk.call(lambda client: client.chat.completions.create(messages=HI, **asked))
    return caught.value


async def test_an_unknown_model_is_not_found(sdk: Sdk) -> None:
    error = await failure(sdk, openai.NotFoundError, model="nobody")
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "not_found_error")
    assert "the model `nobody` does not exist" in error.message
    assert error.request_id.startswith("req_")
    with pytest.raises(openai.NotFoundError):
        await sdk.call(lambda client: client.models.retrieve("nobody/home"))


async def test_a_rate_limit_tells_how_long_to_wait(sdk: Sdk, world: World) -> None:
    world.script(Record("errors/openai-rate-limit.json", headers={"retry-after": "7"}))
    error = await failure(sdk, openai.RateLimitError, model="scripted-chat")
    assert error.code == "rate_limit_exceeded"
    assert error.response.headers["retry-after"] == "7"
    assert error.response.headers["x-should-retry"] == "false"


async def test_too_long_a_prompt_has_its_code(sdk: Sdk, world: World) -> None:
    world.script(Record("errors/llamacpp-exceed-context.json"))
    error = await failure(sdk, openai.BadRequestError, model="scripted-chat")
    assert error.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("reply", "kind", "status"),
    [
        (
            Json({"error": {"message": "m", "type": "t", "code": None}}, 500),
            openai.InternalServerError,
            502,
        ),
        (Record("errors/vllm-queue-overflow.json"), openai.InternalServerError, 503),
        (Record("errors/tei-batch-too-large.json"), openai.UnprocessableEntityError, 422),
        (Record("errors/vllm-unauthorized.json"), openai.InternalServerError, 502),
    ],
    ids=["500", "503", "422", "401 of our account"],
)
async def test_the_upstream_s_failures_have_their_classes(
    sdk: Sdk, world: World, reply: Reply, kind: type[openai.APIStatusError], status: int
) -> None:
    world.script(reply)
    error = await failure(sdk, kind, model="scripted-chat")
    assert error.status_code == status


async def test_an_operation_that_the_model_lacks_is_501(sdk: Sdk) -> None:
    error = await failure(sdk, openai.InternalServerError, model="embeddings")
    assert (error.status_code, error.code) == (501, "not_offered")


@pytest.mark.parametrize(
    "reply",
    [
        Record("chat/vllm-error-then-done-stream.sse"),
        Record("chat/openai-truncated-stream.sse"),
        Record("chat/openrouter-midstream-error-stream.sse"),
    ],
    ids=["error event", "truncated", "error beside choices"],
)
async def test_a_stream_that_fails_raises_after_what_came_before(
    sdk: Sdk, world: World, reply: Reply
) -> None:
    """G1: the SDK does not miss [DONE]; only the error event makes it raise."""
    world.script(reply)
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        await sdk.stream(
            lambda client: client.chat.completions.create(
                model="scripted-chat", messages=HI, stream=True
            ),
            chunks,
        )
    assert chunks
    assert caught.value.message
    assert caught.value.body["request_id"].startswith("req_")  # type: ignore[index]


async def test_a_failure_before_the_first_chunk_has_its_own_class(sdk: Sdk, world: World) -> None:
    world.script(Record("errors/openai-rate-limit.json"))
    with pytest.raises(openai.RateLimitError):
        await sdk.stream(
            lambda client: client.chat.completions.create(
                model="scripted-chat", messages=HI, stream=True
            )
        )


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_sdk_s_own_retries_leave_a_call_alone_that_reached_an_upstream(
    world: World, kind: str
) -> None:
    """G19: layers never multiply."""
    world.script(Record("errors/vllm-queue-overflow.json"))
    made: dict[str, Any] = {"base_url": f"{world.relaying.url}/v1", "api_key": "none"}
    world.scripted.forget()
    if kind == "sync":
        with OpenAI(**made, max_retries=3) as client, pytest.raises(openai.InternalServerError):
            await asyncio.to_thread(
                client.chat.completions.create, model="scripted-chat", messages=HI
            )
    else:
        async with AsyncOpenAI(**made, max_retries=3) as waiting:
            with pytest.raises(openai.InternalServerError):
                await waiting.chat.completions.create(model="scripted-chat", messages=HI)
    assert len(world.scripted.requests) == 1
