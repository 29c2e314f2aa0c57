"""Whole transcripts as the last event of a stream, for servers and callers that had no stream."""

from __future__ import annotations

from typing import Any, Final

from services.body import Body

DONE: Final = "transcript.text.done"


def whole_to_done(value: dict[str, Any]) -> dict[str, Any]:
    """The done event for the whole answer of a server that cannot stream."""
    return {"type": DONE} | {name: item for name, item in value.items() if name != "type"}


def done_event(answer: Body) -> Body:
    """TranscribeResponse, JSON or a document, to the StreamTranscribeResponse `done`."""
    value = {"text": answer.document.text} if answer.document else answer.value()
    return Body.from_value("StreamTranscribeResponse", whole_to_done(value))
