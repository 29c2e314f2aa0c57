"""Cancelling closes the upstream's socket, in every phase and for every operation."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from services.body import Body
from services.upload import Upload
from services.upstream import Adapter, Endpoint, Timeouts, Transport, build
from tests.fakes.upstream import EarlyAnswer, FakeUpstream, HoldBody, Json, Reply, Sse, Stall
from tests.lib import adapters
from tests.lib.adapters import a_call, adapter, all_of, chat, sse, transport

pytestmark = pytest.mark.usefixtures("via")

PATIENT = Timeouts(connect=30.0, first_byte=30.0, idle=30.0)
WITHIN = 0.1
"""Seconds; G5."""

EMBED = Body.from_value("EmbedRequest", {"input": "a"})
RERANK = Body.from_value("RerankRequest", {"query": "q", "documents": ["a"]})
SOUND = Body.from_value("TranscribeRequest", {}, Upload.of(b"RIFF" * 100, "a.wav", "audio/wav"))

OPERATIONS: dict[str, tuple[str, Callable[[Adapter], Awaitable[Any]]]] = {
    "chat": ("openai", lambda one: one.chat(chat(), a_call())),
    "stream_chat": ("openai", lambda one: all_of(one.stream_chat(chat(), a_call()))),
    "embed": ("openai", lambda one: one.embed(EMBED, a_call())),
    "tei_embed": ("tei", lambda one: one.embed(EMBED, a_call())),
    "rerank": ("openai", lambda one: one.rerank(RERANK, a_call())),
    "tei_rerank": ("tei", lambda one: one.rerank(RERANK, a_call())),
    "transcribe": ("whisper", lambda one: one.transcribe(SOUND, a_call())),
    "stream_transcribe": (
        "openai",
        lambda one: all_of(one.stream_transcribe(SOUND, a_call())),
    ),
}

LONG = Json({"text": "x" * 1000})
PHASES: dict[str, Reply] = {
    "before the headers": Stall("headers"),
    "inside the headers": Stall("headers", after=10),
    "before the first byte": Stall("first_byte", LONG),
    "in the middle": Stall("mid", LONG, after=100),
}


async def cancelled(task: asyncio.Task[Any]) -> float:
    """Cancels a task and waits for its end; when it was cancelled."""
    at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return at


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_cancelled_call_closes_its_connection(
    upstream: FakeUpstream, operation: str, phase: str
) -> None:
    """G5, G6."""
    kind, run = OPERATIONS[operation]
    upstream.on("POST", "/*", PHASES[phase])
    async with adapter(upstream, kind, timeouts=PATIENT) as one:
        task = asyncio.ensure_future(run(one))
        received = await upstream.received()
        if phase == "in the middle":
            await upstream.until(lambda: received.sent == 100)
        else:
            await asyncio.wait_for(received.complete.wait(), 2)
        await asyncio.sleep(0.01)
        at = await cancelled(task)
        await asyncio.wait_for(received.disconnected.wait(), 2)
    assert received.disconnected_at is not None
    assert received.disconnected_at - at < WITHIN
    await upstream.until(lambda: upstream.connections.open == 0)


async def test_a_call_cancelled_between_two_chunks_closes_its_connection(
    upstream: FakeUpstream,
) -> None:
    """G5."""
    stream = sse("chat/openai-usage-stream.sse")
    upstream.on("POST", "/v1/chat/completions", Stall("mid", Sse(stream), after=len(stream) // 2))
    async with adapter(upstream, timeouts=PATIENT) as one:
        seen = asyncio.Event()

        async def read() -> None:
            async for _ in one.stream_chat(chat(), a_call()):
                seen.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(seen.wait(), 2)
        at = await cancelled(task)
        received = upstream.requests[0]
        await asyncio.wait_for(received.disconnected.wait(), 2)
    assert received.disconnected_at is not None
    assert received.disconnected_at - at < WITHIN


async def test_leaving_a_stream_closes_its_connection(upstream: FakeUpstream) -> None:
    """G5, as a face does it when its client went while it was writing."""
    upstream.on("POST", "/v1/chat/completions", Sse(iter(lambda: {"choices": []}, 1), delay=0.01))
    async with adapter(upstream, timeouts=PATIENT) as one:
        stream = one.stream_chat(chat(), a_call())
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)


async def test_a_stream_read_by_one_task_after_another_is_closed_by_the_last(
    upstream: FakeUpstream,
) -> None:
    """A face that waits for the first event beside a heartbeat reads in tasks of their own."""
    stream = sse("chat/openai-usage-stream.sse")
    upstream.on("POST", "/v1/chat/completions", Stall("mid", Sse(stream), after=len(stream) // 2))
    async with adapter(upstream, timeouts=PATIENT) as one:
        chunks = one.stream_chat(chat(), a_call())
        await asyncio.ensure_future(anext(chunks))
        reading = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0.02)
        while reading.done():
            reading = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0.02)
        await cancelled(reading)
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)


async def test_a_call_cancelled_while_it_connects_leaves_no_socket(upstream: FakeUpstream) -> None:
    """G5. The server's queue of connections is full, so that ours is never accepted."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        others = []
        try:
            for _ in range(4):
                other = socket.socket()
                other.setblocking(False)
                other.connect_ex(where)
                others.append(other)
            async with transport() as one:
                task = asyncio.create_task(_posted(one, f"http://127.0.0.1:{where[1]}/x"))
                await asyncio.sleep(0.1)
                assert not task.done()
                at = await cancelled(task)
                assert time.monotonic() - at < WITHIN
        finally:
            for other in others:
                other.close()


async def _posted(one: Transport, url: str) -> bytes:
    async with one.request("POST", url, {}, b"{}", PATIENT) as response:
        return await response.read()


async def test_a_call_cancelled_while_it_sends_closes_its_connection() -> None:
    """G5. The upstream takes no more of the body: it meets the end behind what it left lying."""
    going_on = asyncio.Event()
    async with FakeUpstream(receive_buffer=4096) as up:
        up.on("POST", "/v1/audio/transcriptions", HoldBody(Json({"text": ""}), going_on, after=1))
        async with adapter(up, timeouts=PATIENT) as one:
            sound = Upload.of(bytes(8_000_000), "a.wav", "audio/wav")
            request = Body.from_value("TranscribeRequest", {}, sound)
            task = asyncio.ensure_future(one.transcribe(request, a_call()))
            received = await up.received()
            await asyncio.sleep(0.05)
            at = await cancelled(task)
            assert time.monotonic() - at < WITHIN
            going_on.set()
            await asyncio.wait_for(received.disconnected.wait(), 2)
            assert not received.complete.is_set()


async def test_a_call_cancelled_while_its_audio_still_comes_closes_its_connection(
    upstream: FakeUpstream,
) -> None:
    """G5, for live audio. The source is told, too."""
    told = asyncio.Event()

    async def sound() -> AsyncIterator[bytes]:
        try:
            yield b"RIFF"
            await asyncio.Event().wait()
        finally:
            told.set()

    upstream.on("POST", "/v1/audio/transcriptions", EarlyAnswer(Stall("headers")))
    async with adapter(upstream, timeouts=PATIENT) as one:
        request = Body.from_value("TranscribeRequest", {}, Upload.stream(sound()))
        task = asyncio.ensure_future(one.transcribe(request, a_call()))
        received = await upstream.received()
        at = await cancelled(task)
        assert told.is_set()
        await asyncio.wait_for(received.disconnected.wait(), 2)
        assert received.disconnected_at is not None
        assert received.disconnected_at - at < WITHIN


@pytest.mark.parametrize("phase", ["headers", "mid"])
async def test_two_cancels_in_a_row_leave_nothing_open(upstream: FakeUpstream, phase: Any) -> None:
    """G7. A deadline and a caller who leaves may come together."""
    upstream.on(
        "POST", "/v1/chat/completions", Stall(phase, LONG, after=0 if phase[0] == "h" else 9)
    )
    async with adapter(upstream, timeouts=PATIENT) as one:
        for pause in (0, 0, 1, 2, 3):
            task = asyncio.ensure_future(one.chat(chat(), a_call()))
            received = await upstream.received(len(upstream.requests) + 1)
            await upstream.until(lambda r=received: phase[0] == "h" or r.sent == 9)  # type: ignore[misc]
            await asyncio.sleep(0.01)
            task.cancel()
            for _ in range(pause):
                await asyncio.sleep(0)
            await cancelled(task)
            await asyncio.wait_for(received.disconnected.wait(), 2)
        await upstream.until(lambda: upstream.connections.open == 0)


async def test_many_cancelled_streams_leave_no_socket_and_no_task(upstream: FakeUpstream) -> None:
    """G7, in small: 300 streams, cancelled at every point."""
    stream = sse("chat/openai-usage-stream.sse")
    upstream.on("POST", "/v1/chat/completions", Sse(stream, delay=0.05))
    async with transport() as wire:
        end = Endpoint("fake", upstream.url, "openai", timeouts=PATIENT, transport=adapters.VIA)
        one = build(end, wire)
        before = len(asyncio.all_tasks())
        for turn in range(10):
            tasks = [
                asyncio.ensure_future(all_of(one.stream_chat(chat(), a_call()))) for _ in range(30)
            ]
            await asyncio.sleep(0.004 * turn)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await upstream.until(lambda: upstream.connections.open == 0)
        await wire.settle()
        assert len(asyncio.all_tasks()) <= before
