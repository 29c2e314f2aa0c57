"""Text Embeddings Inference's POST /rerank: `texts` in, a bare list out."""

from __future__ import annotations

from typing import Any

from gateway_http.dialects.base import Converted, Form, listed, required, wrong


def _fits(value: dict[str, Any]) -> bool:
    return "texts" in value


def _read(value: dict[str, Any]) -> Converted:
    required(value, "query")
    texts = required(value, "texts")
    if "documents" in value:
        raise wrong("texts", "stands beside documents: give one of the two")
    if not isinstance(texts, list):
        raise wrong("texts", "must be a list of strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise wrong(f"texts[{index}]", "must be a string")
    if not texts:
        raise wrong("texts", "must not be empty")
    with_text = value.get("return_text", False)
    if not isinstance(with_text, bool):
        raise wrong("return_text", "must be true or false")

    def answer(ours: dict[str, Any]) -> list[dict[str, Any]]:
        return [_result(result, texts if with_text else None) for result in listed(ours, "results")]

    # Texts come back by their index: the upstream need not repeat them.
    rest = {name: member for name, member in value.items() if name not in ("texts", "return_text")}
    return Converted({**rest, "documents": texts}, answer)


def _result(result: dict[str, Any], texts: list[str] | None) -> dict[str, Any]:
    index = result.get("index")
    made = {"index": index, "score": result.get("relevance_score")}
    if texts is not None and isinstance(index, int) and 0 <= index < len(texts):
        made["text"] = texts[index]
    return made


FORM = Form(
    fits=_fits,
    read=_read,
    names={"documents": "texts"},
    request={
        "title": "Text Embeddings Inference",
        "type": "object",
        "required": ["query", "texts"],
        "properties": {
            "query": {"type": "string", "description": "What is looked for."},
            "texts": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string"},
                "description": "What is ordered.",
            },
            "model": {"type": "string", "description": "Absent: the default reranking model."},
            "truncate": {"type": "boolean"},
            "truncation_direction": {"type": "string", "description": "Left or Right."},
            "raw_scores": {"type": "boolean"},
            "return_text": {"type": "boolean", "description": "Whether results repeat their text."},
        },
    },
    reply={
        "title": "Text Embeddings Inference",
        "type": "array",
        "items": {
            "type": "object",
            "required": ["index", "score"],
            "properties": {
                "index": {"type": "integer"},
                "score": {"type": ["number", "null"]},
                "text": {"type": "string"},
            },
        },
    },
)
