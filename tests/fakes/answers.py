"""Deterministic answers of fake models: the same text gives the same vector and score.

So a test can say what a call must yield without asking the fake. The bodies around them come
from the recordings.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

from tests.fakes.replies import DONE, compact, event
from tests.lib import recordings

DIMENSION = 8


def vector(text: Any, dimension: int = DIMENSION) -> list[float]:
    """The vector of one input (text or token list): float32 values in -1..1, never all zero."""
    seed = text.encode() if isinstance(text, str) else compact(text)
    bits = hashlib.shake_128(seed).digest(4 * dimension)
    whole = struct.unpack(f"<{dimension}i", bits)
    # Twenty bits are exact in a float32, and print short.
    return [(number >> 12) / 524288 or 0.5 for number in whole]


def packed(values: list[float]) -> str:
    """base64 of little-endian float32, as `encoding_format: base64` prints a vector."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def relevance(query: str, text: str) -> float:
    """The score of a text for a query, in 0..1."""
    digest = hashlib.sha256(f"{query}\0{text}".encode()).digest()
    return int.from_bytes(digest[:4], "little") / 2**32


def ranking(query: str, texts: list[str], top_n: int = 0) -> list[tuple[int, float]]:
    """(index, score) of the texts by falling score; `top_n` 0 = all."""
    scored = sorted(
        ((index, relevance(query, text)) for index, text in enumerate(texts)),
        key=lambda pair: (-pair[1], pair[0]),
    )
    return scored[: top_n or None]


def tokens(value: Any) -> int:
    """How many tokens an input counts: its words, or the length of a token list."""
    if isinstance(value, str):
        return max(1, len(value.split()))
    if isinstance(value, list):
        return len(value) if all(isinstance(x, int) for x in value) else sum(map(tokens, value))
    return 1


def inputs(value: Any) -> list[Any]:
    """The single inputs of an `input` or `inputs` member: [1, 2] is one, ["a", "b"] are two."""
    if isinstance(value, list) and not (value and all(isinstance(x, int) for x in value)):
        return value
    return [value]


def embeddings(file: str, request: dict[str, Any], model: str) -> dict[str, Any]:
    """The recorded embeddings answer of that file, filled for the request's inputs."""
    answer: dict[str, Any] = recordings.get(file).json()
    given = inputs(request["input"])
    dimension = request.get("dimensions") or DIMENSION
    as_text = request.get("encoding_format") == "base64"
    data = []
    for index, one in enumerate(given):
        values = vector(one, dimension)
        embedding = packed(values) if as_text else values
        data.append({**answer["data"][0], "index": index, "embedding": embedding})
    used = sum(map(tokens, given))
    answer["data"] = data
    answer["model"] = model
    answer["usage"] = {**answer["usage"], "prompt_tokens": used, "total_tokens": used}
    return answer


def chat(file: str, model: str) -> dict[str, Any]:
    """The recorded chat answer of that file under the model's name."""
    answer: dict[str, Any] = recordings.get(file).json()
    answer["model"] = model
    return answer


def chat_events(file: str, model: str, include_usage: bool) -> bytes:
    """The recorded chat stream of that file under the model's name.

    Without `include_usage` it has no usage chunk, and no `usage` member in the others.
    """
    out = bytearray()
    for line in recordings.get(file).data():
        if line == DONE:
            out += event(DONE)
            continue
        chunk = json.loads(line)
        if not include_usage:
            if not chunk["choices"] and chunk.get("usage"):
                continue
            chunk.pop("usage", None)
        out += event({**chunk, "model": model})
    return bytes(out)
