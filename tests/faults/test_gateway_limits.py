"""Every time limit strikes through the gateway by its own name, over both faces (G21)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.fakes.upstream import FakeUpstream, HoldBody, Json, Reply, Sse, Stall
from tests.lib.adapters import sse
from tests.lib.rig import FACES, GRPC, REST, End, Rig, full_listener, rig, still, until

SHORT = 0.2
SOON = 0.5
"""Seconds of a caller's deadline: long enough for the upstream to be asked on a busy machine."""
STREAM = sse("chat/openai-usage-stream.sse")
HALF = len(STREAM) // 2
LONG = Json({"text": "x" * 1000})
MID = Stall("mid", Sse(STREAM), after=HALF)
CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x" * 8192}}]}
PACED = Sse(iter(lambda: {**CHUNK, "choices": [{"index": 0, "delta": {}}]}, None), delay=0.02)

STRIKES: dict[str, list[tuple[str, Reply]]] = {
    "first_byte": [("Chat", Stall("headers")), ("StreamChat", Stall("headers", after=20))],
    "idle": [
        ("Embed", Stall("mid", LONG, after=9)),
        ("Rerank", Stall("first_byte", LONG)),
        ("StreamTranscribe", Stall("first_byte", Sse(STREAM))),
        ("StreamChat", MID),
    ],
    "total": [("Chat", Stall("headers")), ("Transcribe", Stall("mid", LONG, after=9))],
    "stream_total": [("StreamChat", PACED), ("StreamChat", MID), ("StreamChat", Stall("headers"))],
}


def assert_struck(end: End, which: str, face: Any) -> None:
    """It names the limit, and is no success."""
    assert (end.which, end.errors, end.done) == (which, 1, False), end
    if face is GRPC:
        assert (end.code, end.reason) == ("DEADLINE_EXCEEDED", "deadline_exceeded")
    elif end.code == 200:
        assert end.closed
    else:
        assert end.code == 504


@pytest.mark.parametrize("which", STRIKES)
async def test_a_limit_strikes_by_its_name_and_closes_the_upstream_s_socket(which: str) -> None:
    """G21, G9."""
    async with rig(timeouts={which: SHORT}) as one:
        number = 0
        for operation, reply in STRIKES[which]:
            for face in FACES:
                number += 1
                one.up.on("POST", "/*", reply)
                caller = await face.start(one, operation)
                end = await caller.end()
                assert_struck(end, "total" if which == "stream_total" else which, face)
                if reply in (MID, PACED):
                    assert end.answers
                received = await one.up.received(number)
                await asyncio.wait_for(received.disconnected.wait(), 1)
                assert (await one.record(number)).usage.outcome == "DEADLINE_EXCEEDED"
                await one.at_rest()
        assert len(one.ended) == number


async def test_connect_strikes_by_its_name() -> None:
    """G21."""
    async with full_listener() as url, rig(url, {"connect": SHORT}) as one:
        for operation in ("Chat", "StreamChat"):
            for face in FACES:
                end = await (await face.start(one, operation)).end()
                assert_struck(end, "connect", face)
        assert [call.usage.outcome for call in one.ended] == ["DEADLINE_EXCEEDED"] * 4


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_an_upstream_that_takes_no_more_of_an_upload_is_idle(face: Any) -> None:
    """G21."""
    going_on = asyncio.Event()
    async with rig(timeouts={"idle": SHORT}, buffers={"receive_buffer": 4096}) as one:
        one.up.on("POST", "/*", HoldBody(LONG, going_on, after=1))
        end = await (await face.start(one, "Transcribe", sound=bytes(6_000_000))).end()
        assert_struck(end, "idle", face)
        going_on.set()
        await one.at_rest()


DEADLINES: list[tuple[str, Reply]] = [
    ("Chat", Stall("headers")),
    ("Embed", Stall("mid", LONG, after=9)),
    ("StreamChat", Stall("headers")),
    ("StreamChat", MID),
    ("StreamChat", PACED),
]


async def test_the_caller_s_deadline_caps_every_limit() -> None:
    """G21: the server's word over REST; a gRPC client's own clock may be as fast."""
    async with rig() as one:
        number = 0
        for operation, reply in DEADLINES:
            for face in FACES:
                number += 1
                one.up.on("POST", "/*", reply)
                began = time.monotonic()
                end = await (await face.start(one, operation, seconds=SOON)).end()
                assert SOON * 0.9 < time.monotonic() - began < SOON + 1
                if face is REST or end.which:
                    assert_struck(end, "deadline", face)
                else:
                    assert (end.code, end.done) == ("DEADLINE_EXCEEDED", False)
                received = await one.up.received(number)
                await asyncio.wait_for(received.disconnected.wait(), 1)
                assert (await one.record(number)).usage.outcome == "DEADLINE_EXCEEDED"


async def test_the_nearest_limit_is_the_one_that_is_told() -> None:
    """G21: a long deadline hides no short limit."""
    async with rig(timeouts={"total": SHORT, "stream_total": SHORT}) as one:
        one.up.on("POST", "/*", Stall("headers"))
        for operation in ("Chat", "StreamChat"):
            for face in FACES:
                end = await (await face.start(one, operation, seconds=30)).end()
                assert_struck(end, "total", face)


async def blocked(one: Rig, up: FakeUpstream, face: Any, **how: Any) -> Any:
    """A stream whose caller reads nothing, written as far as it can be."""
    up.on("POST", "/*", Sse(iter(lambda: CHUNK, None)))
    caller = await face.start(one, "StreamChat", receive_buffer=4096, **how)
    await up.received()
    return caller


@pytest.mark.parametrize("limit", ["stream_total", "deadline"])
@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_the_total_of_a_stream_strikes_while_its_caller_does_not_read(
    face: Any, limit: str
) -> None:
    """G21, S3: also where the gateway waits in a write."""
    timeouts = {"stream_total": 1.5} if limit == "stream_total" else {}
    async with rig(timeouts=timeouts) as one:
        how = {} if timeouts else {"seconds": 1.5}
        began = time.monotonic()
        caller = await blocked(one, one.up, face, **how)
        received = one.up.requests[0]
        await still(lambda: received.sent, 0.1)  # the writes are stuck
        assert not received.disconnected.is_set()
        await asyncio.wait_for(received.disconnected.wait(), 5)
        assert received.disconnected_at is not None
        assert 1.4 < received.disconnected_at - began < 2.5
        assert (await one.record()).usage.outcome == "DEADLINE_EXCEEDED"
        if face is GRPC:
            await one.at_rest()
            end = await caller.end()
            assert end.code == "DEADLINE_EXCEEDED"
            assert end.which == ("total" if timeouts else "")
        else:
            end = await caller.end()  # it reads at last: all that was sent, and the error
            assert_struck(end, "total" if timeouts else "deadline", face)
            await one.at_rest()


async def test_a_caller_who_goes_before_it_reads_its_status_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The status waits behind what was not read; a task waits with it, and ends with the caller."""
    async with rig(timeouts={"stream_total": 0.7}) as one:
        caller = await blocked(one, one.up, GRPC, own=True)
        await one.record()
        await one.at_rest()
        before = len(asyncio.all_tasks())
        await caller.leave("lost")
        await until(lambda: len(asyncio.all_tasks()) < before)
    assert [record.getMessage() for record in caplog.records] == []
