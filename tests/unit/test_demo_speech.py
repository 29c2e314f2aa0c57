"""Transcription by the demo, over HTTP: formats, streams, silence, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import demo
from tests.lib.process import Program
from tests.unit.demo_process import CHAT, EAR, connected, error, running, url_of

SAMPLE = (Path(demo.__file__).parent / "sample.wav").read_bytes()
SAID = ["welcome to the demonstration", "we are happy to see you here today"]
OPEN = SAMPLE[:40] + bytes(4) + SAMPLE[44:]  # tells no length, so that more may follow
CLIP = SAMPLE[: 44 + 2 * 16_000 * 5 // 2]  # the first sentence; the length it tells is too large


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with connected(program) as opened:
        yield opened


def transcribe(
    client: httpx.Client, sound: bytes, operation: str = "transcriptions", **fields: Any
) -> httpx.Response:
    form = {"model": EAR} | {name.replace("__", "[]"): value for name, value in fields.items()}
    return client.post(f"/v1/audio/{operation}", data=form, files={"file": ("a.wav", sound)})


def test_the_sample_is_understood_in_every_format(client: httpx.Client) -> None:
    verbose = transcribe(
        client,
        SAMPLE,
        response_format="verbose_json",
        timestamp_granularities__=["word", "segment"],
    ).json()
    understood = verbose["text"].split()
    assert sum(word in understood for word in " ".join(SAID).split()) >= 10
    assert verbose["task"] == "transcribe"
    assert verbose["language"] == "english"
    assert verbose["duration"] == pytest.approx((len(SAMPLE) - 44) / 32_000, abs=0.01)
    assert verbose["usage"]["type"] == "duration"
    words, segments = verbose["words"], verbose["segments"]
    assert [word["word"] for word in words] == understood
    assert " ".join(one["text"].strip() for one in segments) == verbose["text"]
    assert [one["id"] for one in segments] == [0, 1]
    times = [time for one in segments for time in (one["start"], one["end"])]
    assert times == sorted(times)
    assert all(word["start"] < word["end"] <= verbose["duration"] for word in words)


def test_short_formats_say_the_same(client: httpx.Client) -> None:
    told = transcribe(client, CLIP).json()
    text = told["text"]
    assert "welcome" in text
    assert told["usage"] == {"type": "duration", "seconds": 2.5}
    number, times, line, *_ = transcribe(client, CLIP, response_format="srt").text.split("\n")
    assert (number, line) == ("1", text)
    assert times.startswith("00:00:00,")
    head, _, times, line, *_ = transcribe(client, CLIP, response_format="vtt").text.split("\n")
    assert (head, line) == ("WEBVTT", text)
    assert " --> 00:00:0" in times
    translated = transcribe(client, CLIP, "translations", response_format="text")
    assert translated.headers["content-type"] == "text/plain; charset=utf-8"
    assert translated.text == f"{text}\n"


def test_a_transcription_is_streamed(client: httpx.Client) -> None:
    answer = transcribe(client, CLIP, stream="true", language="en-GB")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(block[6:]) for block in answer.text.split("\n\n")[:-1]]
    *deltas, done = told
    assert {one["type"] for one in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 2
    assert done["type"] == "transcript.text.done"
    assert "".join(one["delta"] for one in deltas) == done["text"]
    assert done["usage"]["output_tokens"] == len(deltas)


def test_silence_has_no_words(client: httpx.Client) -> None:
    silence = SAMPLE[:44] + bytes(64_000)
    assert transcribe(client, silence).json()["text"] == ""
    told = transcribe(client, silence, response_format="verbose_json").json()
    assert told["segments"] == []
    assert transcribe(client, silence, response_format="srt").text == ""
    stream = transcribe(client, silence, stream="true").text
    assert json.loads(stream.removeprefix("data: "))["text"] == ""


@pytest.mark.parametrize(
    ("sound", "fields", "param"),
    [
        (b"ID3\x03 no wav", {}, "file"),
        (b"", {}, "file"),
        (CLIP, {"language": "fr"}, "language"),
        (CLIP, {"response_format": "diarized_json"}, "response_format"),
        (CLIP, {"response_format": "srt", "stream": "true"}, "stream"),
        (CLIP, {"stream": "perhaps"}, "stream"),
        (CLIP, {"timestamp_granularities__": "letter"}, "timestamp_granularities"),
        (CLIP, {"model": CHAT}, "model"),
        (CLIP, {"model": ""}, "model"),
    ],
)
def test_a_transcription_that_makes_no_sense_is_refused(
    client: httpx.Client, sound: bytes, fields: dict[str, Any], param: str
) -> None:
    assert error(transcribe(client, sound, **fields), 400)["param"] == param


def test_a_form_that_is_none_is_refused(client: httpx.Client) -> None:
    path = "/v1/audio/transcriptions"
    error(client.post(path, json={"model": EAR}), 400)
    found = error(client.post(path, files={"model": (None, EAR)}), 400)
    assert found["param"] == "file"
    head = {"content-type": "multipart/form-data; boundary=x"}
    for broken in (b"", b"nonsense", b'--x\r\ncontent-disposition: form-data; name="model"\r\n'):
        assert "form" in error(client.post(path, content=broken, headers=head), 400)["message"]


async def test_chats_go_on_while_a_sound_is_decoded(program: Program) -> None:
    async with httpx.AsyncClient(base_url=url_of(program), timeout=30, trust_env=False) as client:
        form: dict[str, Any] = {"data": {"model": EAR}, "files": {"file": ("a.wav", SAMPLE)}}
        listening = asyncio.create_task(client.post("/v1/audio/transcriptions", **form))
        said = {"role": "user", "content": "say hi"}
        body = {"model": CHAT, "messages": [said], "stream": True}
        chats = [client.post("/v1/chat/completions", json=body) for _ in range(5)]
        answers = await asyncio.gather(*chats)
        assert not listening.done()
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
        assert "happy" in (await listening).json()["text"]


async def test_a_listener_that_leaves_makes_room_for_the_next(program: Program) -> None:
    async with httpx.AsyncClient(base_url=url_of(program), timeout=30, trust_env=False) as client:
        sound = OPEN + bytes(32_000)
        form: dict[str, Any] = {"data": {"model": EAR}, "files": {"file": ("a.wav", sound)}}
        leaving = asyncio.create_task(client.post("/v1/audio/transcriptions", **form))
        await program.line("hearing 6.6 s of sound")
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        await program.line(r"transcriptions: the client went away")
        form["files"] = {"file": ("a.wav", CLIP)}
        answer = await client.post("/v1/audio/transcriptions", **form)
        assert answer.json()["text"].startswith("welcome")


async def test_a_recogniser_that_dies_is_started_anew(program: Program) -> None:
    (recogniser,) = set(program.group()) - {program.pid}
    async with httpx.AsyncClient(base_url=url_of(program), timeout=30, trust_env=False) as client:
        sound = OPEN + bytes(64_000)
        form: dict[str, Any] = {"data": {"model": EAR}, "files": {"file": ("a.wav", sound)}}
        asking = asyncio.create_task(client.post("/v1/audio/transcriptions", **form))
        await program.line("hearing 7.6 s of sound")
        os.kill(recogniser, signal.SIGKILL)
        assert error(await asking, 500)["type"] == "server_error"
        form["files"] = {"file": ("a.wav", CLIP)}
        answer = await client.post("/v1/audio/transcriptions", **form)
        assert answer.json()["text"].startswith("welcome")
