"""TranscribeService: speech to text by models of type automatic-speech-recognition."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from services import codec, errors
from services.body import Body
from services.call import Call
from services.dispatch import Dispatch, Stream, Unary
from services.upload import Upload

TYPE = "automatic-speech-recognition"

# Members by which some upstreams fetch the sound themselves (Groq, Mistral).
_FETCHED = ("url", "file_url", "file_id")


class TranscribeService:
    """Transcribes and translates. Every method raises errors.TetradError only."""

    def __init__(self, dispatch: Dispatch, max_upload_bytes: int) -> None:
        self._dispatch = dispatch
        self.max_upload_bytes = max_upload_bytes

    async def transcribe(self, request: Body, call: Call) -> Body:
        """TranscribeRequest with its upload to TranscribeResponse."""
        _require_sound(request)
        if request.upload is None or request.upload.again:
            return await self._dispatch.unary(
                TYPE, request, call, lambda adapter: adapter.transcribe
            )
        # A file that is still arriving may take as long as streams may.
        stream = self._dispatch.streamed(
            TYPE, request, call, lambda adapter: _in_one(adapter.transcribe)
        )
        async with aclosing(stream) as batches:
            answers = [answer async for batch in batches for answer in batch]
        return answers[0]

    def stream_transcribe(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        """TranscribeRequest with its upload to events, in batches; `done` is the last."""
        _require_sound(request)
        return self._dispatch.streamed(
            TYPE, request, call, lambda adapter: adapter.stream_transcribe
        )

    async def live_transcribe(
        self, requests: AsyncIterator[Body], call: Call
    ) -> AsyncGenerator[list[Body], None]:
        """LiveTranscribeRequests to LiveTranscribeResponses: `final`, once, is the last of them.

        The audio goes to the upstream as it arrives. Where that writes while it listens (see
        `Model.capabilities`) and the audio is raw, deltas and segments come before `final`.
        """
        config = await _config(requests)
        given = config.upload
        sound = Upload.stream(
            self._audio(requests),
            filename=given.filename if given and given.filename else "audio.wav",
            media_type=given.media_type if given else "",
        )
        request = Body.from_json(config.message, config.json(), upload=sound)
        stream = self._dispatch.streamed(
            TYPE, request, call, lambda adapter: adapter.live_transcribe
        )
        async with aclosing(stream) as batches:
            async for batch in batches:
                yield [live for answer in batch if (live := _live(answer)) is not None]

    async def _audio(self, requests: AsyncIterator[Body]) -> AsyncIterator[bytes]:
        total = 0
        async for body in requests:
            message = body.parsed()
            if message.WhichOneof("message") != "audio":
                raise _out_of_order("after `config` only `audio` may follow")
            total += len(message.audio)
            if total > self.max_upload_bytes:
                raise errors.RequestTooLarge(
                    f"the audio is longer than the limit of {self.max_upload_bytes} bytes",
                    metadata={"limit_bytes": str(self.max_upload_bytes)},
                )
            yield message.audio


async def _config(requests: AsyncIterator[Body]) -> Body:
    async for body in requests:
        message = body.parsed()
        if message.WhichOneof("message") == "config":
            config = Body.from_wire("TranscribeRequest", message.config.SerializeToString())
            if config.upload and config.upload.size:
                raise _out_of_order("`config.file` may hold no data: send it as `audio`")
            return config
        break
    raise _out_of_order("the first message must be `config`")


def _in_one(transcribe: Unary) -> Stream:
    """A stream of one answer: a live call may last as long as streams may."""

    async def stream(request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        yield [await transcribe(request, call)]

    return stream


def _live(answer: Body) -> Body | None:
    """A TranscribeResponse as `final`, an event as itself; None for an event of another kind."""
    message: Any = codec.message_class("LiveTranscribeResponse")()
    if answer.message == "TranscribeResponse":
        message.final.MergeFromString(answer.wire())
    else:
        event = answer.parsed()
        kind = event.WhichOneof("event")
        if kind not in ("delta", "segment"):
            return None
        getattr(message, kind).CopyFrom(getattr(event, kind))
    return Body.from_wire("LiveTranscribeResponse", message.SerializeToString())


def _out_of_order(problem: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(problem, violations=(errors.Violation("message", problem),))


def _require_sound(request: Body) -> None:
    if request.upload is None and not any(request.get(name) for name in _FETCHED):
        raise errors.InvalidRequest(
            "file: required, but absent",
            param="file",
            violations=(errors.Violation("file", "required, but absent"),),
        )
