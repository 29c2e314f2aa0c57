"""Our own HTTP client over real sockets: where it does better than httpx, and its pool."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services import errors
from services.upstream import Timeouts, Transport, pool
from services.upstream.connection import HOLD
from services.upstream.exchange import Answer
from tests.fakes.upstream import (
    Delayed,
    EarlyAnswer,
    EchoBody,
    FakeUpstream,
    Json,
    Raw,
    Reply,
    Sse,
    Stall,
    WrongLength,
)
from tests.fakes.wire import How
from tests.lib import tls
from tests.lib.adapters import a_call, transport

TIMEOUTS = Timeouts(connect=5.0, first_byte=5.0, idle=5.0)
BIG = 8_000_000


@pytest.fixture
async def one() -> AsyncIterator[Transport]:
    """A transport, closed at the end."""
    async with transport() as made:
        yield made


async def post(
    one: Transport, up: FakeUpstream, body: Any = b"{}", method: str = "POST", **headers: str
) -> Answer:
    """One request, read to its end."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with one.request(method, up.url + "/x", told, body, TIMEOUTS) as response:
        return await Answer.of(response)


def raw(*parts: bytes, then: How | None = None, pause: float = 0.0) -> Reply:
    """A reply of these bytes, in as many writes."""

    async def reply(received: Any, responder: Any) -> None:
        for part in parts:
            await responder.raw(part)
            await asyncio.sleep(pause)
        if then is None:
            await responder.until_disconnected()
        await responder.close(then)

    return reply


async def in_pieces(size: int, piece: int = 50_000) -> AsyncIterator[bytes]:
    """A body of that size."""
    for _ in range(size // piece):
        yield bytes(piece)


# --- answers that come early ---------------------------------------------------------------------


@pytest.mark.parametrize("then", ["read", "close", "ignore"])
@pytest.mark.parametrize("kind", ["bytes", "pieces", "pieces of a known length"])
async def test_a_refusal_of_a_large_upload_is_told_and_not_a_reset(
    one: Transport, then: Any, kind: str
) -> None:
    """However the server goes on: it reads the rest, closes over it, or leaves it lying."""
    async with FakeUpstream(receive_buffer=4096, keep_bodies=False) as up:
        up.on("POST", "/x", EarlyAnswer(Json({"error": "too large"}, 413), then))
        for _ in range(5):
            headers = {"content-length": str(BIG)} if "known" in kind else {}
            body = bytes(BIG) if kind == "bytes" else in_pieces(BIG)
            async with one.request("POST", up.url + "/x", headers, body, TIMEOUTS) as response:
                assert response.status == 413
                assert await response.excerpt() == b'{"error":"too large"}'
        await one.settle()
        await up.until(lambda: up.connections.open == 0)


async def test_a_refusal_while_the_source_says_nothing_is_told_at_once(
    one: Transport, upstream: FakeUpstream
) -> None:
    """Live audio: the source may be silent for minutes, and is told that nobody listens."""
    told = asyncio.Event()

    async def sound() -> AsyncIterator[bytes]:
        try:
            yield b"RIFF"
            await asyncio.Event().wait()
        finally:
            told.set()

    upstream.on("POST", "/x", EarlyAnswer(Json({}, 503), "ignore"))
    async with one.request("POST", upstream.url + "/x", {}, sound(), TIMEOUTS) as response:
        assert response.status == 503
        await asyncio.wait_for(told.wait(), 1)
    await upstream.until(lambda: upstream.connections.open == 0)


async def test_a_success_that_begins_early_takes_the_rest_of_the_body(
    one: Transport, upstream: FakeUpstream
) -> None:
    """A server may answer while it listens."""
    begun = asyncio.Event()

    async def sound() -> AsyncIterator[bytes]:
        yield b"first,"
        await begun.wait()
        yield b"second"

    class Live:
        early = True

        async def __call__(self, received: Any, responder: Any) -> None:
            await responder.start(200)
            await responder.write(b"begun:")
            await responder.read_body()
            await responder.write(received.body)

    upstream.on("POST", "/x", Live())
    for _ in range(2):
        async with one.request("POST", upstream.url + "/x", {}, sound(), TIMEOUTS) as response:
            assert await anext(response.chunks()) == b"begun:"
            begun.set()
            assert await response.read() == b"first,second"
        begun.clear()
    assert upstream.connections.total == 2  # what can be sent only once has a connection anew


# --- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [True, False])
async def test_a_large_body_in_pieces_arrives_as_it_was(
    one: Transport, upstream: FakeUpstream, length: bool
) -> None:
    """G34: the source is asked only as fast as the upstream reads."""
    upstream.on("POST", "/x", EchoBody())
    pieces = [bytes([n]) * (n * 777) for n in range(100)]

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    whole = b"".join(pieces)
    headers = {"content_length": str(len(whole))} if length else {}
    assert (await post(one, upstream, body(), **headers)).body == whole
    assert ("content-length" in upstream.requests[0].headers) is length


async def test_a_source_is_not_read_faster_than_the_upstream_takes(one: Transport) -> None:
    """G34."""
    given = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield bytes(50_000)

    async with FakeUpstream(receive_buffer=4096) as up:
        up.on("POST", "/x", EarlyAnswer(Stall("headers")))
        sending = asyncio.ensure_future(post(one, up, body()))
        await up.received()
        seen = -1
        while seen != given:
            seen = given
            await asyncio.sleep(0.1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert given < 400


@pytest.mark.parametrize("size", [5, 7])
async def test_a_body_of_another_length_than_announced_is_a_fault_of_ours(
    one: Transport, upstream: FakeUpstream, size: int
) -> None:
    upstream.on("POST", "/x", EchoBody())

    async def body() -> AsyncIterator[bytes]:
        yield bytes(size)

    with pytest.raises(errors.Internal):
        await post(one, upstream, body(), content_length="6")
    received = await upstream.received()
    await asyncio.wait_for(received.disconnected.wait(), 1)
    assert not received.complete.is_set()


async def test_an_empty_body_is_announced_where_one_is_expected(
    one: Transport, upstream: FakeUpstream
) -> None:
    upstream.on("*", "/x", Json({}))
    await post(one, upstream, b"")
    await post(one, upstream, b"", "GET")
    assert upstream.requests[0].headers["content-length"] == "0"
    assert "content-length" not in upstream.requests[1].headers


# --- answers -------------------------------------------------------------------------------------

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


async def test_interim_answers_are_passed_over(one: Transport, upstream: FakeUpstream) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    upstream.on("POST", "/x", raw(interim, HELLO, pause=0.01))
    assert (await post(one, upstream)).body == b"hello"


async def test_an_answer_to_head_is_its_head(one: Transport, upstream: FakeUpstream) -> None:
    upstream.on("HEAD", "/x", Raw(b"x" * 100))
    answer = await post(one, upstream, b"", "HEAD")
    assert (answer.body, answer.headers["content-length"]) == (b"", "100")


async def test_a_switch_of_protocols_is_refused(one: Transport, upstream: FakeUpstream) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    upstream.on("POST", "/x", raw(head))
    with pytest.raises(errors.UpstreamProtocol):
        await post(one, upstream)
    await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 1)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_may_end_with_its_connection(
    one: Transport, upstream: FakeUpstream, version: bytes
) -> None:
    upstream.on("POST", "/x", raw(b"HTTP/%b 200 OK\r\n\r\nhel" % version, b"lo", then="fin"))
    answer = await post(one, upstream)
    assert (answer.body, answer.delimited) == (b"hello", False)
    await one.settle()
    assert upstream.connections.open == 0


async def test_rubbish_never_hangs_and_raises_errors_of_ours_only(
    one: Transport, upstream: FakeUpstream
) -> None:
    made = random.Random(7)  # noqa: S311
    starts = [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]
    for turn in range(150):
        rubbish = made.choice(starts) + made.randbytes(made.randrange(200))
        upstream.on("POST", "/x", raw(rubbish, then=made.choice(["fin", "rst"])))
        async with asyncio.timeout(5):
            try:
                await post(one, upstream)
            except errors.TetradError as error:
                assert error.reached, turn  # noqa: PT017
    await one.settle()
    await upstream.until(lambda: upstream.connections.open == 0)


async def test_a_slow_reader_holds_the_upstream_back(one: Transport) -> None:
    """S4: what lies in between is bounded, and all of it comes in the end."""
    size = 30_000_000
    async with FakeUpstream(send_buffer=65536) as up:
        up.on("POST", "/x", Sse(bytes(size), framing="length", chunking=65536))
        async with one.request("POST", up.url + "/x", {}, b"", TIMEOUTS) as response:
            chunks = response.chunks()
            got = len(await anext(chunks))
            before = -1
            while before != up.requests[0].sent:
                before = up.requests[0].sent
                await asyncio.sleep(0.1)
            assert before < size
            async for chunk in chunks:
                assert len(chunk) <= HOLD + 256 * 1024
                got += len(chunk)
    assert got == size


async def test_headers_are_read_while_others_wait(one: Transport, upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Delayed(Json({}), 0.05))
    began = time.monotonic()
    await asyncio.gather(*(post(one, upstream) for _ in range(50)))
    assert time.monotonic() - began < 2


# --- what the call is told -----------------------------------------------------------------------


@pytest.mark.parametrize("via", ["own", "httpx"])
@pytest.mark.parametrize("stage", ["headers", "mid"])
async def test_a_call_is_told_when_it_was_left_and_when_that_was_done(
    upstream: FakeUpstream, stage: Any, via: str
) -> None:
    """G5."""
    upstream.on("POST", "/x", Stall(stage, Raw(b"x" * 100), after=0 if stage == "headers" else 10))
    call = a_call()
    async with transport() as one:

        async def read() -> None:
            async with one.request(
                "POST", upstream.url + "/x", {}, b"", TIMEOUTS, call, via=via
            ) as response:
                await response.read()

        task = asyncio.create_task(read())
        await upstream.received()
        await asyncio.sleep(0.05)
        assert call.cancel_delay is None
        left = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    assert call.left_at is not None
    assert call.closed_at is not None
    assert left <= call.left_at <= call.closed_at < left + 0.1
    assert 0.05 <= call.upstream_seconds < 1


@pytest.mark.parametrize("via", ["own", "httpx"])
async def test_a_call_that_went_well_was_not_left(upstream: FakeUpstream, via: str) -> None:
    upstream.on("POST", "/x", Delayed(Json({}), 0.05))
    call = a_call()
    async with (
        transport() as one,
        one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS, call, via=via) as response,
    ):
        await response.read()
    assert (call.left_at, call.closed_at) == (None, None)
    assert 0.05 <= call.upstream_seconds < 1


# --- the pool ------------------------------------------------------------------------------------


async def test_the_connection_that_was_used_last_is_used_first(
    one: Transport, upstream: FakeUpstream
) -> None:
    upstream.on("POST", "/x", Delayed(Json({}), 0.02))
    await asyncio.gather(*(post(one, upstream) for _ in range(5)))
    upstream.forget()
    for _ in range(3):
        await post(one, upstream)
    assert upstream.connections.total == 5
    assert len({received.connection for received in upstream.requests}) == 1


async def test_idle_connections_are_closed_by_us(
    one: Transport, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "KEEP_ALIVE", 0.1)
    upstream.on("POST", "/x", Delayed(Json({}), 0.02))
    await asyncio.gather(*(post(one, upstream) for _ in range(5)))
    assert upstream.connections.open == 5
    await upstream.until(lambda: upstream.connections.open == 0, within=2)
    assert upstream.connections.closed_by_peer == 5


async def test_an_old_connection_is_not_used_again(
    one: Transport, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that moved to another address is followed."""
    monkeypatch.setattr(pool, "MAX_AGE", 0.05)
    upstream.on("POST", "/x", Json({}))
    await post(one, upstream)
    await asyncio.sleep(0.06)
    await post(one, upstream)
    assert upstream.connections.total == 1
    await post(one, upstream)
    assert upstream.connections.total == 2


async def test_a_connection_with_bytes_of_no_answer_is_not_used_again(
    one: Transport, upstream: FakeUpstream
) -> None:
    """Else the next caller would get them."""
    upstream.on("POST", "/x", WrongLength(b'{"a":1}}}', by=-2))
    for _ in range(2):
        assert (await post(one, upstream)).body == b'{"a":1}'
        await one.settle()
    assert upstream.connections.total == 2


async def test_a_connection_on_which_something_comes_unasked_is_closed(
    one: Transport, upstream: FakeUpstream
) -> None:
    late = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"
    upstream.on("POST", "/x", raw(HELLO, late, pause=0.05))
    await post(one, upstream)
    await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 1)


async def test_an_answer_that_says_close_costs_its_connection(
    one: Transport, upstream: FakeUpstream
) -> None:
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
    upstream.on("POST", "/x", raw(head))
    await post(one, upstream)
    await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 1)


async def test_a_complete_answer_that_nobody_read_keeps_its_connection(
    one: Transport, upstream: FakeUpstream
) -> None:
    upstream.on("POST", "/x", Json({}, 500))
    for _ in range(3):
        async with one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response:
            assert response.status == 500
    assert upstream.connections.total == 1


async def test_a_released_answer_that_goes_on_for_long_is_closed(
    one: Transport, upstream: FakeUpstream
) -> None:
    upstream.on("POST", "/x", Sse(iter(lambda: "x" * 5000, None), delay=0.001))
    async with one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response:
        await anext(response.chunks())
        response.release(5.0)
    await asyncio.wait_for(one.settle(), 2)
    await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 1)


async def test_a_server_that_dies_late_is_not_asked_again(
    one: Transport, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G19: the request itself may be what killed it."""
    monkeypatch.setattr("services.upstream.own_transport.STALE_WITHIN", 0.05)
    upstream.on("POST", "/x", Json({}))
    await post(one, upstream)
    upstream.on("POST", "/x", Delayed(raw(then="fin"), 0.1))
    with pytest.raises(errors.UpstreamUnavailable):
        await post(one, upstream)
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("stage", ["headers", "mid"])
async def test_a_transport_that_is_closed_keeps_nobody_waiting(
    one: Transport, upstream: FakeUpstream, stage: Any
) -> None:
    upstream.on("POST", "/x", Stall(stage, Raw(b"x" * 100), after=0 if stage == "headers" else 10))
    task = asyncio.create_task(post(one, upstream))
    received = await upstream.received()
    await upstream.until(lambda: stage == "headers" or received.sent == 10)
    await asyncio.sleep(0.02)
    await one.aclose()
    async with asyncio.timeout(1):
        with pytest.raises((errors.UpstreamUnavailable, errors.UpstreamTruncated)):
            await task
    await upstream.until(lambda: upstream.connections.open == 0)


# --- TLS -----------------------------------------------------------------------------------------


async def test_requests_go_over_tls_and_keep_their_connection() -> None:
    async with FakeUpstream(tls=tls.server_context()) as up:
        up.on("POST", "/x", EchoBody())
        one = Transport(verify=tls.client_context())
        try:
            for size in (10, 300_000, 10):
                assert (await post(one, up, bytes(size))).body == bytes(size)
            assert up.connections.total == 1
        finally:
            await one.aclose()


async def test_a_large_upload_over_tls_is_sent_within_its_limits() -> None:
    """The time for a write begins anew whenever something gets through."""
    async with FakeUpstream(tls=tls.server_context(), keep_bodies=False) as up:
        up.on("POST", "/x", Json({}))
        one = Transport(verify=tls.client_context())
        try:
            assert (await post(one, up, bytes(BIG))).body == b"{}"
            assert (await post(one, up, in_pieces(BIG))).body == b"{}"
            assert [received.body_size for received in up.requests] == [BIG, BIG]
        finally:
            await one.aclose()


@pytest.mark.parametrize("via", ["own", "httpx"])
async def test_a_certificate_that_is_not_trusted_is_told(via: str) -> None:
    async with FakeUpstream(tls=tls.server_context()) as up, transport() as one:
        with pytest.raises(errors.UpstreamUnavailable, match="certificate") as raised:
            async with one.request("POST", up.url, {}, b"", TIMEOUTS, via=via):
                pass
        assert not raised.value.reached


@pytest.mark.parametrize("via", ["own", "httpx"])
async def test_a_server_without_tls_is_told(upstream: FakeUpstream, via: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.setblocking(False)

        async def answer() -> None:
            loop = asyncio.get_running_loop()
            taken, _ = await loop.sock_accept(plain)
            with taken:
                await loop.sock_recv(taken, 1000)
                await loop.sock_sendall(taken, b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = asyncio.create_task(answer())
        url = f"https://127.0.0.1:{plain.getsockname()[1]}/"
        async with transport() as one:
            with pytest.raises(errors.UpstreamUnavailable, match="TLS failed"):
                async with one.request("POST", url, {}, b"", TIMEOUTS, via=via):
                    pass
        await answering


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_an_answer_that_is_cut_under_tls_is_truncated(how: How) -> None:
    """G2."""
    async with FakeUpstream(tls=tls.server_context()) as up:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"
        up.on("POST", "/x", raw(head, then=how, pause=0.02))
        one = Transport(verify=tls.client_context())
        try:
            with pytest.raises(errors.UpstreamTruncated):
                await post(one, up)
        finally:
            await one.aclose()


@pytest.mark.parametrize("stage", ["headers", "mid"])
async def test_a_cancel_under_tls_closes_the_connection(stage: Any) -> None:
    """G5."""
    async with FakeUpstream(tls=tls.server_context()) as up:
        up.on("POST", "/x", Stall(stage, Raw(b"x" * 100), after=0 if stage == "headers" else 10))
        one = Transport(verify=tls.client_context())
        try:
            task = asyncio.create_task(post(one, up))
            received = await up.received()
            await asyncio.sleep(0.05)
            at = time.monotonic()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.wait_for(received.disconnected.wait(), 1)
            assert received.disconnected_at is not None
            assert received.disconnected_at - at < 0.1
        finally:
            await one.aclose()
