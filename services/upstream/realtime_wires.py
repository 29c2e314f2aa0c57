"""Realtime transcription as messages: what OpenAI's and vLLM's WebSockets say. Sans-IO.

A wire is one session. It says what to send, is told what came, and has its `final` once all that
was said is transcribed. Events go out in OpenAI's form for streamed files.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol

from services.upstream.any_to_transcript import DELTA, SEGMENT, token_usage

Event = dict[str, Any]

_TRANSCRIPTION = "conversation.item.input_audio_transcription."
_COMMIT = "input_audio_buffer.commit"
_NOTHING_NEW = "input_audio_buffer_commit_empty"


class Failed(Exception):
    """The server tells an error; `value` is a body that holds it as `error`."""

    def __init__(self, value: Event) -> None:
        super().__init__()
        self.value = value


class Wire(Protocol):
    """One session. path: of the WebSocket. rate: of the sound. takes: members of the request that
    it can carry, beside those that every session has."""

    path: ClassVar[str]
    rate: ClassVar[int]
    takes: ClassVar[frozenset[str]]
    final: Event | None

    def opening(self) -> list[Event]:
        """What configures the session, once the server has opened it."""
        ...

    def closing(self) -> list[Event]:
        """What says that no sound follows."""
        ...

    def take(self, event: Event) -> list[Event]:
        """What an event of the server gives the caller. Raises Failed."""
        ...

    def replies(self) -> list[Event]:
        """What is to be sent because of it."""
        ...


def sound(piece: bytes) -> Event:
    """The message that holds a piece of sound; alike on both wires."""
    return {"type": "input_audio_buffer.append", "audio": b64encode(piece).decode("ascii")}


class VllmWire:
    """vLLM: 16 kHz; a commit begins to transcribe, a final one says that no sound follows."""

    path: ClassVar[str] = "/v1/realtime"
    rate: ClassVar[int] = 16000
    takes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.final: Event | None = None
        self._model = members.get("model")
        self._texts: list[str] = []
        self._closed = False
        self._due: list[Event] = []

    def opening(self) -> list[Event]:
        """See `Wire`."""
        return [{"type": "session.update", "model": self._model}, {"type": _COMMIT}]

    def closing(self) -> list[Event]:
        """See `Wire`."""
        self._closed = True
        return [{"type": _COMMIT, "final": True}]

    def take(self, event: Event) -> list[Event]:
        """See `Wire`."""
        match event.get("type"):
            case "error":
                said = event.get("error")
                error = said if isinstance(said, dict) else {"message": str(said)}
                raise Failed({"error": {"code": event.get("code"), **error}})
            case "transcription.delta" if event.get("delta"):
                return [{"type": DELTA, "delta": event["delta"]}]
            case "transcription.done":
                self._texts.append(str(event.get("text") or ""))
                if self._closed:
                    self.final = {"text": "".join(self._texts)}
                    if isinstance(event.get("usage"), dict):
                        self.final["usage"] = token_usage(event["usage"])
                else:  # it has said all that one answer may hold; the speaker has not
                    self._due.append({"type": _COMMIT})
        return []

    def replies(self) -> list[Event]:
        """See `Wire`."""
        due, self._due = self._due, []
        return due


class OpenAIWire:
    """OpenAI: 24 kHz; each stretch of speech is an item, ended by the server's ear or by us.

    Before the last commit the server's ear is turned off: its answer to that tells which stretches
    it has still ended by itself.
    """

    path: ClassVar[str] = "/v1/realtime?intent=transcription"
    rate: ClassVar[int] = 24000
    takes: ClassVar[frozenset[str]] = frozenset(
        {"language", "languages", "prompt", "keywords", "include", "chunking_strategy"}
    )

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.final: Event | None = None
        self._members = members
        self._detection = _detection(members)
        self._items: dict[str, Event | None] = {}
        self._updates = 0
        self._awaited = 2 if self._detection else 1
        self._closed = self._last_known = False

    def opening(self) -> list[Event]:
        """See `Wire`."""
        names = ("model", "language", "languages", "prompt", "keywords")
        how = {name: self._members[name] for name in names if self._members.get(name) is not None}
        heard: Event = {
            "format": {"type": "audio/pcm", "rate": self.rate},
            "transcription": how,
            "turn_detection": self._detection,
        }
        session: Event = {"type": "transcription", "audio": {"input": heard}}
        include = self._members.get("include")
        if include:
            session["include"] = [f"item.input_audio_transcription.{name}" for name in include]
        return [{"type": "session.update", "session": session}]

    def closing(self) -> list[Event]:
        """See `Wire`."""
        self._closed = True
        deaf: Event = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        off: list[Event] = [{"type": "session.update", "session": deaf}]
        return [*(off if self._detection else []), {"type": _COMMIT}]

    def take(self, event: Event) -> list[Event]:
        """See `Wire`."""
        reader = self._READERS.get(str(event.get("type")))
        given = reader(self, event) if reader is not None else []
        if self._last_known and all(item is not None for item in self._items.values()):
            self.final = _joined([item for item in self._items.values() if item])
        return given

    def replies(self) -> list[Event]:
        """See `Wire`."""
        return []

    def _error(self, event: Event) -> list[Event]:
        error = event.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if code != _NOTHING_NEW or not self._closed:
            raise Failed({"error": error})
        self._last_known = True
        return []

    def _updated(self, event: Event) -> list[Event]:
        self._updates += 1
        return []

    def _committed(self, event: Event) -> list[Event]:
        self._items.setdefault(str(event.get("item_id")), None)
        if self._closed and self._updates >= self._awaited:
            self._last_known = True
        return []

    def _delta(self, event: Event) -> list[Event]:
        if not event.get("delta"):
            return []
        told = {"type": DELTA, "delta": event["delta"], "segment_id": event.get("item_id")}
        if event.get("logprobs"):
            told["logprobs"] = event["logprobs"]
        return [told]

    def _segment(self, event: Event) -> list[Event]:
        names = ("id", "start", "end", "text", "speaker")
        return [{"type": SEGMENT, **{name: event[name] for name in names if name in event}}]

    def _completed(self, event: Event) -> list[Event]:
        self._items[str(event.get("item_id"))] = event
        return []

    def _failed(self, event: Event) -> list[Event]:
        raise Failed({"error": event.get("error") or "the transcription failed"})

    _READERS: ClassVar[Mapping[str, Callable[[OpenAIWire, Event], list[Event]]]] = MappingProxyType(
        {
            "error": _error,
            "session.updated": _updated,
            "input_audio_buffer.committed": _committed,
            _TRANSCRIPTION + "delta": _delta,
            _TRANSCRIPTION + "segment": _segment,
            _TRANSCRIPTION + "completed": _completed,
            _TRANSCRIPTION + "failed": _failed,
        }
    )


def _detection(members: Mapping[str, Any]) -> Event | None:
    """How the server is to hear where nobody speaks. Models that write while one speaks need not,
    and refuse to."""
    strategy = members.get("chunking_strategy")
    if isinstance(strategy, dict):
        return strategy
    model = str(members.get("model")).lower()
    if strategy is None and ("live" in model or "realtime" in model):
        return None
    return {"type": "server_vad"}


def _joined(items: list[Event]) -> Event:
    """The answer of all stretches."""
    final: Event = {"text": " ".join(filter(None, (str(i.get("transcript") or "") for i in items)))}
    for name in ("logprobs", "languages"):
        values = [value for item in items for value in item.get(name) or []]
        if values:
            final[name] = [
                v for at, v in enumerate(values) if name == "logprobs" or v not in values[:at]
            ]
    usages = [item["usage"] for item in items if isinstance(item.get("usage"), dict)]
    if usages:
        final["usage"] = _summed(usages)
    return final


def _summed(usages: list[Event]) -> Event:
    total: Event = {}
    for usage in usages:
        for name, value in usage.items():
            if isinstance(value, dict):
                total[name] = _summed([total.get(name, {}), value])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                total[name] = total.get(name, 0) + value
            else:
                total[name] = value
    return total


WIRES: Final[Mapping[str, Callable[[Mapping[str, Any]], Wire]]] = MappingProxyType(
    {"vllm": VllmWire, "openai": OpenAIWire}
)
