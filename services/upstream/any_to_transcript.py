"""Events of streamed transcriptions in every upstream's form, to OpenAI's transcript events.

OpenAI and speaches send those themselves. vLLM sends chunks like a chat's, with the usage after
the finish, and Mistral events of its own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from services.transcript import DONE
from services.upstream.states import Signal

DELTA = "transcript.text.delta"
SEGMENT = "transcript.text.segment"

_PART = (Signal.PART,)
_NEUTRAL = (Signal.NEUTRAL,)
_LAST = (Signal.FINISH, Signal.MARK)

Taken = tuple[dict[str, Any] | None, tuple[Signal, ...]]
"""The event to deliver, if any, and what it is to the stream's states."""


class Converter(Protocol):
    """Turns one stream's events into OpenAI's."""

    def event(self, value: dict[str, Any]) -> Taken:
        """What becomes of one event. An event that is OpenAI's already is returned itself."""
        ...

    def last(self) -> dict[str, Any] | None:
        """The done event of an upstream that has none, once its stream has ended well."""
        ...


class OpenAIEvents:
    """Events as they are."""

    SIGNALS: Final[Mapping[Any, tuple[Signal, ...]]] = MappingProxyType(
        {DELTA: _PART, SEGMENT: _PART, DONE: _LAST}
    )

    def event(self, value: dict[str, Any]) -> Taken:
        """The event itself."""
        kind = value.get("type")
        return value, self.SIGNALS.get(kind, _NEUTRAL) if isinstance(kind, str) else _NEUTRAL

    def last(self) -> None:
        """The upstream's own done event came."""


class VllmChunks:
    """`transcription.chunk` and `translation.chunk`: deltas in choices, then usage."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._usage: dict[str, Any] | None = None

    def event(self, value: dict[str, Any]) -> Taken:
        """A delta for a chunk with text; its finish and its usage are kept for the done event."""
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        choices = value.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            return None, _NEUTRAL
        choice = choices[0]
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        signals = (Signal.FINISH,) if choice.get("finish_reason") else _PART
        if not (isinstance(text, str) and text):
            return None, signals
        self._text.append(text)
        return {"type": DELTA, "delta": text}, signals

    def last(self) -> dict[str, Any]:
        """The joined text, and the usage if the upstream told it."""
        done: dict[str, Any] = {"type": DONE, "text": "".join(self._text)}
        if self._usage is not None:
            done["usage"] = token_usage(self._usage)
        return done


class MistralEvents:
    """`transcription.text.delta`, `.segment`, `.done`: other names for nearly the same."""

    def event(self, value: dict[str, Any]) -> Taken:
        """The event under OpenAI's name; `transcription.language` and others as they are."""
        match value.get("type"):
            case "transcription.text.delta":
                renamed = {"delta" if k == "text" else k: v for k, v in value.items()}
                return renamed | {"type": DELTA}, _PART
            case "transcription.segment":
                return value | {"type": SEGMENT}, _PART
            case "transcription.done":
                usage = value.get("usage")
                told = {"usage": token_usage(usage)} if isinstance(usage, dict) else {}
                return value | {"type": DONE} | told, _LAST
        return value, _NEUTRAL

    def last(self) -> None:
        """The upstream's own done event came."""


def converter_for(first: dict[str, Any]) -> Converter:
    """The converter for a stream, by its first event."""
    if str(first.get("object")).endswith(".chunk") or isinstance(first.get("choices"), list):
        return VllmChunks()
    if str(first.get("type")).startswith("transcription."):
        return MistralEvents()
    return OpenAIEvents()


def token_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage with a chat's names under those of a transcription, its other members kept."""
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
    return {"type": "tokens"} | {names.get(name, name): item for name, item in usage.items()}
