"""Rerank requests to TEI's /rerank, whose documents are bare texts. The way back: any_to_rerank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services import errors

_OURS = ("documents", "top_n", "return_documents", "model", "query")
"""Members that TEI does not have; what they ask for is done on its answer."""


def to_tei(request: Mapping[str, Any]) -> dict[str, Any]:
    """The body for TEI; members that only TEI knows, and unknown ones, go along as they are.

    Raises InvalidRequest naming the query or the documents that hold no text.
    """
    documents = request.get("documents")
    if not isinstance(documents, list):
        raise _refused("documents", "a list")
    query = _text(request.get("query"))
    if query is None:
        raise _refused("query", "a text")
    texts = []
    for index, document in enumerate(documents):
        text = _text(document)
        if text is None:
            raise _refused(f"documents[{index}]", "a text, or an object with `text`")
        texts.append(text)
    rest = {name: item for name, item in request.items() if name not in _OURS}
    return {"query": query, "texts": texts} | rest


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("text")
    return value if isinstance(value, str) else None


def _refused(field: str, expected: str) -> errors.InvalidRequest:
    problem = f"expected {expected}: this model reads nothing else"
    return errors.InvalidRequest(
        f"{field}: {problem}", param=field, violations=(errors.Violation(field, problem),)
    )
