"""Silent streams and slow readers: headers held back, comments as signs of life, stalls."""

from __future__ import annotations

import asyncio

from services import errors
from services.body import Body
from services.call import Call
from tests.unit.rest_server import (
    CHAT,
    Batches,
    Streaming,
    chunk,
    raw_stream,
    serving,
    until,
    whole_stream,
)


async def test_headers_wait_for_the_first_chunk() -> None:
    """No status is spent before it is known to be good."""
    go = asyncio.Event()

    async def stream(request: Body, call: Call) -> Batches:
        await go.wait()
        yield [chunk("a")]

    async with serving({CHAT: Streaming(stream)}) as rest:
        raw = await raw_stream(rest)
        await until(lambda: rest.life.in_flight)
        await asyncio.sleep(0.05)
        assert not raw.reader._buffer  # type: ignore[attr-defined]
        go.set()
        assert (await raw.head())[0] == 200
        await raw.close()


async def test_silence_before_the_first_chunk_ends_with_a_comment_and_comments_go_on() -> None:
    """G25."""
    go = asyncio.Event()

    async def stream(request: Body, call: Call) -> Batches:
        await go.wait()
        yield [chunk("a")]

    async with serving(
        {CHAT: Streaming(stream)}, heartbeat_first=0.05, heartbeat_every=0.03
    ) as rest:
        raw = await raw_stream(rest)
        status, headers = await raw.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert [await raw.chunk() for _ in range(3)] == [b": keep-alive\n\n"] * 3
        go.set()
        rest_of_it = b""
        while data := await raw.chunk():
            rest_of_it += data
        await raw.close()
    assert rest_of_it.replace(b": keep-alive\n\n", b"") == b'data: {"id":"a"}\n\ndata: [DONE]\n\n'


async def test_silence_between_chunks_is_broken_by_comments() -> None:
    """G25."""
    go = asyncio.Event()

    async def stream(request: Body, call: Call) -> Batches:
        yield [chunk("a")]
        await go.wait()
        yield [chunk("b")]

    async with serving(
        {CHAT: Streaming(stream)}, heartbeat_first=30.0, heartbeat_every=0.03
    ) as rest:
        raw = await raw_stream(rest)
        await raw.head()
        assert await raw.chunk() == b'data: {"id":"a"}\n\n'
        assert await raw.chunk() == b": keep-alive\n\n"
        go.set()
        await raw.close()


async def test_a_lively_stream_has_no_comments() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        for number in range(20):
            await asyncio.sleep(0.01)
            yield [chunk(str(number))]

    async with serving({CHAT: Streaming(stream)}, heartbeat_first=0.1, heartbeat_every=0.1) as rest:
        assert b"keep-alive" not in (await whole_stream(rest)).content


async def test_a_failure_after_the_first_comment_is_the_last_event() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        await asyncio.sleep(0.1)
        if call.face == "rest":
            raise errors.UpstreamUnavailable
        yield []

    async with serving({CHAT: Streaming(stream)}, heartbeat_first=0.02) as rest:
        answer = await whole_stream(rest)
    assert answer.status_code == 200
    assert answer.content.startswith(b': keep-alive\n\ndata: {"error":')
    assert b"[DONE]" not in answer.content


async def test_a_caller_that_no_longer_reads_is_given_up() -> None:
    closed = asyncio.Event()
    data = "x" * 65536

    async def stream(request: Body, call: Call) -> Batches:
        try:
            while True:
                yield [chunk(data)]
        finally:
            closed.set()

    async with serving(
        {CHAT: Streaming(stream)}, stall=0.1, heartbeat_first=0.05, heartbeat_every=0.05
    ) as rest:
        raw = await raw_stream(rest)
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            await closed.wait()
        await until(lambda: not rest.life.in_flight)
        raw.reset()


async def test_a_slow_reader_slows_the_service_and_loses_nothing() -> None:
    made = 0
    data = "x" * 65536

    async def stream(request: Body, call: Call) -> Batches:
        nonlocal made
        for _ in range(300):
            made += 1
            yield [chunk(data)]

    async with serving({CHAT: Streaming(stream)}) as rest:
        raw = await raw_stream(rest)
        await raw.head()
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: made > 10)
        await asyncio.sleep(0.1)
        assert made < 300, "what is not read must not pile up"
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        count = 0
        while await raw.chunk():
            count += 1
        await raw.close()
    assert count == 301
