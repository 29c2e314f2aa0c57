"""Conversations through both faces, with every kind of server behind them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from tetrad.v1 import chat_pb2, chat_service_pb2

from tests.fakes.upstream import Json, Record, Sse
from tests.lib import canonical, recordings
from tests.lib.cases import check
from tests.lib.faces import Case, Sent, sse_data
from tests.lib.world import UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
USAGE = {"include_usage": True}


def whole(name: str, file: str, model: str | None, upstream: str, **members: Any) -> Case:
    """A whole answer: the recorded one under the upstream's name of the model."""
    request = {"messages": HI, **members}
    sent = Sent(PATH, {**request, "model": upstream})
    answer = {**recordings.get(file).json(), "model": upstream}
    named = {"model": model} if model else {}
    return Case(name, "Chat", request | named, sent, [answer], default="vllm")


def streamed(
    name: str, file: str, model: str, upstream: str, *, usage: bool = True, **members: Any
) -> Case:
    """A stream: the recorded one under the upstream's name of the model."""
    request = {"model": model, "messages": HI, **members}
    sent = {**request, "model": upstream, "stream": True, "stream_options": USAGE}
    events: Sequence[Any] = recordings.get(file).events()
    if usage:
        request["stream_options"] = USAGE
    else:
        events = [one for one in events if one["choices"]]
    answers = [{**one, "model": upstream} for one in events]
    return Case(name, "StreamChat", request, Sent(PATH, sent), answers)


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "description": "Height of the tide",
            "parameters": {
                "type": "object",
                "properties": {"z": {"type": "integer", "maximum": 9007199254740993}, "a": {}},
                "required": ["z"],
            },
        },
    }
]


def scripted(name: str, file: str, operation: str = "Chat", **members: Any) -> Case:
    """A request with these members to the scripted upstream, which answers with a recording."""
    request = {"model": "scripted-chat", "messages": HI, **members}
    sent = {**request, "model": UPSTREAM_NAME}
    if operation == "StreamChat":
        sent |= {"stream": True, "stream_options": USAGE}
        request["stream_options"] = USAGE
        answers = recordings.get(file).events()
    else:
        answers = [recordings.get(file).json()]
    ordered = {"ordered": ["/tools/0/function/parameters"]} if "tools" in members else {}
    return Case(
        name, operation, request, Sent(PATH, sent), answers, reply=Record(file), compare=ordered
    )


CHOSEN = {"type": "function", "function": {"name": "tide"}}
LLAMACPP = recordings.get("chat/llamacpp-ping-timings-stream.sse")

CASES = [
    whole("vLLM", "chat/vllm-reasoning-response.json", "vllm", "qwen3-8b"),
    whole("by an alias", "chat/vllm-reasoning-response.json", "chat", "qwen3-8b"),
    whole("no model named", "chat/vllm-reasoning-response.json", None, "qwen3-8b"),
    whole("OpenAI", "chat/openai-text-response.json", "openai", "gpt-5.5"),
    whole("llama.cpp", "chat/llamacpp-timings-response.json", "llamacpp", "../models/m.gguf"),
    whole("Ollama", "chat/ollama-response.json", "ollama", "qwen3:4b"),
    streamed("vLLM, usage asked", "chat/vllm-reasoning-stream.sse", "vllm", "qwen3-8b"),
    streamed("vLLM, not asked", "chat/vllm-reasoning-stream.sse", "vllm", "qwen3-8b", usage=False),
    streamed("OpenAI, usage asked", "chat/openai-usage-stream.sse", "openai", "gpt-5.5"),
    streamed("OpenAI, not asked", "chat/openai-usage-stream.sse", "openai", "gpt-5.5", usage=False),
    streamed("Ollama, usage asked", "chat/ollama-reasoning-stream.sse", "ollama", "qwen3:4b"),
    Case(
        "llama.cpp with comments in its stream",
        "StreamChat",
        {"model": "llamacpp", "messages": HI, "stream_options": USAGE},
        Sent(
            PATH,
            {"model": "../models/m.gguf", "messages": HI, "stream": True, "stream_options": USAGE},
        ),
        LLAMACPP.events(),
    ),
    Case(
        "Ollama reads only the older limit of tokens",
        "Chat",
        {"model": "ollama", "messages": HI, "max_completion_tokens": 9},
        Sent(
            PATH,
            {"model": "qwen3:4b", "messages": HI, "max_completion_tokens": 9, "max_tokens": 9},
        ),
        [{**recordings.get("chat/ollama-response.json").json(), "model": "qwen3:4b"}],
    ),
    scripted(
        "parallel tools",
        "chat/openai-parallel-tools-response.json",
        tools=TOOLS,
        tool_choice=CHOSEN,
        parallel_tool_calls=True,
    ),
    scripted(
        "parallel tools, streamed",
        "chat/openai-parallel-tools-stream.sse",
        "StreamChat",
        tools=TOOLS,
        tool_choice="required",
    ),
    scripted(
        "log probabilities", "chat/openai-logprobs-response.json", logprobs=True, top_logprobs=2
    ),
    scripted(
        "two answers with log probabilities, streamed",
        "chat/openai-logprobs-stream.sse",
        "StreamChat",
        logprobs=True,
        n=2,
    ),
    scripted("a refusal", "chat/openai-refusal-response.json"),
    scripted("sound", "chat/openai-audio-response.json", modalities=["text", "audio"]),
    scripted("zero and empty values", "chat/openai-text-response.json", temperature=0, stop=[]),
    scripted("one stop text", "chat/openai-text-response.json", stop="\n"),
    scripted("stream: false", "chat/openai-text-response.json", stream=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_conversation_goes_alike_through_both_faces(world: World, case: Case) -> None:
    await check(world, case)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "made_up"])
@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("n", [1, 2])
async def test_a_finish_reason_is_never_changed(
    world: World, reason: str, logprobs: bool, n: int
) -> None:
    """G3."""
    told = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
    probabilities = {"logprobs": told} if logprobs else {}
    members = {"model": "scripted-chat", "messages": HI, "n": n, "logprobs": logprobs}
    sent = {**members, "model": UPSTREAM_NAME}
    last = [{"index": i, "finish_reason": reason, **probabilities} for i in range(n)]
    answer = {
        "id": "c",
        "choices": [{**one, "message": {"role": "assistant", "content": "a"}} for one in last],
    }
    chunks = [
        *({"id": "c", "choices": [{"index": i, "delta": {"content": "a"}}]} for i in range(n)),
        *({"id": "c", "choices": [{**one, "delta": {}}]} for one in last),
    ]
    await check(
        world, Case("whole", "Chat", members, Sent(PATH, sent), [answer], reply=Json(answer))
    )
    sent = {**sent, "stream": True, "stream_options": USAGE}
    await check(
        world, Case("streamed", "StreamChat", members, Sent(PATH, sent), chunks, reply=Sse(chunks))
    )


async def test_bytes_of_an_image_reach_the_upstream_as_the_data_url_of_a_rest_caller(
    world: World,
) -> None:
    image = bytes(range(256))
    world.script(Record("chat/openai-text-response.json"))
    world.scripted.forget()

    url = "data:image/png;base64," + base64.b64encode(image).decode()
    parts: list[Any] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    body = {"model": "scripted-chat", "messages": [{"role": "user", "content": parts}]}
    answer = await world.relaying.rest.post(PATH, json=body)
    assert answer.status_code == 200

    raw = chat_pb2.ImageUrl(data=image, media_type="image/png", detail="low")
    request = chat_service_pb2.ChatRequest(
        model="scripted-chat",
        messages=[
            chat_pb2.ChatMessage(
                role="user",
                content=chat_pb2.Content(
                    parts=chat_pb2.ContentParts(
                        parts=[
                            chat_pb2.ContentPart(text="What is this?"),
                            chat_pb2.ContentPart(image_url=raw),
                        ]
                    )
                ),
            )
        ],
    )
    await world.relaying.stub("ChatService", "Chat")(request)
    rest, grpc = (one.body for one in world.scripted.requests)
    canonical.assert_same(rest, grpc, message="ChatRequest")
    canonical.assert_same({**body, "model": UPSTREAM_NAME}, grpc, message="ChatRequest")


async def test_over_grpc_the_method_decides_and_not_the_member_stream(world: World) -> None:
    world.script(Record("chat/openai-text-response.json"))
    world.scripted.forget()
    asked = {"model": "scripted-chat", "messages": HI, "stream": True}
    answer = await world.relaying.call("ChatService", "Chat", asked)
    assert answer["object"] == "chat.completion"
    assert not world.scripted.requests[0].json().get("stream")

    world.script(Record("chat/openai-usage-stream.sse"))
    asked["stream"] = False
    stream = world.relaying.stream("ChatService", "StreamChat", asked)
    assert [one["object"] async for one in stream] == ["chat.completion.chunk"] * 4
    assert world.scripted.requests[1].json()["stream"] is True


async def test_a_relayed_stream_is_the_upstream_s_own_bytes(world: World) -> None:
    """Also members in their order and numbers as they were printed."""
    chunk = (
        b'{"choices":[{"delta":{"content":"a"},"index":0,"finish_reason":"stop"}],"x":1.50,"id":""}'
    )
    world.script(Sse([b"data: " + chunk + b"\n\n"]))
    answer = await world.relaying.rest.post(
        PATH, json={"model": "scripted-chat", "messages": HI, "stream": True}
    )
    assert sse_data(answer.text) == [chunk.decode(), "[DONE]"]
    answer = await world.recoding.rest.post(
        PATH, json={"model": "scripted-chat", "messages": HI, "stream": True}
    )
    printed, done = sse_data(answer.text)
    assert done == "[DONE]"
    assert canonical.differences(chunk, printed) == []
    assert json.loads(printed)["choices"][0]["logprobs"] is None
