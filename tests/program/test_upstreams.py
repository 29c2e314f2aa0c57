"""`tetrad serve --upstream URL`: every kind of server is recognised, and served as what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.faces import Case, File, over_grpc, over_rest
from tests.lib.tetrad import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, EMBED, SPEECH, RERANK = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)
HI = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    CHAT: ("Chat", {"messages": HI}),
    EMBED: ("Embed", {"input": "quay"}),
    SPEECH: ("Transcribe", {}),
    RERANK: ("Rerank", {"query": "q", "documents": ["a", "b"]}),
}

Install = Callable[[FakeUpstream], str]
LLAMACPP_EMBED = "../models/embed.gguf"
LLAMACPP_RERANK = "../models/rerank.gguf"
TWIN = "acme/twin"

# By the fake's profile: how it is installed, what it is recognised as, its models with their types.
SERVERS: dict[str, tuple[Install, str, dict[str, str]]] = {
    name: (profiles.PROFILES[name], kind, models)
    for name, kind, models in (
        ("vllm", "vllm", {"qwen3-8b": CHAT}),
        ("vllm-embed", "vllm", {"bge-m3": EMBED}),
        ("vllm-score", "vllm", {"bge-reranker-v2-m3": RERANK}),
        ("vllm-transcription", "vllm", {"whisper-large-v3": SPEECH}),
        ("tei", "tei", {"thenlper/gte-base": EMBED}),
        ("tei-reranker", "tei", {"BAAI/bge-reranker-base": RERANK}),
        ("whisper", "whisper", {"Systran/faster-whisper-small": SPEECH}),
        ("whispercpp", "whispercpp", {"whisper": SPEECH}),
        ("etalab", "whisper", {"openai/whisper-large-v3": SPEECH}),
        (
            "openai",
            "openai",
            {"gpt-5.5": CHAT, "text-embedding-3-small": EMBED, "whisper-1": SPEECH},
        ),
        ("llamacpp", "llamacpp", {"../models/m.gguf": CHAT}),
        ("ollama", "ollama", {"qwen3:4b": CHAT, "nomic-embed-text": EMBED}),
        ("cohere", "cohere", {"rerank-v4.0-pro": RERANK}),
    )
} | {
    # Their profiles have the name of llama.cpp's chat model.
    "llamacpp-embedding": (
        lambda up: profiles.llamacpp(up, model=LLAMACPP_EMBED, mode="embedding"),
        "llamacpp",
        {LLAMACPP_EMBED: EMBED},
    ),
    "llamacpp-rerank": (
        lambda up: profiles.llamacpp(up, model=LLAMACPP_RERANK, mode="rerank"),
        "llamacpp",
        {LLAMACPP_RERANK: RERANK},
    ),
}
TWINS = ("twin one", "twin two")

Before = tuple[Served, dict[str, FakeUpstream]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def before() -> AsyncIterator[Before]:
    """A gateway in front of every kind of server, and of two that serve the same model."""
    async with AsyncExitStack() as stack:
        fakes = {
            name: await stack.enter_async_context(FakeUpstream()) for name in (*SERVERS, *TWINS)
        }
        for name, (install, _, _) in SERVERS.items():
            install(fakes[name])
        for name in TWINS:
            profiles.tei(fakes[name], model=TWIN)
        flags = [flag for fake in fakes.values() for flag in ("--upstream", fake.url)]
        yield await stack.enter_async_context(serving(*flags)), fakes


async def test_every_kind_of_server_that_there_is_a_fake_of_is_here() -> None:
    assert SERVERS.keys() == profiles.PROFILES.keys()


async def test_all_models_are_listed_under_their_own_names_with_their_types(before: Before) -> None:
    served, _ = before
    listed = await served.gate.call("ModelService", "ListModels", {})
    wanted = {model: type for _, _, models in SERVERS.values() for model, type in models.items()}
    assert {one["id"]: one["type"] for one in listed["data"]} == {**wanted, TWIN: EMBED}
    assert all(one["ready"] for one in listed["data"])


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_is_recognised_and_spoken_to_as_what_it_is(
    before: Before, name: str
) -> None:
    served, fakes = before
    _, kind, models = SERVERS[name]
    for model, type in models.items():
        method, members = REQUESTS[type]
        sound = File() if type == SPEECH else None
        case = Case(model, method, {**members, "model": model}, None, file=sound)
        for run in (over_rest, over_grpc):
            outcome = await run(served.gate, case)
            assert outcome.failure is None
            assert outcome.answers
            assert outcome.told["x-tetrad-endpoint"] == f"{kind} 127.0.0.1:{fakes[name].port}"
            assert outcome.told["x-tetrad-model"] == model


async def test_two_servers_of_one_model_share_its_load(before: Before) -> None:
    served, fakes = before
    case = Case("shared", "Embed", {"input": "quay", "model": TWIN}, None)
    for _ in range(24):
        assert (await over_rest(served.gate, case)).failure is None
    asked = [sum(one.method == "POST" for one in fakes[name].requests) for name in TWINS]
    assert sum(asked) == 24
    assert min(asked) > 0
