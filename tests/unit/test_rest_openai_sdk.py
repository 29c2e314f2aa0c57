"""The official OpenAI SDK against the REST face."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from services import errors
from services.body import Body, Document
from services.call import Call
from tests.unit.rest_server import (
    CHAT,
    CLOSED,
    EMBED,
    KEY,
    MODEL,
    TRANSCRIBE,
    Rest,
    Unused,
    serving,
)


class Everything(Unused):
    """Answers every operation as a small upstream would."""

    async def chat(self, request: Body, call: Call) -> Body:
        """One answer."""
        text = request.get("messages")[0]["content"]
        if text == "wait":
            raise errors.RateLimited(retry_after=0.001)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Body.from_value("ChatResponse", {"id": "c", "choices": [choice]})

    async def stream_chat(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        """Two chunks, and a failure if told so."""
        for text in ("Hel", "lo"):
            choice = {"index": 0, "delta": {"content": text}}
            yield [Body.from_value("StreamChatResponse", {"id": "c", "choices": [choice]})]
        if request.get("messages")[0]["content"] == "fail":
            raise errors.UpstreamTruncated("broke off")

    async def embed(self, request: Body, call: Call) -> Body:
        """What the SDK asks for: base64."""
        assert request.get("encoding_format") == "base64"
        item = {"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="}
        return Body.from_value("EmbedResponse", {"object": "list", "data": [item], "model": "e"})

    async def transcribe(self, request: Body, call: Call) -> Body:
        """JSON or text."""
        assert request.upload
        size = len(b"".join([piece async for piece in request.upload.chunks()]))
        if request.get("response_format") == "text":
            return Body.from_document("TranscribeResponse", Document("text/plain", f"{size}\n"))
        return Body.from_value("TranscribeResponse", {"text": f"{size} {request.get('task')}"})

    async def stream_transcribe(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        """A delta, then done."""
        delta = {"type": "transcript.text.delta", "delta": "a"}
        yield [Body.from_value("StreamTranscribeResponse", delta)]
        done = {"type": "transcript.text.done", "text": "a"}
        yield [Body.from_value("StreamTranscribeResponse", done)]

    async def list_models(self, request: Body, call: Call) -> Body:
        """One."""
        return Body.from_value("ListModelsResponse", {"object": "list", "data": [{"id": "a/b"}]})

    async def get_model(self, request: Body, call: Call) -> Body:
        """Any but one."""
        name = request.get("model")
        if name == "none":
            raise errors.ModelNotFound.named(name)
        return Body.from_value("GetModelResponse", {"model": {"id": name}})


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    """A face with every operation, for those who have the key."""
    everything = Everything()
    services = dict.fromkeys((CHAT, EMBED, MODEL, TRANSCRIBE), everything)
    async with serving(services, keyring=CLOSED) as running:
        yield running


@pytest.fixture
async def client(rest: Rest) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK, with the key."""
    url = f"http://127.0.0.1:{rest.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as sdk:
        yield sdk


async def test_chat(client: openai.AsyncOpenAI) -> None:
    """G42."""
    answer = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.choices[0].message.content == "hi"
    assert answer._request_id


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    """G42."""
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert texts == ["Hel", "lo"]


async def test_a_stream_that_fails_raises(client: openai.AsyncOpenAI) -> None:
    """G1."""
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "fail"}], stream=True
    )
    with pytest.raises(openai.APIError, match="broke off"):
        [chunk async for chunk in stream]


async def test_errors_have_the_sdk_s_classes(client: openai.AsyncOpenAI, rest: Rest) -> None:
    """G22."""
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve("none")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="m", messages=[])
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "wait"}]
        )
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="other").models.list()


async def test_embeddings_in_base64(client: openai.AsyncOpenAI) -> None:
    """G27."""
    answer = await client.embeddings.create(model="e", input="a")
    assert answer.data[0].embedding == [1.0, 2.0]


async def test_transcription_in_all_its_forms(client: openai.AsyncOpenAI) -> None:
    """G33."""
    file = ("a.wav", b"RIFF")
    audio = client.audio
    assert (await audio.transcriptions.create(model="w", file=file)).text == "4 None"
    with pytest.warns(DeprecationWarning, match="deprecated"):
        translated = await audio.translations.create(model="w", file=file)
    assert translated.text == "4 translate"
    text = await audio.transcriptions.create(model="w", file=file, response_format="text")
    assert text == "4\n"
    stream = await audio.transcriptions.create(model="w", file=file, stream=True)
    assert [event.type async for event in stream] == [
        "transcript.text.delta",
        "transcript.text.done",
    ]


async def test_models(client: openai.AsyncOpenAI) -> None:
    """Names with slashes too."""
    assert [model.id async for model in client.models.list()] == ["a/b"]
    assert (await client.models.retrieve("a/b")).id == "a/b"
