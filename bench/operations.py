"""What the whole gateway is asked in benchmarks, and what its upstream answers.

An operation has one request in JSON; gRPC callers send the same as protobuf. `answer` is the
upstream's body, `events` that of a stream.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Final

from bench.samples import CHUNK, embeddings
from services import codec

CHUNKS: Final = 100
"""Events of a stream."""

AT_ONCE: Final = 20
"""Events that the upstream writes at once in a burst."""

KEY: Final = "tk-bench-0123456789abcdefghijklmnopqrstuvwxyzABCDEF"

CHAT, EMBED, RERANK = "/v1/chat/completions", "/v1/embeddings", "/v1/rerank"

_TEXT = (
    "The ferry leaves the eastern harbour at six and comes back with the evening tide, unless "
    "the wind turns north and keeps it at the quay until the morning. "
)


@dataclass(frozen=True, slots=True)
class Operation:
    """`path` is the REST route, here and at the upstream; `rpc` the gRPC method, which takes a
    `message`. parts: what a call's cost is divided by."""

    name: str
    path: str
    rpc: str
    message: str
    request: bytes
    parts: int = 1

    @property
    def wire(self) -> bytes:
        """The request as protobuf."""
        return codec.encode(self.message, self.request)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chat(model: str = "chat", *, stream: bool = False) -> bytes:
    """A conversation of 0.6 kB."""
    messages = [
        {"role": "system", "content": "You answer questions about tides and ferries."},
        {"role": "user", "content": _TEXT * 2 + "When does it leave?"},
    ]
    asked = {"model": model, "messages": messages, "temperature": 0.7, "max_tokens": 256}
    return _json(asked | ({"stream": True} if stream else {}))


def embed(count: int, *, as_base64: bool) -> bytes:
    """That many short texts."""
    texts = [f"{number}: {_TEXT[:60]}" for number in range(count)]
    asked = {"model": "embed", "input": texts}
    return _json(asked | ({"encoding_format": "base64"} if as_base64 else {}))


def rerank(count: int) -> bytes:
    """A query and that many short documents."""
    documents = [f"{number}: {_TEXT[:90]}" for number in range(count)]
    return _json({"model": "rerank", "query": "when does the ferry leave", "documents": documents})


UNARY: Final = Operation("chat", CHAT, "ChatService/Chat", "ChatRequest", chat())
STREAM: Final = Operation(
    "chunk",
    CHAT,
    "ChatService/StreamChat",
    "ChatRequest",
    chat(stream=True),
    CHUNKS,
)
EMBED_1: Final = Operation(
    "embed 1 x 1024", EMBED, "EmbedService/Embed", "EmbedRequest", embed(1, as_base64=True)
)
EMBED_32: Final = Operation(
    "embed 32 x 1024", EMBED, "EmbedService/Embed", "EmbedRequest", embed(32, as_base64=True)
)
FLOATS_32: Final = Operation(
    "embed 32 x 1024, numbers",
    EMBED,
    "EmbedService/Embed",
    "EmbedRequest",
    embed(32, as_base64=False),
)
RERANK_100: Final = Operation(
    "rerank 100", RERANK, "RerankService/Rerank", "RerankRequest", rerank(100)
)
BUSY: Final = Operation("refused", CHAT, "ChatService/Chat", "ChatRequest", chat("busy"))
HOLDER: Final = Operation(
    "held", CHAT, "ChatService/StreamChat", "ChatRequest", chat("busy", stream=True)
)
IDLE: Final = Operation(
    "idle stream",
    CHAT,
    "ChatService/StreamChat",
    "ChatRequest",
    chat("idle", stream=True),
)

ANSWER: Final = _json(
    {
        "id": "chatcmpl-Dq3tKf81vbhZpLm2",
        "object": "chat.completion",
        "created": 1795000000,
        "model": "chat",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT + "It leaves at six."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 80, "completion_tokens": 40, "total_tokens": 120},
    }
)

_ENVELOPE = {"id": "c", "object": "chat.completion.chunk", "created": 1795000000, "model": "m"}
_LAST = _json({**_ENVELOPE, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
_USAGE = _json(
    {
        **_ENVELOPE,
        "choices": [],
        "usage": {"prompt_tokens": 80, "completion_tokens": 98, "total_tokens": 178},
    }
)


def events() -> list[bytes]:
    """The events of a stream, as they stand on the wire: CHUNKS, then usage and `[DONE]`."""
    texts = [CHUNK] * (CHUNKS - 1) + [_LAST, _USAGE, b"[DONE]"]
    return [b"data: %b\n\n" % text for text in texts]


def reranked(count: int) -> bytes:
    """The answer to `rerank`, best first, as vLLM prints it."""
    made = random.Random(1)
    scores = sorted((round(made.random(), 6) for _ in range(count)), reverse=True)
    indexes = list(range(count))
    made.shuffle(indexes)
    results = [
        {
            "index": index,
            "document": {"text": f"{index}: {_TEXT[:90]}", "multi_modal": None},
            "relevance_score": score,
        }
        for index, score in zip(indexes, scores, strict=True)
    ]
    usage = {"total_tokens": 2500}
    return _json({"id": "rerank-1", "model": "rerank", "usage": usage, "results": results})


def answers() -> dict[bytes, bytes]:
    """Bodies by what tells them apart in a request: path, and for vectors form and number."""
    found = {CHAT.encode(): ANSWER, RERANK.encode(): reranked(100)}
    for count in (1, 32):
        for as_base64 in (False, True):
            key = b"%b %d %d" % (EMBED.encode(), count, as_base64)
            found[key] = embeddings(count, 1024, as_base64=as_base64)
    return found


def answer_key(path: bytes, body: bytes) -> bytes:
    """The key of `answers` for a request."""
    if path != EMBED.encode():
        return path
    count = 32 if b'"31: ' in body else 1
    return b"%b %d %d" % (path, count, b'"encoding_format":"base64"' in body)
