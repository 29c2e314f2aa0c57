"""The fake upstream's replies send what they say: statuses, bodies, streams, recordings, delays."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.fakes.upstream import (
    Delayed,
    DelayedUntil,
    Echo,
    FakeUpstream,
    Json,
    Raw,
    Received,
    Record,
    Sequence,
    Sse,
)
from tests.lib import recordings
from tests.unit.raw_client import RawClient, get, plain_client, request

pytestmark = [
    pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"]),
    pytest.mark.timeout(20),
]


async def test_a_reply_has_the_status_headers_and_bytes_that_it_names(
    upstream: FakeUpstream,
) -> None:
    upstream.on("GET", "/json", Json({"é": 1}, 529, {"retry-after": "3"}))
    upstream.on("GET", "/text", Raw(b"\x00\xff", "application/x-odd", 418))
    upstream.on("GET", "/none", Raw(status=204))
    answer = await get(upstream, "/json")
    assert (answer.status_code, answer.headers["retry-after"]) == (529, "3")
    assert answer.content == '{"é":1}'.encode()
    answer = await get(upstream, "/text")
    assert (answer.status_code, answer.content) == (418, b"\x00\xff")
    assert answer.headers["content-type"] == "application/x-odd"
    answer = await get(upstream, "/none")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers


async def test_a_head_request_gets_no_body(upstream: FakeUpstream) -> None:
    upstream.on("HEAD", "/", Json({"n": 1}))
    async with RawClient(upstream) as client:
        await client.send(request("HEAD", "/", headers={"connection": "close"}))
        answer = await client.rest()
    assert b"content-length: 7\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
async def test_a_recorded_stream_arrives_byte_for_byte(
    upstream: FakeUpstream, framing: str
) -> None:
    recording = recordings.get("chat/llamacpp-ping-timings-stream.sse")
    upstream.on("GET", "/", Record(recording.file, framing=framing))
    answer = await get(upstream)
    assert answer.content == recording.bytes
    assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("chunking", "sizes"), [(None, [9, 10]), (4, [4, 4, 4, 4, 3]), ([1, 10], [1, 9, 9])]
)
async def test_a_stream_is_cut_where_it_was_told(
    upstream: FakeUpstream, chunking: Any, sizes: list[int]
) -> None:
    upstream.on("GET", "/", Sse(b"data: 1\n\ndata: 22\n\n", chunking=chunking))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        assert [len(chunk) for chunk in (await client.answer()).chunks] == sizes


async def test_items_become_events(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", Sse([{"a": 1}, "plain", b": comment\n\n"]))
    upstream.on("GET", "/open", Sse([{"a": 1}], done=False))
    answer = await get(upstream)
    assert answer.text == 'data: {"a":1}\n\ndata: plain\n\n: comment\n\ndata: [DONE]\n\n'
    assert (await get(upstream, "/open")).text == 'data: {"a":1}\n\n'


async def test_a_delay_stands_between_events(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", Sse(["1", "2", "3"], delay=0.02, done=False))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        answer = await client.answer()
    gaps = [late - early for early, late in itertools.pairwise(answer.times)]
    assert len(gaps) == 2
    assert min(gaps) > 0.01


async def test_an_endless_stream_ends_with_its_reader(upstream: FakeUpstream) -> None:
    taken = itertools.count()
    upstream.on("GET", "/", Sse(({"n": n} for n in taken), delay=0.001))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        await client.until(b'{"n":3}')
        received = await upstream.received()
    await asyncio.wait_for(received.disconnected.wait(), 0.1)
    await upstream.until(lambda: upstream.connections.open == 0)
    assert next(taken) < 100


async def test_a_slow_reader_holds_the_sender_back() -> None:
    async with FakeUpstream(send_buffer=8192) as up:
        up.on("GET", "/", Sse(itertools.repeat("x" * 1000)))
        async with RawClient(up, receive_buffer=8192) as client:
            await client.send(request("GET", "/"))
            received = await up.received()
            await client.until(b"xxx")
            stalled = await _unchanging(received)
            assert stalled < 1_000_000
            await client.exactly(2 * stalled)
            assert received.sent > stalled


async def _unchanging(received: Received) -> int:
    """The count of sent bytes, once it has stood still for 50 ms."""
    sent = -1
    while received.sent != sent:
        sent = received.sent
        await asyncio.sleep(0.05)
    return sent


@pytest.mark.parametrize(
    "recording",
    [one for one in recordings.all() if one.direction != "request"],
    ids=lambda recording: recording.file,
)
async def test_every_recorded_answer_is_replayed(
    upstream: FakeUpstream, recording: recordings.Recording
) -> None:
    upstream.on("GET", "/", Record(recording.file))
    answer = await get(upstream)
    assert answer.status_code == recording.http_status
    if recording.mode == "text":
        assert (answer.headers["content-type"], answer.text) == recording.text_body()
    else:
        assert answer.content == recording.bytes


async def test_a_recorded_request_is_no_answer() -> None:
    with pytest.raises(ValueError, match="is a request"):
        Record("chat/openai-minimal-request.json")


async def test_a_sequence_goes_on_to_its_last_reply(upstream: FakeUpstream) -> None:
    replies = Sequence([Json({}, 500), Sequence([Json({}, 429)]), Json({})])
    upstream.on("GET", "/", replies)
    statuses = [(await get(upstream)).status_code for _ in range(4)]
    assert statuses == [500, 429, 200, 200]
    assert replies.taken == 4


async def test_echo_tells_what_it_received(upstream: FakeUpstream) -> None:
    upstream.on("*", "/", Echo())
    async with plain_client() as client:
        for content, member in (
            (b'{"a":1}', ("body", {"a": 1})),
            (b"plain", ("text", "plain")),
            (b"\xff", ("base64", "/w==")),
        ):
            told = (await client.put(upstream.url + "/?q", content=content)).json()
            assert (told["method"], told["path"], told["query"]) == ("PUT", "/", "q")
            assert told[member[0]] == member[1]
            assert told["headers"]["content-length"] == str(len(content))


async def test_a_delayed_answer_waits_for_its_event(upstream: FakeUpstream) -> None:
    event = asyncio.Event()
    upstream.on("GET", "/", DelayedUntil(event, Delayed(Json({"late": True}), 0.01)))
    call = asyncio.create_task(get(upstream))
    received = await upstream.received()
    await received.complete.wait()
    assert not received.answered.is_set()
    event.set()
    assert (await call).json() == {"late": True}
