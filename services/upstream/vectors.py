"""Vectors of an embeddings answer, floats or base64, in the form that the caller asked for.

Some servers ignore encoding_format. base64 is the bytes of little-endian float32; a server that
was asked for another type of numbers is left alone, since then only the caller can read them.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

_FORMATS = (None, "float", "base64")
_OTHER_NUMBERS = ("embed_dtype", "endianness", "output_dtype")
"""Members by which vLLM and Mistral are asked for other numbers than little-endian float32."""


def as_asked(answer: dict[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """An EmbedResponse with vectors as the request's encoding_format says; itself if they are."""
    asked = request.get("encoding_format")
    if isinstance(asked, str):
        asked = asked.lower()
    if asked not in _FORMATS or any(request.get(name) is not None for name in _OTHER_NUMBERS):
        return answer
    convert = _packed if asked == "base64" else _listed
    data = answer["data"]
    converted = [_converted(item, convert) for item in data]
    if all(new is old for new, old in zip(converted, data, strict=True)):
        return answer
    return answer | {"data": converted}


def _converted(item: Any, convert: Any) -> Any:
    vector = item.get("embedding") if isinstance(item, dict) else None
    new = convert(vector)
    if new is vector:
        return item
    item = item | {"embedding": new}
    item.pop("encoding_format", None)  # llama.cpp says so beside base64
    return item


def _packed(vector: Any) -> Any:
    """A list of numbers as base64; anything else as it is."""
    if not isinstance(vector, list):
        return vector
    try:
        return pack(vector)
    except (TypeError, ValueError, OverflowError):
        return vector  # sparse, or a vector for each token


def _listed(vector: Any) -> Any:
    """base64 as a list of numbers; anything else as it is."""
    if not isinstance(vector, str):
        return vector
    try:
        return np.frombuffer(binascii.a2b_base64(vector, strict_mode=True), "<f4").tolist()
    except (binascii.Error, ValueError):
        return vector


def pack(vector: list[float]) -> str:
    """Numbers as base64 of little-endian float32. Raises TypeError or ValueError for others."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite there
        numbers = np.array(vector, "<f4")
    if numbers.ndim != 1:
        raise ValueError("not a vector")
    return binascii.b2a_base64(numbers.tobytes(), newline=False).decode("ascii")
