"""The four models that OpenGateLLM's documentation names, in front of servers of those kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.faces import Case, File, over_grpc, over_rest
from tests.lib.tetrad import Served, configuration, model, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

# name: (type, kind of server, the upstream's name, alias, operation, request)
SEED: dict[str, tuple[str, str, str, str, str, dict[str, Any]]] = {
    "guillaumetell-7b": (
        "text-generation",
        "vllm",
        "AgentPublic/guillaumetell-7b",
        "chat",
        "Chat",
        {"messages": [{"role": "user", "content": "Bonjour"}]},
    ),
    "multilingual-e5-large": (
        "text-embeddings-inference",
        "tei",
        "intfloat/multilingual-e5-large",
        "embeddings",
        "Embed",
        {"input": ["un bateau", "a ship"]},
    ),
    "whisper-large-v3-turbo": (
        "automatic-speech-recognition",
        "whisper",
        "openai/whisper-large-v3-turbo",
        "speech",
        "Transcribe",
        {},
    ),
    "bge-reranker-v2-m3": (
        "text-classification",
        "tei",
        "BAAI/bge-reranker-v2-m3",
        "rerank",
        "Rerank",
        {"query": "un fruit", "documents": ["une pomme", "un moteur"]},
    ),
}


Seed = tuple[Served, dict[str, FakeUpstream]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seed]:
    """`tetrad serve --config` with the four models in front of four fakes."""
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeUpstream()) for name in SEED}
        profiles.vllm(fakes["guillaumetell-7b"], model="AgentPublic/guillaumetell-7b")
        profiles.tei(fakes["multilingual-e5-large"], model="intfloat/multilingual-e5-large")
        profiles.etalab(fakes["whisper-large-v3-turbo"], model="openai/whisper-large-v3-turbo")
        profiles.tei(fakes["bge-reranker-v2-m3"], kind="reranker", model="BAAI/bge-reranker-v2-m3")
        models = [
            model(name, type, kind, fakes[name].url, upstream, alias)
            for name, (type, kind, upstream, alias, _, _) in SEED.items()
        ]
        config = configuration(tmp_path_factory.mktemp("seed"), models, probes={"interval": 3600})
        yield await stack.enter_async_context(serving("--config", config)), fakes


@pytest.mark.parametrize("name", SEED)
@pytest.mark.parametrize("by", ["name", "alias"])
async def test_a_model_of_the_seed_answers_over_both_faces(seed: Seed, name: str, by: str) -> None:
    served, fakes = seed
    type, kind, upstream, alias, operation, request = SEED[name]
    sound = File() if operation == "Transcribe" else None
    asked = {**request, "model": name if by == "name" else alias}
    fakes[name].forget()
    told = []
    for run in (over_rest, over_grpc):
        outcome = await run(served.gate, Case(name, operation, asked, None, file=sound))
        assert outcome.failure is None
        assert outcome.answers
        told.append(outcome.told)
    assert told[0] == told[1]
    assert told[0]["x-tetrad-model"] == name
    assert told[0]["x-tetrad-endpoint"] == f"{kind} 127.0.0.1:{fakes[name].port}"
    posts = [one for one in fakes[name].requests if one.method == "POST"]
    assert len(posts) == 2
    if kind == "vllm" or type == "text-embeddings-inference":
        assert [one.json()["model"] for one in posts] == [upstream, upstream]
    if kind == "whisper":
        assert [one.form_values("model") for one in posts] == [[upstream], [upstream]]


async def test_the_seed_s_models_are_listed_with_their_types(seed: Seed) -> None:
    served, _ = seed
    rest = (await served.gate.rest.get("/v1/models")).json()["data"]
    over_rpc = (await served.gate.call("ModelService", "ListModels", {}))["data"]
    for listed in (rest, over_rpc):
        assert {one["id"]: (one["type"], one["aliases"], one["ready"]) for one in listed} == {
            name: (type, [alias], True) for name, (type, _, _, alias, _, _) in SEED.items()
        }
