"""Rerank answers in every upstream's shape, to ours: Cohere's and Jina's, as vLLM prints it.

TEI, and SGLang, answer a bare list with `score`; OpenGateLLM's older form and Voyage have `data`.
Results always name their input's index, are sorted best first, and top_n holds after sorting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = dict[str, Any]


def to_rerank(answer: Any, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """A RerankResponse for the answer to a RerankRequest; the answer itself if it is one.

    None if it is no reranking of these documents. With return_documents true every result has its
    document, the request's where the upstream gave none; with false none has; else as they came.
    """
    listed, rest = _parts(answer)
    documents = request.get("documents")
    if listed is None:
        return None
    results: list[Result] = []
    for item in listed:
        result = _result(item, documents)
        if result is None:
            return None
        results.append(_with_document(result, request.get("return_documents"), documents))
    results.sort(key=score, reverse=True)
    limit = request.get("top_n")
    if isinstance(limit, int) and limit > 0:  # 0 is all, as vLLM has it
        results = results[:limit]
    if isinstance(answer, dict) and answer.get("results") == results:
        return answer
    return {"results": results} | rest if "results" not in rest else rest | {"results": results}


def usage_of(answer: Mapping[str, Any]) -> Any:
    """The answer's `usage`, or what Cohere tells under `meta` in its place."""
    meta = answer.get("meta")
    if answer.get("usage") is not None or not isinstance(meta, dict):
        return answer.get("usage")
    told = meta.get("tokens")
    if not isinstance(told, dict):
        return None
    # They are printed as floats.
    return {k: int(v) for k, v in told.items() if isinstance(v, int | float)}


def _parts(answer: Any) -> tuple[list[Any] | None, dict[str, Any]]:
    """The list of results, and what stands beside it."""
    if isinstance(answer, list):
        return answer, {}
    if isinstance(answer, dict):
        for name in ("results", "data"):
            listed = answer.get(name)
            if isinstance(listed, list):
                return listed, {k: v for k, v in answer.items() if k == "results" or k != name}
    return None, {}


def _result(item: Any, documents: Any) -> Result | None:
    """An item with our names; None if it names none of the documents."""
    if not isinstance(item, dict):
        return None
    index = item.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        return None
    if isinstance(documents, list) and index >= len(documents):
        return None
    if "relevance_score" in item:
        return item
    if "score" not in item:
        return None
    rest = {k: v for k, v in item.items() if k not in ("index", "score", "text", "object")}
    result = {"index": index, "relevance_score": item["score"]} | rest
    if item.get("text") is not None and "document" not in result:
        result["document"] = {"text": item["text"]}
    return result


def _with_document(result: Result, wanted: Any, documents: Any) -> Result:
    if wanted is False and "document" in result:
        return {name: item for name, item in result.items() if name != "document"}
    if wanted is True and result.get("document") is None and isinstance(documents, list):
        document = documents[result["index"]]
        return result | {"document": {"text": document} if isinstance(document, str) else document}
    return result


def score(result: Mapping[str, Any]) -> float:
    """What a result is sorted by; servers print NaN as null, which comes last."""
    score = result["relevance_score"]
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    return score if is_number else float("-inf")  # servers print NaN as null
