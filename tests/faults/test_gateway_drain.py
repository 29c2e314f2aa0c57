"""The server's end: calls get their time, then a status, and nothing is left behind (G36)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from tetrad.v1 import embed_service_pb2, transcribe_service_pb2

from tests.fakes.upstream import EarlyAnswer, Json, Reply, Sse, Stall
from tests.lib.adapters import sse
from tests.lib.rig import FACES, GRPC, REST, End, Rig, rig, still

STREAM = sse("chat/openai-usage-stream.sse")
HALF = len(STREAM) // 2
MID = Stall("mid", Sse(STREAM), after=HALF)
GRACE = {"grace": 0.2}

CALLS: dict[str, tuple[str, Reply]] = {
    "unary, before the headers": ("Chat", Stall("headers")),
    "unary, in the middle": ("Embed", Stall("mid", Json({"data": "x" * 999}), after=100)),
    "upload": ("Transcribe", Stall("headers")),
    "stream, before the headers": ("StreamChat", Stall("headers")),
    "stream, before the first byte": ("StreamTranscribe", Stall("first_byte", Sse(STREAM))),
    "stream, in the middle": ("StreamChat", MID),
}


async def begun(one: Rig, face: Any, operation: str, reply: Reply) -> Any:
    """A call that has got as far as its upstream lets it; gRPC on a connection of its own."""
    one.up.on("POST", "/*", reply)
    before = len(one.up.requests)
    caller = await face.start(one, operation, **({"own": True} if face is GRPC else {}))
    received = await one.up.received(before + 1)
    await asyncio.wait_for(received.complete.wait(), 5)
    if reply is MID:
        await caller.first()
    return caller


def assert_draining(end: End, face: Any, *, started: bool) -> None:
    """It says that the server goes away, once, and is no success."""
    assert (end.reason, end.errors, end.done) == ("draining", 1, False)
    if face is GRPC:
        assert end.code == "UNAVAILABLE"
    else:
        assert (end.code, end.closed) == (200 if started else 503, True)


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_calls_that_outlive_the_grace_are_ended_with_a_status(face: Any) -> None:
    """G36, G9: each record is closed once, and the upstream's connections with them."""
    async with rig(drain=GRACE) as one:
        callers = [await begun(one, face, *call) for call in CALLS.values()]
        ends = [asyncio.create_task(caller.end()) for caller in callers]
        requests, ended = list(one.up.requests), one.ended
        left = time.monotonic()
        leases = one.routes
        up = one.up
        in_flight = one.in_flight
    assert 0.2 <= time.monotonic() - left < 4
    for phase, end in zip(CALLS, await asyncio.gather(*ends), strict=True):
        assert_draining(end, face, started=phase == "stream, in the middle")
        assert bool(end.answers) is (phase == "stream, in the middle")
    assert [call.usage.outcome for call in ended] == ["UNAVAILABLE"] * len(CALLS)
    assert all(received.disconnected.is_set() for received in requests)
    assert (up.connections.open, in_flight.count) == (0, 0)
    assert all(route.in_flight == 0 for route in leases)


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_a_stream_that_ends_within_the_grace_is_whole(face: Any) -> None:
    """G36."""
    go_on = asyncio.Event()
    async with rig(drain={"grace": 10}) as one:
        reply = Stall("mid", Sse(STREAM), after=HALF, until=go_on)
        caller = await begun(one, face, "StreamChat", reply)
        end = asyncio.create_task(caller.end())
        watching = asyncio.Event()
        draining = asyncio.create_task(_until_draining(one, watching, go_on))
        await watching.wait()
        ended = one.ended
    await draining
    assert (await end).done
    served = [call.usage.outcome for call in ended if call.attempts]
    refused = {call.usage.outcome for call in ended if not call.attempts}
    assert (served, refused) == (["OK"], {"UNAVAILABLE"})


async def _until_draining(one: Rig, watching: asyncio.Event, go_on: asyncio.Event) -> None:
    given: Any = b""
    async with grpc.aio.insecure_channel(one.gate.address) as channel:
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")(given)
        assert await watch.read() == b"\x08\x01"
        watching.set()
        assert await watch.read() == b"\x08\x02"  # NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        answer = await REST.connect(one)
        answer.writer.write(b"GET /ready HTTP/1.1\r\nhost: t\r\n\r\n")
        assert b" 503 " in (await answer.head()).splitlines()[0]
        answer.writer.close()
        for face in FACES:
            late = await face.start(one, "Chat", **({"own": True} if face is GRPC else {}))
            assert_draining(await late.end(), face, started=False)
        go_on.set()
        watch.cancel()


async def test_bulks_and_live_audio_are_ended_too() -> None:
    """G36."""

    async def items() -> AsyncIterator[Any]:
        for number in range(3):
            # Items of unlike members share no request.
            request: Any = {"model": "embed", "input": {"text": "a"}, "user": str(number)}
            yield embed_service_pb2.BulkEmbedRequest(id=str(number), request=request)
        await asyncio.Event().wait()

    async def audio() -> AsyncIterator[Any]:
        config: Any = {"model": "speech"}
        yield transcribe_service_pb2.LiveTranscribeRequest(config=config)
        yield transcribe_service_pb2.LiveTranscribeRequest(audio=b"RIFF")
        await asyncio.Event().wait()

    async with rig(drain=GRACE) as one:
        one.up.on("OPTIONS", "/*", Json({}))
        one.up.on("POST", "/*", EarlyAnswer(Stall("headers")))
        channel = grpc.aio.insecure_channel(one.gate.address)
        calls: list[Any] = [
            channel.stream_stream(
                f"/tetrad.v1.{path}", request_serializer=lambda one: one.SerializeToString()
            )(requests())
            for path, requests in (
                ("EmbedService/BulkEmbed", items),
                ("TranscribeService/LiveTranscribe", audio),
            )
        ]
        await one.up.until(lambda: sum(r.method == "POST" for r in one.up.requests) == 4)
        ended, up = one.ended, one.up
    for call in calls:
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        call.cancel()
    await channel.close()
    assert [call.usage.outcome for call in ended] == ["UNAVAILABLE"] * 4
    assert up.connections.open == 0


@pytest.mark.parametrize("faces", [[REST], [GRPC]], ids=["rest", "grpc"])
async def test_a_caller_who_does_not_read_holds_nothing_up_for_long(faces: Sequence[Any]) -> None:
    """G36: its status cannot be told, and is not waited for beyond some seconds."""
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x" * 8192}}]}
    async with rig(drain=GRACE) as one:
        one.up.on("POST", "/*", Sse(iter(lambda: chunk, None)))
        callers = [
            await face.start(
                one,
                "StreamChat",
                receive_buffer=4096,
                **({"own": True} if face is GRPC else {}),
            )
            for face in faces
        ]
        await one.up.received(len(callers))
        await still(lambda: sum(each.sent for each in one.up.requests))
        left, up, ended = time.monotonic(), one.up, one.ended
    assert time.monotonic() - left < 9
    assert up.connections.open == 0
    assert [call.usage.outcome for call in ended] == ["UNAVAILABLE"] * len(callers)
    for caller in callers:
        await caller.leave("cancel")


async def test_a_rest_caller_amid_its_own_upload_is_told() -> None:
    """G36."""
    async with rig(drain=GRACE) as one:
        caller = await REST.connect(one)
        caller.writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
            b'content-length: 1000000\r\n\r\n{"model": "embed", "input": "'
        )
        end = asyncio.create_task(caller.end())
        async with asyncio.timeout(5):
            while not one.in_flight.count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert_draining(await end, REST, started=False)
