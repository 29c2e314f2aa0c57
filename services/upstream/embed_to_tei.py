"""Embedding requests to TEI's own /embed, for members that its /v1/embeddings lacks, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from services.upstream import vectors

ONLY_NATIVE = ("truncate", "truncation_direction", "prompt_name", "normalize")
"""Members that only /embed reads."""

_OURS = ("input", "model", "encoding_format", "user")


def needs_native(request: Mapping[str, Any]) -> bool:
    """Whether the request says something that /v1/embeddings would not hear."""
    return any(request.get(name) is not None for name in ONLY_NATIVE)


def to_tei(request: Mapping[str, Any]) -> dict[str, Any]:
    """The body for /embed; unknown members go along as they are."""
    rest = {name: item for name, item in request.items() if name not in _OURS}
    return {"inputs": request.get("input")} | rest


def from_tei(
    rows: Any, request: Mapping[str, Any], model: str, usage: dict[str, int] | None
) -> dict[str, Any] | None:
    """An EmbedResponse for the answer, a list of vectors; None if it is none."""
    if not isinstance(rows, list) or not all(isinstance(row, list | np.ndarray) for row in rows):
        return None
    data = [
        {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)
    ]
    answer: dict[str, Any] = {"object": "list", "data": data, "model": model}
    if usage is not None:
        answer["usage"] = usage
    return vectors.value_as_asked(answer, request)
