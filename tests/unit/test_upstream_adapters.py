"""Each operation through each kind of adapter, against fakes of those servers, over sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services import errors
from services.body import Body
from services.upload import Upload
from services.upstream import KINDS, Adapter, Endpoint, Transport, build, endpoint_name
from tests.fakes import answers
from tests.fakes.profiles import PROFILES
from tests.fakes.upstream import FakeUpstream, Json, Raw, Record, Sse
from tests.lib import canonical, recordings
from tests.lib.adapters import KEY, QUICK, a_call, adapter, all_of, chat, sse, transport

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
SPEECH, TRANSLATE = "/v1/audio/transcriptions", "/v1/audio/translations"
SOUND = b"RIFF\x00\xff" * 50


def embed_request(**members: Any) -> Body:
    return Body.from_value("EmbedRequest", {"model": "caller's", "input": ["a", "b"]} | members)


def rerank_request(**members: Any) -> Body:
    asked = {"model": "caller's", "query": "q", "documents": ["a", "b", "c"]}
    return Body.from_value("RerankRequest", asked | members)


def speech_request(upload: Upload | None = None, **members: Any) -> Body:
    sound = upload or Upload.of(SOUND, "a.wav", "audio/wav")
    return Body.from_value("TranscribeRequest", {"model": "caller's"} | members, sound)


def sent(up: FakeUpstream, index: int = -1) -> Any:
    """The JSON of a request that the upstream received."""
    return up.requests[index].json()


def form(up: FakeUpstream, index: int = -1) -> dict[str, Any]:
    """The form that the upstream received: texts by name, the file's bytes."""
    parts = up.requests[index].form()
    return {p.name: p.data if p.filename is not None else p.text for p in parts}


# --- chat ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "vllm", "llamacpp", "ollama"])
async def test_chat_answers(upstream: FakeUpstream, kind: str) -> None:
    model = PROFILES[kind](upstream)
    async with adapter(upstream, kind, model) as one:
        call = a_call()
        answer = await one.chat(chat(), call)
    assert answer.message == "ChatResponse"
    assert answer.get("model") == model
    assert answer.get("choices")[0]["finish_reason"]
    assert call.usage.total_tokens == answer.get("usage")["total_tokens"]
    assert call.usage.source == "upstream"
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert sent(upstream) == chat(model=model).value()


@pytest.mark.parametrize("kind", ["openai", "vllm", "llamacpp", "ollama"])
@pytest.mark.parametrize("usage_asked", [True, False])
async def test_stream_chat_answers(upstream: FakeUpstream, kind: str, usage_asked: bool) -> None:
    model = PROFILES[kind](upstream)
    async with adapter(upstream, kind, model) as one:
        call = a_call(include_usage=usage_asked)
        chunks = await all_of(one.stream_chat(chat(), call))
    assert any(c["finish_reason"] for chunk in chunks for c in chunk["choices"])
    assert any(not c["choices"] and c.get("usage") for c in chunks) is usage_asked
    assert call.usage.total_tokens
    assert sent(upstream)["stream"] is True
    assert sent(upstream)["stream_options"] == {"include_usage": True}


async def test_a_stream_arrives_read_by_read(upstream: FakeUpstream) -> None:
    stream = sse("chat/openai-usage-stream.sse")
    upstream.on("POST", CHAT, Sse(stream, delay=0.01))
    async with adapter(upstream) as one:
        batches = [batch async for batch in one.stream_chat(chat(), a_call())]
    assert len(batches) > 3
    assert all(body.message == "StreamChatResponse" for batch in batches for body in batch)
    lines = [body.json() for batch in batches for body in batch]
    assert lines == [line[6:] for line in stream.splitlines() if line.startswith(b"data: {")]


async def test_a_finished_stream_keeps_its_connection(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Sse(sse("chat/openai-usage-stream.sse")))
    async with transport() as one:
        for _ in range(3):
            stream = build(Endpoint("fake", upstream.url, "openai"), one).stream_chat
            await all_of(stream(chat(), a_call()))
            await one.settle()
    assert upstream.connections.total == 1


async def test_the_bytes_of_an_answer_are_kept(upstream: FakeUpstream) -> None:
    text = b'{"choices": [],  "seed": 18446744073709551617, "x": "\\ud83d", "a": 1.10}'
    upstream.on("POST", CHAT, Raw(b"\n\n " + text, "application/json"))
    async with adapter(upstream, "openai") as one:
        assert (await one.chat(chat(), a_call())).json() == text


async def test_the_bytes_of_a_request_are_kept_but_for_the_model(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Record("chat/openai-text-response.json"))
    text = b'{"seed": 18446744073709551617,"model":"m","messages":[],"stop":[]}'
    async with adapter(upstream, "openai", "theirs") as one:
        await one.chat(Body.from_json("ChatRequest", text), a_call())
    assert upstream.requests[0].body == text.replace(b'"m"', b'"theirs"')


async def test_a_stream_asked_of_chat_is_not_passed_on(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Record("chat/openai-text-response.json"))
    async with adapter(upstream) as one:
        await one.chat(chat(stream=True), a_call())
    assert "stream" not in sent(upstream)
    assert sent(upstream)["model"] == "caller's"


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("openai", None, {"include_usage": True}),
        ("openai", {"include_obfuscation": False},
         {"include_obfuscation": False, "include_usage": True}),
        ("openai", {"include_usage": False}, {"include_usage": True}),
        ("openai", 5, 5),
        ("mistral", {"include_usage": True}, None),
        ("mistral", None, None),
    ],
)  # fmt: skip
async def test_usage_is_always_asked_for_where_it_can_be(
    upstream: FakeUpstream, kind: str, options: Any, expected: Any
) -> None:
    upstream.on("POST", CHAT, Sse(sse("chat/openai-usage-stream.sse")))
    async with adapter(upstream, kind) as one:
        await all_of(one.stream_chat(chat(stream_options=options), a_call()))
    assert sent(upstream).get("stream_options") == expected


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("ollama", {"max_completion_tokens": 5}, 5),
        ("ollama", {"max_completion_tokens": 5, "max_tokens": 7}, 7),
        ("ollama", {}, None),
        ("openai", {"max_completion_tokens": 5}, None),
    ],
)
async def test_ollama_gets_the_limit_that_it_reads(
    upstream: FakeUpstream, kind: str, given: dict[str, Any], expected: int | None
) -> None:
    upstream.on("POST", CHAT, Record("chat/ollama-response.json"))
    async with adapter(upstream, kind) as one:
        await one.chat(chat(**given), a_call())
    assert sent(upstream).get("max_tokens") == expected


async def test_headers_of_the_call_and_the_endpoint_go_along(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Record("chat/openai-text-response.json"))
    async with transport() as one:
        endpoint = Endpoint("fake", upstream.url, "openai", headers={"X-Team": "a"})
        await build(endpoint, one).chat(chat(), a_call(traceparent="00-1-2-01"))
    headers = upstream.requests[0].headers
    assert (headers["x-team"], headers["traceparent"]) == ("a", "00-1-2-01")
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers


# --- embeddings ----------------------------------------------------------------------------------

EMBEDDERS = {
    "openai": ("openai", "text-embedding-3-small"),
    "vllm": ("vllm-embed", "bge-m3"),
    "tei": ("tei", "thenlper/gte-base"),
    "llamacpp": ("llamacpp-embedding", "../models/m.gguf"),
    "ollama": ("ollama", "nomic-embed-text"),
}


@pytest.mark.parametrize("kind", EMBEDDERS)
@pytest.mark.parametrize("format", [None, "float", "base64"])
async def test_embed_answers_in_the_form_asked_for(
    upstream: FakeUpstream, kind: str, format: str | None
) -> None:
    """G27."""
    profile, model = EMBEDDERS[kind]
    PROFILES[profile](upstream)
    async with adapter(upstream, kind, model) as one:
        call = a_call("Embed")
        answer = await one.embed(embed_request(encoding_format=format), call)
    expected = [answers.vector(text) for text in ("a", "b")]
    if format == "base64":
        expected = [answers.packed(vector) for vector in expected]  # type: ignore[misc]
    assert [item["embedding"] for item in json.loads(answer.json())["data"]] == expected
    assert call.usage.total_tokens == 2


@pytest.mark.parametrize("format", ["float", "base64"])
async def test_an_upstream_that_ignores_the_form_is_corrected(
    upstream: FakeUpstream, format: str
) -> None:
    """G27."""
    other = {"float": "base64", "base64": "float"}[format]
    upstream.on("POST", EMBEDDINGS, Record(f"embeddings/openai-{other}-response.json"))
    async with adapter(upstream) as one:
        answer = await one.embed(embed_request(encoding_format=format), a_call())
    embedding = json.loads(answer.json())["data"][0]["embedding"]
    assert isinstance(embedding, str if format == "base64" else list)
    assert sent(upstream)["encoding_format"] == format


async def test_tei_is_asked_by_its_own_route_for_what_only_that_knows(
    upstream: FakeUpstream,
) -> None:
    model = PROFILES["tei"](upstream)
    async with adapter(upstream, "tei", model) as one:
        call = a_call("Embed")
        request = embed_request(truncate=True, truncation_direction="Left", normalize=False)
        answer = await one.embed(request, call)
    assert upstream.requests[0].path == "/embed"
    assert sent(upstream) == {
        "inputs": ["a", "b"], "truncate": True, "truncation_direction": "Left", "normalize": False,
    }  # fmt: skip
    expected = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": answers.vector(text)}
            for i, text in enumerate("ab")
        ],
        "model": model,
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    canonical.assert_same(expected, answer.json())
    assert call.usage.total_tokens == 2


async def test_a_batch_that_tei_refuses_is_refused(upstream: FakeUpstream) -> None:
    PROFILES["tei"](upstream)
    async with adapter(upstream, "tei") as one:
        for members in ({}, {"truncate": True}):
            with pytest.raises(errors.UpstreamInvalidRequest) as raised:
                await one.embed(embed_request(input=["x"] * 33, **members), a_call())
            assert raised.value.metadata == {"batch_size": "33", "max_batch_size": "32"}
            assert raised.value.http_status == 422


async def test_coheres_own_path_is_found_once(upstream: FakeUpstream) -> None:
    path = "/compatibility/v1/embeddings"
    upstream.on("POST", path, Record("embeddings/openai-float-response.json"))
    async with adapter(upstream, "cohere") as one:
        for _ in range(2):
            await one.embed(embed_request(), a_call())
    assert [r.path for r in upstream.requests] == [EMBEDDINGS, path, path]


# --- rerank --------------------------------------------------------------------------------------

RERANKERS = {
    "vllm": ("vllm-score", "bge-reranker-v2-m3"),
    "tei": ("tei-reranker", "BAAI/bge-reranker-base"),
    "llamacpp": ("llamacpp-rerank", "../models/m.gguf"),
    "cohere": ("cohere", "rerank-v4.0-pro"),
}


@pytest.mark.parametrize("kind", RERANKERS)
@pytest.mark.parametrize("documents", [None, True, False])
async def test_rerank_answers_in_one_shape(
    upstream: FakeUpstream, kind: str, documents: bool | None
) -> None:
    """G31, G32."""
    profile, model = RERANKERS[kind]
    PROFILES[profile](upstream)
    async with adapter(upstream, kind, model) as one:
        call = a_call("Rerank")
        members = {} if documents is None else {"return_documents": documents}
        answer = await one.rerank(rerank_request(top_n=2, **members), call)
    ranked = answers.ranking("q", ["a", "b", "c"], 2)
    results = answer.get("results")
    assert [(r["index"], r["relevance_score"]) for r in results] == ranked
    told = [r.get("document", {}).get("text") for r in results]
    if documents or (documents is None and kind == "vllm"):
        assert told == ["abc"[index] for index, _ in ranked]
    else:
        assert all("document" not in r for r in results)
    assert call.usage.prompt_tokens
    assert Body.from_wire("RerankResponse", answer.wire()).value()


@pytest.mark.parametrize("kind", ["tei", "llamacpp", "cohere"])
async def test_documents_may_be_objects_where_only_texts_are_ranked(
    upstream: FakeUpstream, kind: str
) -> None:
    """G31: and come back as the caller's own."""
    profile, model = RERANKERS[kind]
    PROFILES[profile](upstream)
    documents = [{"text": "a", "sku": 7}, "b", {"text": "c"}]
    request = rerank_request(documents=documents, return_documents=True)
    async with adapter(upstream, kind, model) as one:
        answer = await one.rerank(request, a_call("Rerank"))
    told = {r["index"]: r["document"] for r in answer.get("results")}
    assert told == {0: documents[0], 1: {"text": "b"}, 2: documents[2]}
    assert sent(upstream)["texts" if kind == "tei" else "documents"] == ["a", "b", "c"]


async def test_documents_without_a_text_are_left_to_the_upstream(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/v1/rerank", Json({"results": []}))
    documents = [{"image": "x"}, {"text": "b"}, {"text": None}]
    async with adapter(upstream, "llamacpp") as one:
        await one.rerank(rerank_request(documents=documents), a_call("Rerank"))
    assert sent(upstream)["documents"] == [{"image": "x"}, "b", {"text": None}]


async def test_teis_answer_names_its_model_and_its_tokens(upstream: FakeUpstream) -> None:
    model = PROFILES["tei-reranker"](upstream)
    async with adapter(upstream, "tei", model) as one:
        answer = await one.rerank(rerank_request(raw_scores=True), a_call())
    assert answer.get("model") == model
    assert answer.get("usage") == {"prompt_tokens": 4, "total_tokens": 4}
    assert sent(upstream) == {"query": "q", "texts": ["a", "b", "c"], "raw_scores": True}


async def test_a_reranking_that_is_as_asked_keeps_its_bytes(upstream: FakeUpstream) -> None:
    came = recordings.get("rerank/vllm-response.json")
    upstream.on("POST", "/v1/rerank", Record(came.file))
    async with adapter(upstream) as one:
        assert (await one.rerank(rerank_request(), a_call())).json() == came.bytes.strip()


async def test_a_server_with_an_unversioned_path_is_found(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/rerank", Record("rerank/tei-response.json"))
    async with adapter(upstream) as one:
        answer = await one.rerank(rerank_request(), a_call())
    assert [r["index"] for r in answer.get("results")] == [2, 0]


async def test_of_several_paths_that_are_missing_the_first_is_told(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/v1/rerank", Json({"error": {"message": "no such model"}}, 404))
    async with adapter(upstream) as one:
        with pytest.raises(errors.ModelNotFound, match="no such model"):
            await one.rerank(rerank_request(), a_call())


# --- transcription -------------------------------------------------------------------------------

SPEAKERS = {
    "openai": ("openai", "whisper-1"),
    "vllm": ("vllm-transcription", "whisper-large-v3"),
    "speaches": ("whisper", "Systran/faster-whisper-small"),
    "etalab": ("etalab", "openai/whisper-large-v3"),
    "whisper.cpp": ("whispercpp", ""),
}


def speaker(kind: str) -> str:
    """The kind of adapter for a server that transcribes."""
    return {"speaches": "whisper", "etalab": "whisper", "whisper.cpp": "whispercpp"}.get(kind, kind)


@pytest.mark.parametrize("server", SPEAKERS)
async def test_transcribe_answers(upstream: FakeUpstream, server: str) -> None:
    profile, model = SPEAKERS[server]
    PROFILES[profile](upstream)
    async with adapter(upstream, speaker(server), model) as one:
        call = a_call("Transcribe")
        answer = await one.transcribe(speech_request(language="fr", temperature=0.0), call)
    assert answer.get("text").strip().startswith("Quay four")
    assert answer.document is None
    told = form(upstream)
    assert told["file"] == SOUND
    assert told["model"] == (model or "caller's")
    assert (told["language"], told["temperature"]) == ("fr", "0.0")
    assert "stream" not in told
    assert upstream.requests[0].headers["content-length"]
    if server in ("openai", "vllm"):
        assert call.usage.audio_seconds == 9.0


@pytest.mark.parametrize("server", SPEAKERS)
async def test_text_is_a_document(upstream: FakeUpstream, server: str) -> None:
    """G33; vLLM prints JSON for it, whisper.cpp calls it a page."""
    profile, model = SPEAKERS[server]
    PROFILES[profile](upstream)
    async with adapter(upstream, speaker(server), model) as one:
        answer = await one.transcribe(speech_request(response_format="text"), a_call())
    assert answer.document is not None
    assert answer.document.media_type == "text/plain; charset=utf-8"
    assert answer.document.text.strip().startswith("Quay four")
    assert answer.json() == b""


@pytest.mark.parametrize("server", ["openai", "speaches", "whisper.cpp"])
@pytest.mark.parametrize(("format", "start"), [("srt", "1\n"), ("vtt", "WEBVTT")])
async def test_subtitles_are_documents(
    upstream: FakeUpstream, server: str, format: str, start: str
) -> None:
    """G33."""
    profile, model = SPEAKERS[server]
    PROFILES[profile](upstream)
    async with adapter(upstream, speaker(server), model) as one:
        answer = await one.transcribe(speech_request(response_format=format), a_call())
    assert answer.document is not None
    assert answer.document.text.startswith(start)


@pytest.mark.parametrize("server", ["openai", "speaches", "whisper.cpp", "vllm"])
async def test_verbose_answers_are_json(upstream: FakeUpstream, server: str) -> None:
    """G33."""
    profile, model = SPEAKERS[server]
    PROFILES[profile](upstream)
    async with adapter(upstream, speaker(server), model) as one:
        call = a_call()
        request = speech_request(
            response_format="verbose_json", timestamp_granularities=["segment"], prompt="Quay"
        )
        answer = await one.transcribe(request, call)
    assert answer.get("segments")
    assert call.usage.audio_seconds
    parts = upstream.requests[0].form()
    told = [p.text for p in parts if p.name in ("timestamp_granularities[]", "prompt")]
    assert told == ["segment", "Quay"]


@pytest.mark.parametrize("kind", ["openai", "vllm"])
async def test_translation_goes_to_its_own_path(upstream: FakeUpstream, kind: str) -> None:
    profile, model = SPEAKERS[kind]
    PROFILES[profile](upstream)
    async with adapter(upstream, kind, model) as one:
        assert (await one.transcribe(speech_request(task="translate"), a_call())).get("text")
    assert upstream.requests[0].path == TRANSLATE
    assert "task" not in form(upstream)


async def test_whispercpp_is_told_to_translate_by_a_member(upstream: FakeUpstream) -> None:
    PROFILES["whispercpp"](upstream)
    async with adapter(upstream, "whispercpp") as one:
        await one.transcribe(speech_request(task="translate"), a_call())
        await one.transcribe(speech_request(task="transcribe"), a_call())
    assert [r.path for r in upstream.requests] == ["/inference"] * 2
    assert form(upstream, 0)["translate"] == "true"
    assert "translate" not in form(upstream, 1)


async def test_an_unknown_task_is_refused(upstream: FakeUpstream) -> None:
    async with adapter(upstream) as one:
        with pytest.raises(errors.InvalidRequest, match="task"):
            await one.transcribe(speech_request(task="sing"), a_call())
    assert upstream.requests == []


async def test_a_whisper_server_that_is_whispercpp_is_found_out(upstream: FakeUpstream) -> None:
    PROFILES["whispercpp"](upstream)
    async with adapter(upstream, "whisper") as one:
        for _ in range(2):
            assert (await one.transcribe(speech_request(), a_call())).get("text")
    assert [r.path for r in upstream.requests] == [SPEECH, "/inference", "/inference"]


async def test_audio_that_can_be_read_once_is_sent_once(upstream: FakeUpstream) -> None:
    PROFILES["whispercpp"](upstream)
    upstream.on("OPTIONS", "/inference", Raw(b"", None))

    async def sound() -> AsyncIterator[bytes]:
        yield SOUND[:7]
        yield SOUND[7:]

    async with adapter(upstream, "whisper") as one:
        answer = await one.transcribe(speech_request(Upload.stream(sound())), a_call())
    assert answer.get("text")
    assert [(r.method, r.path) for r in upstream.requests] == [
        ("OPTIONS", SPEECH), ("OPTIONS", "/inference"), ("POST", "/inference"),
    ]  # fmt: skip
    assert form(upstream)["file"] == SOUND
    assert upstream.requests[-1].headers["transfer-encoding"] == "chunked"


async def test_a_file_without_a_name_gets_one_by_its_type(upstream: FakeUpstream) -> None:
    PROFILES["openai"](upstream)
    async with adapter(upstream, "openai", "whisper-1") as one:
        await one.transcribe(speech_request(Upload.of(SOUND, "", "audio/mpeg")), a_call())
        await one.transcribe(speech_request(Upload.of(SOUND)), a_call())
    files = [r.form()[-1] for r in upstream.requests]
    assert [(f.filename, f.content_type) for f in files] == [
        ("audio.mp3", "audio/mpeg"), ("audio", "application/octet-stream"),
    ]  # fmt: skip


async def test_nested_members_and_unknown_ones_reach_the_form(upstream: FakeUpstream) -> None:
    """G23."""
    PROFILES["openai"](upstream)
    async with adapter(upstream, "openai", "whisper-1") as one:
        chunking = {"type": "server_vad", "threshold": 0.5}
        request = speech_request(
            chunking_strategy=chunking, include=["logprobs"], hotwords="quay", vllm_xargs={"a": [1]}
        )
        await one.transcribe(request, a_call())
    told = form(upstream)
    assert told["chunking_strategy[type]"] == "server_vad"
    assert told["chunking_strategy[threshold]"] == "0.5"
    assert (told["include[]"], told["hotwords"]) == ("logprobs", "quay")
    assert json.loads(told["vllm_xargs"]) == {"a": [1]}


async def test_text_that_no_form_can_hold_is_refused(upstream: FakeUpstream) -> None:
    async with adapter(upstream) as one:
        with pytest.raises(errors.InvalidRequest):
            await one.transcribe(speech_request(prompt="\ud83d"), a_call())


STREAMERS = {"openai": ["openai"], "vllm": ["vllm"], "speaches": ["speaches"]}


@pytest.mark.parametrize("server", STREAMERS)
async def test_stream_transcribe_answers_in_openais_events(
    upstream: FakeUpstream, server: str
) -> None:
    profile, model = SPEAKERS[server]
    PROFILES[profile](upstream)
    async with adapter(upstream, speaker(server), model) as one:
        call = a_call("StreamTranscribe")
        events = await all_of(one.stream_transcribe(speech_request(), call))
    assert {e["type"] for e in events[:-1]} == {"transcript.text.delta"}
    assert events[-1]["type"] == "transcript.text.done"
    assert "".join(e["delta"] for e in events[:-1]) == events[-1]["text"]
    assert form(upstream)["stream"] == "true"
    assert form(upstream).get("stream_include_usage") == ("true" if server == "vllm" else None)
    if server != "speaches":
        assert call.usage.total_tokens
    for event in events:
        assert Body.from_value("StreamTranscribeResponse", event).wire()


@pytest.mark.parametrize("server", ["etalab", "whisper.cpp"])
@pytest.mark.parametrize("format", ["json", "text"])
async def test_a_server_that_cannot_stream_gives_one_event(
    upstream: FakeUpstream, server: str, format: str
) -> None:
    profile, model = SPEAKERS[server]
    PROFILES[profile](upstream)
    async with adapter(upstream, speaker(server), model) as one:
        request = speech_request(response_format=format)
        (event,) = await all_of(one.stream_transcribe(request, a_call()))
    assert event["type"] == "transcript.text.done"
    assert event["text"].strip().startswith("Quay four")


async def test_a_text_answer_as_a_json_string_is_a_document(upstream: FakeUpstream) -> None:
    """So FastAPI prints a function's plain string."""
    upstream.on("POST", SPEECH, Json("Quay four."))
    async with adapter(upstream) as one:
        answer = await one.transcribe(speech_request(response_format="text"), a_call())
        assert answer.document is not None
        assert answer.document.text == "Quay four."
        with pytest.raises(errors.UpstreamProtocol):
            await one.transcribe(speech_request(), a_call())


@pytest.mark.parametrize("format", ["text", "srt"])
async def test_a_page_is_no_transcript(upstream: FakeUpstream, format: str) -> None:
    upstream.on("POST", SPEECH, Raw(b"<!doctype html><p>sign in", "text/html"))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamProtocol):
            await one.transcribe(speech_request(response_format=format), a_call())


@pytest.mark.parametrize(
    "recording",
    recordings.all("audio.transcriptions", "request", "multipart"),
    ids=lambda r: r.file,
)
async def test_every_recorded_form_reaches_the_upstream_again(
    upstream: FakeUpstream, recording: recordings.Recording
) -> None:
    """G33: through JSON and back into a form nothing is lost."""
    from gateway_http.kinds import kinds_of
    from services.form import fields_to_json
    from tests.lib.form import differences

    parts = recording.parts()
    fields = [(p.name, p.text) for p in parts if p.filename is None]
    (file,) = [p for p in parts if p.filename is not None]
    value = fields_to_json(fields, kinds_of("TranscribeRequest"))
    upload = Upload.of(file.data, file.filename or "", file.content_type or "")
    upstream.on("POST", SPEECH, Json({"text": "", "duration": 1.0, "segments": []}))
    async with adapter(upstream) as one:
        await one.transcribe(Body.from_value("TranscribeRequest", value, upload), a_call())
    expected = [p for p in parts if p.name not in ("stream", "task")]
    assert differences(expected, upstream.requests[0].form()) == []


# --- all kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_is_built(kind: str) -> None:
    async with transport() as one:
        endpoint = Endpoint("fake", "http://127.0.0.1:1", kind)
        made: Adapter = build(endpoint, one)
        assert made.endpoint is endpoint
        await made.aclose()


async def test_auto_is_no_kind() -> None:
    async with transport() as one:
        with pytest.raises(KeyError):
            build(Endpoint("fake", "http://127.0.0.1:1", "auto"), one)


def test_an_endpoint_is_shown_without_its_key() -> None:
    endpoint = Endpoint("fake", "http://h", "vllm", "m", KEY, QUICK, {"x-key": KEY})
    assert KEY not in repr(endpoint)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:8000", "vllm 127.0.0.1:8000"),
        ("https://user:secret@h.example/base/", "vllm h.example/base"),
    ],
)
def test_an_endpoints_name_holds_no_credentials(url: str, name: str) -> None:
    assert endpoint_name("vllm", url) == name


async def test_a_closed_transport_closes_what_is_open(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Record("chat/openai-text-response.json"))
    one = Transport()
    await build(Endpoint("fake", upstream.url, "openai"), one).chat(chat(), a_call())
    assert upstream.connections.open == 1
    await one.aclose()
    await upstream.until(lambda: upstream.connections.open == 0)
