"""A caller who leaves, loses its connection or runs out of time closes the upstream's socket.

Through the running gateway, over both faces, in every phase of a call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import product
from typing import Any, Literal

import pytest
from tetrad.v1 import embed_service_pb2, transcribe_service_pb2

from tests.fakes.upstream import EarlyAnswer, HoldBody, Json, Reply, Sse, Stall
from tests.lib.adapters import sse
from tests.lib.faces import OPERATIONS, message, plan
from tests.lib.rig import FACES, GRPC, REQUESTS, REST, Rig, full_listener, rig, until

How = Literal["cancel", "lost", "deadline"]
HOWS: tuple[How, ...] = ("cancel", "lost", "deadline")

WITHIN = 1.0
"""Seconds. The guarantee is a tenth of it; the machine of a test run is shared."""

SOON = 0.5
"""Seconds until the deadline of a call that is to run into it."""

STREAM = sse("chat/openai-usage-stream.sse")
LONG = Json({"text": "x" * 1000})
HALF = len(STREAM) // 2

PHASES: dict[str, tuple[str, Reply]] = {
    "unary, before the headers": ("Chat", Stall("headers")),
    "unary, inside the headers": ("Embed", Stall("headers", after=10)),
    "unary, before the first byte": ("Rerank", Stall("first_byte", LONG)),
    "unary, in the middle": ("Transcribe", Stall("mid", LONG, after=100)),
    "stream, before the headers": ("StreamChat", Stall("headers")),
    "stream, before the first byte": ("StreamTranscribe", Stall("first_byte", Sse(STREAM))),
    "stream, in the middle": ("StreamChat", Stall("mid", Sse(STREAM), after=HALF)),
}


async def begin(one: Rig, face: Any, operation: str, how: How, **more: Any) -> tuple[Any, float]:
    """A call, and its deadline's time (monotonic)."""
    if how == "deadline":
        more["seconds"] = SOON
    if how == "lost" and face is GRPC:
        more["own"] = True
    at = time.monotonic() + SOON
    return await face.start(one, operation, **more), at


async def leave(caller: Any, how: How, deadline_at: float) -> float:
    """Lets it happen; when it did."""
    if how == "deadline":
        end = await caller.end()
        assert end.code in ("DEADLINE_EXCEEDED", 504, 200)
        assert not end.done
        assert end.which in ("deadline", "")  # a gRPC client's own clock may be first
        return deadline_at
    return float(await caller.leave(how))


def outcome_of(how: How) -> str:
    return "DEADLINE_EXCEEDED" if how == "deadline" else "CANCELLED"


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_the_upstream_s_socket_is_closed(face: Any, how: How) -> None:
    """G5, G6 in every phase; G9: the call's record is closed, once, with that outcome."""
    async with rig() as one:
        for number, (phase, (operation, reply)) in enumerate(PHASES.items(), 1):
            one.up.on("POST", "/*", reply)
            caller, at = await begin(one, face, operation, how)
            received = await one.up.received(number)
            await asyncio.wait_for(received.complete.wait(), 5)
            if "middle" in phase:
                await until(lambda received=received: received.sent >= 100)  # type: ignore[misc]
            if phase == "stream, in the middle":
                await caller.first()
            at = await leave(caller, how, at)
            await asyncio.wait_for(received.disconnected.wait(), 5)
            assert received.disconnected_at is not None
            assert received.disconnected_at - at < WITHIN, phase
            call = await one.record(number)
            assert (call.method, call.usage.outcome) == (operation, outcome_of(how)), phase
            await one.at_rest()
            assert len(one.ended) == number


async def test_a_call_that_still_connects_ends() -> None:
    """G5."""
    async with full_listener() as url, rig(url) as one:
        cases = product(FACES, ("Chat", "StreamChat"), HOWS)
        for number, (face, operation, how) in enumerate(cases, 1):
            caller, at = await begin(one, face, operation, how)
            if how != "deadline":
                await until(lambda: any(route.in_flight for route in one.routes))
            at = await leave(caller, how, at)
            call = await one.record(number)
            assert time.monotonic() - at < WITHIN, (face.name, operation, how)
            assert call.usage.outcome == outcome_of(how)
            await one.at_rest()


@pytest.mark.parametrize(
    ("face", "how"),
    [(REST, "lost"), (REST, "deadline"), *((GRPC, how) for how in HOWS)],
    ids=lambda one: getattr(one, "name", one),
)
async def test_an_upload_that_the_upstream_does_not_take_is_given_up(face: Any, how: How) -> None:
    """G5, G34. The upstream meets the end behind what it left lying.

    The orderly end of a REST caller lies behind what it still has to send: nobody can see it.
    """
    going_on = asyncio.Event()
    async with rig(buffers={"receive_buffer": 4096}) as one:
        one.up.on("POST", "/*", HoldBody(LONG, going_on, after=1))
        caller, at = await begin(one, face, "Transcribe", how, sound=bytes(6_000_000))
        received = await one.up.received()
        at = await leave(caller, how, at)
        call = await one.record()
        assert time.monotonic() - at < WITHIN
        assert call.usage.outcome == outcome_of(how)
        going_on.set()
        await asyncio.wait_for(received.disconnected.wait(), 5)
        assert not received.complete.is_set()
        await one.at_rest()


async def test_a_rest_caller_who_leaves_amid_its_own_upload_frees_its_place() -> None:
    """G5, G13: no upstream has been asked yet."""
    async with rig() as one:
        for how in ("cancel", "lost"):
            caller = await REST.connect(one)
            caller.writer.write(
                b"POST /v1/embeddings HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
                b'content-length: 1000000\r\n\r\n{"model": "embed", "input": "'
            )
            await until(lambda: one.in_flight.count == 1)
            await caller.leave(how)
            assert await one.in_flight.idle(WITHIN)
        assert one.up.requests == []


@pytest.mark.parametrize("how", HOWS)
async def test_live_audio_stops_at_the_upstream_when_its_caller_does(how: How) -> None:
    """G5."""
    going = asyncio.Event()

    async def audio() -> AsyncIterator[Any]:
        config: Any = {"model": "speech"}
        yield transcribe_service_pb2.LiveTranscribeRequest(config=config)
        yield transcribe_service_pb2.LiveTranscribeRequest(audio=b"RIFF")
        await going.wait()

    async with rig() as one:
        one.up.on("OPTIONS", "/*", Json({}))
        one.up.on("POST", "/*", EarlyAnswer(Stall("headers")))
        stub = one.gate.stub("TranscribeService", "LiveTranscribe")
        at = time.monotonic() + SOON
        call = stub(audio(), timeout=SOON if how == "deadline" else None)
        await one.up.until(lambda: any(r.method == "POST" for r in one.up.requests))
        received = next(r for r in one.up.requests if r.method == "POST")
        if how == "lost":
            going.set()  # half-closed first: the upstream has all of it and still does not answer
        if how != "deadline":
            call.cancel()
            at = time.monotonic()
        await asyncio.wait_for(received.disconnected.wait(), 5)
        assert received.disconnected_at is not None
        assert received.disconnected_at - at < WITHIN
        assert (await one.record()).usage.outcome == outcome_of(how)
        await one.at_rest()
        call.cancel()
        going.set()


async def test_a_bulk_s_items_stop_at_the_upstream_when_its_caller_leaves() -> None:
    """G5, G9: each item has a record of its own."""

    async def items() -> AsyncIterator[Any]:
        for number in range(8):
            # Items of unlike members share no request.
            request: Any = {"model": "embed", "input": {"text": "a"}, "user": str(number)}
            yield embed_service_pb2.BulkEmbedRequest(id=str(number), request=request)
        await asyncio.Event().wait()

    async with rig() as one:
        one.up.on("POST", "/*", Stall("headers"))
        call = one.gate.stub("EmbedService", "BulkEmbed")(items())
        await one.up.received(8)
        at = time.monotonic()
        call.cancel()
        await one.record(8)
        await one.up.until(lambda: one.up.connections.open == 0)
        assert time.monotonic() - at < WITHIN
        assert {each.usage.outcome for each in one.ended} == {"CANCELLED"}
        await one.at_rest()


async def test_a_half_closed_rest_caller_counts_as_gone() -> None:
    """G5: a FIN may be a hang-up as well as a half-close, and is taken for the first."""
    async with rig() as one:
        one.up.on("POST", "/*", Stall("headers"))
        caller = await REST.start(one, "Chat")
        received = await one.up.received()
        caller.writer.write_eof()
        await asyncio.wait_for(received.disconnected.wait(), WITHIN)
        assert await caller.reader.read() == b""
        assert (await one.record()).usage.outcome == "CANCELLED"
        await caller.leave("cancel")


async def test_a_half_closed_grpc_caller_is_answered() -> None:
    """Half-closing is how a gRPC caller says that its request is complete."""
    async with rig() as one:
        one.up.on("POST", "/*", Sse(STREAM))
        stub: Any = one.gate.channel.stream_stream("/tetrad.v1.ChatService/StreamChat")
        call = stub()
        rpc = plan(OPERATIONS["StreamChat"])
        await call.write(message(rpc.request, REQUESTS["StreamChat"]).SerializeToString())
        await call.done_writing()
        assert len([one async for one in call]) > 2
        call.cancel()


async def test_two_thousand_cancelled_streams_leave_everything_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G7: sockets, tasks, leases and places, over both faces, left at every point of a stream.

    Nothing of that is worth a line in the log but the calls' own.
    """
    async with rig() as one:
        one.up.on("POST", "/*", Sse(STREAM, delay=0.001))
        await _cancelled_streams(one, 40)
        await one.at_rest()
        before = len(asyncio.all_tasks())
        await _cancelled_streams(one, 1960)
        await one.at_rest()
        await one.up.drop(only_idle=True)  # kept ones, of streams that had ended
        await one.up.until(lambda: one.up.connections.open == 0)
        assert len(asyncio.all_tasks()) <= before
        assert len(one.ended) <= 2000
        assert {call.usage.outcome for call in one.ended} <= {"CANCELLED", "OK"}
    assert [record.getMessage() for record in caplog.records] == []


async def _cancelled_streams(one: Rig, count: int) -> None:
    at_once = 40
    for turn in range(count // at_once):
        callers = await asyncio.gather(
            *(FACES[number % 2].start(one, "StreamChat") for number in range(at_once))
        )
        for number, caller in enumerate(callers):
            if (turn + number // 2) % 3 == 0:
                await caller.first()
            elif number % 3 == 1:
                await asyncio.sleep(0)
        await asyncio.gather(*(caller.leave("cancel") for caller in callers))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_a_call_that_waits_for_a_place_ends(face: Any, how: How) -> None:
    """G5, G13: it has asked no upstream, and holds no place afterwards."""
    async with rig(limits={"max_in_flight": 1}) as one:
        one.up.on("POST", "/*", Stall("headers"))
        first, _ = await begin(one, face, "Chat", "cancel")
        await one.up.received(1)
        admission = one.gate.running.runtime.admission
        for number, operation in enumerate(("Chat", "StreamChat"), 1):
            caller, at = await begin(one, face, operation, how)
            await until(lambda: admission.waiting == 1)
            at = await leave(caller, how, at)
            call = await one.record(number)
            assert time.monotonic() - at < WITHIN
            assert (call.usage.outcome, call.attempts) == (outcome_of(how), 0)
            assert call.queued > 0
            await until(lambda: admission.waiting == 0)
        assert len(one.up.requests) == 1
        await first.leave("cancel")
        await one.at_rest()
