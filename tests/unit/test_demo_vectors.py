"""Embeddings and rerank of the demo, over HTTP, as OpenAI, TEI and Cohere shape them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.lib.process import Program
from tests.unit.demo_process import CHAT, EMBED, RERANK, connected, error, running


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with connected(program) as opened:
        yield opened


def embed(client: httpx.Client, texts: Any, **more: Any) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": EMBED, "input": texts} | more)


def test_vectors_have_length_one_and_near_meanings_are_near(client: httpx.Client) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten naps.", "Interest rates rose again."]
    answer = embed(client, texts).json()
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    vectors = np.array([item["embedding"] for item in answer["data"]])
    assert vectors.shape == (3, 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    cat, kitten, rates = vectors
    assert cat @ kitten > 0.25 > cat @ rates
    assert answer["model"] == EMBED
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 10


def test_one_text_needs_no_list(client: httpx.Client) -> None:
    one, listed = (embed(client, text).json() for text in ("a ship", ["a ship"]))
    assert one == listed


def test_base64_is_the_same_numbers(client: httpx.Client) -> None:
    floats, packed = (
        embed(client, "a ship", encoding_format=form).json()["data"][0]["embedding"]
        for form in ("float", "base64")
    )
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == pytest.approx(floats)


def test_fewer_dimensions_are_the_first_ones_at_length_one(client: httpx.Client) -> None:
    (whole,), (short,) = (
        [np.array(item["embedding"]) for item in embed(client, "a ship", **more).json()["data"]]
        for more in ({}, {"dimensions": 64})
    )
    assert short == pytest.approx(whole[:64] / np.linalg.norm(whole[:64]), abs=1e-6)


def test_thousands_of_texts_are_one_request(client: httpx.Client) -> None:
    texts = [f"ship number {index}" for index in range(3000)]
    items = embed(client, texts, encoding_format="base64").json()["data"]
    assert [item["index"] for item in items] == list(range(3000))
    (single,) = embed(client, texts[2999], encoding_format="base64").json()["data"]
    a, b = (np.frombuffer(base64.b64decode(i["embedding"]), "<f4") for i in (items[-1], single))
    assert a == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"input": None}, None, "input"),
        ({"input": ""}, None, "input"),
        ({"input": []}, None, "input"),
        ({"input": ["a", ""]}, None, "input"),
        ({"input": {"text": "a"}}, None, "input"),
        ({"input": [1, 2, 3]}, "token_ids_not_supported", "input"),
        ({"input": [[1, 2], [3]]}, "token_ids_not_supported", "input"),
        ({"input": ["a", "long " * 9000]}, "context_length_exceeded", "input"),
        ({"input": "x" * 200_000}, "context_length_exceeded", "input"),
        ({"input": ["x"] * 16385}, None, "input"),
        ({"dimensions": 100}, None, "dimensions"),
        ({"dimensions": 0}, None, "dimensions"),
        ({"encoding_format": "bytes"}, None, "encoding_format"),
        ({"model": CHAT}, "model_not_supported", "model"),
    ],
)
def test_embeddings_that_make_no_sense_are_refused(
    client: httpx.Client, more: dict[str, Any], code: str | None, param: str
) -> None:
    found = error(embed(client, "a", **more), 400)
    assert (found["code"], found["param"]) == (code, param)


def test_tei_s_wire_gives_the_same_vectors(client: httpx.Client) -> None:
    (openai,) = embed(client, "a ship").json()["data"]
    answer = client.post("/embed", json={"inputs": "a ship"})
    assert answer.json() == [pytest.approx(openai["embedding"])]
    assert int(answer.headers["x-compute-tokens"]) > 0
    (raw,) = client.post("/embed", json={"inputs": ["a ship"], "normalize": False}).json()
    assert np.linalg.norm(raw) != pytest.approx(1.0, abs=0.01)
    long = {"inputs": "long " * 9000}
    assert client.post("/embed", json=long).status_code == 200
    found = error(client.post("/embed", json=long | {"truncate": False}), 400)
    assert found["code"] == "context_length_exceeded"
    assert error(client.post("/embed", json={"inputs": []}), 400)["param"] == "inputs"


def test_tei_s_info_is_of_the_embedding_model(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert info["model_id"] == EMBED
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_client_batch_size"] >= 1000
    assert info["max_input_length"] == 8192


QUERY = "How do I grow tomatoes?"
DOCUMENTS = [
    "Stock markets fell sharply on Friday.",
    "Tomato plants need sun and plenty of water.",
    "The committee will meet again in June.",
    "Planting vegetables in spring",
]


def test_rerank_puts_first_what_is_near_in_meaning(client: httpx.Client) -> None:
    body = {"model": RERANK, "query": QUERY, "documents": DOCUMENTS}
    answer = client.post("/v1/rerank", json=body).json()
    results = answer["results"]
    assert [one["index"] for one in results][:2] == [1, 3]
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5
    assert scores[-1] < 0.2
    assert results[0]["document"] == {"text": DOCUMENTS[1]}
    assert answer["model"] == RERANK
    assert answer["usage"]["total_tokens"] > 20


def test_rerank_takes_objects_and_gives_as_many_as_asked(client: httpx.Client) -> None:
    body = {
        "query": "fresh fruit",
        "documents": [{"text": "a broken engine"}, "ripe apples and pears", {"text": "snow"}],
        "top_n": 2,
        "return_documents": False,
    }
    results = client.post("/v1/rerank", json=body).json()["results"]
    assert len(results) == 2
    assert results[0]["index"] == 1
    assert all(one.keys() == {"index", "relevance_score"} for one in results)


def test_tei_s_rerank_is_a_bare_list(client: httpx.Client) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "truncate": True}
    ranked = client.post("/rerank", json=body).json()
    assert [one["index"] for one in ranked][:2] == [1, 3]
    assert ranked[0].keys() == {"index", "score"}
    ranked = client.post("/rerank", json=body | {"return_text": True}).json()
    assert ranked[0]["text"] == DOCUMENTS[1]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "a"}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": [{"image": "b"}]}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "model": EMBED}, "model"),
        ("/rerank", {"query": "", "texts": ["b"]}, "query"),
        ("/rerank", {"query": "a", "texts": [""]}, "texts"),
    ],
)
def test_a_rerank_that_makes_no_sense_is_refused(
    client: httpx.Client, path: str, body: dict[str, Any], param: str
) -> None:
    assert error(client.post(path, json=body), 400)["param"] == param
