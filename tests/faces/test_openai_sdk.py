"""The official OpenAI SDK, unchanged, sync and async, against the REST face (G42)."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fakes import answers
from tests.fakes.upstream import Record
from tests.lib import recordings
from tests.lib.faces import File
from tests.lib.sdk import Sdk
from tests.lib.world import MODELS, UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

HI: Any = [{"role": "user", "content": "hi"}]
SOUND = File()


async def test_a_chat_is_answered(sdk: Sdk) -> None:
    answer = await sdk.call(
        lambda client: client.chat.completions.create(model="openai", messages=HI, temperature=0)
    )
    wanted = recordings.get("chat/openai-text-response.json").json()
    assert answer.model == "gpt-5.5"
    assert answer.choices[0].message.content == wanted["choices"][0]["message"]["content"]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == wanted["usage"]["total_tokens"]
    assert answer._request_id.startswith("req_")


async def test_members_beyond_openai_s_arrive_on_both_ways(sdk: Sdk, world: World) -> None:
    """G23: what the SDK calls extra_body, and members that it has no type for."""
    world.script(Record("chat/openai-unknown-members-response.json"))
    world.scripted.forget()
    more = {"chat_template_kwargs": {"enable_thinking": False}, "x_any": [9007199254740993]}
    answer = await sdk.call(
        lambda client: client.chat.completions.create(
            model="scripted-chat", messages=HI, extra_body=more
        )
    )
    assert more.items() <= world.scripted.requests[0].json().items()
    assert answer.x_r == recordings.get("chat/openai-unknown-members-response.json").json()["x_r"]


async def test_a_chat_is_streamed_with_its_usage(sdk: Sdk) -> None:
    chunks = await sdk.stream(
        lambda client: client.chat.completions.create(
            model="openai", messages=HI, stream=True, stream_options={"include_usage": True}
        )
    )
    recorded = recordings.get("chat/openai-usage-stream.sse").events()
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert len(chunks) == len(recorded)
    assert text == "".join(
        one["choices"][0]["delta"].get("content") or "" for one in recorded if one["choices"]
    )
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == recorded[-1]["usage"]["total_tokens"]


async def test_without_being_asked_no_usage_chunk_comes(sdk: Sdk) -> None:
    chunks = await sdk.stream(
        lambda client: client.chat.completions.create(model="openai", messages=HI, stream=True)
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
        },
    }
]


async def test_parallel_tool_calls_are_read(sdk: Sdk, world: World) -> None:
    world.script(Record("chat/openai-parallel-tools-response.json"))
    answer = await sdk.call(
        lambda client: client.chat.completions.create(
            model="scripted-chat", messages=HI, tools=TOOLS, parallel_tool_calls=True
        )
    )
    recorded = recordings.get("chat/openai-parallel-tools-response.json").json()
    wanted = recorded["choices"][0]["message"]["tool_calls"]
    got = answer.choices[0].message.tool_calls
    assert [one.id for one in got] == [one["id"] for one in wanted]
    assert [one.function.arguments for one in got if one.type == "function"] == [
        one["function"]["arguments"] for one in wanted if one["type"] == "function"
    ]
    assert answer.choices[0].message.content is None


async def test_streamed_tool_calls_can_be_put_together(sdk: Sdk, world: World) -> None:
    world.script(Record("chat/openai-parallel-tools-stream.sse"))
    chunks = await sdk.stream(
        lambda client: client.chat.completions.create(
            model="scripted-chat", messages=HI, tools=TOOLS, stream=True
        )
    )
    joined: dict[int, str] = {}
    wanted: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                joined[call.index] = joined.get(call.index, "") + (call.function.arguments or "")
    for event in recordings.get("chat/openai-parallel-tools-stream.sse").events():
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                text = call["function"].get("arguments") or ""
                wanted[call["index"]] = wanted.get(call["index"], "") + text
    assert joined == wanted
    assert len(joined) > 1


async def test_the_sdk_s_own_stream_helper_works(sdk: Sdk) -> None:
    """It keeps a snapshot of the answer, which every chunk must fit."""

    def sync(client: OpenAI) -> Any:
        with client.chat.completions.stream(model="openai", messages=HI) as stream:
            return stream.get_final_completion()

    async def waiting(client: AsyncOpenAI) -> Any:
        async with client.chat.completions.stream(model="openai", messages=HI) as stream:
            return await stream.get_final_completion()

    def ask(client: Any) -> Any:
        return sync(client) if isinstance(client, OpenAI) else waiting(client)

    answer = await sdk.call(ask)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content


# Embeddings.


async def test_vectors_come_by_the_sdk_s_own_base64(sdk: Sdk, world: World) -> None:
    """G27: the SDK asks for base64 unless it is told otherwise."""
    for model in ("openai-embed", "vllm-embed", "acme/lab/tei"):
        upstream = world.behind(model)
        upstream.forget()
        answer = await sdk.call(
            lambda client, model=model: client.embeddings.create(model=model, input=["a", "b"])
        )
        assert [one.embedding for one in answer.data] == [answers.vector(t) for t in "ab"]
        assert answer.usage.prompt_tokens == 2
        assert upstream.requests[0].json()["encoding_format"] == "base64"


async def test_vectors_come_as_numbers_if_asked(sdk: Sdk) -> None:
    answer = await sdk.call(
        lambda client: client.embeddings.create(
            model="embeddings", input="quay", encoding_format="float"
        )
    )
    assert answer.data[0].embedding == answers.vector("quay")


# Speech.


def sound() -> Any:
    return (SOUND.name, io.BytesIO(SOUND.data), SOUND.media_type)


async def test_speech_is_transcribed(sdk: Sdk) -> None:
    for model in ("openai-speech", "whisper", "vllm-speech"):
        answer = await sdk.call(
            lambda client, model=model: client.audio.transcriptions.create(
                model=model, file=sound()
            )
        )
        assert answer.text.strip().startswith("Quay four")


async def test_words_and_segments_are_read(sdk: Sdk, world: World) -> None:
    world.fakes["openai"].forget()
    answer = await sdk.call(
        lambda client: client.audio.transcriptions.create(
            model="openai-speech",
            file=sound(),
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    )
    wanted = recordings.get("transcriptions/openai-verbose-response.json").json()
    assert [one.word for one in answer.words] == [one["word"] for one in wanted["words"]]
    assert [one.start for one in answer.segments] == [one["start"] for one in wanted["segments"]]
    (request,) = world.fakes["openai"].requests
    assert request.form_values("timestamp_granularities") == ["word", "segment"]


async def test_a_transcript_can_be_plain_text(sdk: Sdk) -> None:
    answer = await sdk.call(
        lambda client: client.audio.transcriptions.create(
            model="openai-speech", file=sound(), response_format="text"
        )
    )
    assert answer == recordings.get("transcriptions/openai-text-response.json").text_body()[1]


@pytest.mark.parametrize("model", ["openai-speech", "whisper", "vllm-speech", "etalab"])
async def test_a_transcript_is_streamed_and_ends_with_done(sdk: Sdk, model: str) -> None:
    events = await sdk.stream(
        lambda client: client.audio.transcriptions.create(model=model, file=sound(), stream=True)
    )
    deltas = [one.delta for one in events if one.type == "transcript.text.delta"]
    assert [one.type for one in events].index("transcript.text.done") == len(events) - 1
    assert events[-1].text == "".join(deltas) or not deltas
    assert "Quay four" in events[-1].text


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK's own word on it
async def test_speech_is_translated(sdk: Sdk, world: World) -> None:
    world.fakes["openai"].forget()
    answer = await sdk.call(
        lambda client: client.audio.translations.create(model="openai-speech", file=sound())
    )
    assert answer.text == "Quay four."
    assert [one.path for one in world.fakes["openai"].requests] == ["/v1/audio/translations"]


# Models.


async def test_models_are_listed_and_retrieved(sdk: Sdk) -> None:
    page = await sdk.call(lambda client: client.models.list())
    assert [model.id for model in page.data] == sorted(MODELS)
    for name in ("vllm", "acme/lab/tei"):
        model = await sdk.call(lambda client, name=name: client.models.retrieve(name))
        assert (model.id, model.object, model.type) == (name, "model", MODELS[name].type)


async def test_the_raw_answer_names_model_and_endpoint(sdk: Sdk, world: World) -> None:
    raw = await sdk.call(
        lambda client: client.chat.completions.with_raw_response.create(
            model="openai", messages=HI, extra_headers={"x-request-id": "mine-1"}
        )
    )
    headers: httpx.Headers = raw.headers
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-tetrad-model"] == "openai"
    assert headers["x-tetrad-endpoint"] == f"openai 127.0.0.1:{world.fakes['openai'].port}"
    assert UPSTREAM_NAME not in str(headers)
