"""The examples of the OpenAPI document: requests, answers and parameters of each operation.

Names of models are aliases of the README's configuration; the page at /docs puts names that the
gateway has in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from gateway_http.openapi_examples import Example, Examples, Shown

_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "Height of the tide at a harbour, in metres.",
        "parameters": {
            "type": "object",
            "properties": {"harbour": {"type": "string"}},
            "required": ["harbour"],
        },
    },
}
_SCHEMA: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "harbour",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "depth": {"type": "number"}},
            "required": ["name", "depth"],
        },
    },
}
_PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAC"
    "hwGA60e6kgAAAABJRU5ErkJggg=="
)
_USAGE: Final = {"prompt_tokens": 14, "completion_tokens": 9, "total_tokens": 23}


def _asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def _chat_answer(message: dict[str, Any], finish: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-7f3a",
        "object": "chat.completion",
        "created": 1780000000,
        "model": "AgentPublic/guillaumetell-7b",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _USAGE,
    }


_CALL: Final = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "tide", "arguments": '{"harbour": "Brest"}'},
}
_CHAT: Final = Shown(
    request={
        "plain": Example(
            "A question, answered whole",
            {"model": "chat", "messages": _asked("What is a harbour?")},
        ),
        "streamed": Example(
            "The same, streamed, with the usage at the end",
            {
                "model": "chat",
                "messages": _asked("What is a harbour?"),
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ),
        "settings": Example(
            "A system message and settings of the sampling",
            {
                "model": "chat",
                "messages": [
                    {"role": "system", "content": "Answer in one sentence."},
                    *_asked("What is a harbour?"),
                ],
                "temperature": 0.2,
                "max_tokens": 200,
            },
        ),
        "tools": Example(
            "A tool that the model may call",
            {
                "model": "chat",
                "messages": _asked("How high is the tide in Brest?"),
                "tools": [_TOOL],
            },
        ),
        "schema": Example(
            "An answer by a JSON schema",
            {
                "model": "chat",
                "messages": _asked("Name a harbour and its depth in metres."),
                "response_format": _SCHEMA,
            },
        ),
        "image": Example(
            "An image beside the text",
            {
                "model": "chat",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "Which colour is this?"},
                            {"type": "image_url", "image_url": {"url": _PIXEL}},
                        ],
                    }
                ],
            },
        ),
    },
    answer={
        "text": Example(
            "Words",
            _chat_answer({"role": "assistant", "content": "A place where ships lie safe."}, "stop"),
        ),
        "tool": Example(
            "A call of a tool",
            _chat_answer({"role": "assistant", "tool_calls": [_CALL]}, "tool_calls"),
        ),
    },
    event={
        "words": Example(
            "A piece of the answer",
            {
                "id": "chatcmpl-7f3a",
                "object": "chat.completion.chunk",
                "created": 1780000000,
                "model": "AgentPublic/guillaumetell-7b",
                "choices": [{"index": 0, "delta": {"content": "A place"}, "finish_reason": None}],
            },
        ),
        "usage": Example(
            "The last one before `[DONE]`, if usage was asked for",
            {
                "id": "chatcmpl-7f3a",
                "object": "chat.completion.chunk",
                "created": 1780000000,
                "model": "AgentPublic/guillaumetell-7b",
                "choices": [],
                "usage": _USAGE,
            },
        ),
    },
)

_TEXTS: Final = ["a ship in the harbour", "a boat at the quay"]
_EMBED: Final = Shown(
    request={
        "one": Example("One text", {"model": "embeddings", "input": _TEXTS[0]}),
        "many": Example("Several texts", {"model": "embeddings", "input": _TEXTS}),
        "base64": Example(
            "Vectors as base64 of little-endian float32",
            {"model": "embeddings", "input": _TEXTS, "encoding_format": "base64"},
        ),
    },
    answer={
        "numbers": Example(
            "Numbers",
            {
                "object": "list",
                "model": "intfloat/multilingual-e5-large",
                "data": [
                    {"object": "embedding", "index": 0, "embedding": [0.0125, -0.0375, 0.0625]},
                    {"object": "embedding", "index": 1, "embedding": [0.0325, -0.0175, 0.0525]},
                ],
                "usage": {"prompt_tokens": 12, "total_tokens": 12},
            },
        ),
        "base64": Example(
            "Base64",
            {
                "object": "list",
                "model": "intfloat/multilingual-e5-large",
                "data": [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAL8AAIA+"}],
                "usage": {"prompt_tokens": 6, "total_tokens": 6},
            },
        ),
    },
)
_TEI_EMBED: Final = Shown(
    request={
        "tei": Example(
            "As Text Embeddings Inference takes it",
            {"model": "embeddings", "inputs": _TEXTS, "normalize": True, "truncate": True},
        )
    },
    answer={
        "tei": Example("One list a text", [[0.0125, -0.0375, 0.0625], [0.0325, -0.0175, 0.0525]])
    },
)

_SPOKEN: Final = "Welcome to the harbour."
_VERBOSE: Final = {
    "task": "transcribe",
    "language": "english",
    "duration": 2.4,
    "text": _SPOKEN,
    "segments": [{"id": 0, "start": 0.0, "end": 2.4, "text": _SPOKEN}],
}
_PARTS: Final = {
    "delta": Example(
        "A piece of the text", {"type": "transcript.text.delta", "delta": "Welcome to"}
    ),
    "done": Example("The last event", {"type": "transcript.text.done", "text": _SPOKEN}),
}
_CAPTIONS: Final = {
    "text/plain": _SPOKEN,
    "text/vtt": f"WEBVTT\n\n00:00:00.000 --> 00:00:02.400\n{_SPOKEN}\n",
}


def _speech(answer: Examples, more: Examples) -> Shown:
    plain = Example("The text", {"file": "speech.wav", "model": "speech"})
    return Shown(request={"plain": plain, **more}, answer=answer, event=_PARTS, texts=_CAPTIONS)


_TRANSCRIBE: Final = _speech(
    {
        "json": Example("The text", {"text": _SPOKEN, "usage": {"type": "duration", "seconds": 3}}),
        "verbose": Example("With `verbose_json`", _VERBOSE),
    },
    {
        "verbose": Example(
            "With times of segments",
            {
                "file": "speech.wav",
                "model": "speech",
                "language": "en",
                "response_format": "verbose_json",
                "timestamp_granularities": ["segment"],
            },
        ),
        "subtitles": Example(
            "Subtitles", {"file": "speech.wav", "model": "speech", "response_format": "vtt"}
        ),
    },
)
_TRANSLATE: Final = _speech(
    {"json": Example("The text in English", {"text": _SPOKEN})},
    {
        "prompt": Example(
            "With words to expect",
            {"file": "speech.wav", "model": "speech", "prompt": "Brest, quay", "temperature": 0},
        )
    },
)

_DOCUMENTS: Final = ["a broken engine", "ripe apples and pears", "the price of oranges"]
_RERANK: Final = Shown(
    request={
        "texts": Example(
            "Texts, the two best of them",
            {"model": "rerank", "query": "fresh fruit", "documents": _DOCUMENTS, "top_n": 2},
        ),
        "objects": Example(
            "Objects, which come back",
            {
                "model": "rerank",
                "query": "fresh fruit",
                "documents": [{"text": text, "row": row} for row, text in enumerate(_DOCUMENTS)],
                "return_documents": True,
            },
        ),
        "tei": Example(
            "As Text Embeddings Inference takes it",
            {"model": "rerank", "query": "fresh fruit", "texts": _DOCUMENTS},
        ),
        "opengatellm": Example(
            "As OpenGateLLM 0.2 takes it",
            {"model": "rerank", "prompt": "fresh fruit", "input": _DOCUMENTS},
        ),
    },
    answer={
        "texts": Example(
            "Best first",
            {
                "id": "rerank-2c",
                "model": "BAAI/bge-reranker-v2-m3",
                "results": [
                    {"index": 1, "relevance_score": 0.93},
                    {"index": 2, "relevance_score": 0.41},
                ],
                "usage": {"prompt_tokens": 24, "total_tokens": 24},
            },
        ),
        "objects": Example(
            "With `return_documents`",
            {
                "results": [
                    {
                        "index": 1,
                        "relevance_score": 0.93,
                        "document": {"text": _DOCUMENTS[1], "row": 1},
                    }
                ]
            },
        ),
        "tei": Example(
            "To a request with `texts`",
            [{"index": 1, "score": 0.93}, {"index": 2, "score": 0.41}, {"index": 0, "score": 0.01}],
        ),
        "opengatellm": Example(
            "To a request with `prompt` and `input`",
            {
                "object": "list",
                "data": [{"object": "rerank", "score": 0.93, "index": 1}],
            },
        ),
    },
)

_MODEL: Final = {
    "id": "guillaumetell-7b",
    "object": "model",
    "created": 1780000000,
    "owned_by": "my-team",
    "type": "text-generation",
    "aliases": ["chat"],
    "capabilities": ["chat", "stream_chat"],
    "max_context_length": 8192,
    "costs": {"prompt_tokens": 0.1, "completion_tokens": 0.3},
    "ready": True,
}
_READY: Final = {
    "generation": 1,
    "models": {
        "guillaumetell-7b": {
            "type": "text-generation",
            "ready": True,
            "providers": {"vllm 127.0.0.1:8000": True},
        }
    },
}

EXAMPLES: Final[Mapping[tuple[str, str], Shown]] = MappingProxyType(
    {
        ("post", "/v1/chat/completions"): _CHAT,
        ("post", "/v1/embeddings"): _EMBED,
        ("post", "/embed"): _TEI_EMBED,
        ("post", "/v1/audio/transcriptions"): _TRANSCRIBE,
        ("post", "/v1/audio/translations"): _TRANSLATE,
        ("post", "/v1/rerank"): _RERANK,
        ("post", "/rerank"): _RERANK,
        ("post", "/v2/rerank"): _RERANK,
        ("get", "/v1/models"): Shown(
            answer={
                "page": Example(
                    "A page, with the token of the next one",
                    {
                        "object": "list",
                        "data": [_MODEL],
                        "next_page_token": "Z3VpbGxhdW1ldGVsbC03Yg==",
                    },
                )
            },
            parameters={"page_size": 20},
        ),
        ("get", "/v1/models/{model}"): Shown(
            answer={"model": Example("A model", _MODEL)}, parameters={"model": "chat"}
        ),
        ("get", "/health"): Shown(answer={"alive": Example("It lives", {"status": "ok"})}),
        ("get", "/ready"): Shown(
            answer={"ready": Example("Ready", {"status": "ready", "draining": False, **_READY})},
            failed={
                "503": {
                    "draining": Example(
                        "It drains", {"status": "draining", "draining": True, **_READY}
                    )
                }
            },
        ),
    }
)
"""By verb and path, as they stand in the document."""
