"""The HTTP transport over real sockets: what goes out, what comes back, what is kept."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from services import errors
from services.upstream import Timeouts, Transport
from services.upstream.exchange import Answer
from tests.fakes.upstream import (
    CloseConnection,
    Cut,
    EarlyAnswer,
    Echo,
    FakeUpstream,
    Json,
    Raw,
    Sequence,
    Sse,
    Stall,
    WrongLength,
)
from tests.fakes.wire import How
from tests.lib.adapters import KEY, a_call, transport

pytestmark = pytest.mark.usefixtures("via")

TIMEOUTS = Timeouts(connect=5.0, first_byte=5.0, idle=5.0)


async def post(one: Transport, up: FakeUpstream) -> Answer:
    """One POST, read to its end."""
    async with one.request("POST", up.url + "/x", {}, b"{}", TIMEOUTS) as response:
        return await Answer.of(response)


async def test_a_request_arrives_as_it_was_given(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/a/b", Json({"ok": True}))
    async with transport() as one:
        headers = {"content-type": "application/json", "x-request-id": "mine"}
        call = a_call(traceparent="00-1-2-01", x_request_id="the-callers")
        async with one.request(
            "POST", upstream.url + "/a/b?q=1", headers, b'{"a":1}', TIMEOUTS, call
        ) as response:
            assert response.status == 200
            assert response.media_type == "application/json"
            assert await response.read() == b'{"ok":true}'
    received = upstream.requests[0]
    assert (received.path, received.query, received.body) == ("/a/b", "q=1", b'{"a":1}')
    assert received.headers["traceparent"] == "00-1-2-01"
    assert received.headers["x-request-id"] == "mine"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["content-length"] == "7"


async def test_names_of_answer_headers_are_lower_case(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Json({}, headers={"X-Compute-Tokens": "7"}))
    async with transport() as one:
        assert (await post(one, upstream)).headers["x-compute-tokens"] == "7"


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 429, 500, 503])
async def test_every_status_is_an_answer(upstream: FakeUpstream, status: int) -> None:
    upstream.on("POST", "/x", Raw(b"" if status == 204 else b"told", "text/plain", status))
    async with (
        transport() as one,
        one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response,
    ):
        assert response.status == status
        assert await response.excerpt() == (b"" if status == 204 else b"told")


async def test_a_connection_is_used_again(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Json({}))
    async with transport() as one:
        for _ in range(3):
            await post(one, upstream)
    assert upstream.connections.total == 1


async def test_an_answer_that_was_not_read_to_its_end_costs_its_connection(
    upstream: FakeUpstream,
) -> None:
    upstream.on("POST", "/x", Stall("mid", Raw(b"x" * 100), after=10))
    async with transport() as one:
        async with one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response:
            assert await anext(response.chunks()) == b"x" * 10
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)


async def test_a_released_answer_keeps_its_connection_if_its_end_follows(
    upstream: FakeUpstream,
) -> None:
    upstream.on("POST", "/x", Sse(["one", "two"], delay=0.02))
    async with transport() as one:
        for _ in range(2):
            async with one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response:
                await anext(response.chunks())
                response.release()
            await asyncio.wait_for(upstream.requests[-1].answered.wait(), 2)
            await one.settle()
    assert upstream.connections.total == 1


async def test_a_released_answer_that_does_not_end_is_closed(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Stall("mid", Raw(b"x" * 100), after=10))
    async with transport() as one:
        async with one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response:
            await anext(response.chunks())
            response.release(0.05)
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 2)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_released_answer_that_has_broken_off_keeps_nobody_waiting(
    upstream: FakeUpstream, how: How
) -> None:
    upstream.on("POST", "/x", Cut(Raw(b"x" * 100), 10, how))
    async with transport() as one:
        async with one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response:
            await anext(response.chunks())
            await upstream.until(lambda: upstream.connections.open == 0)
            await asyncio.sleep(0.05)
            response.release()
        await asyncio.wait_for(one.settle(), 2)
    assert upstream.connections.open == 0


async def test_metadata_that_http_cannot_hold_is_left_out(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Json({}))
    call = a_call(tracestate="a=\u00e9", baggage="a\r\nb: c", traceparent="00-1-2-01")
    async with (
        transport() as one,
        one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS, call) as response,
    ):
        assert response.status == 200
    assert {"tracestate", "baggage", "b"}.isdisjoint(upstream.requests[0].headers)
    assert upstream.requests[0].headers["traceparent"] == "00-1-2-01"


async def test_a_kept_connection_that_the_server_closed_is_not_used(
    upstream: FakeUpstream,
) -> None:
    upstream.on("POST", "/x", Json({}))
    async with transport() as one:
        await post(one, upstream)
        await upstream.drop(only_idle=True)
        await post(one, upstream)
    assert len(upstream.requests) == 2
    assert upstream.connections.total == 2


@pytest.mark.parametrize("then", ["read", "close"])
async def test_an_answer_that_comes_before_the_body_was_sent_is_taken(
    upstream: FakeUpstream, then: Literal["read", "close"]
) -> None:
    upstream.on("POST", "/x", EarlyAnswer(Json({"error": "too large"}, 413), then))
    async with (
        transport() as one,
        one.request("POST", upstream.url + "/x", {}, bytes(100_000), TIMEOUTS) as response,
    ):
        assert response.status == 413


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_kept_connection_that_died_is_replaced(upstream: FakeUpstream, how: How) -> None:
    upstream.on("POST", "/x", Sequence([Json({}), CloseConnection(how), Json({"again": 1})]))
    async with transport() as one:
        await post(one, upstream)
        assert (await post(one, upstream)).body == b'{"again":1}'
    assert len(upstream.requests) == 3
    assert upstream.connections.total == 2


async def test_a_new_connection_that_dies_is_not_tried_again(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", CloseConnection("rst"))
    async with transport() as one:
        with pytest.raises(errors.UpstreamUnavailable) as raised:
            await post(one, upstream)
    assert raised.value.reached
    assert len(upstream.requests) == 1


async def test_a_body_that_can_be_read_once_is_not_sent_twice(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Sequence([Json({}), CloseConnection()]))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"once"

    async with transport() as one:
        await post(one, upstream)
        with pytest.raises(errors.UpstreamUnavailable):
            async with one.request("POST", upstream.url + "/x", {}, pieces(), TIMEOUTS):
                pass
    assert len(upstream.requests) == 2


async def test_a_body_in_pieces_is_sent_as_it_comes(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Echo())
    first = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first,"
        await first.wait()
        yield b"second"

    async with transport() as one:

        async def send() -> bytes:
            async with one.request("POST", upstream.url + "/x", {}, pieces(), TIMEOUTS) as answer:
                return await answer.read()

        sending = asyncio.create_task(send())
        received = await upstream.received()
        await upstream.until(lambda: received.body_size >= 6)
        first.set()
        assert b"first,second" in await sending
    assert received.headers["transfer-encoding"] == "chunked"


async def test_what_a_body_raises_comes_out_as_it_is(upstream: FakeUpstream) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise errors.RequestTooLarge("too much")

    async with transport() as one:
        with pytest.raises(errors.RequestTooLarge):
            async with one.request("POST", upstream.url + "/x", {}, pieces(), TIMEOUTS):
                pass
        await asyncio.wait_for((await upstream.received()).disconnected.wait(), 2)


async def test_a_body_that_cancels_itself_is_a_fault_of_ours(upstream: FakeUpstream) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise asyncio.CancelledError

    async with transport() as one:
        with pytest.raises(errors.Internal):
            async with one.request("POST", upstream.url + "/x", {}, pieces(), TIMEOUTS):
                pass


async def test_a_refused_connection_is_unavailable_and_reached_nobody() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/x"
        async with transport() as one:
            with pytest.raises(errors.UpstreamUnavailable, match="Connection refused") as raised:
                async with one.request("POST", url, {}, b"", TIMEOUTS, endpoint="fake"):
                    pass
    assert not raised.value.reached
    assert raised.value.__cause__ is None
    assert raised.value.message.startswith("fake cannot be reached")


async def test_a_host_without_address_is_unavailable() -> None:
    async with transport() as one:
        with pytest.raises(errors.UpstreamUnavailable) as raised:
            async with one.request("GET", "http://host.invalid/x", {}, b"", TIMEOUTS):
                pass
    assert not raised.value.reached


async def test_a_header_that_http_cannot_hold_is_a_fault_of_ours(upstream: FakeUpstream) -> None:
    async with transport() as one:
        with pytest.raises(errors.Internal) as raised:
            async with one.request("GET", upstream.url, {"x": f"{KEY}\r\nb: c"}, b"", TIMEOUTS):
                pass
    assert upstream.requests == []
    assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("answer", [b"hello, this is no HTTP\r\n\r\n", b"\x16\x03\x01\x00\x00\r\n"])
async def test_an_answer_that_is_no_http_is_a_protocol_error(
    upstream: FakeUpstream, answer: bytes
) -> None:
    async def reply(received: object, responder: object) -> None:
        await responder.raw(answer)  # type: ignore[attr-defined]

    upstream.on("POST", "/x", reply)
    async with transport() as one:
        with pytest.raises(errors.UpstreamProtocol):
            await post(one, upstream)


async def test_wrong_chunk_framing_is_a_protocol_error(upstream: FakeUpstream) -> None:
    async def reply(received: object, responder: object) -> None:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        await responder.raw(head + b"5\r\nhello\r\nzz\r\n")  # type: ignore[attr-defined]

    upstream.on("POST", "/x", reply)
    async with transport() as one:
        with pytest.raises(errors.UpstreamProtocol):
            await post(one, upstream)


async def test_a_short_body_is_truncated(upstream: FakeUpstream) -> None:
    """G2."""
    upstream.on("POST", "/x", WrongLength(b'{"a":1}', by=5))
    async with transport() as one:
        with pytest.raises(errors.UpstreamTruncated) as raised:
            await post(one, upstream)
    assert raised.value.reached


async def test_a_compressed_answer_is_not_taken(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Raw(b"\x1f\x8b", headers={"content-encoding": "gzip"}))
    async with transport() as one:
        with pytest.raises(errors.UpstreamProtocol, match="gzip"):
            await post(one, upstream)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_answer_beyond_the_limit_is_refused(upstream: FakeUpstream, framing: str) -> None:
    upstream.on("POST", "/x", Raw(b"x" * 1001, framing=framing))  # type: ignore[arg-type]
    async with (
        transport() as one,
        one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response,
    ):
        with pytest.raises(errors.UpstreamProtocol, match="1000 bytes"):
            await response.read(limit=1000)


async def test_an_error_body_that_breaks_off_is_still_told(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", WrongLength(b'{"error":"no"}', by=9, status=400))
    async with (
        transport() as one,
        one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response,
    ):
        assert (response.status, await response.excerpt()) == (400, b'{"error":"no"}')


async def test_a_long_error_body_is_cut(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Raw(b"x" * 300_000, status=500))
    async with (
        transport() as one,
        one.request("POST", upstream.url + "/x", {}, b"", TIMEOUTS) as response,
    ):
        assert await response.excerpt() == b"x" * 65536


async def test_no_key_is_logged(upstream: FakeUpstream, caplog: pytest.LogCaptureFixture) -> None:
    upstream.on("POST", "/x", Json({}))
    with caplog.at_level(logging.DEBUG):
        async with transport() as one:
            headers = {"authorization": f"Bearer {KEY}"}
            async with one.request("POST", upstream.url + "/x", headers, b"", TIMEOUTS) as response:
                await response.read()
    assert KEY not in caplog.text


async def test_many_requests_at_once_have_a_connection_each(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/x", Json({}))
    async with transport() as one:
        await asyncio.gather(*(post(one, upstream) for _ in range(50)))
        assert upstream.connections.peak <= 50
    await upstream.until(lambda: upstream.connections.open == 0)
