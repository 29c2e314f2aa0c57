"""grpcurl, which knows nothing but what reflection tells it (v1alpha)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import answers
from tests.lib import recordings
from tests.lib.process import Program
from tests.lib.tetrad import Done, Served, done

pytestmark = [pytest.mark.ci, pytest.mark.asyncio(loop_scope="package")]

GRPCURL = Path(sys.executable).with_name("grpcurl")
SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "tetrad.v1.ChatService",
    "tetrad.v1.EmbedService",
    "tetrad.v1.ModelService",
    "tetrad.v1.RerankService",
    "tetrad.v1.TranscribeService",
}
HI = {"messages": [{"role": "user", "content": {"text": "hi"}}]}
REASONING = recordings.get("chat/vllm-reasoning-response.json").json()


async def grpcurl(served: Served, *arguments: str, data: Any = None) -> Done:
    flags = ["-plaintext", *(["-d", json.dumps(data)] if data is not None else [])]
    return await done(Program(GRPCURL, *flags, served.gate.address, *arguments))


def each(text: str) -> Iterator[Any]:
    """The JSON values that follow each other in a text."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        yield value
        at += len(text) - at - len(text[at:].lstrip())


async def called(served: Served, method: str, data: Any) -> list[Any]:
    told = await grpcurl(served, method, data=data)
    assert (told.code, told.stderr) == (0, "")
    return list(each(told.stdout))


async def test_reflection_lists_every_service(served: Served) -> None:
    told = await grpcurl(served, "list")
    assert set(told.stdout.split()) == SERVICES


async def test_reflection_describes_methods_and_messages(served: Served) -> None:
    method = await grpcurl(served, "describe", "tetrad.v1.ChatService.StreamChat")
    assert "returns ( stream .tetrad.v1.StreamChatResponse )" in method.stdout
    message = await grpcurl(served, "describe", "tetrad.v1.EmbedRequest")
    assert ".tetrad.v1.EmbedInput input = 1" in message.stdout


async def test_health_is_serving_for_the_whole_and_for_each_service(served: Served) -> None:
    for name in ("", "tetrad.v1.ChatService"):
        (answer,) = await called(served, "grpc.health.v1.Health/Check", {"service": name})
        assert answer == {"status": "SERVING"}


async def test_a_chat_is_answered_and_streamed(served: Served) -> None:
    (answer,) = await called(served, "tetrad.v1.ChatService/Chat", HI)
    wanted = REASONING["choices"][0]["message"]
    message = answer["choices"][0]["message"]
    assert message["content"] == {"text": wanted["content"]}
    assert message["reasoning"] == wanted["reasoning"]
    chunks = await called(served, "tetrad.v1.ChatService/StreamChat", HI)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(chunks) > 2


async def test_embeddings_one_by_one_and_in_bulk(served: Served) -> None:
    request = {"input": {"text": "quay"}}
    (answer,) = await called(served, "tetrad.v1.EmbedService/Embed", request)
    values = answer["data"][0]["embedding"]["floats"]["values"]
    assert values == pytest.approx(answers.vector("quay"), rel=1e-6)

    requests = "\n".join(json.dumps({"id": str(n), "request": request}) for n in range(5))
    told = await done(
        Program(
            "sh",
            "-c",
            'printf "%s" "$REQUESTS" | "$GRPCURL" -plaintext -d @ "$ADDRESS" '
            "tetrad.v1.EmbedService/BulkEmbed",
            env={
                "REQUESTS": requests,
                "GRPCURL": str(GRPCURL),
                "ADDRESS": served.gate.address,
            },
        )
    )
    assert (told.code, told.stderr) == (0, "")
    got = list(each(told.stdout))
    assert sorted(one["id"] for one in got) == ["0", "1", "2", "3", "4"]
    assert all("response" in one for one in got)


async def test_speech_is_transcribed(served: Served) -> None:
    request = {"file": {"data": "UklGRg==", "filename": "a.wav", "mediaType": "audio/wav"}}
    (answer,) = await called(served, "tetrad.v1.TranscribeService/Transcribe", request)
    assert answer["text"] == "Quay four."


async def test_documents_are_ordered(served: Served) -> None:
    texts = ["a broken engine", "ripe pears"]
    request = {"query": {"text": "fresh fruit"}, "documents": [{"text": text} for text in texts]}
    (answer,) = await called(served, "tetrad.v1.RerankService/Rerank", request)
    order = [one.get("index", 0) for one in answer["results"]]
    assert order == [index for index, _ in answers.ranking("fresh fruit", texts)]


async def test_models_are_listed(served: Served) -> None:
    (answer,) = await called(served, "tetrad.v1.ModelService/ListModels", {})
    assert len(answer["models"]) == 4
    assert all(model["ready"] for model in answer["models"])


async def test_a_failure_is_shown_with_its_details(served: Served) -> None:
    told = await grpcurl(served, "tetrad.v1.ChatService/Chat", data={**HI, "model": "nobody"})
    assert told.code != 0
    assert "Code: NotFound" in told.stderr
    assert "Message: the model `nobody` does not exist" in told.stderr
    assert '"reason":"MODEL_NOT_FOUND"' in told.stderr.replace(" ", "")
