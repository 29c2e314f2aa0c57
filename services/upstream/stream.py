"""An upstream's stream, sans-IO: what was a success, what broke off, what failed, what to deliver.

Fed with the events of each read. [DONE] proves nothing: a chat has succeeded when every choice
seen has a finish_reason, a transcription when its done event (or vLLM's finish) came. The states
stand in `states`. Knows neither time limits nor bytes on the wire.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from services import codec, errors
from services.sse import SseEvent
from services.upstream.any_to_transcript import Converter, converter_for
from services.upstream.states import TRANSITIONS, Signal, State

DONE = b"[DONE]"

_ERROR: Final = "error"
_MOST_LEARNT: Final = 8
"""Templates of one stream; one whose chunks differ in more than their text is not for them."""

_ENVELOPE = ("id", "object", "created", "model", "system_fingerprint", "choices")

Fault = Callable[[Any], errors.TetradError]
"""Makes the error for an upstream's error object or text."""

Count = Callable[[Any], None]
"""Takes the figures of a `usage` member."""


@dataclass(slots=True)
class Chunk:
    """One event to deliver: its JSON text, and what that parses to or, of a chat's chunk that a
    template knows, its text."""

    data: bytes
    value: Any
    template: codec.ChunkTemplate | None = None
    text: str = ""


class Stream(ABC):
    """What both kinds share: events to signals, errors in all their forms, the end.

    over: whether nothing that may still come matters.
    """

    def __init__(self, endpoint: str, fault: Fault, count: Count) -> None:
        self.state = State.WAITING
        self.over = False
        self._endpoint = endpoint
        self._fault = fault
        self._count = count
        self._failure: errors.TetradError | None = None
        self._template: codec.ChunkTemplate | None = None

    @property
    def settled(self) -> bool:
        """Whether only usage is still awaited: then waiting has a limit, and a connection that
        breaks changes nothing."""
        return self.state in (State.FINISHED, State.COMPLETE)

    def feed(self, events: list[SseEvent]) -> list[Chunk]:
        """What to deliver of one read, in order; nothing of what follows an error or the end."""
        batch: list[Chunk] = []
        for event in events:
            if self.over:
                break
            template = self._template
            if template is not None and self.state is State.RUNNING and event.event != _ERROR:
                text = template.text(event.data)
                if text is not None:
                    batch.append(Chunk(event.data, None, template, text))
                    continue
            if event.data.lstrip().startswith(DONE):
                self._move(Signal.MARK)
                continue
            value = self._parsed(event)
            if not self.over:
                self._take(event.data, value, batch)
        return batch

    def check(self) -> None:
        """Raises the error that the events fed so far held, or that they broke off."""
        if self._failure is not None:
            raise self._failure
        if self.state is State.TRUNCATED:
            raise errors.UpstreamTruncated(
                f"the stream of {self._endpoint} ended before its answer was complete",
                reached=True,
            )

    def end(self) -> list[Chunk]:
        """The connection has ended in order, or patience has: what is still to deliver.

        Raises UpstreamTruncated if the answer is not complete.
        """
        self._move(Signal.END)
        self.check()
        return []

    def _move(self, signal: Signal) -> None:
        after = TRANSITIONS.get(self.state)
        if after is not None:
            self.state = after[signal]
            self.over = self.state not in TRANSITIONS

    def _fail(self, error: errors.TetradError) -> None:
        self._failure = error
        self._move(Signal.ERROR)

    def _parsed(self, event: SseEvent) -> Any:
        """The event's JSON; a failure if that is an error or no object."""
        is_error = event.event == _ERROR
        try:
            value = read_json(event.data)
        except codec.JsonError:
            value = event.data.decode("utf-8", "replace") if is_error else None
        if is_error or errors.error_in_body(value):
            self._fail(self._fault(value))
        elif not isinstance(value, dict):
            self._fail(
                errors.UpstreamProtocol(
                    f"the stream of {self._endpoint} holds an event that is no JSON object",
                    reached=True,
                )
            )
        return value

    @abstractmethod
    def _take(self, data: bytes, value: dict[str, Any], batch: list[Chunk]) -> None:
        """One JSON object that is no error: moves the state, and adds what is to be delivered."""


class ChatStream(Stream):
    """Chunks of a chat completion.

    usage_asked: whether the caller is to see the chunk that holds nothing but usage. choices: how
    many the caller asked for. `count` gets every usage that is told; the last one counts.
    """

    def __init__(
        self, endpoint: str, fault: Fault, count: Count, *, usage_asked: bool, choices: int = 1
    ) -> None:
        super().__init__(endpoint, fault, count)
        self._usage_asked = usage_asked
        self._expected = choices
        self._finished: dict[int, bool] = {}
        self._named = False
        self._learnt = 0

    @property
    def settled(self) -> bool:
        """As above; while choices are missing that were asked for, more than usage is awaited."""
        return super().settled and len(self._finished) >= self._expected

    def _take(self, data: bytes, value: dict[str, Any], batch: list[Chunk]) -> None:
        usage = _usage(value)
        if usage is not None:
            self._count(usage)
        choices = value.get("choices")
        if not (isinstance(choices, list) and choices):
            if self._usage_asked or choices != [] or value.get("usage") is None:
                batch.append(Chunk(data, value))
            return
        if self._named and _is_blank(value, choices):
            # So Ollama prints what failed after the first chunk: as an answer without content.
            self._fail(
                errors.UpstreamFailed(
                    f"{self._endpoint} failed in the middle of its answer without saying why",
                    reached=True,
                )
            )
            return
        self._named = self._named or bool(value.get("model"))
        for choice in choices:
            if isinstance(choice, dict):
                index = choice.get("index")
                index = index if isinstance(index, int) else 0
                finished = bool(choice.get("finish_reason"))
                self._finished[index] = finished or self._finished.get(index, False)
        done = bool(self._finished) and all(self._finished.values())
        if done or self.state is not State.RUNNING:  # most chunks leave it as it is
            self._move(Signal.FINISH if done else Signal.PART)
        batch.append(Chunk(data, value))
        if self.state is State.RUNNING and self._learnt < _MOST_LEARNT:
            template = codec.chunk_template(data, value)
            if template is not None:
                self._template = template
                self._learnt += 1


class TranscriptStream(Stream):
    """Events of a transcription, in OpenAI's form whatever the upstream's is."""

    def __init__(self, endpoint: str, fault: Fault, count: Count) -> None:
        super().__init__(endpoint, fault, count)
        self._converter: Converter | None = None

    def end(self) -> list[Chunk]:
        """As above; where the upstream has no event for the end, ours."""
        super().end()
        event = self._converter.last() if self._converter is not None else None
        if event is None:
            return []
        self._count(event.get("usage"))
        return [Chunk(codec.dumps(event), event)]

    def _take(self, data: bytes, value: dict[str, Any], batch: list[Chunk]) -> None:
        if self._converter is None:
            self._converter = converter_for(value)
        event, signals = self._converter.event(value)
        if event is not None:
            self._count(event.get("usage"))
            batch.append(Chunk(data if event is value else codec.dumps(event), event))
        for signal in signals:
            self._move(signal)


def read_json(text: bytes) -> Any:
    """Parses an answer. A lone surrogate, which nobody downstream can mend, becomes U+FFFD.

    Raises codec.JsonError.
    """
    try:
        return codec.loads(text)
    except codec.JsonError:
        return codec.loads_exact(text, replace_surrogates=True)


def _usage(value: dict[str, Any]) -> Any:
    usage = value.get("usage")
    groq = value.get("x_groq")
    return groq.get("usage") if usage is None and isinstance(groq, dict) else usage


def _is_blank(value: dict[str, Any], choices: list[Any]) -> bool:
    """Whether a chunk names no model and holds nothing at all.

    Azure's filter sends chunks without a model and a delta, which hold its verdict.
    """
    if value.get("model") != "" or _says(value, _ENVELOPE):
        return False
    for choice in choices:
        if not isinstance(choice, dict) or _says(choice, ("index", "delta")):
            return False
        delta = choice.get("delta")
        if isinstance(delta, dict) and _says(delta, ("role",)):
            return False
    return True


def _says(value: dict[str, Any], less: tuple[str, ...]) -> bool:
    """Whether an object holds anything but these members."""
    return any(item for name, item in value.items() if name not in less)
