"""Every time limit strikes by its own name and closes the upstream's socket (G21)."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from services import errors
from services.body import Body
from services.upload import Upload
from services.upstream import Timeouts, response
from tests.fakes.upstream import (
    Delayed,
    FakeUpstream,
    HoldBody,
    Json,
    Raw,
    Record,
    Reply,
    Sse,
    Stall,
)
from tests.lib.adapters import a_call, adapter, all_of, chat, sse, transport, until_error

pytestmark = pytest.mark.usefixtures("via")

LONG = Timeouts(connect=20.0, first_byte=20.0, idle=20.0)
SHORT = 0.15
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """No test here waits for a long limit: the one that is to strike is the short one."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 10


def at(which: str) -> Timeouts:
    """Limits of which one is short."""
    return replace(LONG, **{which: SHORT})


def assert_struck(error: BaseException, which: str, *, reached: bool) -> None:
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.which == which
    assert error.metadata == {"which": which, "seconds": "0.15"}
    assert error.reached is reached


async def test_connect_strikes_when_nobody_accepts() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/x"
        async with transport() as one:
            with pytest.raises(errors.DeadlineExceeded) as raised:
                async with one.request("POST", url, {}, b"", at("connect")):
                    pass
        for other in others:
            other.close()
    assert_struck(raised.value, "connect", reached=False)


@pytest.mark.parametrize("after", [0, 20])
async def test_first_byte_strikes_before_the_headers_are_complete(
    upstream: FakeUpstream, after: int
) -> None:
    upstream.on("POST", CHAT, Stall("headers", Record("chat/openai-text-response.json"), after))
    async with adapter(upstream, timeouts=at("first_byte")) as one:
        with pytest.raises(errors.DeadlineExceeded) as raised:
            await one.chat(chat(), a_call())
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)
    assert_struck(raised.value, "first_byte", reached=True)


async def test_headers_that_trickle_do_not_move_first_byte(upstream: FakeUpstream) -> None:
    async def reply(received: object, responder: object) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 1000:
            await responder.raw(bytes([byte]))  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)

    upstream.on("POST", CHAT, reply)
    async with adapter(upstream, timeouts=at("first_byte")) as one:
        with pytest.raises(errors.DeadlineExceeded) as raised:
            await one.chat(chat(), a_call())
    assert_struck(raised.value, "first_byte", reached=True)


@pytest.mark.parametrize("stage", ["first_byte", "mid"])
async def test_idle_strikes_in_a_whole_answer(upstream: FakeUpstream, stage: str) -> None:
    inner = Record("chat/openai-text-response.json")
    upstream.on("POST", CHAT, Stall(stage, inner, 30 if stage == "mid" else 0))  # type: ignore[arg-type]
    async with adapter(upstream, timeouts=at("idle")) as one:
        with pytest.raises(errors.DeadlineExceeded) as raised:
            await one.chat(chat(), a_call())
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)
    assert_struck(raised.value, "idle", reached=True)


@pytest.mark.parametrize("stage", ["first_byte", "mid"])
async def test_idle_strikes_in_a_stream(upstream: FakeUpstream, stage: str) -> None:
    inner = Sse(sse("chat/openai-usage-stream.sse"))
    upstream.on("POST", CHAT, Stall(stage, inner, 600 if stage == "mid" else 0))  # type: ignore[arg-type]
    async with adapter(upstream, timeouts=at("idle")) as one:
        delivered, error = await until_error(one.stream_chat(chat(), a_call()))
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)
    assert bool(delivered) is (stage == "mid")
    assert_struck(error, "idle", reached=True)


async def test_idle_strikes_when_the_upstream_takes_no_more_of_the_body() -> None:
    going_on = asyncio.Event()
    async with FakeUpstream(receive_buffer=4096) as up:
        up.on("POST", "/v1/audio/transcriptions", HoldBody(Json({"text": ""}), going_on, after=1))
        sound = Upload.of(bytes(8_000_000), "a.wav", "audio/wav")
        async with adapter(up, timeouts=at("idle")) as one:
            with pytest.raises(errors.DeadlineExceeded) as raised:
                await one.transcribe(Body.from_value("TranscribeRequest", {}, sound), a_call())
        going_on.set()
    assert_struck(raised.value, "idle", reached=True)


PACED = Sse(sse("chat/openai-usage-stream.sse"), delay=SHORT / 3)
COMMENTS = Sse([b": ping\n\n"] * 8 + [sse("chat/openai-usage-stream.sse")], SHORT / 3, done=False)


@pytest.mark.parametrize("reply", [PACED, COMMENTS], ids=["chunks", "comments"])
async def test_idle_does_not_strike_while_something_comes(
    upstream: FakeUpstream, reply: Reply
) -> None:
    upstream.on("POST", CHAT, reply)
    async with adapter(upstream, timeouts=at("idle")) as one:
        assert await all_of(one.stream_chat(chat(), a_call()))


async def test_a_reader_that_takes_its_time_is_not_idle(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Sse(sse("chat/openai-usage-stream.sse"), chunking=200))
    async with adapter(upstream, timeouts=at("idle")) as one:
        batches = 0
        async for _ in one.stream_chat(chat(), a_call()):
            batches += 1
            await asyncio.sleep(SHORT * 1.5 if batches == 1 else 0)
    assert batches


async def test_audio_that_comes_slowly_is_not_idle(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/v1/audio/transcriptions", Json({"text": "yes"}))

    async def sound() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"RIFF"
            await asyncio.sleep(SHORT)

    timeouts = replace(LONG, first_byte=SHORT * 2, idle=SHORT)
    async with adapter(upstream, timeouts=timeouts) as one:
        request = Body.from_value("TranscribeRequest", {}, Upload.stream(sound()))
        assert (await one.transcribe(request, a_call())).get("text") == "yes"


async def test_the_limits_of_one_phase_do_not_reach_into_another(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Delayed(Record("chat/openai-text-response.json"), SHORT * 1.5))
    timeouts = replace(LONG, idle=SHORT, connect=SHORT)
    async with adapter(upstream, timeouts=timeouts) as one:
        assert (await one.chat(chat(), a_call())).get("choices")


@pytest.mark.parametrize("body", [b"", b"{"])
async def test_an_error_status_whose_body_never_comes_is_still_told_at_once(
    upstream: FakeUpstream, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response, "_EXCERPT_SECONDS", SHORT)
    inner = Raw(b'{"error": {"message": "no"}}', status=429)
    upstream.on("POST", CHAT, Stall("mid" if body else "first_byte", inner, len(body)))
    async with adapter(upstream, timeouts=LONG) as one:
        with pytest.raises(errors.UpstreamRateLimited):
            await one.chat(chat(), a_call())


async def test_a_callers_deadline_is_named(upstream: FakeUpstream) -> None:
    upstream.on("POST", CHAT, Stall("headers"))
    async with adapter(upstream, timeouts=LONG) as one:
        call = a_call()
        call.deadline = asyncio.get_running_loop().time() + SHORT
        with pytest.raises(errors.DeadlineExceeded) as raised, call.limit(30.0, "total"):
            await one.chat(chat(), call)
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)
    assert raised.value.which == "deadline"
