"""OpenGateLLM 0.2's POST /v1/rerank: `prompt` and `input` in, `data` with scores out.

Between the versions it answered with both lists, 0.2's and ours: that is `both_lists`.
"""

from __future__ import annotations

from typing import Any

from gateway_http.dialects.base import Converted, Form, listed, required, wrong


def _fits(value: dict[str, Any]) -> bool:
    return "prompt" in value and "input" in value


def _read(value: dict[str, Any]) -> Converted:
    prompt, texts = required(value, "prompt"), required(value, "input")
    for ours, theirs in FORM.names.items():
        if ours in value:
            raise wrong(theirs, f"stands beside {ours}: give one of the two")
    if not isinstance(texts, list) or not texts:
        raise wrong("input", "must be a list of strings that is not empty")
    rest = {name: member for name, member in value.items() if name not in ("prompt", "input")}
    return Converted({**rest, "query": prompt, "documents": texts}, _answer)


def both_lists(ours: dict[str, Any]) -> dict[str, Any]:
    """An answer of ours with `data` beside `results`. Raises UpstreamProtocol without results."""
    return {"object": "list"} | ours | {"data": _data(ours)}


def _answer(ours: dict[str, Any]) -> dict[str, Any]:
    kept = {name: ours[name] for name in ("id", "model", "usage") if ours.get(name) is not None}
    return {"object": "list", **kept, "data": _data(ours)}


def _data(ours: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "object": "rerank",
            "score": result.get("relevance_score"),
            "index": result.get("index"),
        }
        for result in listed(ours, "results")
    ]


FORM = Form(
    fits=_fits,
    read=_read,
    names={"query": "prompt", "documents": "input"},
    request={
        "title": "OpenGateLLM 0.2",
        "type": "object",
        "required": ["prompt", "input"],
        "properties": {
            "prompt": {"type": "string", "description": "What is looked for."},
            "input": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string"},
                "description": "What is ordered.",
            },
            "model": {"type": "string", "description": "Absent: the default reranking model."},
        },
    },
    reply={
        "title": "OpenGateLLM 0.2",
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"type": "string", "const": "list"},
            "id": {"type": "string"},
            "model": {"type": "string"},
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["object", "score", "index"],
                    "properties": {
                        "object": {"type": "string", "const": "rerank"},
                        "score": {"type": ["number", "null"]},
                        "index": {"type": "integer"},
                    },
                },
            },
            "usage": {"$ref": "#/components/schemas/Usage"},
        },
    },
)
