"""Transcription and translation on OpenAI's wire.

The model knows English only, so a translation into English is the transcript.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from demo import catalogue, form, wire
from demo.catalogue import SPEECH
from demo.ears import Ears, Stretch, seconds
from demo.sound import SoundError, to_pcm
from demo.wire import PLAIN, Answer, ApiError, EventStream, Reply, Request

log = logging.getLogger("demo")

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_ENGLISH: Final = frozenset({"en", "english"})
_STREAMED: Final = ("json", "text")
_GRANULARITIES: Final = ("segment", "word")


@dataclass(frozen=True, slots=True)
class _Asked:
    pcm: bytes
    task: str
    format: str
    granularities: tuple[str, ...]
    stream: bool


class AudioRoutes:
    """Handlers over one pair of ears."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears

    async def transcriptions(self, request: Request) -> Answer:
        """POST /v1/audio/transcriptions."""
        return await self._answer(request, "transcribe")

    async def translations(self, request: Request) -> Answer:
        """POST /v1/audio/translations."""
        return await self._answer(request, "translate")

    async def _answer(self, request: Request, task: str) -> Answer:
        asked = await _read(request, task)
        if asked.stream:
            return EventStream("transcription", self._events(asked))
        async with contextlib.aclosing(self._ears.transcribe(asked.pcm)) as stretches:
            heard = [stretch async for stretch in stretches]
        return _FORMATS[asked.format](asked, heard)

    async def _events(self, asked: _Asked) -> AsyncGenerator[bytes, None]:
        said: list[str] = []
        async with contextlib.aclosing(self._ears.transcribe(asked.pcm)) as stretches:
            async for stretch in stretches:
                for word in stretch.words:
                    delta = f" {word.text}" if said else word.text
                    said.append(word.text)
                    yield wire.event({"type": "transcript.text.delta", "delta": delta})
        done = {"type": "transcript.text.done", "text": " ".join(said)}
        yield wire.event(done | {"usage": _tokens(asked, len(said))})


async def _read(request: Request, task: str) -> _Asked:
    asked = form.parse(request)
    catalogue.check(asked.get("model"), SPEECH)
    told = asked.get("response_format") or "json"
    if told not in _FORMATS:
        raise ApiError(f"`response_format` can be {', '.join(_FORMATS)}.", param="response_format")
    stream = _flag(asked.get("stream"), "stream")
    if stream and (told not in _STREAMED or task == "translate"):
        raise ApiError("Only transcriptions as json or text are streamed.", param="stream")
    language = asked.get("language") or "en"
    if language.lower().partition("-")[0] not in _ENGLISH:
        raise ApiError(
            f"The model knows English only, not `{language}`.",
            param="language",
            code="language_not_supported",
        )
    granularities = tuple(asked.fields.get("timestamp_granularities", ("segment",)))
    if not set(granularities) <= set(_GRANULARITIES):
        raise ApiError(
            f"`timestamp_granularities` can hold {' and '.join(_GRANULARITIES)}.",
            param="timestamp_granularities",
        )
    if "file" not in asked.files:
        raise ApiError("`file` is missing: a part with a file name.", param="file")
    try:
        pcm = await asyncio.to_thread(to_pcm, asked.files["file"])
    except SoundError as error:
        raise ApiError(str(error), param="file", code="invalid_audio") from error
    log.info("hearing %.1f s of sound", seconds(pcm))
    return _Asked(pcm, task, told, granularities, stream)


def _flag(value: str | None, name: str) -> bool:
    told = (value or "false").lower()
    if told not in _TRUE | _FALSE:
        raise ApiError(f"`{name}` must be true or false.", param=name)
    return told in _TRUE


def _text(heard: Sequence[Stretch]) -> str:
    return " ".join(stretch.text for stretch in heard)


def _duration(asked: _Asked) -> float:
    return round(seconds(asked.pcm), 3)


def _tokens(asked: _Asked, words: int) -> dict[str, Any]:
    """Usage of a stream, which OpenAI counts in tokens: ours are seconds in and words out."""
    heard = math.ceil(seconds(asked.pcm))
    return {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
        "output_tokens": words,
        "total_tokens": heard + words,
    }


# The answers by `response_format`.


def _json(asked: _Asked, heard: Sequence[Stretch]) -> Reply:
    answer: dict[str, Any] = {"text": _text(heard)}
    if asked.task == "transcribe":
        answer["usage"] = {"type": "duration", "seconds": _duration(asked)}
    return wire.reply_json(answer)


def _verbose(asked: _Asked, heard: Sequence[Stretch]) -> Reply:
    answer: dict[str, Any] = {
        "task": asked.task,
        "language": "english",
        "duration": _duration(asked),
        "text": _text(heard),
    }
    if "segment" in asked.granularities:
        answer["segments"] = [_segment(index, one) for index, one in enumerate(heard)]
    if "word" in asked.granularities:
        answer["words"] = [
            {"word": word.text, "start": word.start, "end": word.end}
            for stretch in heard
            for word in stretch.words
        ]
    if asked.task == "transcribe":
        answer["usage"] = {"type": "duration", "seconds": _duration(asked)}
    return wire.reply_json(answer)


def _segment(index: int, stretch: Stretch) -> dict[str, Any]:
    raw = stretch.text.encode()
    return {
        "id": index,
        "seek": 0,
        "start": stretch.start,
        "end": stretch.end,
        "text": f" {stretch.text}",
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(stretch.logprob, 4),
        "compression_ratio": round(len(raw) / len(zlib.compress(raw)), 4),
        "no_speech_prob": 0.0,
    }


def _plain(asked: _Asked, heard: Sequence[Stretch]) -> Reply:
    return Reply(f"{_text(heard)}\n".encode(), media_type=PLAIN)


def _srt(asked: _Asked, heard: Sequence[Stretch]) -> Reply:
    cues = [
        f"{index}\n{_clock(one.start, ',')} --> {_clock(one.end, ',')}\n{one.text}\n\n"
        for index, one in enumerate(heard, 1)
    ]
    return Reply("".join(cues).encode(), media_type=PLAIN)


def _vtt(asked: _Asked, heard: Sequence[Stretch]) -> Reply:
    cues = [f"{_clock(one.start, '.')} --> {_clock(one.end, '.')}\n{one.text}\n\n" for one in heard]
    return Reply(f"WEBVTT\n\n{''.join(cues)}".encode(), media_type=PLAIN)


def _clock(time: float, point: str) -> str:
    """Hours, minutes, seconds and, after the point, thousandths."""
    whole, thousandths = divmod(round(time * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{point}{thousandths:03}"


_FORMATS: Final[Mapping[str, Callable[[_Asked, Sequence[Stretch]], Reply]]] = {
    "json": _json,
    "text": _plain,
    "srt": _srt,
    "verbose_json": _verbose,
    "vtt": _vtt,
}
