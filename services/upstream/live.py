"""LiveTranscribe at one endpoint: in real time where server, sound and request allow it, else a
file that goes up as it arrives, with deltas behind it where the model streams, or one answer.

Nothing that was asked for is left out for the sake of being live.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from services.body import Body, Document
from services.call import Call
from services.transcript import DONE
from services.upload import Upload
from services.upstream.base import Endpoint
from services.upstream.documents import TYPES
from services.upstream.model_types import AFTER, FINAL_ONLY, REALTIME
from services.upstream.pcm import Resampler, rate_of, wav_head
from services.upstream.realtime import NoRealtime, Session
from services.upstream.realtime_wires import WIRES, Wire
from services.upstream.speech import Speech
from services.upstream.speech_asked import FORMAT, Asked

_NAMES: Final[Mapping[str, re.Pattern[str]]] = {
    "vllm": re.compile("realtime", re.IGNORECASE),
    "openai": re.compile("realtime|live|transcribe(?!-diarize)", re.IGNORECASE),
}
"""Names of models that are live, by the wire: no list tells it."""

_STREAMED: Final[Mapping[str, re.Pattern[str]]] = {"openai": _NAMES["openai"]}
"""Names of models whose streamed answer holds all that the whole one does. vLLM's lacks the seconds
of sound."""

_FORMATS: Final = (None, "json", "text")
_SESSION: Final = frozenset({"model", "stream", FORMAT})


class Live:
    """The operation of one endpoint. `wire` names what its kind speaks, "" for none."""

    def __init__(self, endpoint: Endpoint, speech: Speech, wire: str = "") -> None:
        self._endpoint = endpoint
        self._speech = speech
        self._make = WIRES.get(wire)
        self._realtime = _is_named(_NAMES, wire, endpoint)
        self._streams = _is_named(_STREAMED, wire, endpoint)

    @property
    def how(self) -> str:
        """How it answers, as far as is known: one of `model_types.LIVE`."""
        if self._realtime:
            return REALTIME
        return AFTER if self._streams else FINAL_ONLY

    async def transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """TranscribeRequest with its sound to StreamTranscribeResponses and one TranscribeResponse.

        A server that turns out to have no realtime sessions is not asked for one again.
        """
        upload = request.upload
        rate = rate_of(upload.media_type) if upload is not None else None
        wire = self._wire(request) if rate is not None else None
        if wire is not None and upload is not None and rate is not None:
            try:
                session = self._session(wire, upload, rate, request.get(FORMAT), call)
                async with aclosing(session) as batches:
                    async for batch in batches:
                        yield batch
                return
            except NoRealtime:
                self._realtime = False
        request = _as_file(request, rate)
        plain = request.get(FORMAT) in (None, "json") and request.get("task") != "translate"
        if not (self._streams and plain):
            yield [await self._speech.transcribe(request, call)]
            return
        async with aclosing(self._speech.stream_transcribe(request, call)) as batches:
            async for batch in batches:
                yield [_ended(event) for event in batch]

    async def _session(
        self, wire: Wire, upload: Upload, rate: int, format: Any, call: Call
    ) -> AsyncGenerator[list[Body], None]:
        session = Session(self._endpoint, wire, call)
        events = session.events(_resampled(upload, rate, wire.rate))
        async with aclosing(events) as batches:
            async for batch in batches:
                yield [Body.from_value("StreamTranscribeResponse", event) for event in batch]
        final = wire.final or {}
        call.usage.tokens(final.get("usage"))
        if format == "text":
            document = Document(TYPES["text"], final["text"])
            yield [Body.from_document("TranscribeResponse", document)]
        else:
            yield [Body.from_value("TranscribeResponse", final)]

    def _wire(self, request: Body) -> Wire | None:
        """A new session's wire, if one can carry all that is asked for."""
        asked = Asked(request, self._endpoint.model, ())
        if not self._realtime or self._make is None or asked.translates:
            return None
        wire = self._make(asked.members)
        named = {name for name, value in asked.members.items() if value is not None}
        if asked.format not in _FORMATS or named - _SESSION - wire.takes:
            return None
        return wire


def _is_named(names: Mapping[str, re.Pattern[str]], wire: str, endpoint: Endpoint) -> bool:
    pattern = names.get(wire)
    return pattern is not None and pattern.search(endpoint.model) is not None


def _ended(event: Body) -> Body:
    """An event as it is, the done event as the whole answer."""
    value = event.value()
    if value.get("type") != DONE:
        return event
    whole = {name: item for name, item in value.items() if name != "type"}
    return Body.from_value("TranscribeResponse", whole)


async def _resampled(upload: Upload, rate: int, wanted: int) -> AsyncIterator[bytes]:
    resampler = Resampler(rate, wanted)
    pieces = upload.chunks()
    try:
        async for piece in pieces:
            data = resampler.feed(piece)
            if data:
                yield data
    finally:
        closing = getattr(pieces, "aclose", None)
        if closing is not None:
            await closing()


def _as_file(request: Body, rate: int | None) -> Body:
    """The request with raw sound as a file that every server knows."""
    upload = request.upload
    if rate is None or upload is None:
        return request
    file = Upload.stream(_wav(upload, rate), "audio.wav", "audio/wav")
    return Body.from_json(request.message, request.json(), upload=file)


async def _wav(upload: Upload, rate: int) -> AsyncIterator[bytes]:
    yield wav_head(rate)
    async for piece in upload.chunks():
        yield piece
