"""What a server is and has is found out by asking, for every kind, without a token spent."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from services import errors
from services.upstream import KINDS, Endpoint, Found, alive, recognise
from services.upstream.model_types import CHAT, EMBED, RERANK, SPEECH
from tests.fakes import profiles
from tests.fakes.profiles import PROFILES
from tests.fakes.upstream import CloseConnection, FakeUpstream, Json, Raw, Record
from tests.lib import recordings
from tests.lib.adapters import KEY, transport

EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "vllm": ("vllm", {"qwen3-8b": CHAT}),
    "vllm-embed": ("vllm", {"bge-m3": EMBED}),
    "vllm-score": ("vllm", {"bge-reranker-v2-m3": RERANK}),
    "vllm-transcription": ("vllm", {"whisper-large-v3": SPEECH}),
    "tei": ("tei", {"thenlper/gte-base": EMBED}),
    "tei-reranker": ("tei", {"BAAI/bge-reranker-base": RERANK}),
    "whisper": ("whisper", {"Systran/faster-whisper-small": SPEECH}),
    "whispercpp": ("whispercpp", {"whisper": SPEECH}),
    "etalab": ("whisper", {"openai/whisper-large-v3": SPEECH}),
    "openai": (
        "openai",
        {"gpt-5.5": CHAT, "text-embedding-3-small": EMBED, "whisper-1": SPEECH},
    ),
    "llamacpp": ("llamacpp", {"../models/m.gguf": CHAT}),
    "llamacpp-embedding": ("llamacpp", {"../models/m.gguf": EMBED}),
    "llamacpp-rerank": ("llamacpp", {"../models/m.gguf": RERANK}),
    "ollama": ("ollama", {"qwen3:4b": CHAT, "nomic-embed-text": EMBED}),
    "cohere": ("cohere", {"rerank-v4.0-pro": RERANK}),
}

ASKS_ONLY = re.compile(
    r"GET .*|POST /api/show|POST /v1/rerank|POST /v1/embeddings"  # the last two without any input
)


def test_every_profile_is_expected() -> None:
    assert set(EXPECTED) == set(PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
async def test_a_server_is_recognised(upstream: FakeUpstream, profile: str, tail: str) -> None:
    """G39."""
    PROFILES[profile](upstream)
    async with transport() as one:
        recognised = await recognise(one, upstream.url + tail)
    kind, models = EXPECTED[profile]
    assert recognised.kind == kind
    assert kind in KINDS
    assert {found.model: found.type for found in recognised.models} == models
    for found in recognised.models:
        assert found.kind == kind
        assert found.capabilities
    for received in upstream.requests:
        assert ASKS_ONLY.fullmatch(f"{received.method} {received.path}")
        if received.method == "POST" and received.path != "/api/show":
            assert received.json() in ({"query": "", "documents": []}, {"input": []})


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_server_that_answers_is_alive(upstream: FakeUpstream, profile: str) -> None:
    """G39."""
    PROFILES[profile](upstream)
    async with transport() as one:
        endpoint = Endpoint("fake", upstream.url, EXPECTED[profile][0])
        assert await alive(one, endpoint)
        await upstream.stop_listening()
        assert not await alive(one, endpoint)
    assert all(received.method == "GET" for received in upstream.requests)


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_that_is_not_well_is_not_alive(upstream: FakeUpstream, status: int) -> None:
    upstream.on("GET", "/health", Json({"status": "loading model"}, status))
    async with transport() as one:
        assert not await alive(one, Endpoint("fake", upstream.url, "llamacpp"))


async def test_a_server_that_refuses_our_key_is_not_alive(upstream: FakeUpstream) -> None:
    profiles.openai(upstream, key=KEY)
    async with transport() as one:
        assert await alive(one, Endpoint("fake", upstream.url, "openai", key=KEY))
        assert not await alive(one, Endpoint("fake", upstream.url, "openai", key="wrong"))


KEYED: dict[str, Callable[[FakeUpstream, str], str]] = {
    "vllm": lambda up, key: profiles.vllm(up, key=key),
    "tei": lambda up, key: profiles.tei(up, key=key),
    "whisper": lambda up, key: profiles.whisper(up, key=key),
    "openai": lambda up, key: profiles.openai(up, key=key),
    "cohere": lambda up, key: profiles.cohere(up, key=key),
}


@pytest.mark.parametrize("profile", KEYED)
async def test_a_key_is_used_and_a_refused_one_is_told(
    upstream: FakeUpstream, profile: str
) -> None:
    KEYED[profile](upstream, KEY)
    async with transport() as one:
        assert (await recognise(one, upstream.url, KEY)).kind == EXPECTED[profile][0]
        with pytest.raises(errors.UpstreamAuth) as raised:
            await recognise(one, upstream.url, "sk-wrong-key")
    assert "sk-wrong-key" not in str(raised.value)


async def test_what_tei_tells_is_kept(upstream: FakeUpstream) -> None:
    profiles.tei(upstream, max_client_batch_size=8)
    async with transport() as one:
        (found,) = (await recognise(one, upstream.url)).models
    expected = Found(
        "tei", "thenlper/gte-base", EMBED, "thenlper", ("embed", "bulk_embed"), 512, None, 8
    )
    assert found == expected


@pytest.mark.parametrize(
    ("profile", "context"), [("vllm", 40960), ("llamacpp", 131072), ("cohere", 4096)]
)
async def test_a_context_length_is_found(
    upstream: FakeUpstream, profile: str, context: int
) -> None:
    PROFILES[profile](upstream)
    async with transport() as one:
        (found,) = (await recognise(one, upstream.url)).models
    assert found.max_context_length == context


async def test_a_dimension_is_found(upstream: FakeUpstream) -> None:
    PROFILES["llamacpp-embedding"](upstream)
    async with transport() as one:
        (found,) = (await recognise(one, upstream.url)).models
    assert found.dimension == 4096


async def test_adapters_of_a_model_are_models_too(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/v1/models", Record("models/vllm-list-response.json"))
    async with transport() as one:
        recognised = await recognise(one, upstream.url)
    assert [found.model for found in recognised.models] == ["qwen3-8b", "lora-a"]


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("/v1/chat/completions", CHAT), ("/v1/embeddings", EMBED), ("/rerank", RERANK),
        ("/v1/audio/transcriptions", SPEECH),
    ],
)  # fmt: skip
async def test_vllms_routes_tell_a_type_that_the_name_does_not(
    upstream: FakeUpstream, path: str, type: str
) -> None:
    profiles.vllm(upstream, model="ours")
    upstream.on("GET", "/openapi.json", Json({"paths": {path: {}, "/health": {}}}))
    async with transport() as one:
        (found,) = (await recognise(one, upstream.url)).models
    assert found.type == type


async def test_words_of_a_list_win_over_names(upstream: FakeUpstream) -> None:
    """Another gateway, or a server that tells what its models are for."""
    listed = [
        {"id": "a", "type": EMBED, "dimension": 256, "owned_by": "us", "capabilities": ["embed"]},
        {"id": "whisper-chat", "type": CHAT, "max_context_length": 100},
        {"id": "b", "type": "text-to-speech"},
        {"id": 5},
        "odd",
    ]
    upstream.on("GET", "/v1/models", Json({"object": "list", "data": listed}))
    async with transport() as one:
        recognised = await recognise(one, upstream.url)
    assert recognised.kind == "openai"
    assert [(f.model, f.type) for f in recognised.models] == [("a", EMBED), ("whisper-chat", CHAT)]
    assert recognised.models[0].dimension == 256
    assert recognised.models[1].max_context_length == 100


async def test_opengatellm_is_recognised_by_its_costs(upstream: FakeUpstream) -> None:
    item = {"id": "m", "type": "image-text-to-text", "aliases": [], "costs": {"prompt_tokens": 0}}
    upstream.on("GET", "/v1/models", Json({"object": "list", "data": [item]}))
    async with transport() as one:
        assert (await recognise(one, upstream.url)).kind == "albert"


async def test_a_server_without_models_is_recognised(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/v1/models", Json({"object": "list", "data": []}))
    async with transport() as one:
        recognised = await recognise(one, upstream.url)
    assert (recognised.kind, recognised.models) == ("openai", ())


async def test_nothing_that_answers_is_told(upstream: FakeUpstream) -> None:
    await upstream.stop_listening()
    async with transport() as one:
        with pytest.raises(errors.UpstreamUnavailable, match="cannot be reached") as raised:
            await recognise(one, upstream.url)
    assert f"127.0.0.1:{upstream.port}" in raised.value.message


async def test_a_connection_that_breaks_is_told(upstream: FakeUpstream) -> None:
    upstream.default = CloseConnection()
    async with transport() as one:
        with pytest.raises(errors.UpstreamUnavailable):
            await recognise(one, upstream.url)


@pytest.mark.parametrize(
    "reply",
    [
        Raw(b"<html>It works!</html>", "text/html"),
        Raw(b"<html>not found</html>", "text/html", 404),
        Json({"error": "not found"}, 404),
        Json({"data": "none"}),
        Json(recordings.get("chat/openai-text-response.json").json()),
    ],
    ids=["page", "missing page", "missing", "other data", "other object"],
)
async def test_what_is_no_model_server_is_told(upstream: FakeUpstream, reply: Raw) -> None:
    upstream.default = reply
    async with transport() as one:
        with pytest.raises(errors.UpstreamProtocol, match="no model server"):
            await recognise(one, upstream.url)


async def test_a_server_that_is_still_loading_is_unavailable(upstream: FakeUpstream) -> None:
    upstream.default = Json({"error": {"message": "Loading model", "code": 503}}, 503)
    async with transport() as one:
        with pytest.raises(errors.UpstreamUnavailable, match="Loading model"):
            await recognise(one, upstream.url)
