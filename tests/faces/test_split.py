"""Batches beyond what a server takes, through both faces: cut, spread over providers, re-joined."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes import answers, profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib import canonical
from tests.lib.gateway import Gateway, gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 32
TEXTS = [f"text number {number}" for number in range(2048)]


@dataclass
class Split:
    """A gateway and the three servers behind each of its models."""

    gate: Gateway
    embedders: list[FakeUpstream]
    rerankers: list[FakeUpstream]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def split() -> AsyncIterator[Split]:
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(FakeUpstream()) for _ in range(6)]
        for place, fake in enumerate(fakes):
            kind: Any = "embedding" if place < 3 else "reranker"
            profiles.tei(fake, kind=kind, max_client_batch_size=LIMIT)
        types = {"e": "text-embeddings-inference", "r": "text-classification"}
        models = [
            {
                "name": name,
                "type": type,
                "providers": [{"type": "tei", "url": one.url} for one in behind],
            }
            for (name, type), behind in zip(types.items(), (fakes[:3], fakes[3:]), strict=True)
        ]
        config = {"probes": {"interval": 3600}, "models": models}
        gate = await stack.enter_async_context(gateway(json.dumps(config)))
        for fake in fakes:
            fake.forget()
        yield Split(gate, fakes[:3], fakes[3:])
        for fake in fakes:
            fake.forget()


@pytest.mark.parametrize("asked", [None, "base64"])
@pytest.mark.parametrize("face", ["rest", "grpc"])
async def test_2048_inputs_arrive_in_order_over_three_providers(
    split: Split, face: str, asked: str | None
) -> None:
    """G29: the limit of 32 is the server's own, by its /info."""
    for fake in split.embedders:
        fake.forget()
    request = {"model": "e", "input": TEXTS, **({"encoding_format": asked} if asked else {})}
    if face == "rest":
        answer = await split.gate.rest.post("/v1/embeddings", json=request)
        assert answer.status_code == 200, answer.text
        value = answer.json()
    else:
        value = await split.gate.call("EmbedService", "Embed", request)
    assert [item["index"] for item in value["data"]] == [*range(2048)]
    vectors = [item["embedding"] for item in value["data"]]
    expected: list[Any] = [answers.vector(text) for text in TEXTS]
    if asked:
        expected = [answers.packed(vector) for vector in expected]
    canonical.assert_same({"embedding": expected}, {"embedding": vectors})
    assert value["usage"]["total_tokens"] == 3 * 2048
    sent = [len(json.loads(r.body)["input"]) for up in split.embedders for r in up.requests]
    assert sent == [LIMIT] * (2048 // LIMIT)
    assert all(len(fake.requests) >= 10 for fake in split.embedders)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
async def test_what_only_tei_knows_goes_with_every_part(split: Split, path: str) -> None:
    for fake in split.embedders:
        fake.forget()
    name = "inputs" if path == "/embed" else "input"
    request = {"model": "e", name: TEXTS[:100], "truncate": True, "dimensions": 4}
    answer = await split.gate.rest.post(path, json=request)
    value = answer.json()
    vectors = value if path == "/embed" else [item["embedding"] for item in value["data"]]
    expected = [answers.vector(text, 4) for text in TEXTS[:100]]
    canonical.assert_same({"embedding": expected}, {"embedding": vectors})
    bodies = [json.loads(r.body) for up in split.embedders for r in up.requests]
    assert sorted(len(body["inputs"]) for body in bodies) == [4, 32, 32, 32]
    assert all((body["truncate"], body["dimensions"]) == (True, 4) for body in bodies)


async def test_documents_are_ranked_as_one_request_would(split: Split) -> None:
    """G32: over both faces, in our shape and in TEI's."""
    for fake in split.rerankers:
        fake.forget()
    documents = TEXTS[:150]
    ranking = answers.ranking("q", documents, 40)
    request = {"model": "r", "query": "q", "documents": documents, "top_n": 40}
    rest = (await split.gate.rest.post("/v1/rerank", json=request)).json()
    grpc = await split.gate.call("RerankService", "Rerank", request)
    for value in (rest, grpc):
        found = [(one["index"], one["relevance_score"]) for one in value["results"]]
        assert found == ranking
        assert value["usage"]["total_tokens"] == 3 * 150 + 5
    native = {"model": "r", "query": "q", "texts": documents, "return_text": True}
    bare = (await split.gate.rest.post("/rerank", json=native)).json()
    assert bare == [
        {"index": index, "score": score, "text": documents[index]}
        for index, score in answers.ranking("q", documents)
    ]
    assert all(fake.requests for fake in split.rerankers)


async def test_usage_and_headers_tell_of_one_call(split: Split) -> None:
    answer = await split.gate.rest.post("/v1/embeddings", json={"model": "e", "input": TEXTS[:100]})
    assert answer.headers["x-tetrad-model"] == "e"
    named = answer.headers["x-tetrad-endpoint"].split(", ")
    assert len(named) == len(set(named)) >= 2
