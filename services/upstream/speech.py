"""Transcription and translation over OpenAI's multipart form, for every server that takes it.

The file streams through, never whole in memory. An answer is JSON or a document by what the
upstream sent, not only by what was asked for; a format that it does not give is said to be so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services import errors
from services.body import Body, Document
from services.call import Call
from services.transcript import done_event
from services.upstream.documents import TYPES, WRITERS, made
from services.upstream.exchange import EVENTS, JSON, Answer, Exchange
from services.upstream.speech_asked import FORMAT, Asked
from services.upstream.speech_form import payload
from services.upstream.stream import TranscriptStream

_ANY = "*/*"
_UNTOLD = ("", "text/html", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class SpeechDialect:
    """What a kind of server wants otherwise. Paths are tried in turn.

    ask_usage: vLLM's member by which its stream tells usage. translate_member: the path alone does
    not make it translate (whisper.cpp). lacks: subtitles that it refuses, though it may time
    segments; of other kinds it is learned from their refusal. realtime: the wire of its WebSocket,
    a key of `realtime_wires.WIRES`, "" for none.
    """

    transcribe: tuple[str, ...] = ("/v1/audio/transcriptions",)
    translate: tuple[str, ...] = ("/v1/audio/translations",)
    ask_usage: bool = False
    translate_member: bool = False
    lacks: frozenset[str] = frozenset()
    realtime: str = ""


class Speech:
    """Both operations of one endpoint."""

    def __init__(self, exchange: Exchange, dialect: SpeechDialect) -> None:
        self._exchange = exchange
        self._dialect = dialect
        self._lacks = set(dialect.lacks)

    async def transcribe(self, request: Body, call: Call) -> Body:
        """TranscribeRequest with its upload to TranscribeResponse, JSON or a document.

        Raises NotOffered for a format that the upstream does not give.
        """
        asked = self._asked(request)
        try:
            return await self._whole(asked, call)
        except errors.UpstreamInvalidRequest as error:
            if not _is_about_format(error) or asked.format not in WRITERS:
                raise
            if asked.makes:
                raise self._lacking(asked, "and no segments to make it from") from None
            self._lacks.add(asked.format)
            if asked.upload is not None and not asked.upload.again:
                raise
        return await self.transcribe(request, call)

    async def stream_transcribe(
        self, request: Body, call: Call
    ) -> AsyncGenerator[list[Body], None]:
        """TranscribeRequest with its upload to StreamTranscribeResponses in OpenAI's form.

        A server that cannot stream answers as a whole: that becomes the one event `done`.
        """
        asked = self._asked(request, stream=True)
        stream = TranscriptStream(
            self._exchange.endpoint.name, self._exchange.error, call.usage.tokens
        )
        form = payload(asked.members, asked.upload, asked.later)
        async with self._exchange.open(self._paths(asked), form, call, accept=EVENTS) as response:
            if response.media_type and response.media_type != EVENTS:
                yield [done_event(self._answer(await Answer.of(response), asked, call))]
                return
            async with aclosing(self._exchange.events(response, stream)) as batches:
                async for batch in batches:
                    yield [
                        Body.from_json("StreamTranscribeResponse", c.data, c.value) for c in batch
                    ]

    def _asked(self, request: Body, *, stream: bool = False) -> Asked:
        """The request, less what the operation decides by itself."""
        asked = Asked(request, self._exchange.endpoint.model, frozenset(self._lacks))
        asked.members.pop("stream", None)
        if stream:
            asked.members["stream"] = True
            if self._dialect.ask_usage:
                asked.members["stream_include_usage"] = True
        if asked.translates and self._dialect.translate_member:
            asked.members["translate"] = True
        return asked

    def _paths(self, asked: Asked) -> tuple[str, ...]:
        return self._dialect.translate if asked.translates else self._dialect.transcribe

    async def _whole(self, asked: Asked, call: Call) -> Body:
        form = payload(asked.members, asked.upload, asked.later)
        answer = await self._exchange.post(self._paths(asked), form, call, accept=_ANY)
        return self._answer(answer, asked, call)

    def _answer(self, answer: Answer, asked: Asked, call: Call) -> Body:
        if answer.media_type == JSON or asked.format not in TYPES or asked.makes:
            value = self._exchange.value(answer)
            if isinstance(value, dict) and "text" in value:
                _count(value, call)
                return self._of_json(answer, value, asked)
            if isinstance(value, str) and asked.format in TYPES and not asked.makes:
                return _document(TYPES[asked.format], value)
            raise self._exchange.unreadable(answer, answer.body)
        if answer.media_type == "text/html" and answer.body.lstrip().startswith(b"<"):
            raise self._exchange.unreadable(answer, answer.body)
        told = answer.headers.get("content-type", "")
        media_type = TYPES[asked.format] if answer.media_type in _UNTOLD else told
        return _document(media_type, answer.body.decode("utf-8", "replace"))

    def _of_json(self, answer: Answer, value: dict[str, Any], asked: Asked) -> Body:
        """An answer in JSON as what was asked for, or the error that it cannot be made of it.

        Where JSON was asked for, it is told as it came: what it lacks, its reader sees.
        """
        if asked.format == "text":  # vLLM prints the same JSON for both formats
            if not isinstance(value["text"], str):
                raise self._exchange.unreadable(answer, answer.body)
            return _document(TYPES["text"], value["text"])
        if asked.format in WRITERS:
            document = made(asked.format, value)
            if document is None:
                raise self._lacking(asked, "and no segments to make it from")
            return Body.from_document("TranscribeResponse", document)
        return Body.from_json("TranscribeResponse", answer.body.strip(), value)

    def _lacking(self, asked: Asked, why: str) -> errors.NotOffered:
        return errors.NotOffered(
            f"{self._exchange.endpoint.name} gives no {asked.format}, {why}",
            param=FORMAT,
            reached=True,
        )


def _count(value: dict[str, Any], call: Call) -> None:
    call.usage.tokens(value.get("usage"))
    if call.usage.audio_seconds is None:
        call.usage.tokens({"seconds": value.get("duration")})


def _is_about_format(error: errors.UpstreamInvalidRequest) -> bool:
    """Whether an upstream refuses the format: by the member that it names, or in its words."""
    own = error.upstream
    named = own is not None and own.error is not None and own.error.get("param") == FORMAT
    return named or error.param == FORMAT or FORMAT in error.message


def _document(media_type: str, text: str) -> Body:
    return Body.from_document("TranscribeResponse", Document(media_type, text))
