"""The six formats at every kind of server: given, made, or said not to be there; never ignored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway_http.late import joined
from services import codec, errors
from services.body import Body
from services.languages import code_of
from services.upload import Upload
from tests.fakes.http1 import Received
from tests.fakes.upstream import FakeUpstream, Json, Responder
from tests.lib import recordings
from tests.lib.adapters import a_call, adapter

SPEECH = "/v1/audio/transcriptions"
VERBOSE = {"text": "Quay four.", "segments": [{"start": 0.0, "end": 2.5, "text": "Quay four."}]}
SPOKEN = {"text": "Quay.", "segments": [{"start": 0, "end": 1, "text": "Quay.", "speaker": "A"}]}
SRT = "1\n00:00:00,000 --> 00:00:02,500\nQuay four.\n\n"
BY_PARAM = {
    "error": {
        "message": "not compatible with this model",
        "type": "invalid_request_error",
        "param": "response_format",
        "code": "unsupported_value",
    }
}
BY_WORDS = {"error": {"message": "Currently only support response_format `json`", "code": 400}}
BY_LOCATION = {
    "detail": [
        {"loc": ["body", "response_format"], "msg": "Input should be 'json'", "type": "enum"}
    ]
}


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as up:
        yield up


def asked(upload: Upload | None = None, **members: Any) -> Body:
    sound = upload or Upload.of(b"RIFF", "a.wav", "audio/wav")
    return Body.from_value("TranscribeRequest", members, sound)


def formats(up: FakeUpstream) -> list[str]:
    """What each request asked for."""
    return [one.form_values("response_format")[0] for one in up.requests]


def only(*taken: str, refusal: Any = BY_PARAM, status: int = 400) -> Any:
    """A server that refuses every other format."""

    async def answer(received: Received, responder: Responder) -> None:
        wanted = received.form_values("response_format")[0]
        reply = Json(VERBOSE) if wanted in taken else Json(refusal, status)
        await reply(received, responder)

    return answer


@pytest.mark.parametrize(("format", "start"), [("srt", SRT), ("vtt", "WEBVTT\n\n00:00:00.000")])
async def test_vllm_s_subtitles_are_made_from_its_segments(
    upstream: FakeUpstream, format: str, start: str
) -> None:
    """G33. It is not asked for what it is known not to have."""
    upstream.on("POST", SPEECH, only("verbose_json"))
    async with adapter(upstream, "vllm") as one:
        call = a_call()
        answer = await one.transcribe(asked(response_format=format), call)
    assert answer.document is not None
    assert answer.document.text.startswith(start)
    assert formats(upstream) == ["verbose_json"]


@pytest.mark.parametrize(
    ("refusal", "status"), [(BY_PARAM, 400), (BY_WORDS, 400), (BY_LOCATION, 422)]
)
async def test_a_server_s_refusal_of_subtitles_is_learned_from(
    upstream: FakeUpstream, refusal: Any, status: int
) -> None:
    """G33."""
    upstream.on("POST", SPEECH, only("verbose_json", refusal=refusal, status=status))
    async with adapter(upstream) as one:
        for _ in range(2):
            answer = await one.transcribe(asked(response_format="srt"), a_call())
            assert answer.document is not None
            assert answer.document.text == SRT
    assert formats(upstream) == ["srt", "verbose_json", "verbose_json"]


async def test_a_file_that_can_be_sent_once_meets_the_refusal_and_the_next_is_served(
    upstream: FakeUpstream,
) -> None:
    async def sound() -> AsyncIterator[bytes]:
        yield b"RIFF"

    upstream.on("POST", SPEECH, only("verbose_json"))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamInvalidRequest):
            await one.transcribe(asked(Upload.stream(sound()), response_format="srt"), a_call())
        again = asked(Upload.stream(sound()), response_format="srt")
        answer = await one.transcribe(again, a_call())
    assert answer.document is not None
    assert formats(upstream) == ["srt", "verbose_json"]


@pytest.mark.parametrize("kind", ["vllm", "openai"])
async def test_without_segments_subtitles_are_said_not_to_be_there(
    upstream: FakeUpstream, kind: str
) -> None:
    upstream.on("POST", SPEECH, only("json"))
    async with adapter(upstream, kind) as one:
        with pytest.raises(errors.NotOffered, match="fake gives no srt, and no segments") as caught:
            await one.transcribe(asked(response_format="srt"), a_call())
    assert (caught.value.grpc_code, caught.value.param) == ("UNIMPLEMENTED", "response_format")


async def test_another_refusal_stays_the_upstream_s(upstream: FakeUpstream) -> None:
    refusal = {"error": {"message": "no sound in it", "param": "file", "code": None}}
    upstream.on("POST", SPEECH, Json(refusal, 400))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamInvalidRequest, match="no sound"):
            await one.transcribe(asked(response_format="srt"), a_call())
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("members", "answer", "said"),
    [
        ({"response_format": "srt"}, {"text": "Quay"}, "gives no srt"),
        ({"response_format": "vtt"}, {"text": "Quay"}, "gives no vtt"),
    ],
)
async def test_what_a_server_ignores_is_not_taken_for_an_answer(
    upstream: FakeUpstream, members: dict[str, Any], answer: Any, said: str
) -> None:
    """G33: a success of which no subtitles can be made is UNIMPLEMENTED, with a sentence."""
    upstream.on("POST", SPEECH, Json(answer))
    async with adapter(upstream) as one:
        with pytest.raises(errors.NotOffered, match=said):
            await one.transcribe(asked(**members), a_call())


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({}, {"text": "Quay"}),
        ({"response_format": "json", "timestamp_granularities": ["word"]}, {"text": "Quay"}),
        ({"response_format": "verbose_json"}, {"text": "", "duration": 0.0}),
        ({"response_format": "verbose_json"}, {"text": "Quay"}),
        ({"response_format": "diarized_json"}, VERBOSE),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
            {**VERBOSE, "words": []},
        ),
        ({"response_format": "diarized_json"}, SPOKEN),
        ({"response_format": "diarized_json"}, {"text": "", "segments": []}),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
            {"text": "a", "words": [{"word": "a", "start": 0, "end": 1}]},
        ),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
            {"text": "a", "segments": [{"words": [{"word": "a"}]}]},
        ),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
            {"text": " ", "segments": []},
        ),
    ],
)
async def test_what_has_what_was_asked_for_is_the_answer(
    upstream: FakeUpstream, members: dict[str, Any], answer: Any
) -> None:
    """G33."""
    upstream.on("POST", SPEECH, Json(answer))
    async with adapter(upstream) as one:
        assert (await one.transcribe(asked(**members), a_call())).value() == answer


@pytest.mark.parametrize(
    ("given", "told"),
    [("french", "fr"), ("English", "en"), (" Mandarin ", "zh"), ("fr", "fr"), ("klingon",) * 2],
)
async def test_a_language_s_english_name_reaches_the_upstream_as_its_code(
    upstream: FakeUpstream, given: str, told: str
) -> None:
    """OpenAI refuses names. What is no known name is the upstream's to judge."""
    upstream.on("POST", SPEECH, Json({"text": ""}))
    async with adapter(upstream) as one:
        await one.transcribe(asked(language=given, languages=[given]), a_call())
    assert upstream.requests[0].form_values("language") == [told]
    assert upstream.requests[0].form_values("languages") == [told]
    assert code_of(given) == told


def test_words_and_segments_are_typed_over_grpc() -> None:
    """G33: in their fields, none in `extra`."""
    recorded = recordings.get("transcriptions/openai-verbose-response.json").json()
    message = Body.from_value("TranscribeResponse", recorded).parsed()
    assert [word.word for word in message.words] == [word["word"] for word in recorded["words"]]
    assert message.words[0].end == recorded["words"][0]["end"]
    assert [one.text for one in message.segments] == [one["text"] for one in recorded["segments"]]
    assert message.segments[0].no_speech_prob == recorded["segments"][0]["no_speech_prob"]
    assert list(message.segments[0].tokens) == recorded["segments"][0]["tokens"]
    assert not message.extra.json
    assert not message.segments[0].extra.json
    assert codec.to_json("TranscribeResponse", message)


def test_late_members_add_to_early_ones_and_never_replace_them() -> None:
    early = {"a": 1, "b": ["x"], "c": {"d": 1}}
    late = {"a": 1, "b": ["y"], "c": {"e": 2}, "f": 3, "task": "x"}
    assert joined(early, late, {"task"}) == {"b": ["y"], "c": {"e": 2}, "f": 3}
    for wrong in ({"a": 2}, {"b": 1}, {"c": {"d": 2}}, {"model": "m"}, {"stream": "x"}):
        with pytest.raises(errors.InvalidRequest):
            joined(early, wrong, ())
