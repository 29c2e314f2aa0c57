"""Each ready-made fake answers its probes and calls as the server it stands for."""

from __future__ import annotations

import base64
import json
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from tests.fakes import answers
from tests.fakes.profiles import (
    PROFILES,
    cohere,
    etalab,
    llamacpp,
    ollama,
    openai,
    tei,
    vllm,
    whisper,
    whispercpp,
)
from tests.fakes.upstream import FakeUpstream
from tests.lib import recordings
from tests.lib.canonical import differences

MESSAGES = [{"role": "user", "content": "Hi"}]
TEXTS = ["Rope of hemp", "Steel cable", "Anchor chain"]
RANKING = answers.ranking("boat", TEXTS)
Client = httpx.AsyncClient


@pytest.fixture
async def client(upstream: FakeUpstream) -> AsyncIterator[Client]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with Client(base_url=upstream.url, verify=tls) as one:
        yield one


async def post(client: Client, path: str, body: Any, status: int = 200) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def get(client: Client, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def transcribe(client: Client, path: str, status: int = 200, **fields: Any) -> httpx.Response:
    file = ("a.wav", b"RIFF", "audio/wav")
    answer = await client.post(path, data=fields, files={"file": file})
    assert answer.status_code == status, answer.text
    return answer


def events(answer: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


# Profile -> path that it lacks, the answer's type, what its body is.
WRONG_PATHS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "vllm": ("application/json", lambda text: json.loads(text)["error"]["code"] == 404),
    "tei": ("text/plain", lambda text: text == ""),
    "whisper": ("application/json", lambda text: json.loads(text) == {"detail": "Not Found"}),
    "etalab": ("application/json", lambda text: json.loads(text) == {"detail": "Not Found"}),
    "whispercpp": ("text/plain", lambda text: text == "File Not Found (/nowhere)"),
    "openai": ("application/json", lambda text: json.loads(text)["error"]["code"] is None),
    "llamacpp": (
        "application/json",
        lambda text: json.loads(text)["error"]["type"] == "not_found_error",
    ),
    "ollama": ("text/plain", lambda text: text == "404 page not found"),
    "cohere": ("application/json", lambda text: "message" in json.loads(text)),
}


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_wrong_path_is_a_404_in_the_servers_own_shape(
    upstream: FakeUpstream, client: Client, profile: str
) -> None:
    PROFILES[profile](upstream)
    media_type, holds = WRONG_PATHS[profile.partition("-")[0]]
    for answer in (await client.get("/nowhere"), await client.post("/nowhere", json={})):
        assert answer.status_code == 404
        assert answer.headers["content-type"].partition(";")[0] == media_type
        assert holds(answer.text)


async def test_vllm_answers_its_probes(upstream: FakeUpstream, client: Client) -> None:
    assert vllm(upstream, model="m", max_model_len=99) == "m"
    (card,) = (await get(client, "/v1/models"))["data"]
    assert (card["id"], card["owned_by"], card["max_model_len"]) == ("m", "vllm", 99)
    assert "version" in await get(client, "/version")
    assert await get(client, "/health") is None
    assert 'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0' in (
        (await client.get("/metrics")).text
    )
    await get(client, "/v1/models/m", 404)


async def test_vllm_chats(upstream: FakeUpstream, client: Client) -> None:
    model = vllm(upstream)
    body = {"model": model, "messages": MESSAGES}
    answer = await post(client, "/v1/chat/completions", body)
    recorded = recordings.get("chat/vllm-reasoning-response.json")
    assert differences(recorded.bytes, {**answer, "model": recorded.json()["model"]}) == []
    for options, usages in (({}, 0), ({"include_usage": True}, 1)):
        streaming = {**body, "stream": True, "stream_options": options}
        stream = await client.post("/v1/chat/completions", json=streaming)
        assert stream.text.endswith("data: [DONE]\n\n")
        assert sum(bool(event.get("usage")) for event in events(stream)) == usages
        assert {event["model"] for event in events(stream)} == {model}


async def test_vllm_refuses_as_vllm_does(upstream: FakeUpstream, client: Client) -> None:
    vllm(upstream, key="secret")
    client.headers["authorization"] = "Bearer secret"
    for body, status, kind in (
        ({"model": "nope", "messages": MESSAGES}, 404, "NotFoundError"),
        ({}, 400, "BadRequestError"),
        ([], 400, "BadRequestError"),
    ):
        error = (await post(client, "/v1/chat/completions", body, status))["error"]
        assert (error["type"], error["code"]) == (kind, status)
    answer = await client.post("/v1/chat/completions", content=b"{}")
    assert answer.status_code == 400
    answer = await client.post("/v1/embeddings", json={"input": "x"})
    assert answer.status_code == 404
    client.headers["authorization"] = "Bearer wrong"
    assert await get(client, "/v1/models", 401) == {"error": "Unauthorized"}
    assert await get(client, "/health") is None


@pytest.mark.parametrize(
    ("given", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2)]
)
async def test_embeddings_have_one_vector_per_input(
    upstream: FakeUpstream, client: Client, given: Any, count: int
) -> None:
    vllm(upstream, task="embed", model="e")
    body = {"model": "e", "input": given, "dimensions": 4}
    numbers = await post(client, "/v1/embeddings", body)
    packed = await post(client, "/v1/embeddings", {**body, "encoding_format": "base64"})
    expected = [answers.vector(one, 4) for one in answers.inputs(given)]
    assert [item["embedding"] for item in numbers["data"]] == expected
    assert [item["index"] for item in packed["data"]] == list(range(count))
    unpacked = [base64.b64decode(item["embedding"]) for item in packed["data"]]
    assert [list(struct.unpack("<4f", one)) for one in unpacked] == expected


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_vllm_reranks(upstream: FakeUpstream, client: Client, path: str) -> None:
    vllm(upstream, task="score", model="r")
    body = {"query": "boat", "documents": [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]], "top_n": 2}
    answer = await post(client, path, body)
    found = [(item["index"], item["relevance_score"]) for item in answer["results"]]
    assert found == RANKING[:2]
    assert answer["results"][0]["document"] == {"text": TEXTS[found[0][0]], "multi_modal": None}


async def test_vllm_transcribes(upstream: FakeUpstream, client: Client) -> None:
    model = vllm(upstream, task="transcription", model="w2")
    path = "/v1/audio/transcriptions"
    assert (await transcribe(client, path, model=model)).json()["usage"]["type"] == "duration"
    stream = events(await transcribe(client, path, model=model, stream="true"))
    assert {event["object"] for event in stream} == {"transcription.chunk"}
    assert {event["model"] for event in stream} == {"w2"}
    refused = await transcribe(client, path, 400, model=model, response_format="srt")
    assert refused.json()["error"]["type"] == "BadRequestError"
    await transcribe(client, path, 404, model="nope")
    assert (await transcribe(client, "/v1/audio/translations")).json() == {"text": " Quay four."}


async def test_tei_embeds(upstream: FakeUpstream, client: Client) -> None:
    model = tei(upstream, max_client_batch_size=2)
    info = await get(client, "/info")
    assert (info["model_id"], info["max_client_batch_size"]) == (model, 2)
    assert "embedding" in info["model_type"]
    answer = await client.post("/embed", json={"inputs": ["a", "b"]})
    assert answer.json() == [answers.vector("a"), answers.vector("b")]
    assert answer.headers["x-compute-tokens"] == "2"
    assert await post(client, "/", {"inputs": "a"}) == [answers.vector("a")]
    items = (await post(client, "/v1/embeddings", {"input": ["b"]}))["data"]
    assert items == [{"object": "embedding", "embedding": answers.vector("b"), "index": 0}]


async def test_tei_refuses_as_tei_does(upstream: FakeUpstream, client: Client) -> None:
    """G29: a batch over the limit is refused as a whole."""
    tei(upstream)
    texts = [str(n) for n in range(33)]
    assert await post(client, "/embed", {"inputs": texts}, 422) == (
        recordings.get("errors/tei-batch-too-large.json").json()
    )
    assert await post(client, "/v1/embeddings", {"input": texts}, 422) == (
        recordings.get("errors/tei-openai-error.json").json()
    )
    body = {"query": "boat", "texts": TEXTS}
    assert (await post(client, "/rerank", body, 424))["error_type"] == "Backend"
    assert (await post(client, "/embed", {"inputs": []}, 400))["error_type"] == "Empty"
    answer = await client.post("/embed", json={})
    assert (answer.status_code, "missing field `inputs`" in answer.text) == (422, True)
    await get(client, "/v1/models", 404)


async def test_tei_reranks(upstream: FakeUpstream, client: Client) -> None:
    """G31, G32: a bare list by falling score, with the index of the input."""
    tei(upstream, kind="reranker")
    assert "reranker" in (await get(client, "/info"))["model_type"]
    body = {"query": "boat", "texts": TEXTS}
    rows = await post(client, "/rerank", body)
    assert [(row["index"], row["score"]) for row in rows] == RANKING
    assert all(set(row) == {"index", "score"} for row in rows)
    rows = await post(client, "/", {**body, "return_text": True})
    assert [row["text"] for row in rows] == [TEXTS[index] for index, _ in RANKING]


async def test_speaches_transcribes_in_every_format(upstream: FakeUpstream, client: Client) -> None:
    model = whisper(upstream)
    assert (await get(client, "/v1/models"))["data"][0]["id"] == model
    assert (await get(client, f"/v1/models/{model}"))["task"] == "automatic-speech-recognition"
    assert await get(client, "/health") == {"message": "OK"}
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        assert "text" in (await transcribe(client, path, model=model)).json()
        for wanted in ("text", "srt", "vtt"):
            answer = await transcribe(client, path, model=model, response_format=wanted)
            assert answer.headers["content-type"].startswith("text/plain")
        answer = await transcribe(client, path, model=model, response_format="verbose_json")
        assert answer.json()["segments"]
        await transcribe(client, path, 422, model=model, response_format="odd")
        await transcribe(client, path, 404, model="nope")
        assert (await transcribe(client, path, 422)).json()["detail"][0]["loc"] == ["body", "model"]
    stream = await transcribe(client, "/v1/audio/transcriptions", model=model, stream="True")
    assert events(stream)[-1]["type"] == "transcript.text.done"
    assert "[DONE]" not in stream.text
    answer = await client.post("/v1/audio/transcriptions", data={"model": model})
    assert answer.status_code == 400


async def test_etalab_wants_its_key_everywhere(upstream: FakeUpstream, client: Client) -> None:
    model = etalab(upstream, key="k")
    assert await get(client, "/health", 403) == {"detail": "Invalid API key."}
    client.headers["authorization"] = "Bearer k"
    await get(client, "/health")
    assert (await get(client, f"/v1/models/{model}"))["type"] == "automatic-speech-recognition"
    answer = await transcribe(client, "/v1/audio/transcriptions", response_format="text")
    assert answer.text == "Quay four is clear.\n"
    await transcribe(client, "/v1/audio/transcriptions", 422, response_format="srt")


async def test_whispercpp_has_one_path_and_no_list(upstream: FakeUpstream, client: Client) -> None:
    assert whispercpp(upstream) == ""
    assert await get(client, "/health") == {"status": "ok"}
    assert (await transcribe(client, "/inference")).json() == {"text": " Quay four.\n"}
    for wanted, media_type in (
        ("text", "text/html"),
        ("srt", "application/x-subrip"),
        ("vtt", "text/vtt"),
        ("verbose_json", "application/json"),
    ):
        answer = await transcribe(client, "/inference", response_format=wanted)
        assert answer.headers["content-type"].partition(";")[0] == media_type
    answer = await client.post("/inference", data={"a": "b"})
    assert (answer.status_code, "error" in answer.json()) == (400, True)


async def test_openai_offers_three_types(upstream: FakeUpstream, client: Client) -> None:
    chat = openai(upstream, key="sk")
    error = (await get(client, "/v1/models", 401))["error"]
    assert error["code"] == "invalid_api_key"
    client.headers["authorization"] = "Bearer sk"
    names = [item["id"] for item in (await get(client, "/v1/models"))["data"]]
    assert names == [chat, "text-embedding-3-small", "whisper-1"]
    assert (await get(client, f"/v1/models/{chat}"))["id"] == chat
    answer = await client.post("/v1/chat/completions", json={"model": chat, "messages": MESSAGES})
    assert answer.json()["model"] == chat
    assert answer.headers["x-request-id"]
    body = {"model": names[1], "input": ["a", "b"]}
    assert len((await post(client, "/v1/embeddings", body))["data"]) == 2
    for wanted in ("json", "verbose_json", "diarized_json", "text", "srt", "vtt"):
        fields = {"model": names[2], "response_format": wanted}
        await transcribe(client, "/v1/audio/transcriptions", **fields)
    error = (await post(client, "/v1/embeddings", {**body, "model": "x"}, 404))["error"]
    assert error["code"] == "model_not_found"
    error = (await post(client, "/v1/embeddings", {"model": "x"}, 400))["error"]
    assert error["param"] == "input"


async def test_llamacpp_has_only_the_operation_of_its_mode(
    upstream: FakeUpstream, client: Client
) -> None:
    calls = {
        "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
        "embedding": ("/v1/embeddings", {"input": "a"}),
        "rerank": ("/v1/rerank", {"query": "boat", "documents": TEXTS}),
    }
    for mode in calls:
        llamacpp(upstream, mode=mode)  # type: ignore[arg-type]
        for operation, (path, body) in calls.items():
            answer = await post(client, path, body, 200 if operation == mode else 501)
            assert ("error" in answer) == (operation != mode)
    assert (await get(client, "/props"))["total_slots"] == 4
    assert (await get(client, "/v1/models"))["data"][0]["owned_by"] == "llamacpp"
    rows = await post(client, "/rerank", {"query": "boat", "texts": TEXTS, "return_text": True})
    assert [(row["index"], row["score"]) for row in rows] == RANKING
    await post(client, "/rerank", {"query": "boat", "documents": []}, 400)


async def test_ollama_is_recognised_by_its_api(upstream: FakeUpstream, client: Client) -> None:
    chat = ollama(upstream)
    assert (await client.get("/")).text == "Ollama is running"
    assert "version" in await get(client, "/api/version")
    shown = await post(client, "/api/show", {"model": "nomic-embed-text"})
    assert shown["capabilities"] == ["embedding"]
    assert {item["owned_by"] for item in (await get(client, "/v1/models"))["data"]} == {"library"}
    body = {"model": chat, "messages": MESSAGES}
    assert (await post(client, "/v1/chat/completions", body))["model"] == chat
    stream = await client.post("/v1/chat/completions", json={**body, "stream": True})
    assert events(stream)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    body = {"model": "x", "input": "a"}
    assert await post(client, "/v1/embeddings", body, 404) == (
        recordings.get("errors/ollama-not-found.json").json()
    )


async def test_cohere_reranks_in_both_versions(upstream: FakeUpstream, client: Client) -> None:
    model = cohere(upstream, key="k")
    assert await get(client, "/v1/models", 401) == recordings.get("errors/cohere-error.json").json()
    client.headers["authorization"] = "Bearer k"
    assert (await get(client, "/v1/models"))["models"][0]["endpoints"] == ["rerank"]
    body = {"model": model, "query": "boat", "documents": TEXTS, "top_n": 1}
    answer = await post(client, "/v2/rerank", body)
    index, score = RANKING[0]
    assert answer["results"] == [{"index": index, "relevance_score": score}]
    answer = await post(client, "/v1/rerank", {**body, "return_documents": True})
    assert answer["results"][0]["document"] == {"text": TEXTS[index]}


def test_vectors_and_scores_are_the_same_every_time() -> None:
    vector = answers.vector("rope", 300)
    assert vector == answers.vector("rope", 300)
    assert vector != answers.vector("cable", 300)
    assert struct.unpack("<300f", struct.pack("<300f", *vector)) == tuple(vector)
    assert all(-1 <= value <= 1 for value in vector)
    assert answers.relevance("a", "b") != answers.relevance("b", "a")
    assert [score for _, score in RANKING] == sorted((s for _, s in RANKING), reverse=True)
