"""Text Embeddings Inference's POST /embed: `inputs` in, a bare list of vectors out."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway_http.dialects.base import Converted, Form, listed, required, wrong
from services import errors


def _fits(value: dict[str, Any]) -> bool:
    return True


def _read(value: dict[str, Any]) -> Converted:
    inputs = required(value, "inputs")
    if not isinstance(inputs, str | list):
        raise wrong("inputs", "must be a string, or a list of strings or of token ids")
    if "input" in value:
        raise wrong("inputs", "stands beside input: give one of the two")
    # The path answers numbers, whatever a member that TEI does not know may ask.
    given = {name: member for name, member in value.items() if name != "inputs"}
    return Converted({**given, "input": inputs, "encoding_format": "float"}, _answer)


def _answer(ours: dict[str, Any]) -> list[Any]:
    items = listed(ours, "data")
    vectors = [item.get("embedding") for item in items]
    if not all(isinstance(vector, list | np.ndarray) for vector in vectors):
        raise errors.UpstreamProtocol("the upstream's answer has vectors that are no lists")
    places = [item.get("index", place) for place, item in enumerate(items)]
    if not all(type(place) is int for place in places) or sorted(places) != [*range(len(items))]:
        raise errors.UpstreamProtocol("the upstream's answer has not one vector for each input")
    ordered: list[Any] = [None] * len(items)
    for place, vector in zip(places, vectors, strict=True):
        ordered[place] = vector
    return ordered


FORM = Form(
    fits=_fits,
    read=_read,
    names={"input": "inputs"},
    request={
        "title": "Text Embeddings Inference",
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {
                "description": "One text, or a list of texts or of token ids.",
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "anyOf": [
                                {"type": "string"},
                                {"type": "array", "items": {"type": "integer"}},
                                {"type": "integer"},
                            ]
                        },
                    },
                ],
            },
            "model": {"type": "string", "description": "Absent: the default embeddings model."},
            "truncate": {"type": ["boolean", "null"]},
            "truncation_direction": {"type": "string", "description": "Left or Right."},
            "prompt_name": {"type": "string"},
            "normalize": {"type": "boolean"},
            "dimensions": {"type": "integer"},
        },
    },
    reply={
        "title": "Text Embeddings Inference",
        "type": "array",
        "items": {"type": "array", "items": {"type": "number"}},
    },
)
