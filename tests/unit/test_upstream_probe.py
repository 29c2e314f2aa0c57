"""What a server is and has is found out by asking, for every kind, without a token spent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from services import errors
from services.upstream import KINDS, Endpoint, Found, alive, recognise
from services.upstream.model_types import CHAT, EMBED, RERANK, SPEECH
from services.upstream.probe import learnt
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
    ("profile", "context"), [("vllm", 40960), ("llamacpp", 8192), ("cohere", 4096)]
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


# Servers without a kind of their own, by what they answer; every other path is 404.


def _listing(*models: Mapping[str, Any]) -> Json:
    return Json({"object": "list", "data": [{"object": "model", **one} for one in models]})


_FASTAPI: dict[str, Any] = {"/health": {}, "/openapi.json": {}}

OTHERS: dict[str, tuple[dict[str, Raw], str, dict[str, tuple[str, int | None]]]] = {
    "sglang": (
        {
            "/v1/models": _listing({"id": "q/Qwen3", "owned_by": "sglang", "max_model_len": 4096}),
            "/get_model_info": Json({"model_path": "q/Qwen3", "is_generation": True}),
            "/openapi.json": Json({"paths": {"/v1/embeddings": {}, "/v1/chat/completions": {}}}),
        },
        "openai",
        {"q/Qwen3": (CHAT, 4096)},
    ),
    "sglang for vectors": (
        {
            "/v1/models": _listing({"id": "ours", "owned_by": "sglang", "max_model_len": 512}),
            "/get_model_info": Json({"model_path": "ours", "is_generation": False}),
        },
        "openai",
        {"ours": (EMBED, 512)},
    ),
    "infinity": (
        {
            "/v1/models": _listing(
                {"id": "minilm", "owned_by": "infinity", "capabilities": ["embed"], "stats": {}},
                {"id": "rr", "owned_by": "infinity", "capabilities": ["rerank"], "stats": {}},
                {"id": "cl", "owned_by": "infinity", "capabilities": ["classify"], "stats": {}},
            )
        },
        "openai",
        {"minilm": (EMBED, None), "rr": (RERANK, None)},
    ),
    "LM Studio": (
        {
            "/v1/models": _listing(
                {"id": "qwen2-vl", "owned_by": "organization_owner"},
                {"id": "llama", "owned_by": "organization_owner"},
                {"id": "nomic", "owned_by": "organization_owner"},
            ),
            "/api/v0/models": _listing(
                {"id": "qwen2-vl", "type": "vlm", "max_context_length": 32768},
                {
                    "id": "llama",
                    "type": "llm",
                    "max_context_length": 131072,
                    "loaded_context_length": 4096,
                },
                {"id": "nomic", "type": "embeddings", "max_context_length": 2048},
            ),
        },
        "openai",
        {"qwen2-vl": (CHAT, 32768), "llama": (CHAT, 4096), "nomic": (EMBED, 2048)},
    ),
    "LocalAI": (
        {
            "/v1/models": _listing(
                {"id": "gpt-4"},
                {"id": "whisper-1"},
                {"id": "stablediffusion"},
                {"id": "jina-reranker-v1-base-en"},
                {"id": "text-embedding-ada-002"},
                {"id": "tts-1"},
            )
        },
        "openai",
        {
            "gpt-4": (CHAT, None),
            "whisper-1": (SPEECH, None),
            "jina-reranker-v1-base-en": (RERANK, None),
            "text-embedding-ada-002": (EMBED, None),
        },
    ),
    "text-generation-inference": (
        {
            "/v1/models": _listing({"id": "t/zephyr", "owned_by": "t/zephyr"}),
            "/info": Json(
                {
                    "model_id": "t/zephyr",
                    "max_input_tokens": 1024,
                    "max_total_tokens": 2048,
                    "max_client_batch_size": 4,
                    "router": "text-generation-router",
                }
            ),
        },
        "openai",
        {"t/zephyr": (CHAT, 2048)},
    ),
    "an older text-generation-inference": (
        {
            "/info": Json(
                {
                    "model_id": "t/zephyr",
                    "model_pipeline_tag": "text-generation",
                    "max_total_tokens": 2048,
                }
            )
        },
        "openai",
        {"t/zephyr": (CHAT, 2048)},
    ),
    "transformers serve without a hub": (
        {
            "/v1/models": Json({"detail": "Internal Server Error"}, 500),
            "/openapi.json": Json({"paths": {"/v1/chat/completions": {}, "/v1/models": {}}}),
            "/health": Json({"status": "ok"}),
        },
        "openai",
        {},
    ),
    "an early faster-whisper-server": (
        {
            "/openapi.json": Json({"paths": {"/v1/audio/transcriptions": {}, **_FASTAPI}}),
            "/health": Raw(b"OK", "text/plain"),
        },
        "whisper",
        {"whisper": (SPEECH, None)},
    ),
}


@pytest.mark.parametrize("server", OTHERS)
async def test_a_server_without_a_kind_of_its_own_is_told_apart(
    upstream: FakeUpstream, server: str
) -> None:
    """G39."""
    answers, kind, models = OTHERS[server]
    for path, answer in answers.items():
        upstream.on("GET", path, answer)
    async with transport() as one:
        recognised = await recognise(one, upstream.url)
        assert await alive(one, Endpoint("fake", upstream.url, recognised.kind))
    assert recognised.kind == kind
    found = {each.model: (each.type, each.max_context_length) for each in recognised.models}
    assert found == models
    assert {received.method for received in upstream.requests} == {"GET"}


async def test_routes_without_v1_are_told_with_the_way_out(upstream: FakeUpstream) -> None:
    paths: dict[str, Any] = {"/models": {}, "/embeddings": {}, "/rerank_all": {}}
    upstream.on("GET", "/openapi.json", Json({"paths": paths}))
    async with transport() as one:
        with pytest.raises(errors.UpstreamProtocol, match="--url-prefix /v1"):
            await recognise(one, upstream.url)


async def test_what_ollama_tells_of_each_model_is_kept(upstream: FakeUpstream) -> None:
    profiles.ollama(upstream)

    def shown(length: int, capability: str, parameters: str = "") -> Json:
        info = {
            "qwen3.context_length": length,
            "qwen3.embedding_length": 768,
            "general.architecture": "qwen3",
        }
        told = {"model_info": info, "capabilities": [capability], "parameters": parameters}
        return Json(told)

    async def show(received: Any, responder: Any) -> None:
        if received.json()["model"] == "qwen3:4b":
            await shown(40960, "completion", "stop  x\nnum_ctx    8192")(received, responder)
        else:
            await shown(2048, "embedding")(received, responder)

    upstream.on("POST", "/api/show", show)
    async with transport() as one:
        chat, embed = (await recognise(one, upstream.url)).models
    assert (chat.max_context_length, chat.dimension) == (8192, None)
    assert (embed.max_context_length, embed.dimension) == (2048, 768)


async def test_an_adapter_has_the_context_length_of_its_model(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/v1/models", Record("models/vllm-list-response.json"))
    endpoint = Endpoint("fake", upstream.url, "vllm", "lora-a")
    async with transport() as one:
        found = (await recognise(one, upstream.url)).models
        told = await learnt(one, endpoint, ["lora-a"])
    assert [each.max_context_length for each in found] == [40960, 40960]
    adapter = told.of("lora-a")
    assert adapter is not None
    assert adapter.max_context_length == 40960


LEARNT = {
    "vllm": ("qwen3-8b", 40960, None),
    "tei": ("any name", 512, 32),
    "tei-reranker": ("any name", 512, 32),
    "llamacpp": ("any name", 8192, None),
    "cohere": ("rerank-v4.0-pro", 4096, None),
    "ollama": ("qwen3:4b", None, None),
    "openai": ("gpt-5.5", None, None),
}


@pytest.mark.parametrize("profile", LEARNT)
async def test_a_configured_provider_s_model_is_learnt_from_its_server(
    upstream: FakeUpstream, profile: str
) -> None:
    """G39: what it was configured as is not asked again; only its model is looked at."""
    PROFILES[profile](upstream)
    name, context, batch = LEARNT[profile]
    async with transport() as one:
        told = await learnt(one, Endpoint("fake", upstream.url, EXPECTED[profile][0]), [name])
    found = told.of(name)
    assert found is not None
    assert (found.max_context_length, found.max_batch) == (context, batch)
    posts = [received.path for received in upstream.requests if received.method == "POST"]
    assert posts == (["/api/show"] if profile == "ollama" else [])


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_server_that_tells_nothing_teaches_nothing(
    upstream: FakeUpstream, kind: str
) -> None:
    for reply in (Json([1, {"id": 5}]), Json({"data": {}}), Raw(b"<", "text/html"), Json({}, 500)):
        upstream.default = reply
        async with transport() as one:
            told = await learnt(one, Endpoint("fake", upstream.url, kind), ["a"])
        assert told.of("a") is None
    await upstream.stop_listening()
    async with transport() as one:
        assert (await learnt(one, Endpoint("fake", upstream.url, kind), ["a"])).models == ()


async def test_a_list_that_fails_is_no_verdict_where_health_is_good(
    upstream: FakeUpstream,
) -> None:
    upstream.on("GET", "/v1/models", Json({"detail": "no hub"}, 500))
    endpoint = Endpoint("fake", upstream.url, "openai")
    async with transport() as one:
        assert not await alive(one, endpoint)
        upstream.on("GET", "/health", Json({"status": "ok"}))
        assert await alive(one, endpoint)


async def test_a_probe_leaves_its_connection_to_the_next(upstream: FakeUpstream) -> None:
    """Not one connection each: a busy server pays for every new one."""
    upstream.on("GET", "/v1/models", Raw(b"x" * 5000, chunking=1000, delay=0.01))
    endpoint = Endpoint("fake", upstream.url, "openai")
    async with transport() as one:
        for _ in range(5):
            assert await alive(one, endpoint)
            await one.settle()
    assert upstream.connections.total == 1
