"""Vectors of an embeddings answer, numbers or base64, in the form that the caller asked for.

Some servers ignore encoding_format. base64 is the bytes of little-endian float32; a server that
was asked for another type of numbers is left alone, since then only the caller can read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from services import codec
from services.body import Body

_FORMATS: Final = {None: False, "float": False, "base64": True}
_OTHER_NUMBERS: Final = ("embed_dtype", "endianness", "output_dtype")
"""Members by which vLLM and Mistral are asked for other numbers than little-endian float32."""


def wants_base64(request: Mapping[str, Any]) -> bool | None:
    """Whether vectors are asked for as base64 rather than as numbers; None for what is neither,
    or not of float32."""
    asked = request.get("encoding_format")
    if isinstance(asked, str):
        asked = asked.lower()
    elif asked is not None:
        return None
    if any(request.get(name) is not None for name in _OTHER_NUMBERS):
        return None
    return _FORMATS.get(asked)


def as_asked(text: codec.VectorText, request: Mapping[str, Any], came: bytes) -> Body:
    """An EmbedResponse with vectors as the request's encoding_format says; `came`, the answer's
    bytes, if they are so."""
    found = _converted(text.vectors, wants_base64(request))
    if found is None:
        return Body.from_vectors("EmbedResponse", text, came)
    converted = text.with_vectors(found)
    if any("encoding_format" in item for item in converted.value["data"]):
        return Body.from_value("EmbedResponse", _unnamed(converted.value))
    return Body.from_vectors("EmbedResponse", converted)


def value_as_asked(answer: dict[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The same for an answer that was read some other way; itself if they are so."""
    data = answer["data"]
    if not all(isinstance(item, dict) for item in data):
        return answer
    given = [_read(item.get("embedding")) for item in data]
    if any(vector is None for vector in given):
        return answer  # sparse, a vector for each token, no vector
    found = _converted(given, wants_base64(request))
    if found is None:
        return answer
    items = [item | {"embedding": new} for item, new in zip(data, found, strict=True)]
    return _unnamed(answer | {"data": items})


def _converted(vectors: Sequence[Any], base64: bool | None) -> list[codec.Vector] | None:
    """All vectors in the other form; None if they are as wanted, or one has no such form."""
    if base64 is None or all(isinstance(one, codec.Packed) is base64 for one in vectors):
        return None
    if not base64 and any(
        isinstance(one, codec.Packed) and len(one.data) % codec.FLOAT32.itemsize for one in vectors
    ):
        return None
    convert = packed if base64 else row
    return [convert(one) for one in vectors]


def packed(vector: codec.Vector) -> codec.Packed:
    """A vector as bytes."""
    return vector if isinstance(vector, codec.Packed) else codec.Packed(vector.tobytes())


def row(vector: codec.Vector) -> codec.Vector:
    """A vector as numbers; its bytes must be those of float32."""
    return np.frombuffer(vector.data, codec.FLOAT32) if isinstance(vector, codec.Packed) else vector


def _read(vector: Any) -> codec.Vector | None:
    """A list of numbers, or base64; None for anything else."""
    if isinstance(vector, np.ndarray | codec.Packed):
        return vector
    if isinstance(vector, str):
        data = codec.base64_bytes(vector.encode("utf-8", "replace"))
        return None if data is None else codec.Packed(data)
    if not isinstance(vector, list) or not all(map(_is_number, vector)):
        return None
    with np.errstate(over="ignore"):  # beyond float32 is infinite there
        try:
            return np.array(vector, "<f8").astype(codec.FLOAT32)
        except OverflowError:
            return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unnamed(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what llama.cpp says beside base64."""
    for item in answer["data"]:
        item.pop("encoding_format", None)
    return answer
