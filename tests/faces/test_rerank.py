"""Reranking through both faces: three dialects behind, three before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.upstream import Json
from tests.lib import recordings
from tests.lib.cases import again, check
from tests.lib.faces import Case, Sent
from tests.lib.world import UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

QUERY = "what holds a boat"
TEXTS = ["Rope of hemp", "Steel cable", "Anchor chain", "Nœud coulant"]
OBJECTS = [{"text": text, "sku": 9007199254740993 + n} for n, text in enumerate(TEXTS)]
TOKENS = answers.tokens([QUERY, *TEXTS])
USED = {"prompt_tokens": TOKENS, "total_tokens": TOKENS}
CHOICES: dict[str, Any] = {"query": QUERY, "documents": TEXTS}


def ranked(top_n: int = 0) -> list[dict[str, Any]]:
    """The fakes' order of TEXTS."""
    return [
        {"index": index, "relevance_score": score}
        for index, score in answers.ranking(QUERY, TEXTS, top_n)
    ]


def with_documents(results: list[dict[str, Any]], documents: list[Any]) -> list[dict[str, Any]]:
    told = [{"text": one} if isinstance(one, str) else one for one in documents]
    return [{**one, "document": told[one["index"]]} for one in results]


def tei(name: str, results: list[dict[str, Any]], *, texts: Any = TEXTS, **members: Any) -> Case:
    """TEI gets bare texts and its own members; top_n and documents are done on its answer."""
    request = {"model": "tei-rerank", **CHOICES, **members}
    ours = ("model", "documents", "top_n", "return_documents")
    sent = {"texts": texts, **{k: v for k, v in request.items() if k not in ours}}
    answer = {"results": results, "model": "tei-rerank", "usage": USED}
    return Case(name, "Rerank", request, Sent("/rerank", sent), [answer])


def vllm(name: str, results: list[dict[str, Any]], **members: Any) -> Case:
    request = {"model": "vllm-rerank", **CHOICES, **members}
    sent = Sent("/v1/rerank", {**request, "model": "bge-reranker-v2-m3"})
    answer = {"id": "rerank-1", "model": "bge-reranker-v2-m3", "usage": USED, "results": results}
    return Case(name, "Rerank", request, sent, [answer])


def cohere(name: str, results: list[dict[str, Any]], **members: Any) -> Case:
    request = {"model": "cohere", **CHOICES, **members}
    sent = Sent("/v2/rerank", {**request, "model": "rerank-v4.0-pro"})
    meta = recordings.get("rerank/cohere-v2-response.json").json()["meta"]
    answer = {"id": "07734bd2", "results": results, "meta": meta}
    return Case(name, "Rerank", request, sent, [answer])


def by_vllm(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """vLLM tells every document, with a null beside its text."""
    return [
        {**one, "document": {"text": TEXTS[one["index"]], "multi_modal": None}} for one in results
    ]


ALL = tei("TEI", ranked())
CASES = [
    ALL,
    tei("TEI, top_n", ranked(2), top_n=2),
    tei("TEI, top_n beyond the documents", ranked(), top_n=9),
    tei("TEI, documents asked for", with_documents(ranked(), TEXTS), return_documents=True),
    tei("TEI, documents not wanted", ranked(), return_documents=False),
    tei("TEI, its own members", ranked(), truncate=True, raw_scores=True),
    tei(
        "TEI, documents with members of their own",
        with_documents(ranked(1), OBJECTS),
        documents=OBJECTS,
        return_documents=True,
        top_n=1,
    ),
    again(
        ALL,
        "no model named",
        request=CHOICES,
        default="tei-rerank",
        answers=[{**ALL.answers[0], "model": "tei-rerank"}],
    ),
    vllm("vLLM", by_vllm(ranked())),
    vllm("vLLM, top_n", by_vllm(ranked(3)), top_n=3),
    vllm("vLLM, documents not wanted", ranked(), return_documents=False),
    vllm(
        "vLLM, documents with members of their own",
        by_vllm(ranked()),
        documents=OBJECTS,
        priority=1,
    ),
    cohere("Cohere", ranked()),
    cohere("Cohere, top_n", ranked(1), top_n=1),
    cohere("Cohere, documents asked for", with_documents(ranked(), TEXTS), return_documents=True),
    *(
        again(ALL, f"over {path}", rest_path=path, rest_request=dict(ALL.request))
        for path in ("/rerank", "/v2/rerank")
    ),
    again(
        ALL,
        "a caller who speaks TEI",
        rest_path="/rerank",
        rest_request={"model": "tei-rerank", "query": QUERY, "texts": TEXTS},
        rest_answer=[{"index": one["index"], "score": one["relevance_score"]} for one in ranked()],
    ),
    again(
        ALL,
        "a caller who speaks TEI and wants texts",
        rest_path="/v1/rerank",
        rest_request={
            "model": "rerank",
            "query": QUERY,
            "texts": TEXTS,
            "return_text": True,
        },
        rest_answer=[
            {"index": i, "score": s, "text": TEXTS[i]} for i, s in answers.ranking(QUERY, TEXTS)
        ],
    ),
    again(
        ALL,
        "a caller who speaks OpenGateLLM",
        rest_path="/v1/rerank",
        rest_request={"model": "tei-rerank", "prompt": QUERY, "input": TEXTS},
        rest_answer={
            "object": "list",
            "model": "tei-rerank",
            "usage": USED,
            "data": [
                {"object": "rerank", "index": one["index"], "score": one["relevance_score"]}
                for one in ranked()
            ],
        },
    ),
]


SCORES = [0.25, -3.5, 0.75, None]
BEST_FIRST = [{"index": i, "relevance_score": SCORES[i]} for i in (2, 0, 1, 3)]


def unsorted(name: str, answer: Any, wanted: Any, **members: Any) -> Case:
    """An upstream that answers in the order of the documents."""
    request = {"model": "scripted-rerank", **CHOICES, **members}
    sent = Sent("/v1/rerank", {**request, "model": UPSTREAM_NAME})
    return Case(name, "Rerank", request, sent, [wanted], reply=Json(answer))


RESULTS = [{"index": i, "relevance_score": score} for i, score in enumerate(SCORES)]
BARE = [{"index": i, "score": score} for i, score in enumerate(SCORES)]
CASES += [
    unsorted("in another order", {"results": RESULTS}, {"results": BEST_FIRST}),
    unsorted("top_n of another order", {"results": RESULTS}, {"results": BEST_FIRST[:2]}, top_n=2),
    unsorted("a bare list", BARE, {"results": BEST_FIRST}),
    unsorted("a list called data", {"data": BARE, "id": "r"}, {"results": BEST_FIRST, "id": "r"}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_documents_are_ordered_alike_through_both_faces(world: World, case: Case) -> None:
    """G31, G32: one shape, the input's index, best first, top_n after sorting."""
    await check(world, case)
