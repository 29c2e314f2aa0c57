"""What a call used where its upstream does not say: estimated from the text that went by.

An estimate never replaces a figure of the upstream's, zero included. Pure; knows no tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from services.body import Body
from services.call import Call

CHARACTERS_A_TOKEN: Final = 4
"""The usual figure for English text and byte-pair tokenizers."""

_CHAT: Final = "text-generation"
_STREAMED: Final = "StreamChatResponse"
_LEFT: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED"})
_TEXTS: Final = ("content", "reasoning", "reasoning_content", "refusal")


def says_nothing(body: Body) -> bool:
    """Whether a piece of a stream holds nothing of the answer yet: a chat's role, empty text."""
    if body.message != _STREAMED or body.text:
        return False
    value = body.value()
    if not isinstance(value, dict) or value.get("usage") is not None:
        return False
    for choice in _dicts(value.get("choices")):
        delta = choice.get("delta")
        said = any(item for name, item in delta.items() if name != "role") if delta else False
        if said or choice.get("finish_reason"):
            return False
    return True


def delivered(call: Call, *bodies: Body) -> None:
    """Count the text of answers or chunks that go to the caller."""
    if call.usage.source == "upstream":
        return
    for body in bodies:
        if body.text is not None:
            call.usage.characters += len(body.text)
        elif body.document is None and body.message in (_STREAMED, "ChatResponse"):
            value = body.value()
            for choice in _dicts(value.get("choices") if isinstance(value, dict) else None):
                said = choice.get("delta") or choice.get("message")
                if isinstance(said, dict):
                    call.usage.characters += _said(said)


def complete(call: Call, request: Body, outcome: str) -> None:
    """Fill the record of a call whose upstream told no usage, if it is likely to have worked."""
    usage = call.usage
    worked = outcome == "OK" or call.chunks > 0 or (call.attempts > 0 and outcome in _LEFT)
    prompt = _PROMPTS.get(call.type)
    if not worked or usage.source != "none" or prompt is None:
        return
    usage.prompt_tokens = prompt(request.value())
    if call.type == _CHAT:
        usage.completion_tokens = _tokens(usage.characters)
    usage.total_tokens = usage.prompt_tokens + (usage.completion_tokens or 0)
    usage.source = "estimated"


def _said(message: dict[str, Any]) -> int:
    total = 0
    for name in _TEXTS:
        text = message.get(name)
        if isinstance(text, str):
            total += len(text)
    for tool in _dicts(message.get("tool_calls")):
        function = tool.get("function")
        if isinstance(function, dict):
            total += len(str(function.get("name") or "")) + len(
                str(function.get("arguments") or "")
            )
    return total


def _tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_A_TOKEN)


def _chat_prompt(request: dict[str, Any]) -> int:
    return _tokens(
        sum(_text(message.get("content")) for message in _dicts(request.get("messages")))
    )


def _embed_prompt(request: dict[str, Any]) -> int:
    given = request.get("input")
    if request.get("messages"):
        return _chat_prompt(request)
    if not isinstance(given, list):
        return _tokens(_text(given))
    numbers = sum(1 for item in given if isinstance(item, int))
    lists = sum(len(item) for item in given if isinstance(item, list))
    return numbers + lists + _tokens(sum(_text(item) for item in given if isinstance(item, str)))


def _rerank_prompt(request: dict[str, Any]) -> int:
    documents = request.get("documents")
    each = documents if isinstance(documents, list) else [documents]
    query = _text(request.get("query"))
    return _tokens(sum(query + _text(document) for document in each))


def _text(value: Any) -> int:
    """Characters of a text, of the `text` members of parts or of a document."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return _text(value.get("text"))
    return sum(map(_text, value)) if isinstance(value, list) else 0


def _dicts(value: Any) -> Iterable[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


_PROMPTS: Final = {
    _CHAT: _chat_prompt,
    "text-embeddings-inference": _embed_prompt,
    "text-classification": _rerank_prompt,
}
