"""The bodies that the codec is measured on, as an upstream or a client writes them."""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any, Final

CHUNK: Final = (
    b'{"id":"chatcmpl-Dq3tKf81vbhZpLm2","object":"chat.completion.chunk","created":1795000000,'
    b'"model":"gpt-5.5-mini","choices":[{"index":0,"delta":{"content":" harbour"},'
    b'"logprobs":null,"finish_reason":null}]}'
)
"""A chunk of a stream, 204 bytes."""

_SENTENCE = "The ferry leaves the eastern harbour at six and comes back with the evening tide. "


def request() -> bytes:
    """A conversation of ten messages, with a tool: 2.3 kB."""
    turns = [{"role": "system", "content": "You answer questions about tides and ferries."}]
    for number in range(9):
        role = ("user", "assistant")[number % 2]
        turns.append({"role": role, "content": _SENTENCE * (1 + number % 3)})
    return _json(
        {
            "model": "gpt-5.5-mini",
            "messages": turns,
            "temperature": 0.7,
            "max_completion_tokens": 512,
            "stream": True,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "tide_table",
                        "description": "High and low water at a harbour on a day.",
                        "parameters": {
                            "type": "object",
                            "properties": {
                                "harbour": {"type": "string", "description": "Its name"},
                                "day": {"type": "string", "format": "date"},
                                "unit": {"type": "string", "enum": ["metre", "foot"]},
                            },
                            "required": ["harbour", "day"],
                            "additionalProperties": False,
                        },
                        "strict": True,
                    },
                }
            ],
        }
    )


def embeddings(count: int, dimension: int, *, as_base64: bool) -> bytes:
    """An answer with vectors, as lists of numbers or as base64."""
    made = random.Random(1)  # the same at each run
    data = []
    for index in range(count):
        numbers = [round(made.uniform(-0.1, 0.1), 7) for _ in range(dimension)]
        data.append(
            {"object": "embedding", "index": index, "embedding": _vector(numbers, as_base64)}
        )
    usage = {"prompt_tokens": 320, "total_tokens": 320}
    return _json({"object": "list", "data": data, "model": "bge-m3", "usage": usage})


def _vector(numbers: list[float], as_base64: bool) -> Any:
    if not as_base64:
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
