"""Chat on OpenAI's wire: the answers of the rules as a completion, or word by word as chunks."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from demo import chat_request, eliza, schemas, wire
from demo.catalogue import CHAT
from demo.chat_request import Asked
from demo.wire import Answer, ApiError, EventStream, Request

_FINGERPRINT: Final = "eliza_1"
_MOST_GIVEN: Final = 4000
"""Characters of what was said that a custom tool gets."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """One answer, cut into what a stream sends at a time. `call` is a tool call without its
    arguments, which are the pieces then.
    """

    pieces: tuple[str, ...]
    finish: str
    call: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def message(self) -> dict[str, Any]:
        if self.call is None:
            return {"role": "assistant", "content": self.text, "refusal": None}
        call = {**self.call, **_argument(self.call, self.text)}
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}

    def deltas(self) -> Iterator[dict[str, Any]]:
        """The role, then piece after piece."""
        if self.call is None:
            yield {"role": "assistant", "content": "", "refusal": None}
            for piece in self.pieces:
                yield {"content": piece}
            return
        opened = {"index": 0, **self.call, **_argument(self.call, "")}
        yield {"role": "assistant", "content": None, "tool_calls": [opened]}
        for piece in self.pieces:
            kind = self.call["type"]
            name = "input" if kind == "custom" else "arguments"
            yield {"tool_calls": [{"index": 0, kind: {name: piece}}]}


class ChatRoutes:
    """The handler. `pace` is the time in seconds that a streamed word takes."""

    def __init__(self, pace: float) -> None:
        self._pace = pace

    async def completions(self, request: Request) -> Answer:
        """POST /v1/chat/completions."""
        asked = chat_request.read(request.json())
        choices = _choices(asked)
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk" if asked.stream else "chat.completion",
            "created": int(time.time()),
            "model": CHAT,
            "system_fingerprint": _FINGERPRINT,
        }
        if asked.stream:
            return EventStream("chat", self._events(head, asked, choices))
        told = [
            {"index": i, "message": c.message(), "logprobs": None, "finish_reason": c.finish}
            for i, c in enumerate(choices)
        ]
        return wire.reply_json({**head, "choices": told, "usage": _usage(asked, choices)})

    async def _events(
        self, head: dict[str, Any], asked: Asked, choices: Sequence[_Choice]
    ) -> AsyncGenerator[bytes, None]:
        nothing = {"usage": None} if asked.include_usage else {}

        def chunk(index: int, delta: dict[str, Any], finish: str | None) -> bytes:
            told = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            return wire.event({**head, "choices": [told], **nothing})

        # In turns, as a server does that works on all of them at once.
        left = {index: choice.deltas() for index, choice in enumerate(choices)}
        while left:
            for index in list(left):
                delta = next(left[index], None)
                if delta is None:
                    del left[index]
                    yield chunk(index, {}, choices[index].finish)
                else:
                    yield chunk(index, delta, None)
            if left:
                await asyncio.sleep(self._pace)
        if asked.include_usage:
            yield wire.event({**head, "choices": [], "usage": _usage(asked, choices)})
        yield wire.DONE


def _choices(asked: Asked) -> list[_Choice]:
    try:
        if asked.called is not None:
            call, pieces = _call(asked, asked.called)
            called = _choice(asked, pieces, "tool_calls", call)
            return [replace(called, call=call | {"id": _identity()}) for _ in range(asked.choices)]
        texts = eliza.answers(asked.turns, asked.seed, asked.choices)
        if asked.schema:
            value = schemas.example(asked.schema, schemas.Hints.of(asked.heard))
            texts = [wire.dumps(value).decode()] * asked.choices
        elif asked.schema is not None:
            told = {"from": CHAT, "rule_based": True}
            texts = [wire.dumps({"reply": text, **told}).decode() for text in texts]
    except schemas.SchemaError as error:
        raise ApiError(
            f"ELIZA finds no value for that schema: {error}.",
            param="response_format" if asked.called is None else "tools",
        ) from error
    cutter = eliza.pieces if asked.schema is None else _cut
    return [_choice(asked, cutter(_stopped(asked, text)), "stop") for text in texts]


def _stopped(asked: Asked, text: str) -> str:
    """The text before the first of the stop texts."""
    return text[: min((at for stop in asked.stops if (at := text.find(stop)) >= 0), default=None)]


def _choice(
    asked: Asked, pieces: Sequence[str], finish: str, call: dict[str, Any] | None = None
) -> _Choice:
    if 0 < asked.limit < len(pieces):
        return _Choice(tuple(pieces[: asked.limit]), "length", call)
    return _Choice(tuple(pieces), finish, call)


def _call(asked: Asked, tool: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A tool call without id and arguments, and the arguments in pieces."""
    if tool.get("type") == "custom":
        call = {"type": "custom", "custom": {"name": tool["custom"]["name"]}}
        return call, eliza.pieces(asked.heard[-_MOST_GIVEN:])
    function = tool["function"]
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise schemas.SchemaError("`parameters` must be an object")
    value = schemas.example({"type": "object", **parameters}, schemas.Hints.of(asked.heard))
    call = {"type": "function", "function": {"name": function["name"]}}
    return call, _cut(wire.dumps(value).decode())


def _identity() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _argument(call: dict[str, Any], text: str) -> dict[str, Any]:
    """The part of a tool call that holds what it is called with."""
    kind = call["type"]
    name = "input" if kind == "custom" else "arguments"
    return {kind: {**call[kind], name: text}}


def _cut(text: str, size: int = 8) -> list[str]:
    """Pieces of a few characters, which may end inside a word or an escape."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def _usage(asked: Asked, choices: Sequence[_Choice]) -> dict[str, int]:
    """In words; of JSON in pieces of eight characters."""
    read = sum(eliza.count_words(turn.text) for turn in asked.turns)
    written = sum(len(choice.pieces) for choice in choices)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }
