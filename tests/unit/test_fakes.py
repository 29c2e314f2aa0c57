"""The fake upstream serves as a strict HTTP/1.1 server does, and tells what it received."""

from __future__ import annotations

import hashlib
import socket
import time

import httpx
import pytest

from tests.fakes.upstream import (
    Echo,
    EchoBody,
    FakeUpstream,
    Json,
    Malformed,
    Received,
    Responder,
)
from tests.lib import form, tls
from tests.unit.raw_client import RawClient, get, plain_client, request

pytestmark = [
    pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"]),
    pytest.mark.timeout(20),
]


async def test_an_unknown_path_is_a_404_in_the_form_of_openai(upstream: FakeUpstream) -> None:
    answer = await get(upstream, "/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_what_was_received_is_told(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/v1/a b", Json({}))
    before = time.monotonic()
    async with plain_client() as client:
        await client.post(
            f"{upstream.url}/v1/a%20b?x=1&y=%2F",
            json={"n": 9007199254740993},
            headers=[("X-Two", "1"), ("x-two", "2"), ("Authorization", "Bearer k")],
        )
    (received,) = upstream.requests
    assert (received.method, received.path, received.query) == ("POST", "/v1/a b", "x=1&y=%2F")
    assert received.headers["authorization"] == "Bearer k"
    assert received.headers["x-two"] == "1, 2"
    assert received.json() == {"n": 9007199254740993}
    assert received.complete_at is not None
    assert received.answered_at is not None
    assert before <= received.arrived_at <= received.complete_at <= received.answered_at
    assert not received.disconnected.is_set()


async def test_a_form_is_read_part_by_part(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", Json({}))
    audio = bytes(range(256)) * 5 + b"\r\n--\r\n"
    async with plain_client() as client:
        await client.post(
            upstream.url,
            data={"model": "é", "timestamp_granularities[]": ["word", "segment"]},
            files={"file": ("quai é.wav", audio, "audio/wav")},
        )
    *fields, file = upstream.requests[0].form()
    assert [(part.name, part.text) for part in fields] == [
        ("model", "é"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ]
    assert file == form.Part("file", audio, "quai é.wav", "audio/wav")
    assert upstream.requests[0].form_values("timestamp_granularities") == ["word", "segment"]


async def test_connections_are_kept_and_counted(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", Json({}))
    async with plain_client() as client:
        for _ in range(3):
            await client.get(upstream.url)
        counts = upstream.connections
        assert (counts.total, counts.open, counts.peak) == (1, 1, 1)
        assert {received.connection for received in upstream.requests} == {1}
    await upstream.until(lambda: counts.open == 0)
    assert (counts.total, counts.closed_by_peer) == (1, 1)


@pytest.mark.parametrize(
    ("version", "header", "kept"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", True)],
)
async def test_the_connection_header_is_honoured(
    upstream: FakeUpstream, version: str, header: str, kept: bool
) -> None:
    upstream.on("GET", "/", Json({"n": 1}))
    headers = {"connection": header} if header else {}
    async with RawClient(upstream) as client:
        await client.send(request("GET", "/", version=version, headers=headers))
        answer = await client.answer()
        assert answer.body == b'{"n":1}'
        assert answer.headers.get("connection") == (
            "close" if not kept else {"1.0": "keep-alive"}.get(version)
        )
        if kept:
            await client.send(request("GET", "/", version=version))
            assert (await client.answer()).body == b'{"n":1}'
        else:
            assert await client.rest() == b""


async def test_pipelined_requests_are_answered_in_order(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", EchoBody())
    async with RawClient(upstream) as client:
        await client.send(request("POST", "/", b"one") + request("POST", "/", b"two"))
        assert [(await client.answer()).body for _ in "12"] == [b"one", b"two"]


async def test_a_chunked_body_is_kept_piece_by_piece_with_its_times(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", Json({}))
    head = request("POST", "/", headers={"transfer-encoding": "chunked", "trailer": "x-sum"})
    async with RawClient(upstream) as client:
        await client.send(head + b"5;name=value\r\nhe")
        received = await upstream.received()
        await upstream.until(lambda: received.body == b"he")
        assert not received.complete.is_set()
        await client.send(b"llo\r\n")
        await upstream.until(lambda: received.body == b"hello")
        await client.send(b"1\r\n!\r\n0\r\nx-sum: 7\r\n\r\n")
        assert (await client.answer()).status == 200
    assert [part.data for part in received.body_parts] == [b"he", b"llo", b"!"]
    times = [received.arrived_at, *(part.at for part in received.body_parts)]
    assert times == sorted(times)
    assert times[1] < times[2]
    assert received.trailers == [("x-sum", "7")]


async def test_expect_continue_is_answered_before_the_body(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", EchoBody())
    head = request("POST", "/", headers={"expect": "100-continue", "content-length": "4"})
    async with RawClient(upstream) as client:
        await client.send(head)
        assert await client.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert (await client.answer()).body == b"body"


async def test_any_callable_is_a_reply(upstream: FakeUpstream) -> None:
    async def reply(received: Received, responder: Responder) -> None:
        await responder.start(201, {"x-path": received.path}, framing="chunked")
        for letter in received.body.decode():
            await responder.write(letter.encode())

    upstream.on("POST", "/v1/*", reply)
    async with plain_client() as client:
        answer = await client.post(upstream.url + "/v1/x", content=b"abc")
    assert (answer.status_code, answer.text, answer.headers["x-path"]) == (201, "abc", "/v1/x")


async def test_the_longest_pattern_wins_and_an_exact_path_before_it(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/v1/*", Json(1)).on("GET", "/v1/models/*", Json(2))
    upstream.on("GET", "/v1/models/x", Json(3))
    paths = ("/v1/a", "/v1/models/a/b", "/v1/models/x")
    assert [(await get(upstream, path)).json() for path in paths] == [1, 2, 3]


async def test_a_fault_in_a_reply_is_a_500_and_fails_the_test() -> None:
    async def broken(received: Received, responder: Responder) -> None:
        raise KeyError("oops")

    async def silent(received: Received, responder: Responder) -> None:
        return

    for reply, error in ((broken, KeyError), (silent, AssertionError)):
        up = FakeUpstream().on("GET", "/", reply)
        with pytest.raises(error):
            await _statuses(up, "/")
        assert len(up.failures) == 1


async def test_a_fault_is_noted_on_the_error_that_fails_the_test_anyway() -> None:
    async def broken(received: Received, responder: Responder) -> None:
        raise KeyError("oops")

    up = FakeUpstream().on("GET", "/", broken)
    with pytest.raises(httpx.UnsupportedProtocol) as raised:
        await _statuses(up, "/", "x://nowhere")
    assert "KeyError('oops')" in raised.value.__notes__[0]


async def _statuses(up: FakeUpstream, *paths: str) -> list[int]:
    async with up, plain_client() as client:
        urls = [path if "://" in path else up.url + path for path in paths]
        return [(await client.get(url)).status_code for url in urls]


@pytest.mark.parametrize(
    "wire",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /\r\nhost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"x" * 70000,
    ],
)
async def test_malformed_http_is_a_400_and_fails_the_test(wire: bytes) -> None:
    async with FakeUpstream() as up, RawClient(up) as client:
        await client.send(wire)
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        assert [type(failure) for failure in up.failures] == [Malformed]
        up.failures.clear()


async def test_a_request_may_arrive_byte_by_byte(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/", EchoBody())
    async with RawClient(upstream) as client:
        for byte in request("POST", "/", b"body"):
            await client.send(bytes([byte]))
        assert (await client.answer()).body == b"body"


async def test_idle_connections_can_be_dropped(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", Json({}))
    async with RawClient(upstream) as idle, RawClient(upstream) as busy:
        await idle.send(request("GET", "/"))
        await idle.answer()
        await busy.send(request("POST", "/", headers={"content-length": "3"}))
        await upstream.received(2)
        assert await upstream.drop(only_idle=True) == 1
        assert await idle.rest() == b""
        await busy.send(b"abc")
        assert (await busy.answer()).status == 404
        assert await upstream.drop("rst") == 1
        with pytest.raises(ConnectionResetError):
            await busy.rest()


async def test_it_can_stop_listening_and_come_back_on_its_port(upstream: FakeUpstream) -> None:
    upstream.on("GET", "/", Json({}))
    port = upstream.port
    await upstream.stop_listening()
    with pytest.raises(httpx.ConnectError):
        await get(upstream)
    await upstream.listen()
    assert upstream.port == port
    assert (await get(upstream)).status_code == 200


async def test_waiting_for_what_does_not_come_is_an_error(upstream: FakeUpstream) -> None:
    with pytest.raises(TimeoutError):
        await upstream.received(within=0.01)


async def test_big_bodies_need_not_be_kept() -> None:
    data = b"0123456789abcdef" * 65536
    async with FakeUpstream(keep_bodies=False) as up:
        up.on("POST", "/", Json({}))
        async with plain_client() as client:
            await client.post(up.url, content=data)
        (received,) = up.requests
    assert (received.body, received.body_size) == (b"", len(data))
    assert received.body_sha256 == hashlib.sha256(data).hexdigest()


async def test_it_speaks_tls() -> None:
    body = {"text": "x" * 200_000}
    async with (
        FakeUpstream(tls=tls.server_context()) as up,
        httpx.AsyncClient(verify=tls.client_context()) as client,
    ):
        up.on("POST", "/", Echo())
        for _ in range(2):
            assert (await client.post(up.url, json=body)).json()["body"] == body
        assert up.connections.total == 1
        assert up.url.startswith("https://")


async def test_nothing_is_left_open() -> None:
    async with FakeUpstream() as up:
        client = RawClient(up)
        await client.open()
        await client.send(request("POST", "/", headers={"content-length": "9"}))
        await up.received()
    assert await client.rest() == b""
    await client.close()
    assert up.connections.open == 0
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((up.host, up.port))
