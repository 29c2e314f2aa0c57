"""LiveTranscribe in real time, over OpenAI's WebSocket and vLLM's: text while the sound comes."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from services import errors
from services.body import Body
from services.call import Call
from services.upload import Upload
from services.upstream import Adapter, Endpoint, Timeouts
from services.upstream.kinds import build
from services.upstream.model_types import AFTER, REALTIME
from services.upstream.pcm import Resampler, rate_of, wav_head
from services.upstream.transport import Transport
from tests.fakes.realtime import FakeRealtime, realtime, tell
from tests.fakes.upstream import FakeUpstream, Json, Sse

MODELS = {"vllm": "voxtral-realtime", "openai": "gpt-live-transcribe"}
RATES = {"vllm": 16000, "openai": 24000}
SECOND = {words: b"\x01\x02" * rate for words, rate in RATES.items()}
BOTH = pytest.mark.parametrize("words", ["vllm", "openai"])
SPEECH = "/v1/audio/transcriptions"
QUICK = Timeouts(connect=2, first_byte=2, idle=2)


class Mouth:
    """Sound that a test says piece by piece."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.left = asyncio.Event()

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def end(self, error: BaseException | None = None) -> None:
        self._pieces.put_nowait(error)

    async def sound(self) -> AsyncIterator[bytes]:
        try:
            while (piece := await self._pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.left.set()


@asynccontextmanager
async def adapter(
    url: str, words: str, model: str = "", timeouts: Timeouts = QUICK
) -> AsyncIterator[Adapter]:
    transport = Transport()
    try:
        endpoint = Endpoint("fake", url, words, model or MODELS[words], "sk-secret", timeouts)
        yield build(endpoint, transport)
    finally:
        await transport.aclose()


def asked(mouth: Mouth, words: str, rate: int | None = None, **members: Any) -> Body:
    media_type = f"audio/pcm; rate={rate or RATES[words]}"
    upload = Upload.stream(mouth.sound(), "audio.pcm", media_type)
    return Body.from_value("TranscribeRequest", {"model": "ours", **members}, upload)


def a_call() -> Call:
    return Call("req-1", "LiveTranscribe", "grpc", headers={"x-request-id": "req-1"})


def shown(body: Body) -> Any:
    return (body.message, body.value())


async def whole(one: Adapter, request: Body, call: Call | None = None) -> list[Body]:
    stream = one.live_transcribe(request, call or a_call())
    async with asyncio.timeout(10), aclosing(stream) as batches:
        return [body async for batch in batches for body in batch]


@BOTH
async def test_text_comes_while_the_sound_is_still_coming(words: str) -> None:
    """G34. And exactly one answer is the last."""
    mouth, call = Mouth(), a_call()
    async with realtime(words) as fake, adapter(fake.url, words) as one:
        async with aclosing(one.live_transcribe(asked(mouth, words), call)) as batches:
            for number in range(3):
                mouth.say(SECOND[words][:1000], SECOND[words][1000:])
                (event,) = await asyncio.wait_for(anext(batches), 5)
                assert event.message == "StreamTranscribeResponse"
                assert event.value()["type"] == "transcript.text.delta"
                assert event.value()["delta"] == f" word{number}"
            mouth.end()
            (final,) = await asyncio.wait_for(anext(batches), 5)
            assert final.message == "TranscribeResponse"
            assert final.get("text").strip() == "word0 word1 word2"
            assert await anext(batches, None) is None
        await asyncio.wait_for(fake.closed.wait(), 5)
    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (5, 3)
    assert fake.headers[0]["authorization"] == "Bearer sk-secret"
    assert fake.headers[0]["x-request-id"] == "req-1"
    assert mouth.left.is_set()


async def test_vllm_is_told_the_model_and_when_the_sound_is_over() -> None:
    mouth = Mouth()
    mouth.end()
    async with realtime("vllm") as fake, adapter(fake.url, "vllm") as one:
        (final,) = await whole(one, asked(mouth, "vllm"))
    assert final.get("text") == ""
    assert fake.paths == ["/v1/realtime"]
    assert fake.said == [
        {"type": "session.update", "model": "voxtral-realtime"},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.commit", "final": True},
    ]


async def test_vllm_goes_on_when_one_answer_is_full() -> None:
    """What it says after the first of them is not lost."""
    mouth = Mouth()

    async def full(fake: FakeRealtime, connection: Any, message: Any) -> None:
        if message["type"] == "input_audio_buffer.append":
            await tell(connection, "transcription.done", text="first")
        elif message.get("final"):
            await tell(connection, "transcription.done", text=" second")

    async with realtime("vllm") as fake, adapter(fake.url, "vllm") as one:
        fake.act = full
        stream = asyncio.create_task(whole(one, asked(mouth, "vllm")))
        mouth.say(SECOND["vllm"])
        await fake.until(lambda: fake.kinds().count("input_audio_buffer.commit") == 2)
        mouth.end()
        (final,) = await stream
    assert final.get("text") == "first second"


async def test_openai_is_told_all_that_was_asked_for() -> None:
    """G33."""
    mouth = Mouth()
    mouth.end()
    async with realtime("openai") as fake, adapter(fake.url, "openai") as one:
        request = asked(
            mouth,
            "openai",
            language="French",
            prompt="Quay",
            keywords=["quay"],
            include=["logprobs"],
        )
        (final,) = await whole(one, request)
    assert final.get("text") == ""
    assert fake.paths == ["/v1/realtime?intent=transcription"]
    assert fake.said[0]["session"] == {
        "type": "transcription",
        "include": ["item.input_audio_transcription.logprobs"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {
                    "model": "gpt-live-transcribe",
                    "language": "fr",
                    "prompt": "Quay",
                    "keywords": ["quay"],
                },
                "turn_detection": None,
            }
        },
    }


@pytest.mark.parametrize(
    ("strategy", "detection"),
    [
        (None, {"type": "server_vad"}),
        ("auto", {"type": "server_vad"}),
        ({"type": "server_vad", "threshold": 0.5}, {"type": "server_vad", "threshold": 0.5}),
    ],
)
async def test_openai_s_stretches_of_speech_become_one_answer(
    strategy: Any, detection: Any
) -> None:
    """Its ear ends some, our commit the last one; usage is that of all."""
    mouth, call = Mouth(), a_call()

    async def hears(fake: FakeRealtime, connection: Any, message: Any) -> None:
        await fake.usual(connection, message)
        if message["type"] == "input_audio_buffer.append" and len(fake.said) == 2:
            await fake.item(connection)

    members = {"chunking_strategy": strategy} if strategy else {}
    async with (
        realtime("openai") as fake,
        adapter(fake.url, "openai", "gpt-4o-transcribe") as one,
    ):
        fake.act = hears
        mouth.say(SECOND["openai"][:40_000])
        mouth.say(SECOND["openai"])
        mouth.end()
        answers = await whole(one, asked(mouth, "openai", **members), call)
    assert fake.said[0]["session"]["audio"]["input"]["turn_detection"] == detection
    assert fake.kinds() == ["session.update", "session.update", "input_audio_buffer.commit"]
    assert [one.message for one in answers].count("TranscribeResponse") == 1
    assert answers[-1].get("text").split() == ["word0"]
    assert answers[-1].get("usage")["input_tokens"] == 10
    assert call.usage.prompt_tokens == 10


@BOTH
async def test_sound_of_another_rate_is_made_fit(words: str) -> None:
    mouth = Mouth()
    mouth.say(*[struct.pack("<h", 1000) * 800] * 20)
    mouth.end()
    async with realtime(words) as fake, adapter(fake.url, words) as one:
        heard: list[int] = []
        usual = fake.usual

        async def noted(fake: FakeRealtime, connection: Any, message: Any) -> None:
            heard.append(len(fake.heard))
            await usual(connection, message)

        fake.act = noted
        await whole(one, asked(mouth, words, rate=8000))
    assert abs(max(heard) - 2 * 2 * RATES[words]) < 16


@BOTH
@pytest.mark.parametrize("when", ["greeting", "sound", "answer"])
async def test_a_caller_who_leaves_closes_the_session_at_once(words: str, when: str) -> None:
    """G5: within 100 ms, whatever it waits for."""
    mouth, call = Mouth(), a_call()

    async def silent(fake: FakeRealtime, connection: Any, message: Any) -> None:
        if message["type"] == "session.update":
            await fake.usual(connection, message)

    patient = Timeouts(connect=60, first_byte=60, idle=60)
    async with realtime(words) as fake, adapter(fake.url, words, timeouts=patient) as one:
        fake.act, fake.greets = silent, when != "greeting"
        task = asyncio.create_task(whole(one, asked(mouth, words), call))
        if when == "greeting":
            await fake.until(lambda: fake.open)
        else:
            mouth.say(SECOND[words])
            await fake.until(lambda: len(fake.heard) == len(SECOND[words]))
        if when == "answer":
            mouth.end()
            await fake.until(lambda: fake.kinds()[-1] == "input_audio_buffer.commit")
        left = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - left < 1
        await asyncio.wait_for(fake.closed.wait(), 1)
    assert mouth.left.is_set() or when == "greeting"
    assert call.cancel_delay is not None
    assert call.cancel_delay < 0.1


@BOTH
@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ({"message": "no such model", "code": "model_not_found"}, errors.TetradError, "no such"),
        ("engine is dead", errors.TetradError, "engine is dead"),
    ],
)
async def test_what_the_server_says_went_wrong_is_the_call_s_error(
    words: str, error: Any, kind: type[Exception], said: str
) -> None:
    mouth = Mouth()

    async def fails(fake: FakeRealtime, connection: Any, message: Any) -> None:
        await tell(connection, "error", error=error)

    async with realtime(words) as fake, adapter(fake.url, words) as one:
        fake.act = fails
        with pytest.raises(kind, match=said):
            await whole(one, asked(mouth, words))
        await asyncio.wait_for(fake.closed.wait(), 5)


@BOTH
@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_session_that_ends_early_is_no_answer(words: str, code: int) -> None:
    """G1: also when it is closed in order."""
    mouth = Mouth()

    async def leaves(fake: FakeRealtime, connection: Any, message: Any) -> None:
        if message["type"] == "input_audio_buffer.append":
            await connection.close(code)
        else:
            await fake.usual(connection, message)

    mouth.say(SECOND[words])
    async with realtime(words) as fake, adapter(fake.url, words) as one:
        fake.act = leaves
        with pytest.raises(errors.UpstreamTruncated):
            await whole(one, asked(mouth, words))
    await asyncio.wait_for(mouth.left.wait(), 5)


@BOTH
async def test_what_goes_wrong_with_the_sound_is_the_call_s_error(words: str) -> None:
    mouth = Mouth()
    mouth.say(SECOND[words])
    mouth.end(errors.RequestTooLarge("too long"))
    async with realtime(words) as fake, adapter(fake.url, words) as one:
        with pytest.raises(errors.RequestTooLarge, match="too long"):
            await whole(one, asked(mouth, words))
        await asyncio.wait_for(fake.closed.wait(), 5)


@BOTH
async def test_silence_is_patience_while_sound_comes_and_a_limit_after_it(words: str) -> None:
    """G21."""
    mouth = Mouth()

    async def silent(fake: FakeRealtime, connection: Any, message: Any) -> None:
        if message["type"] == "session.update":
            await fake.usual(connection, message)

    quick = Timeouts(connect=2, first_byte=0.2, idle=0.2)
    async with realtime(words) as fake, adapter(fake.url, words, timeouts=quick) as one:
        fake.act = silent
        task = asyncio.create_task(whole(one, asked(mouth, words)))
        await asyncio.wait([task], timeout=0.6)
        assert not task.done()
        mouth.end()
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await task
    assert caught.value.which == "idle"


@BOTH
async def test_a_server_that_does_not_greet_is_late(words: str) -> None:
    quick = Timeouts(connect=2, first_byte=0.2, idle=2)
    async with realtime(words) as fake, adapter(fake.url, words, timeouts=quick) as one:
        fake.greets = False
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await whole(one, asked(Mouth(), words))
    assert caught.value.which == "first_byte"


@BOTH
async def test_a_refused_key_is_the_gateway_s_own_trouble(words: str) -> None:
    async with realtime(words) as fake, adapter(fake.url, words) as one:
        fake.status, fake.body = 401, b'{"error":{"message":"no key sk-secret"}}'
        with pytest.raises(errors.UpstreamAuth) as caught:
            await whole(one, asked(Mouth(), words))
    assert "sk-secret" not in caught.value.message


@BOTH
async def test_a_server_that_is_not_there_leaves_the_sound_whole(words: str) -> None:
    """Another provider may get it."""
    request = asked(Mouth(), words)
    async with realtime(words) as fake:
        url = fake.url
    async with adapter(url, words) as one:
        with pytest.raises(errors.UpstreamUnavailable) as caught:
            await whole(one, request)
    assert not caught.value.reached
    assert request.upload is not None
    assert request.upload.is_whole


@pytest.mark.parametrize(
    ("words", "model", "members"),
    [
        ("openai", "gpt-live-transcribe", {}),
        ("openai", "whisper-1", {}),
        ("vllm", "voxtral-realtime", {"language": "fr"}),
        ("vllm", "voxtral-realtime", {"response_format": "verbose_json"}),
        ("vllm", "voxtral-realtime", {"task": "translate"}),
        ("vllm", "whisper-large-v3", {}),
        ("whisper", "whisper-small", {}),
    ],
)
async def test_what_no_session_can_carry_is_sent_as_a_file(
    words: str, model: str, members: dict[str, Any]
) -> None:
    """Nothing that was asked for is left out; raw sound gets a head that servers know."""
    mouth = Mouth()
    mouth.say(b"ab", b"cd")
    mouth.end()
    answer = {"text": "Quay four.", "segments": []}
    async with FakeUpstream() as up:
        for path in (SPEECH, "/v1/audio/translations"):
            up.on("POST", path, Json(answer)).on("OPTIONS", path, Json({}))
        async with adapter(up.url, words, model) as one:
            (final,) = await whole(one, asked(mouth, words, rate=8000, **members))
            assert (one.live == REALTIME) == (words == "vllm" and model != "whisper-large-v3")
        sent = [request for request in up.requests if request.method == "POST"]
        (sound,) = (part for part in sent[0].form() if part.name == "file")
    assert shown(final) == ("TranscribeResponse", answer)
    assert sound.data == wav_head(8000) + b"abcd"
    assert (sound.filename, sound.content_type) == ("audio.wav", "audio/wav")


async def test_a_model_that_streams_gives_deltas_after_the_last_of_the_sound() -> None:
    mouth, call = Mouth(), a_call()
    mouth.say(b"RIFF")
    mouth.end()
    usage = {"type": "tokens", "input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    events = [
        {"type": "transcript.text.delta", "delta": "Quay"},
        {"type": "transcript.text.done", "text": "Quay four.", "usage": usage, "odd": 1},
    ]
    async with FakeUpstream() as up, adapter(up.url, "openai", "gpt-4o-transcribe") as one:
        up.on("POST", SPEECH, Sse(events, done=False))
        upload = Upload.stream(mouth.sound(), "a.mp3", "audio/mpeg")
        answers = await whole(one, Body.from_value("TranscribeRequest", {}, upload), call)
    assert [shown(answer) for answer in answers] == [
        ("StreamTranscribeResponse", events[0]),
        ("TranscribeResponse", {"text": "Quay four.", "usage": usage, "odd": 1}),
    ]
    assert call.usage.prompt_tokens == 5


async def test_a_server_without_sessions_is_not_asked_for_one_again() -> None:
    async with FakeUpstream() as up:
        up.on("POST", SPEECH, Json({"text": "Quay"}))
        async with adapter(up.url, "openai") as one:
            live = [one.live]
            for _ in range(2):
                mouth = Mouth()
                mouth.end()
                await whole(one, asked(mouth, "openai"))
                live.append(one.live)
        assert live == [REALTIME, AFTER, AFTER]
        asked_for = [request.path for request in up.requests if request.method == "GET"]
    assert asked_for == ["/v1/realtime"]


async def test_text_alone_is_a_document() -> None:
    mouth = Mouth()
    mouth.end()
    async with realtime("vllm") as fake, adapter(fake.url, "vllm") as one:
        (final,) = await whole(one, asked(mouth, "vllm", response_format="text"))
    assert final.document is not None
    assert final.document.media_type.startswith("text/plain")


@pytest.mark.parametrize(
    ("media_type", "rate"),
    [
        ("audio/pcm", 16000),
        ("audio/pcm;rate=8000", 8000),
        ("Audio/PCM; Rate=44100; channels=1", 44100),
        ("audio/wav", None),
        ("", None),
    ],
)
def test_the_media_type_tells_the_rate(media_type: str, rate: int | None) -> None:
    assert rate_of(media_type) == rate


@pytest.mark.parametrize("wrong", ["rate=fast", "rate=1", "rate=8000; channels=2"])
def test_sound_that_nobody_could_play_is_refused(wrong: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="one channel"):
        rate_of(f"audio/pcm; {wrong}")


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 24000), (48000, 16000), (8000, 16000)])
@pytest.mark.parametrize("piece", [1, 7, 640, 100_000])
def test_resampled_sound_is_the_same_sound_however_it_was_cut(
    rate: int, wanted: int, piece: int
) -> None:
    seconds = np.arange(rate // 4) / rate
    sound = (8000 * np.sin(2 * np.pi * 440 * seconds)).astype("<i2").tobytes()
    resampler = Resampler(rate, wanted)
    made = b"".join(resampler.feed(sound[at : at + piece]) for at in range(0, len(sound), piece))
    got = np.frombuffer(made, dtype="<i2")
    assert abs(len(got) - wanted // 4) <= wanted // rate + 1
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / wanted)
    assert np.abs(got - expected).max() < 200


def test_sound_of_the_right_rate_stays_as_it_is() -> None:
    resampler = Resampler(16000, 16000)
    assert resampler.feed(b"abc") + resampler.feed(b"d") == b"abcd"
