"""An answer or a stream that breaks off never ends as a success, wherever and however it is cut."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from services import errors
from services.body import Body
from services.upload import Upload
from services.upstream import exchange
from tests.fakes.upstream import Cut, FakeUpstream, Json, Raw, Record, Reply, Sse, Stall
from tests.lib import recordings
from tests.lib.adapters import a_call, adapter, all_of, chat, sse, until_error

pytestmark = pytest.mark.usefixtures("via")

CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/transcriptions"
BROKEN = (errors.UpstreamTruncated, errors.UpstreamProtocol)

ANSWER = recordings.get("chat/openai-text-response.json").bytes
STREAM = sse("chat/openai-usage-stream.sse")
FINISHED = STREAM.index(b"\n\n", STREAM.index(b'"finish_reason":"')) + 2
"""So many bytes of the stream hold its finish, with the blank line."""

How = Literal["fin", "rst"]
Framing = Literal["length", "chunked", "close"]


def sound() -> Body:
    return Body.from_value("TranscribeRequest", {}, Upload.of(b"RIFF", "a.wav", "audio/wav"))


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_whole_answer_that_is_cut_is_an_error(
    upstream: FakeUpstream, how: How, framing: Framing
) -> None:
    """G2."""
    async with adapter(upstream) as one:
        for after in range(0, len(ANSWER), 31):
            inner = Raw(ANSWER, "application/json", framing=framing)
            upstream.on("POST", CHAT, Cut(inner, after, how))
            with pytest.raises(BROKEN) as raised:
                await one.chat(chat(), a_call())
            assert not raised.value.retryable_by_client


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_an_answer_that_lacks_only_its_last_chunk_is_an_error(
    upstream: FakeUpstream, how: How
) -> None:
    """G2. All its bytes came, but nobody said that they were all."""
    inner = Raw(ANSWER, "application/json", framing="chunked")
    upstream.on("POST", CHAT, Cut(inner, len(ANSWER), how))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamTruncated):
            await one.chat(chat(), a_call())


@pytest.mark.parametrize("after", [0, 1, 12, 40])
@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_an_answer_cut_in_its_head_leaves_the_upstream_unavailable(
    upstream: FakeUpstream, how: How, after: int
) -> None:
    upstream.on("POST", CHAT, Cut(Record("chat/openai-text-response.json"), after, how, "wire"))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamUnavailable) as raised:
            await one.chat(chat(), a_call())
    assert raised.value.reached


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_stream_that_is_cut_is_a_success_only_after_its_finish(
    upstream: FakeUpstream, how: How, framing: Framing
) -> None:
    """G1, G4. What came before the cut is delivered.

    Where the connection's orderly end is the body's, a last event may lack its blank line.
    """
    cuts = {*range(0, len(STREAM), 83), *range(FINISHED - 4, FINISHED + 3), len(STREAM)}
    needed = FINISHED - 2 if (how, framing) == ("fin", "close") else FINISHED
    async with adapter(upstream) as one:
        for after in sorted(cuts):
            upstream.on("POST", CHAT, Cut(Sse(STREAM, framing=framing, chunking=after), after, how))
            stream = one.stream_chat(chat(), a_call())
            if after >= needed:
                delivered = await all_of(stream)
            else:
                delivered, error = await until_error(stream)
                assert isinstance(error, errors.UpstreamTruncated), (after, error)
                assert not error.retryable_by_client
            whole = STREAM[:after].count(b"}\n\n")
            assert len(delivered) in (whole, whole + 1), after


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_transcription_that_is_cut_before_its_done_event_is_an_error(
    upstream: FakeUpstream, how: How
) -> None:
    """G1."""
    stream = sse("transcriptions/openai-deltas-stream.sse")
    done = stream.index(b'data: {"type":"transcript.text.done"')
    async with adapter(upstream) as one:
        for after in (0, 5, done - 1, done, done + 40):
            upstream.on("POST", SPEECH, Cut(Sse(stream), after, how))
            _, error = await until_error(one.stream_transcribe(sound(), a_call()))
            assert isinstance(error, errors.UpstreamTruncated)
        upstream.on("POST", SPEECH, Cut(Sse(stream), len(stream), how))
        assert (await all_of(one.stream_transcribe(sound(), a_call())))[-1]["text"]


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_transcription_by_vllm_is_complete_once_it_has_finished(
    upstream: FakeUpstream, how: How
) -> None:
    """G4."""
    stream = sse("transcriptions/vllm-chunk-stream.sse")
    finish = stream.index(b'"finish_reason":"stop"')
    async with adapter(upstream, "vllm") as one:
        upstream.on("POST", SPEECH, Cut(Sse(stream), finish, how))
        _, error = await until_error(one.stream_transcribe(sound(), a_call()))
        assert isinstance(error, errors.UpstreamTruncated)
        upstream.on("POST", SPEECH, Cut(Sse(stream), stream.index(b"\n\n", finish) + 2, how))
        events = await all_of(one.stream_transcribe(sound(), a_call()))
    assert events[-1] == {"type": "transcript.text.done", "text": " Quay four"}


CHUNK = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
ERROR = {"error": {"message": "out of memory", "type": "server_error", "code": 500}}

FRAMES: dict[str, bytes] = {
    "data": b'data: {"error":{"message":"boom","code":503}}\n\n',
    "data, then done": b'data: {"error":{"message":"boom","code":503}}\n\ndata: [DONE]\n\n',
    "text": b'data: {"error":"boom"}\n\n',
    "event: error": b'event: error\ndata: {"message":"boom"}\n\n',
    "event: error, no JSON": b"event: error\ndata: boom\n\n",
    "error line": b'error: {"code":503,"message":"boom"}\n\ndata: [DONE]\n\n',
    "beside choices": b'data: {"choices":[{"index":0,"delta":{"content":""},'
    b'"finish_reason":"error"}],"error":{"message":"boom"}}\n\n',
    "inside x_groq": b'data: {"choices":[],"x_groq":{"error":"boom"}}\n\n',
    "old vLLM": b'data: {"object":"error","message":"boom","code":400}\n\n',
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("after_content", [False, True])
async def test_an_error_inside_a_stream_ends_it_as_that_error(
    upstream: FakeUpstream, frame: str, after_content: bool
) -> None:
    """G18. Content that came before it, in the same read too, is delivered; nothing after it is."""
    items: list[Any] = [CHUNK] if after_content else []
    body = b"".join(_event(item) for item in items) + FRAMES[frame] + _event(CHUNK)
    upstream.on("POST", CHAT, Sse(body, chunking=len(body)))
    async with adapter(upstream) as one:
        delivered, error = await until_error(one.stream_chat(chat(), a_call()))
    assert delivered == items
    assert isinstance(error, errors.TetradError)
    assert error.message == "boom"
    assert error.upstream is not None
    assert (error.upstream.http_status, error.upstream.endpoint) == (200, "fake")


async def test_an_ollama_that_fails_after_its_first_chunk_is_noticed(
    upstream: FakeUpstream,
) -> None:
    blank = {"id": "c", "model": "", "choices": [{"index": 0, "delta": {"content": ""}}]}
    upstream.on("POST", CHAT, Sse([CHUNK, blank], done=False))
    async with adapter(upstream, "ollama") as one:
        delivered, error = await until_error(one.stream_chat(chat(), a_call()))
    assert delivered == [CHUNK]
    assert isinstance(error, errors.UpstreamFailed)


INSTEAD: dict[str, tuple[Reply, type[errors.TetradError]]] = {
    "a JSON error": (Json(ERROR), errors.UpstreamFailed),
    "a JSON answer": (Json({"id": "x"}), errors.UpstreamProtocol),
    "a page": (Raw(b"<html>sign in</html>", "text/html"), errors.UpstreamProtocol),
    "nothing": (Raw(b"", "text/event-stream"), errors.UpstreamTruncated),
    "only [DONE]": (Sse([]), errors.UpstreamTruncated),
    "only comments": (Sse([b": ping\n\n"], done=False), errors.UpstreamTruncated),
    "[DONE] without a finish": (Sse([CHUNK]), errors.UpstreamTruncated),
    "only usage": (Sse([{"choices": [], "usage": {}}]), errors.UpstreamTruncated),
    "no JSON": (Sse(["{oops"]), errors.UpstreamProtocol),
    "a list": (Sse(["[1]"]), errors.UpstreamProtocol),
    "an endless event": (Raw(b"data: " + b"x" * (17 << 20), "text/event-stream"),
                         errors.UpstreamProtocol),
}  # fmt: skip


@pytest.mark.parametrize("what", INSTEAD)
async def test_a_200_that_is_no_stream_is_an_error(upstream: FakeUpstream, what: str) -> None:
    """G1, G18."""
    reply, expected = INSTEAD[what]
    upstream.on("POST", CHAT, reply)
    async with adapter(upstream) as one:
        _, error = await until_error(one.stream_chat(chat(), a_call()))
    assert type(error) is expected
    assert isinstance(error, errors.TetradError)
    assert error.reached


UNREADABLE: dict[str, tuple[Reply, type[errors.TetradError]]] = {
    "nothing": (Raw(b"", "application/json"), errors.UpstreamTruncated),
    "blanks": (Raw(b"\n\n", "application/json", framing="chunked"), errors.UpstreamTruncated),
    "no JSON": (Raw(b"OK", "text/plain"), errors.UpstreamProtocol),
    "a page": (Raw(b"<html>sign in</html>", "text/html"), errors.UpstreamProtocol),
    "half an object": (Raw(b'{"choices": [', "application/json"), errors.UpstreamProtocol),
    "a list": (Json([1]), errors.UpstreamProtocol),
    "null": (Json(b"null"), errors.UpstreamProtocol),
    "another object": (Json({"status": "ok"}), errors.UpstreamProtocol),
    "an error": (Json(ERROR), errors.UpstreamFailed),
    "an error of the caller": (Json({"error": {"message": "no", "code": 400}}),
                               errors.UpstreamInvalidRequest),
    "an error beside an answer": (Json({"error": {"message": "no", "code": 400}, "choices": [],
                                        "data": [], "results": [], "text": ""}),
                                  errors.UpstreamInvalidRequest),
}  # fmt: skip


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("operation", ["chat", "embed", "rerank", "transcribe"])
async def test_a_200_that_is_no_answer_is_an_error(
    upstream: FakeUpstream, operation: str, what: str
) -> None:
    """G2."""
    reply, expected = UNREADABLE[what]
    upstream.on("POST", "/*", reply)
    async with adapter(upstream) as one:
        calls = {
            "chat": lambda: one.chat(chat(), a_call()),
            "embed": lambda: one.embed(Body.from_value("EmbedRequest", {"input": "a"}), a_call()),
            "rerank": lambda: one.rerank(
                Body.from_value("RerankRequest", {"query": "q", "documents": ["a"]}), a_call()
            ),
            "transcribe": lambda: one.transcribe(sound(), a_call()),
        }
        with pytest.raises(errors.TetradError) as raised:
            await calls[operation]()
    assert type(raised.value) is expected
    assert raised.value.reached


async def test_a_stream_without_done_waits_two_seconds_for_its_usage(
    upstream: FakeUpstream,
) -> None:
    """G4."""
    upstream.on("POST", CHAT, Stall("mid", Sse(STREAM), FINISHED + 1))
    async with adapter(upstream) as one:
        started = asyncio.get_running_loop().time()
        assert (await all_of(one.stream_chat(chat(), a_call())))[-1]["choices"]
        waited = asyncio.get_running_loop().time() - started
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 3)
    assert 1.9 < waited < 2.8


async def test_a_stream_whose_other_choices_are_to_come_waits_on(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G4: the wait is for usage; a second choice may take longer to begin."""
    monkeypatch.setattr(exchange, "AWAIT_USAGE", 0.1)
    first, second = ({"choices": [{"index": i, "finish_reason": "stop"}]} for i in (0, 1))
    upstream.on("POST", CHAT, Sse([first, second], delay=0.2))
    async with adapter(upstream) as one:
        assert await all_of(one.stream_chat(chat(n=2), a_call())) == [first, second]


def _event(item: Any) -> bytes:
    return b"data: " + Body.from_value("StreamChatResponse", item).json() + b"\n\n"
