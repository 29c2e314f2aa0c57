"""What breaks off, fails or lies at the upstream is a success on no face."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from tests.fakes.upstream import (
    CloseConnection,
    Cut,
    EarlyAnswer,
    Json,
    Raw,
    Received,
    Record,
    Reply,
    Responder,
    Sse,
    WrongLength,
)
from tests.faults.test_upstream_truncated import CHUNK, FRAMES, INSTEAD, UNREADABLE
from tests.lib import recordings
from tests.lib.process import Program
from tests.lib.rig import FACES, GRPC, REST, End, Rig, rig

How = Literal["fin", "rst"]

STREAMS = sorted(
    str(path.relative_to(recordings.FOLDER)) for path in recordings.FOLDER.glob("*/*.sse")
)
STRIDE = 4
"""Bytes between two cuts: the two faces and two ways to end begin at offsets of their own, so that
together they cut at every one."""

SHORT = ("chat/openai-usage-stream.sse", "transcriptions/openai-deltas-stream.sse")
"""Cut at every offset by each of them."""

by_face = pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)


def events(data: bytes) -> Iterator[Any]:
    """The JSON events of a stream whose blank line is there, up to an error."""
    for block in data.split(b"\n\n")[:-1]:
        for line in block.splitlines():
            if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                value = json.loads(line[5:])
                yield value
                if "error" in value:
                    return


def succeeded(data: bytes) -> bool:
    """Whether an answer is complete with these bytes: G4, said in another way than the code."""
    finished: dict[Any, bool] = {}
    for value in events(data):
        if "error" in value:
            return False
        if value.get("type") == "transcript.text.done":
            return True
        for choice in value.get("choices") or ():
            index = choice.get("index", 0)
            finished[index] = finished.get(index, False) or bool(choice.get("finish_reason"))
    return bool(finished) and all(finished.values())


def operation_of(file: str) -> str:
    return "StreamChat" if file.startswith("chat") else "StreamTranscribe"


def assert_failed(end: End, face: Any, what: object) -> None:
    """One error, as the last word."""
    assert (end.errors, end.done) == (1, False), (what, end)
    if face is REST:
        assert end.code != 200 or end.closed, (what, end)
    else:
        assert end.code != "OK", (what, end)


@pytest.mark.parametrize("how", ["fin", "rst"])
@by_face
async def test_a_recorded_stream_cut_anywhere_is_a_success_only_if_it_was_complete(
    face: Any, how: How
) -> None:
    """G1, G4: every recorded stream, by FIN and by RST."""
    first = FACES.index(face) * 2 + (how == "rst")
    async with rig() as one:
        for file in STREAMS:
            length = len(recordings.get(file).bytes)
            offsets = range(length) if file in SHORT else range(first, length, STRIDE)
            await _cut(one, face, how, file, offsets)
        await one.at_rest()


async def _cut(one: Rig, face: Any, how: How, file: str, offsets: range) -> None:
    stream = recordings.get(file).bytes
    ends = [stream.index(b"\n\n", at) + 2 for at in (0, len(stream) // 2)]
    for after in sorted({*offsets, *ends, len(stream) - 1, len(stream)}):
        one.up.on("POST", "/*", Cut(Sse(stream), after, how))
        caller = await face.start(one, operation_of(file))
        end = await caller.end()
        what = (file, after, how)
        if succeeded(stream[:after]):
            assert (end.errors, end.done) == (0, True), (what, end)
        else:
            assert_failed(end, face, what)
            if not any("error" in value for value in events(stream[:after])):
                assert end.reason == "upstream_truncated", what
        # One more where the upstream has no event for the end, and ours says it.
        assert len(end.answers) <= len(list(events(stream[:after]))) + end.done, what


@pytest.mark.parametrize("how", ["fin", "rst"])
@by_face
async def test_a_whole_answer_cut_anywhere_is_an_error_status(face: Any, how: How) -> None:
    """G2."""
    answers = {
        "Chat": "chat/openai-text-response.json",
        "Embed": "embeddings/openai-base64-response.json",
        "Rerank": "rerank/vllm-response.json",
        "Transcribe": "transcriptions/openai-verbose-response.json",
    }
    async with rig() as one:
        for operation, file in answers.items():
            whole = recordings.get(file).bytes
            for framing in ("length", "chunked", "close"):
                for after in (0, 1, len(whole) // 2, len(whole.rstrip()) - 1):
                    inner = Raw(whole, "application/json", framing=framing)
                    one.up.on("POST", "/*", Cut(inner, after, how))
                    end = await (await face.start(one, operation)).end()
                    assert_failed(end, face, (operation, framing, after))
                    assert end.code != 200
                    assert end.reason in ("upstream_truncated", "upstream_protocol")
        await one.at_rest()


@pytest.mark.parametrize("after_content", [False, True])
@by_face
async def test_an_error_inside_a_stream_ends_it_as_that_error(
    face: Any, after_content: bool
) -> None:
    """G18: in all forms; before content it is an error status."""
    items = [CHUNK] if after_content else []
    async with rig() as one:
        for name, frame in FRAMES.items():
            body = b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in items)
            one.up.on("POST", "/*", Sse(body + frame + b'data: {"choices":[]}\n\n'))
            end = await (await face.start(one, "StreamChat")).end()
            assert_failed(end, face, name)
            assert "boom" in end.text, name
            assert len(end.answers) == len(items), name
            if face is REST:
                assert (end.code == 200) is after_content, name


@by_face
async def test_a_200_that_is_none_is_an_error_status(face: Any) -> None:
    """G1, G2."""
    async with rig() as one:
        for what, (reply, expected) in INSTEAD.items():
            one.up.on("POST", "/*", reply)
            end = await (await face.start(one, "StreamChat")).end()
            assert_failed(end, face, what)
            assert end.answers == [] or what == "[DONE] without a finish"
            if expected.reason:
                assert end.errors == 1
        for what, (reply, _) in UNREADABLE.items():
            one.up.on("POST", "/*", reply)
            end = await (await face.start(one, "Chat")).end()
            assert_failed(end, face, what)
            assert end.code not in (200, "OK"), what
        await one.at_rest()


async def test_an_upstream_that_is_killed_amid_a_stream_ends_it_as_an_error() -> None:
    """G1: kill -9 of its process, and what comes afterwards is refused, not awaited."""
    stream = recordings.get("chat/openai-usage-stream.sse").bytes
    async with Program(
        sys.executable, "-m", "tests.fakes.process", "--stall", str(len(stream) // 2)
    ) as upstream:
        url = (await upstream.line(r"ready (\S+)"))[1]
        async with rig(url) as one:
            callers = [await face.start(one, "StreamChat") for face in FACES for _ in range(3)]
            for caller in callers:
                await caller.first()
            await upstream.stop(signal.SIGKILL)
            for face, caller in zip([*[REST] * 3, *[GRPC] * 3], callers, strict=True):
                end = await caller.end()
                assert_failed(end, face, "killed")
                assert end.reason == "upstream_truncated"
                assert end.answers or face is REST
            for face in FACES:
                end = await (await face.start(one, "StreamChat")).end()
                assert end.code in (503, "UNAVAILABLE")
            assert [call.usage.outcome for call in one.ended] == ["UNAVAILABLE"] * 8
            await one.at_rest()


class Bytes:
    """An answer of these bytes on the wire, then the end of the connection."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def __call__(self, received: Received, responder: Responder) -> None:
        for piece in self.pieces:
            await responder.raw(piece)
            await asyncio.sleep(0)
        await responder.close()


OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = OK + b"content-type: text/event-stream\r\n"
CHUNKED = EVENTS + b"transfer-encoding: chunked\r\n\r\n"
MONSTERS: dict[str, Reply] = {
    "no HTTP": Bytes(b"\x00\x01\x02 hello\r\n\r\n"),
    "a status that is none": Bytes(b"HTTP/1.1 2000 OK\r\n\r\n"),
    "a header of a megabyte": Bytes(OK, b"x-a: ", *[b"a" * 65536] * 16, b"\r\n\r\n"),
    "headers without end": Bytes(OK, *[b"x-a: b\r\n" * 8192] * 16),
    "a chunk size that is none": Bytes(CHUNKED, b"xyz\r\n"),
    "a chunk size of sixty digits": Bytes(CHUNKED, b"F" * 60 + b"\r\n"),
    "a chunk size without end": Bytes(CHUNKED, *[b"0" * 65536] * 16),
    "a chunk longer than what comes": Bytes(CHUNKED, b"7fffffffffffffff\r\ndata: {}"),
    "a negative length": Bytes(EVENTS + b"content-length: -5\r\n\r\n"),
    "two lengths": Bytes(EVENTS + b"content-length: 5\r\ncontent-length: 6\r\n\r\ndata: "),
    "a huge length": Bytes(EVENTS + b"content-length: 99999999999999999\r\n\r\ndata: {}"),
    "a line without end": Bytes(EVENTS + b"\r\ndata: ", *[b"x" * 65536] * 272),
    "gzip": Bytes(EVENTS + b"content-encoding: gzip\r\n\r\n\x1f\x8b"),
    "nothing": CloseConnection(),
    "a reset": CloseConnection("rst"),
    "a length that is too long": WrongLength(b'{"choices": []}', 10),
}


@by_face
async def test_monstrous_answers_are_errors_and_harm_nothing(face: Any) -> None:
    """G2: and the next call is served."""
    async with rig() as one:
        for operation in ("StreamChat", "Embed"):
            for what, reply in MONSTERS.items():
                one.up.on("POST", "/*", reply)
                async with asyncio.timeout(10):
                    end = await (await face.start(one, operation)).end()
                assert_failed(end, face, what)
                assert end.code in (502, 503, "UNAVAILABLE", "INTERNAL"), (what, end)
        one.up.on("POST", "/*", Record("chat/openai-text-response.json"))
        assert (await (await face.start(one, "Chat")).end()).done
        await one.at_rest()


@pytest.mark.parametrize("then", ["read", "close"])
@by_face
async def test_an_answer_before_the_request_is_sent_is_the_answer(
    face: Any, then: Literal["read", "close"]
) -> None:
    """A server that refuses an upload need not read it."""
    error = {"error": {"message": "too long", "type": "invalid_request_error", "code": "big"}}
    async with rig() as one:
        for sound in (b"RIFF", bytes(4_000_000)):
            one.up.on("POST", "/*", EarlyAnswer(Json(error, 413), then))
            end = await (await face.start(one, "Transcribe", sound=sound)).end()
            assert_failed(end, face, (then, len(sound)))
            if then == "read":
                assert "too long" in end.text
            else:  # its reset may be faster than its answer
                assert end.code in (413, 503, "INVALID_ARGUMENT", "UNAVAILABLE")
        await one.at_rest()
