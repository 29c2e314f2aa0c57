"""Transcription and translation over OpenAI's multipart form, for every server that takes it.

The file streams through between the form's head and tail, never whole in memory. An answer is
JSON or a document by what the upstream sent, not only by what was asked for.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services import errors
from services.body import Body, Document
from services.call import Call
from services.form import Kinds, json_to_fields
from services.multipart import MultipartError, MultipartWriter
from services.upload import Upload
from services.upstream.any_to_transcript import whole_to_done
from services.upstream.exchange import EVENTS, JSON, Answer, Exchange, Payload
from services.upstream.stream import TranscriptStream

_KINDS: Kinds = {"vllm_xargs": "json"}
_TASKS = (None, "transcribe", "translate")
_DOCUMENTS = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
"""Formats that are documents, with the type that they get if the upstream's says nothing."""

_ENDINGS = {
    "audio/aac": ".aac",
    "audio/flac": ".flac",
    "audio/m4a": ".m4a",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/vnd.wave": ".wav",
    "audio/wav": ".wav",
    "audio/wave": ".wav",
    "audio/webm": ".webm",
    "audio/x-flac": ".flac",
    "audio/x-m4a": ".m4a",
    "audio/x-wav": ".wav",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
}
"""Endings by which servers know what the file is, when the caller gave no name."""

_ANY = "*/*"
_UNTOLD = ("", "text/html", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class SpeechDialect:
    """What a kind of server wants otherwise. Paths are tried in turn.

    ask_usage: vLLM's member by which its stream tells usage. translate_member: the path alone does
    not make it translate (whisper.cpp).
    """

    transcribe: tuple[str, ...] = ("/v1/audio/transcriptions",)
    translate: tuple[str, ...] = ("/v1/audio/translations",)
    ask_usage: bool = False
    translate_member: bool = False


class Speech:
    """Both operations of one endpoint."""

    def __init__(self, exchange: Exchange, dialect: SpeechDialect) -> None:
        self._exchange = exchange
        self._dialect = dialect

    async def transcribe(self, request: Body, call: Call) -> Body:
        """TranscribeRequest with its upload to TranscribeResponse, JSON or a document."""
        paths, members = self._asked(request)
        members.pop("stream", None)
        answer = await self._exchange.post(paths, _payload(members, request), call, accept=_ANY)
        return self._answer(answer, members.get("response_format"), call)

    async def stream_transcribe(
        self, request: Body, call: Call
    ) -> AsyncGenerator[list[Body], None]:
        """TranscribeRequest with its upload to StreamTranscribeResponses in OpenAI's form.

        A server that cannot stream answers as a whole: that becomes the one event `done`.
        """
        paths, members = self._asked(request)
        members["stream"] = True
        if self._dialect.ask_usage:
            members["stream_include_usage"] = True
        stream = TranscriptStream(
            self._exchange.endpoint.name, self._exchange.error, call.usage.tokens
        )
        payload = _payload(members, request)
        async with self._exchange.open(paths, payload, call, accept=EVENTS) as response:
            if response.media_type and response.media_type != EVENTS:
                answer = await Answer.of(response)
                whole = self._answer(answer, members.get("response_format"), call)
                yield [_done(whole)]
                return
            async with aclosing(self._exchange.events(response, stream)) as batches:
                async for batch in batches:
                    yield [
                        Body.from_json("StreamTranscribeResponse", c.data, c.value) for c in batch
                    ]

    def _asked(self, request: Body) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The paths for the request's task, and its members as the upstream is to get them."""
        members = dict(request.value())
        if "file" in members:
            raise errors.InvalidRequest("file: expected a file's bytes, found JSON", param="file")
        task = members.pop("task", None)
        if task not in _TASKS:
            raise errors.InvalidRequest(
                f"task: expected one of {', '.join(filter(None, _TASKS))}", param="task"
            )
        if self._exchange.endpoint.model:
            members["model"] = self._exchange.endpoint.model
        if task != "translate":
            return self._dialect.transcribe, members
        if self._dialect.translate_member:
            members["translate"] = True
        return self._dialect.translate, members

    def _answer(self, answer: Answer, asked: Any, call: Call) -> Body:
        is_document = asked in _DOCUMENTS
        if answer.media_type == JSON or not is_document:
            value = self._exchange.value(answer)
            if isinstance(value, dict) and "text" in value:
                call.usage.tokens(value.get("usage"))
                if call.usage.audio_seconds is None:
                    call.usage.tokens({"seconds": value.get("duration")})
                if asked != "text":
                    return Body.from_json("TranscribeResponse", answer.body.strip(), value)
                value = value["text"]  # vLLM prints the same JSON for both formats
            if isinstance(value, str) and is_document:
                return _document(_DOCUMENTS[asked], value)
            raise self._exchange.unreadable(answer, answer.body)
        if answer.media_type == "text/html" and answer.body.lstrip().startswith(b"<"):
            raise self._exchange.unreadable(answer, answer.body)
        told = answer.headers.get("content-type", "")
        media_type = _DOCUMENTS[asked] if answer.media_type in _UNTOLD else told
        return _document(media_type, answer.body.decode("utf-8", "replace"))


class _Form:
    """The pieces of a multipart body: fields, then the file as it is read."""

    def __init__(self, head: bytes, upload: Upload | None, tail: bytes) -> None:
        self._head = head
        self._upload = upload
        self._tail = tail

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._head
        if self._upload is not None:
            async for piece in self._upload.chunks():
                if piece:
                    yield piece
        yield self._tail


def _payload(members: dict[str, Any], request: Body) -> Payload:
    """The form for a request. Raises InvalidRequest for text that no form can hold."""
    upload = request.upload
    writer = MultipartWriter(f"tetrad-{secrets.token_hex(16)}")
    try:
        fields = json_to_fields(members, _KINDS)
        head = b"".join(writer.field(name, value) for name, value in fields)
        tail = writer.end()
        if upload is not None:
            media_type = upload.media_type or "application/octet-stream"
            head += writer.file_head("file", upload.filename or _name(media_type), media_type)
            tail = writer.file_tail() + tail
    except MultipartError as error:
        raise errors.InvalidRequest(f"the form cannot be written: {error}") from None
    size = upload.size if upload is not None else 0
    return Payload(
        body=_Form(head, upload, tail),
        content_type=writer.content_type,
        length=None if size is None else len(head) + size + len(tail),
        again=upload is None or upload.again,
    )


def _name(media_type: str) -> str:
    """A name for a file without one: by it servers know a file, and by its ending the format."""
    return f"audio{_ENDINGS.get(media_type.partition(';')[0].strip().lower(), '')}"


def _document(media_type: str, text: str) -> Body:
    return Body.from_document("TranscribeResponse", Document(media_type, text))


def _done(whole: Body) -> Body:
    value = {"text": whole.document.text} if whole.document else whole.value()
    return Body.from_value("StreamTranscribeResponse", whole_to_done(value))
