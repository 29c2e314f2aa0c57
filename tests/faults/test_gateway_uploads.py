"""Large files are passed on while they arrive: G34, and what may go wrong in the middle."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI

from gateway_http import protocol
from services import errors
from services.routing.attempts import verdict
from tests.fakes.upstream import (
    CloseConnection,
    EarlyAnswer,
    FakeUpstream,
    HoldBody,
    Json,
    Raw,
    Sse,
)
from tests.lib.rig import Rig, rig, still
from tests.lib.uploads import END, FILE_HEAD, FILE_TAIL, PIECE, Caller, caller, field

SPEECH = "/v1/audio/transcriptions"
MODEL = field("model", "speech")
SOUND = bytes(range(256)) * (PIECE // 256)
QUAY = {"text": "Quay four."}
REFUSAL = {"error": {"message": "too much sound", "type": "x", "param": None, "code": None}}
MIB = 1024 * 1024


def parts(received: Any) -> list[tuple[str, bytes]]:
    return [(part.name, part.data) for part in received.form()]


async def test_a_file_behind_the_model_reaches_the_upstream_while_it_arrives() -> None:
    """G34."""
    async with rig() as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, field("prompt", "Quay"), FILE_HEAD, *[SOUND] * 4)
            received = await one.up.received()
            await one.up.until(lambda: received.body_size > 3 * PIECE)
            assert not received.complete.is_set()
            await client.end(SOUND, FILE_TAIL, END)
            assert await client.json() == (200, QUAY)
        assert parts(received) == [("model", b"m"), ("prompt", b"Quay"), ("file", SOUND * 5)]
        await one.at_rest()


async def test_a_file_before_the_model_waits_on_the_disk_for_it() -> None:
    """G34: where it goes is not known before."""
    async with rig() as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(FILE_HEAD, *[SOUND] * 8, FILE_TAIL)
            await client.send(field("language", "fr"))
            assert one.up.requests == []
            await client.end(MODEL, END)
            assert await client.json() == (200, QUAY)
        (received,) = one.up.requests
        assert int(received.headers["content-length"]) == received.body_size
        assert dict(parts(received))["file"] == SOUND * 8
        assert dict(parts(received))["language"] == b"fr"


async def test_fields_behind_a_file_follow_it_to_the_upstream() -> None:
    """G33: none is lost, and they count as if they had come before."""
    async with rig() as one:
        one.up.on("POST", SPEECH, Raw(b"1\nquay", "application/octet-stream"))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, field("include[]", "a"), FILE_HEAD, *[SOUND] * 4, FILE_TAIL)
            await client.end(
                field("language", "French"),
                field("include[]", "b"),
                field("response_format", "srt"),
                field("x[y]", "z"),
                MODEL,
                END,
            )
            status, headers, body = await client.answer()
        assert (status, body) == (200, b"1\nquay")
        assert headers["content-type"].startswith("application/x-subrip")
        assert [(name, data) for name, data in parts(one.up.requests[0]) if name != "file"] == [
            ("model", b"m"),
            ("include[]", b"a"),
            ("language", b"fr"),
            ("include[]", b"b"),
            ("response_format", b"srt"),
            ("x[y]", b"z"),
        ]


@pytest.mark.parametrize(
    ("late", "param"),
    [
        (field("model", "other"), "model"),
        (field("language", "de"), "language"),
        (field("task", "translate"), "task"),
        (field("stream", "maybe"), "stream"),
        (FILE_HEAD + FILE_TAIL, "file"),
    ],
)
async def test_what_cannot_be_decided_any_more_is_refused(late: bytes, param: str) -> None:
    async with rig() as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, field("language", "fr"), FILE_HEAD, *[SOUND] * 4, FILE_TAIL)
            received = await one.up.received()
            await client.end(late, END)
            status, body = await client.json()
        assert (status, body["error"]["param"]) == (400, param)
        await asyncio.wait_for(received.disconnected.wait(), 5)
        assert not received.complete.is_set()
        assert (await one.record()).usage.outcome == "INVALID_ARGUMENT"
        assert one.routes[0].breaker.allows()
        await one.at_rest()


async def test_a_stream_asked_for_behind_the_file_is_the_one_last_event() -> None:
    async with rig() as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD, *[SOUND] * 4, FILE_TAIL)
            await client.end(field("stream", "true"), END)
            status, headers, body = await client.answer()
        assert status == 200
        assert headers["content-type"].startswith("text/event-stream")
        assert json.loads(body.removeprefix(b"data: ").split(b"\n")[0]) == {
            "type": "transcript.text.done",
            **QUAY,
        }


async def test_a_stream_asked_for_before_the_file_is_one() -> None:
    events = [
        {"type": "transcript.text.delta", "delta": "Quay"},
        {"type": "transcript.text.done", "text": "Quay four."},
    ]
    async with rig() as one:
        one.up.on("POST", SPEECH, Sse(events, done=False))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, field("stream", "true"), FILE_HEAD, *[SOUND] * 4)
            received = await one.up.received()
            await one.up.until(lambda: received.body_size > 3 * PIECE)
            await client.end(FILE_TAIL, END)
            async with asyncio.timeout(10):
                said = await client.reader.readuntil(b"0\r\n\r\n")
        assert said.count(b"\ndata: ") == 2
        assert b"Quay four." in said


async def test_the_official_sdk_s_large_files_are_passed_on() -> None:
    """It sends its fields before the file."""
    async with rig() as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with AsyncOpenAI(base_url=f"{one.gate.url}/v1", api_key="k") as client:
            answer = await client.audio.transcriptions.create(
                model="speech", file=("a.wav", SOUND * 8, "audio/wav"), language="en"
            )
        assert answer.text == "Quay four."
        (received,) = one.up.requests
        assert received.headers["transfer-encoding"] == "chunked"
        assert dict(parts(received)) == {"model": b"m", "language": b"en", "file": SOUND * 8}


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_caller_who_leaves_in_the_middle_ends_the_upstream_s_request(how: str) -> None:
    """G5, G34."""
    async with rig() as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD, *[SOUND] * 4)
            received = await one.up.received()
            await one.up.until(lambda: received.body_size > 3 * PIECE)
            client.leave(how)
            await _ended_within_a_second(one, received)


async def test_a_caller_whom_nobody_reads_is_seen_to_leave() -> None:
    """G5, G34: the upstream takes nothing, so that the gateway takes nothing either."""
    never = asyncio.Event()
    async with rig(buffers={"receive_buffer": 4096}) as one:
        one.up.on("POST", SPEECH, HoldBody(Json(QUAY), never, 1000))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD)
            sending = asyncio.create_task(client.send(*[SOUND] * 400))
            received = await one.up.received()
            await still(lambda: client.sent)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            client.leave("reset")
            await _left_within_a_second(one)
        never.set()
        await one.at_rest()
        assert not received.complete.is_set()


async def _left_within_a_second(one: Rig) -> None:
    left = time.monotonic()
    record = await one.record()
    assert time.monotonic() - left < 1
    assert record.usage.outcome == "CANCELLED"
    assert record.cancel_delay is not None
    assert record.cancel_delay < 0.1


async def _ended_within_a_second(one: Rig, received: Any) -> None:
    await _left_within_a_second(one)
    await asyncio.wait_for(received.disconnected.wait(), 1)
    assert not received.complete.is_set()
    await one.at_rest()


async def test_an_upstream_that_takes_nothing_holds_back_the_caller() -> None:
    """G34: what is under way is bounded, and all of it arrives in the end."""
    go_on = asyncio.Event()
    async with rig(buffers={"receive_buffer": 4096}) as one:
        one.up.on("POST", SPEECH, HoldBody(Json(QUAY), go_on, 1000))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD)
            sending = asyncio.create_task(client.end(*[SOUND] * 256, FILE_TAIL, END))
            await one.up.received()
            assert await still(lambda: client.sent) < 32 * MIB
            go_on.set()
            await asyncio.wait_for(sending, 20)
            assert await client.json(20) == (200, QUAY)
        assert one.up.requests[0].body_size > 64 * MIB


@pytest.mark.parametrize("then", ["read", "close"])
async def test_an_upstream_s_early_refusal_is_told_at_once(then: Any) -> None:
    """The rest of the body is read and thrown away, and the connection goes on."""
    async with rig() as one:
        one.up.on("POST", SPEECH, EarlyAnswer(Json(REFUSAL, 413), then))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD, *[SOUND] * 4)
            status, body = await client.json()
            assert (status, body["error"]["message"]) == (413, "too much sound")
            assert (await one.record()).usage.outcome == "INVALID_ARGUMENT"
            await client.end(*[SOUND] * 40, FILE_TAIL, END)
            one.up.on("POST", SPEECH, Json(QUAY))
            await client.begin()
            await client.end(MODEL, FILE_HEAD, b"RIFF", FILE_TAIL, END)
            assert await client.json() == (200, QUAY)


async def test_an_upstream_that_dies_in_the_middle_is_told_at_once_and_not_replaced() -> None:
    """What it has got is gone: no other provider would get the whole file."""
    async with rig() as one:
        one.up.on("POST", SPEECH, HoldBody(Json(QUAY), asyncio.Event(), 3 * PIECE))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD, *[SOUND] * 4)
            received = await one.up.received()
            await one.up.until(lambda: received.body_size >= 3 * PIECE)
            await one.up.drop("rst")
            status, body = await client.json()
        assert (status, body["error"]["code"]) == (503, "upstream_unavailable")
        assert (await one.record()).attempts == 1
        await one.at_rest()


async def test_a_file_that_grows_past_the_limit_is_cut_off() -> None:
    """G34: also when no length was told, and the upstream never takes it for complete."""
    async with rig(limits={"max_upload_bytes": 2 * MIB}) as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD, *[SOUND] * 8)
            status, body = await client.json()
        assert (status, body["error"]["code"]) == (413, "request_too_large")
        received = one.up.requests[0]
        await asyncio.wait_for(received.disconnected.wait(), 5)
        assert not received.complete.is_set()
        assert (await one.record()).usage.outcome == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("expects", [True, False])
async def test_a_length_past_the_limit_is_refused_before_anything_is_sent(expects: bool) -> None:
    """G34: a caller who asks first is not told to go on."""
    async with rig(limits={"max_upload_bytes": MIB}) as one:
        async with caller(one.gate.url) as client:
            more = ("expect: 100-continue",) if expects else ()
            await client.begin(SPEECH, f"content-length: {MIB + 1}", *more)
            status, body = await client.json()
        assert (status, body["error"]["code"]) == (413, "request_too_large")
        assert one.up.requests == []


async def test_a_caller_who_sends_on_after_a_refusal_still_reads_it() -> None:
    """Closing over unread bytes would reset the connection, and the answer with it."""
    async with rig(limits={"max_upload_bytes": MIB}) as one, caller(one.gate.url) as client:
        await client.begin(SPEECH, f"content-length: {64 * MIB}")
        for _ in range(256):
            client.writer.write(SOUND)
            await client.writer.drain()
        status, _ = await client.json()
        assert status == 413
        await client.begin()
        await client.end(field("model", "nobody"), FILE_HEAD, b"RIFF", FILE_TAIL, END)
        assert (await client.json())[0] == 404


def test_a_caller_who_sends_nothing_is_no_fault_of_the_upstream() -> None:
    """G16."""
    assert verdict(errors.DeadlineExceeded("upload")) is None


async def test_a_caller_may_take_his_time_to_send() -> None:
    """G21: neither is the upstream idle meanwhile, nor does the limit of whole answers run."""
    async with rig(timeouts={"idle": 0.3, "total": 0.3}) as one:
        one.up.on("POST", SPEECH, Json(QUAY))
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.send(MODEL, FILE_HEAD, *[SOUND] * 4)
            await one.up.received()
            await still(lambda: one.up.requests[0].body_size, 1.0)
            await client.end(SOUND, FILE_TAIL, END)
            assert await client.json() == (200, QUAY)


@asynccontextmanager
async def two_providers() -> AsyncIterator[tuple[FakeUpstream, FakeUpstream, Rig]]:
    """The first is asked first; the second answers."""
    async with FakeUpstream() as first, FakeUpstream() as second:
        for up in (first, second):
            up.on("GET", "/*", Raw(b"{}", "application/json"))
        second.on("POST", SPEECH, Json(QUAY))
        providers = [
            {"type": "openai", "url": up.url, "model_name": "m", "priority": priority}
            for priority, up in enumerate((first, second))
        ]
        model = {
            "name": "speech",
            "type": "automatic-speech-recognition",
            "default": True,
            "providers": providers,
        }
        async with rig(models=[model], required_types=[]) as one:
            yield first, second, one


@pytest.mark.parametrize(("pieces", "status"), [(1, 200), (4, 503)])
async def test_only_what_is_whole_is_sent_to_another_provider(pieces: int, status: int) -> None:
    """A small file was complete before its call began; of a large one a part is gone."""
    async with two_providers() as (first, second, one):
        first.on("POST", SPEECH, CloseConnection())
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.end(MODEL, FILE_HEAD, *[SOUND] * pieces, FILE_TAIL, END)
            assert (await client.json())[0] == status
        if status == 200:
            assert dict(parts(second.requests[-1]))["file"] == SOUND * pieces
        assert (await one.record()).attempts == (2 if status == 200 else 1)


async def test_a_file_of_which_nothing_was_sent_goes_to_another_provider_whole() -> None:
    async with two_providers() as (first, second, one):
        await first.stop_listening()
        async with caller(one.gate.url) as client:
            await client.begin()
            await client.end(MODEL, FILE_HEAD, *[SOUND] * 8, FILE_TAIL, END)
            assert (await client.json())[0] == 200
        assert dict(parts(second.requests[-1]))["file"] == SOUND * 8
        assert (await one.record()).attempts == 2


async def test_a_caller_who_sends_for_ever_after_a_refusal_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nobody waits for is read for a while, not for ever."""
    monkeypatch.setattr(protocol, "LINGER", 0.3)
    async with rig(limits={"max_upload_bytes": MIB}) as one, caller(one.gate.url) as client:
        await client.begin(SPEECH, f"content-length: {2**40}")
        assert (await client.json())[0] == 413
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_send_for_ever(client), 10)


async def _send_for_ever(client: Caller) -> None:
    while True:
        client.writer.write(SOUND)
        await client.writer.drain()
