"""The fake upstream really misbehaves as it says: byte for byte, seen from a raw socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from tests.fakes.upstream import (
    CloseConnection,
    Cut,
    DelayedUntil,
    EarlyAnswer,
    EchoBody,
    FakeUpstream,
    HoldBody,
    Json,
    Raw,
    Received,
    Record,
    Reply,
    Responder,
    Sse,
    Stall,
    WrongLength,
)
from tests.lib import recordings
from tests.unit.raw_client import RawClient, request

pytestmark = [
    pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"]),
    pytest.mark.timeout(20),
]

STREAM = recordings.get("chat/openai-usage-stream.sse").bytes
PROMPT = 0.1


async def leave(client: RawClient, how: str) -> float:
    """Ends the client's side; returns when it did so."""
    at = time.monotonic()
    if how == "rst":
        client.reset()
    else:
        await client.close()
    return at


async def assert_noticed(received: Received, left_at: float) -> None:
    """G5: the end is noticed within 100 ms."""
    await asyncio.wait_for(received.disconnected.wait(), PROMPT)
    assert received.disconnected_at is not None
    assert 0 <= received.disconnected_at - left_at < PROMPT
    assert not received.answered.is_set()


# Where, the reply, whether a head comes, and what is seen of it or of the body.
STALLS: list[tuple[str, Callable[[], Reply], bool, bytes]] = [
    ("before the headers", lambda: Stall("headers"), False, b""),
    ("in the headers", lambda: Stall("headers", after=20), False, b"HTTP/1.1 200 OK\r\ncon"),
    ("before the first byte", lambda: Stall("first_byte"), True, b""),
    ("in the body", lambda: Stall("mid", after=100), True, STREAM[:100]),
    ("in a body with a length", lambda: Stall("mid", Raw(b"0123456"), after=4), True, b"0123"),
    ("before an event", lambda: DelayedUntil(asyncio.Event(), Json({})), False, b""),
]


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(("where", "reply", "head", "seen"), STALLS, ids=[c[0] for c in STALLS])
async def test_a_stalled_answer_stays_silent_and_notices_the_end(
    upstream: FakeUpstream,
    where: str,
    reply: Callable[[], Reply],
    head: bool,
    seen: bytes,
    how: str,
) -> None:
    upstream.on("POST", "/", reply())
    async with RawClient(upstream) as client:
        await client.send(request("POST", "/", b"{}"))
        if head:
            assert await client.body(await client.head(), len(seen)) == seen
        else:
            assert await client.exactly(len(seen)) == seen
        assert await client.silence(), where
        received = upstream.requests[0]
        assert not received.disconnected.is_set()
        await assert_noticed(received, await leave(client, how))


@pytest.mark.parametrize("stage", ["headers", "first_byte", "mid"])
async def test_a_stalled_answer_goes_on_when_it_may(upstream: FakeUpstream, stage: str) -> None:
    until = asyncio.Event()
    upstream.on("GET", "/", Stall(stage, Sse(STREAM), after=7, until=until))  # type: ignore[arg-type]
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        await upstream.received()
        until.set()
        assert (await client.answer()).body == STREAM
    assert upstream.requests[0].answered.is_set()


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_end_is_noticed_in_the_middle_of_an_upload(
    upstream: FakeUpstream, how: str
) -> None:
    upstream.on("POST", "/", Json({}))
    async with RawClient(upstream) as client:
        await client.send(request("POST", "/", headers={"content-length": "100"}) + b"x" * 10)
        received = await upstream.received()
        await upstream.until(lambda: received.body_size == 10)
        await assert_noticed(received, await leave(client, how))


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_end_is_noticed_behind_unread_bytes(upstream: FakeUpstream, how: str) -> None:
    upstream.on("POST", "/", HoldBody(Json({}), asyncio.Event(), after=10))
    async with RawClient(upstream) as client:
        await client.send(request("POST", "/", headers={"content-length": "100000"}))
        received = await upstream.received()
        await client.send(b"x" * 5000)
        await upstream.until(lambda: received.body_size >= 10)
        await client.send(b"x" * 5000)
        await assert_noticed(received, await leave(client, how))


async def test_the_end_is_noticed_between_events(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", Sse(STREAM, delay=0.03))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        await client.until(b"\n\n")
        received = upstream.requests[0]
        await assert_noticed(received, await leave(client, "fin"))
    assert 0 < received.sent < len(STREAM)


async def test_a_request_whose_sender_left_at_once_is_noted(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", Stall())
    async with RawClient(upstream) as client:
        await client.send(request("POST", "/", b"{}"))
        await client.close()
        received = await upstream.received()
        await asyncio.wait_for(received.disconnected.wait(), PROMPT)


async def test_an_end_after_the_answer_is_no_disconnect(upstream: FakeUpstream) -> None:
    big = b"x" * 3_000_000
    upstream.on("GET", "/", Raw(big))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        assert (await client.answer()).body == big
    await upstream.until(lambda: upstream.connections.open == 0)
    assert not upstream.requests[0].disconnected.is_set()
    assert upstream.requests[0].answered.is_set()


async def test_a_dynamic_reply_is_cancelled_when_its_peer_leaves(upstream: FakeUpstream) -> None:
    ended = asyncio.Event()

    async def reply(received: Received, responder: Responder) -> None:
        try:
            await responder.start()
            await responder.until_disconnected()
        finally:
            ended.set()

    upstream.on("GET", "/", reply)
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        await client.head()
    await asyncio.wait_for(ended.wait(), PROMPT)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_stream_is_cut_after_every_byte(upstream: FakeUpstream, how: str) -> None:
    """G1: the fault that the gateway's own test is built on."""
    stream = recordings.get("chat/openai-truncated-stream.sse").bytes
    for after in range(len(stream) + 1):
        upstream.on("GET", "/", Cut(Sse(stream), after, how))  # type: ignore[arg-type]
        async with RawClient(upstream) as client:
            await client.send(request("GET", "/"))
            await client.head()
            seen = bytearray()
            ended = await _read_chunks(client, seen)
            assert bytes(seen) == stream[:after]
            assert ended == how


async def _read_chunks(client: RawClient, into: bytearray) -> str:
    """The bytes of the body; "fin" or "rst" as the connection ended, "end" for the last chunk."""
    try:
        while size := int((await client.until(b"\r\n"))[:-2], 16):
            for _ in range(size):
                into += await client.exactly(1)
            await client.exactly(2)
    except asyncio.IncompleteReadError:
        return "fin"
    except ConnectionResetError:
        return "rst"
    return "end"


async def test_what_was_sent_before_a_reset_reaches_a_slow_reader() -> None:
    loop = asyncio.get_running_loop()
    async with FakeUpstream(send_buffer=65536) as up:
        up.on("GET", "/", Cut(Raw(b"x" * 300_000), 200_000, "rst"))
        # A bare socket: asyncio's reader forgets what it holds when a reset comes.
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            client.setblocking(False)
            await loop.sock_connect(client, (up.host, up.port))
            await loop.sock_sendall(client, request("GET", "/"))
            seen = b""
            while len(seen.partition(b"\r\n\r\n")[2]) < 200_000:
                seen += await loop.sock_recv(client, 5000)
                await asyncio.sleep(0.002)
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(client, 5000)


@pytest.mark.parametrize("after", [0, 1, 15, 17, 60])
async def test_an_answer_is_cut_in_its_head(upstream: FakeUpstream, after: int) -> None:
    upstream.on("GET", "/", Cut(Json({"n": 1}), after, of="wire"))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        seen = await client.rest()
    assert len(seen) == after
    assert b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7".startswith(
        seen
    )


@pytest.mark.parametrize("after", [0, 3, 7])
async def test_an_answer_with_a_length_is_cut_in_its_body(
    upstream: FakeUpstream, after: int
) -> None:
    upstream.on("GET", "/", Cut(Json({"n": 1}), after))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        answer = await client.head()
        assert answer.headers["content-length"] == "7"
        assert await client.rest() == b'{"n":1}'[:after]
    assert not upstream.requests[0].disconnected.is_set()


async def test_a_cut_that_is_never_reached_fails_the_test() -> None:
    async with FakeUpstream() as up, RawClient(up) as client:
        up.on("GET", "/", Cut(Json({"n": 1}), 8))
        await client.send(request("GET", "/"))
        await client.answer()
        await up.until(lambda: bool(up.failures))
        assert "ended before body byte 8" in str(up.failures.pop())


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_connection_is_closed_without_an_answer(upstream: FakeUpstream, how: str) -> None:
    upstream.on("POST", "/", CloseConnection(how))  # type: ignore[arg-type]
    async with RawClient(upstream) as client:
        await client.send(request("POST", "/", b"{}"))
        if how == "rst":
            with pytest.raises(ConnectionResetError):
                await client.rest()
        else:
            assert await client.rest() == b""
    assert upstream.requests[0].body == b"{}"


async def test_a_length_that_is_too_large_ends_in_a_close(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", WrongLength(b'{"n":1}', +10))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        assert (await client.head()).headers["content-length"] == "17"
        assert await client.rest() == b'{"n":1}'


async def test_a_length_that_is_too_small_leaves_bytes_in_the_way(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", WrongLength(b'{"n":1}', -3))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        assert (await client.answer()).body == b'{"n"'
        await client.send(request("GET", "/"))
        assert await client.until(b"HTTP/1.1") == b":1}HTTP/1.1"


def _upload(size: int) -> bytes:
    return request("POST", "/", headers={"content-length": str(size)})


async def test_an_early_answer_comes_before_the_body(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", EarlyAnswer(Json({"early": 1}, 413)))
    async with RawClient(upstream) as client:
        await client.send(_upload(4))
        assert (await client.answer()).status == 413
        assert not upstream.requests[0].complete.is_set()
        await client.send(b"body" + request("GET", "/nothing"))
        assert (await client.answer()).status == 404
    assert upstream.requests[0].body == b"body"
    assert upstream.connections.total == 1


async def test_an_early_answer_needs_no_continue(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", EarlyAnswer(Json({}, 401), then="close"))
    async with RawClient(upstream) as client:
        head = {"expect": "100-continue", "content-length": "4"}
        await client.send(request("POST", "/", headers=head))
        assert (await client.head()).status == 401


async def test_an_early_answer_may_close_over_unread_bytes() -> None:
    async with FakeUpstream(receive_buffer=4096) as up, RawClient(up) as client:
        up.on("POST", "/", EarlyAnswer(Json({}, 413), then="close"))
        await client.send(_upload(10_000_000))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        with pytest.raises(ConnectionError):
            await client.send(b"x" * 10_000_000)
        assert up.requests[0].body_size == 0


async def test_an_early_answer_may_ignore_the_body() -> None:
    async with FakeUpstream(receive_buffer=4096) as up, RawClient(up) as client:
        up.on("POST", "/", EarlyAnswer(Json({}), then="ignore"))
        await client.send(_upload(10_000_000))
        sending = asyncio.create_task(client.send(b"x" * 10_000_000))
        assert (await client.answer()).status == 200
        assert await client.silence()
        assert not sending.done()
        assert up.requests[0].body_size == 0
        assert up.connections.open == 1
        client.reset()
        await asyncio.gather(sending, return_exceptions=True)
        await up.until(lambda: up.connections.open == 0)
        assert not up.requests[0].disconnected.is_set()


async def test_a_held_body_fills_the_senders_window() -> None:
    """G34: the back-pressure that an upload must pass on."""
    size, until = 8_000_000, asyncio.Event()
    async with FakeUpstream(receive_buffer=8192) as up, RawClient(up) as client:
        up.on("POST", "/", HoldBody(EchoBody(), until, after=1000))
        await client.send(_upload(size))
        sending = asyncio.create_task(client.send(b"x" * size))
        received = await up.received()
        await up.until(lambda: received.body_size >= 1000)
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert received.body_size < 200_000
        until.set()
        await sending
        answer = await client.answer()
        assert (len(answer.body), received.body_size) == (size, size)


async def test_a_recorded_truncated_stream_ends_in_order_all_the_same(
    upstream: FakeUpstream,
) -> None:
    """G1: truncation that no framing shows, only the missing finish."""
    upstream.on("GET", "/", Record("chat/openai-truncated-stream.sse"))
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        answer = await client.answer()
    assert answer.body == recordings.get("chat/openai-truncated-stream.sse").bytes


async def test_raw_bytes_go_out_as_they_are(upstream: FakeUpstream) -> None:
    async def reply(received: Received, responder: Responder) -> None:
        await responder.raw(b"ICY 200 OK\r\n\r\nnoise")
        await responder.close()

    upstream.on("GET", "/", reply)
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/"))
        assert await client.rest() == b"ICY 200 OK\r\n\r\nnoise"
