"""The fake upstream serves as a strict HTTP/1.1 server does, and tells what it received."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
import ssl
import time
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import (
    Delayed,
    DelayedUntil,
    Echo,
    EchoBody,
    FakeUpstream,
    Json,
    Malformed,
    Raw,
    Received,
    Record,
    Responder,
    Sequence,
    Sse,
)
from tests.lib import form, recordings, tls
from tests.unit.raw_client import RawClient, request

pytestmark = [
    pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"]),
    pytest.mark.timeout(20),
]


def plain_client() -> httpx.AsyncClient:
    """A client without trusted certificates, which take longer to load than a test."""
    return httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


async def get(up: FakeUpstream, path: str = "/", **how: Any) -> httpx.Response:
    async with plain_client() as client:
        return await client.get(up.url + path, **how)


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
