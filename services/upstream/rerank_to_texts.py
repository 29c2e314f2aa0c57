"""Rerank requests to servers that rank texts only (llama.cpp, Cohere): objects give their text."""

from __future__ import annotations

from typing import Any

from services.body import Body


def as_texts(request: Body) -> Body:
    """The request with the text of each document that has one; itself if all are texts already.

    What has no text goes along as it is: the upstream judges it.
    """
    documents = request.get("documents")
    if not isinstance(documents, list) or not any(isinstance(one, dict) for one in documents):
        return request
    texts = [_text(document) for document in documents]
    return Body.from_value(request.message, request.value() | {"documents": texts})


def _text(document: Any) -> Any:
    text = document.get("text") if isinstance(document, dict) else None
    return text if isinstance(text, str) else document
