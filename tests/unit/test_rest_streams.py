"""Streams of the REST face: SSE framing, which stream is chosen, failures and where they show."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services import errors
from services.body import Body
from services.call import Call
from tests.unit.rest_server import (
    CHAT,
    CHAT_PATH,
    CHAT_REQUEST,
    STREAMED,
    TRANSCRIBE,
    Batches,
    Streaming,
    Unused,
    chunk,
    raw_stream,
    serving,
    whole_stream,
)


async def test_chunks_become_events_and_done_ends_them() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        call.out["x-tetrad-model"] = "m"
        yield [chunk("a")]
        yield [chunk("b"), chunk("c")]
        yield []

    service = Streaming(stream)
    async with serving({CHAT: service}) as rest:
        answer = await whole_stream(rest)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-tetrad-model"] == "m"
    assert answer.headers["x-request-id"] == service.calls[0].id
    assert answer.content == (
        b'data: {"id":"a"}\n\ndata: {"id":"b"}\n\ndata: {"id":"c"}\n\ndata: [DONE]\n\n'
    )
    assert service.calls[0].method == "StreamChat"


async def test_a_batch_is_one_write() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        yield [chunk("a"), chunk("b")]

    async with serving({CHAT: Streaming(stream)}) as rest:
        raw = await raw_stream(rest)
        await raw.head()
        assert await raw.chunk() == b'data: {"id":"a"}\n\ndata: {"id":"b"}\n\n'
        assert await raw.chunk() == b"data: [DONE]\n\n"
        assert await raw.chunk() == b""
        await raw.close()


async def test_a_stream_without_chunks_is_an_empty_success() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        if call.face == "grpc":
            yield []

    async with serving({CHAT: Streaming(stream)}) as rest:
        answer = await whole_stream(rest)
    assert (answer.status_code, answer.content) == (200, b"data: [DONE]\n\n")


async def test_line_ends_inside_a_chunk_do_not_break_the_framing() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        yield [Body.from_json("StreamChatResponse", b'{"id":\r\n"a",\n"x":1}')]

    async with serving({CHAT: Streaming(stream)}) as rest:
        answer = await whole_stream(rest)
    first = answer.text.split("\n\n")[0]
    lines = [line.removeprefix("data: ") for line in first.split("\n")]
    assert json.loads("\n".join(lines)) == {"id": "a", "x": 1}


async def test_a_connection_is_used_again_after_a_good_stream() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        yield [chunk("a")]

    async with serving({CHAT: Streaming(stream)}) as rest:
        raw = await raw_stream(rest)
        for _ in range(2):
            status, headers = await raw.head()
            assert (status, headers.get("connection")) == (200, None)
            while await raw.chunk():
                pass
            body = json.dumps(STREAMED).encode()
            raw.writer.write(
                f"POST {CHAT_PATH} HTTP/1.1\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
        await raw.close()


async def test_the_streaming_twin_is_chosen_by_the_member_alone() -> None:
    class Both(Unused):
        async def chat(self, request: Body, call: Call) -> Body:
            return Body.from_value("ChatResponse", {"object": "chat.completion"})

    async with serving({CHAT: Both()}) as rest:
        for member in ({"stream": False}, {"stream": None}, {}):
            answer = await rest.client.post(CHAT_PATH, json={**CHAT_REQUEST, **member})
            assert answer.json() == {"object": "chat.completion"}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"include_usage": True}, True),
        ({"include_usage": False}, False),
        ({"include_usage": 1}, False),
        ({}, False),
        (None, False),
        ("odd", False),
    ],
)
async def test_a_call_knows_whether_usage_was_asked_for(options: Any, asked: bool) -> None:
    async def stream(request: Body, call: Call) -> Batches:
        yield [chunk("a")]

    service = Streaming(stream)
    async with serving({CHAT: service}) as rest:
        await whole_stream(rest, stream_options=options)
    assert service.calls[0].include_usage is asked


async def test_without_relay_chunks_have_been_through_protobuf() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        yield [Body.from_json("StreamChatResponse", b'{ "id" : "a",  "odd": 100 }')]

    async with serving({CHAT: Streaming(stream)}, relay=False) as rest:
        plain = await whole_stream(rest)
        asked = await whole_stream(rest, stream_options={"include_usage": True})
    assert plain.content.startswith(b'data: {"id":"a","odd":100}\n\n')
    assert b'"usage":null' in asked.content


@pytest.mark.parametrize("relay", [True, False])
async def test_an_answer_that_cannot_be_read_ends_a_stream_as_the_upstream_s_fault(
    relay: bool,
) -> None:
    async def stream(request: Body, call: Call) -> Batches:
        yield [chunk("a")]
        yield [Body.from_wire("StreamChatResponse", b"\xff\xff\xff")]

    async with serving({CHAT: Streaming(stream)}, relay=relay) as rest:
        answer = await whole_stream(rest)
    assert b'"code":"upstream_protocol"' in answer.content
    assert b"[DONE]" not in answer.content


async def test_a_failure_before_the_first_chunk_has_its_own_status() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        call.out["x-tetrad-endpoint"] = "e"
        if call.face == "rest":
            raise errors.ModelNotFound.named("m")
        yield []

    async with serving({CHAT: Streaming(stream)}) as rest:
        answer = await whole_stream(rest)
        assert rest.life.in_flight == 0
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.headers["x-tetrad-endpoint"] == "e"


async def test_a_stream_that_is_refused_when_it_is_asked_for_has_its_own_status() -> None:
    def refused(request: Body, call: Call) -> Batches:
        raise errors.NotOffered

    async with serving({CHAT: Streaming(refused)}) as rest:
        assert (await whole_stream(rest)).status_code == 501


async def test_a_failure_after_the_first_chunk_is_the_last_event_and_closes_the_connection() -> (
    None
):
    """G1: an error event, no [DONE], and the connection ends."""

    async def stream(request: Body, call: Call) -> Batches:
        yield [chunk("a")]
        raise errors.UpstreamTruncated("the stream broke off")

    service = Streaming(stream)
    async with serving({CHAT: service}) as rest:
        raw = await raw_stream(rest)
        assert (await raw.head())[0] == 200
        assert await raw.chunk() == b'data: {"id":"a"}\n\n'
        event = await raw.chunk()
        assert await raw.chunk() == b""
        assert await raw.reader.read() == b"", "the connection must end"
        await raw.close()
        assert rest.life.in_flight == 0
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    shown = json.loads(event[6:])["error"]
    assert shown["code"] == "upstream_truncated"
    assert shown["request_id"] == service.calls[0].id


async def test_a_fault_of_ours_in_a_stream_is_logged_and_its_last_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stream(request: Body, call: Call) -> Batches:
        yield [chunk("a")]
        raise ValueError("secret")

    async with serving({CHAT: Streaming(stream)}) as rest:
        answer = await whole_stream(rest)
    assert "secret" not in answer.text
    assert '"code":"internal_error"' in answer.text
    assert "[DONE]" not in answer.text
    (record,) = caplog.records
    assert record.exc_info


async def test_a_deadline_in_a_stream_is_its_last_event() -> None:
    """G21."""
    closed = False

    async def stream(request: Body, call: Call) -> Batches:
        nonlocal closed
        try:
            yield [chunk("a")]
            await asyncio.Event().wait()
        finally:
            closed = True

    async with serving({CHAT: Streaming(stream)}) as rest:
        answer = await rest.client.post(
            CHAT_PATH, json=STREAMED, headers={"x-request-timeout-ms": "50"}
        )
    assert closed
    assert answer.status_code == 200
    assert '"code":"deadline_exceeded"' in answer.text
    assert "[DONE]" not in answer.text


async def test_the_server_s_deadline_of_streams_is_another_than_that_of_calls() -> None:
    async def stream(request: Body, call: Call) -> Batches:
        remaining = call.remaining()
        assert remaining is not None
        assert 50 < remaining <= 60.001
        yield [chunk("a")]

    async with serving({CHAT: Streaming(stream)}, timeout=1.0, stream_timeout=60.0) as rest:
        assert (await whole_stream(rest)).text.endswith("[DONE]\n\n")


async def test_a_transcription_stream_ends_with_its_own_last_event() -> None:
    """OpenAI sends no [DONE] there: the done event is the end."""
    texts = [b'{"type":"transcript.text.delta","delta":"a"}', b'{"type":"transcript.text.done"}']

    class Speech(Unused):
        async def stream_transcribe(self, request: Body, call: Call) -> Batches:
            for text in texts:
                yield [Body.from_json("StreamTranscribeResponse", text)]

    async with serving({TRANSCRIBE: Speech()}) as rest:
        answer = await rest.client.post(
            "/v1/audio/transcriptions", data={"stream": "true"}, files={"file": b"RIFF"}
        )
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.content == b"".join(b"data: " + text + b"\n\n" for text in texts)
