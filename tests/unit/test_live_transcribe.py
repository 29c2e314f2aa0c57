"""LiveTranscribe over a real gRPC stream: audio goes on as it arrives, in order, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2
from tetrad.v1 import transcribe_service_pb2, transcribe_service_pb2_grpc

from services import errors
from services.body import Body, Document
from services.call import Call
from services.upstream import Timeouts
from tests.lib.fake_adapter import Failure, FakeAdapter, Served, failure, serving

Request = transcribe_service_pb2.LiveTranscribeRequest


def config(**members: Any) -> Request:
    return Request(config=members)


def audio(data: bytes) -> Request:
    return Request(audio=data)


def stub(served: Served) -> Any:
    return transcribe_service_pb2_grpc.TranscribeServiceStub(served.channel)


class Listener(FakeAdapter):
    """Puts each piece of audio into `heard` as it comes, and answers what it heard."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        super().__init__(timeouts)
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = asyncio.Event()
        self.transcribe = self._transcribe

    async def _transcribe(self, request: Body, call: Call) -> Body:
        self.asked.append(request)
        assert request.upload is not None
        sound = b""
        try:
            async for piece in request.upload.chunks():
                sound += piece
                self.heard.put_nowait(piece)
        finally:
            self.left.set()
        return Body.from_value("TranscribeResponse", {"text": sound.decode(), "x": [1]})


async def feed(*messages: Request) -> AsyncIterator[Request]:
    for message in messages:
        yield message


async def refused(served: Served, *messages: Request) -> Failure:
    """How a call ends whose last message is wrong; it is not half-closed, which would race."""
    call = stub(served).LiveTranscribe()
    for message in messages:
        await call.write(message)
    return await failure(call)


async def test_one_final_answer_ends_the_stream(tmp_path: Path) -> None:
    adapter = Listener()
    async with serving(adapter, tmp_path) as served:
        call = stub(served).LiveTranscribe(
            feed(config(language="fr"), audio(b"ab"), audio(b""), audio(b"c"))
        )
        answers = [answer async for answer in call]
    (answer,) = answers
    assert answer.final.text == "abc"
    assert answer.final.extra.json == '{"x":[1]}'
    (request,) = adapter.asked
    assert request.value() == {"language": "fr"}
    assert request.upload is not None
    assert (request.upload.filename, request.upload.size) == ("audio.wav", None)
    (ended,) = served.ended
    assert (ended.method, ended.usage.outcome) == ("LiveTranscribe", "OK")


async def test_audio_reaches_the_adapter_while_it_arrives(tmp_path: Path) -> None:
    """G34: the whole is never held."""
    adapter = Listener()
    async with serving(adapter, tmp_path) as served:
        call = stub(served).LiveTranscribe()
        await call.write(config())
        for piece in (b"one", b"two", b"three"):
            await call.write(audio(piece))
            assert await asyncio.wait_for(adapter.heard.get(), 5) == piece
        await call.done_writing()
        assert (await call.read()).final.text == "onetwothree"
        assert not await call.read()


async def test_name_and_type_of_the_sound_come_from_the_configuration(tmp_path: Path) -> None:
    adapter = Listener()
    file = {"filename": "a.ogg", "media_type": "audio/ogg"}
    async with serving(adapter, tmp_path) as served:
        await stub(served).LiveTranscribe(feed(config(file=file), audio(b"a"))).read()
    (request,) = adapter.asked
    assert request.upload is not None
    assert (request.upload.filename, request.upload.media_type) == ("a.ogg", "audio/ogg")


async def test_members_that_no_field_holds_reach_the_adapter_unchanged(tmp_path: Path) -> None:
    """G23: an integer past 64 bits among them."""
    adapter = Listener()
    extra = '{"seed":1180591620717411303425,"vad":{"x":null}}'
    async with serving(adapter, tmp_path) as served:
        await stub(served).LiveTranscribe(feed(config(extra={"json": extra}), audio(b"a"))).read()
    assert adapter.asked[0].json().decode() == extra


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ((audio(b"a"),), "the first message must be `config`"),
        ((Request(),), "the first message must be `config`"),
        ((config(), config()), "after `config` only `audio` may follow"),
        ((config(), audio(b"a"), config()), "after `config` only `audio` may follow"),
        ((config(), Request()), "after `config` only `audio` may follow"),
        ((config(file={"data": b"a"}),), "`config.file` may hold no data"),
    ],
)
async def test_messages_in_the_wrong_order_are_refused(
    tmp_path: Path, messages: tuple[Request, ...], said: str
) -> None:
    async with serving(Listener(), tmp_path) as served:
        failed = await refused(served, *messages)
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert failed.message.startswith(said)
    assert [field for field, _ in failed.violations] == ["message"]
    assert failed.initial == {}


async def test_a_stream_without_messages_is_refused(tmp_path: Path) -> None:
    async with serving(Listener(), tmp_path) as served:
        call = stub(served).LiveTranscribe()
        await call.done_writing()
        failed = await failure(call)
    assert failed.message == "the first message must be `config`"


async def test_a_configuration_that_is_wrong_is_refused_by_its_field(tmp_path: Path) -> None:
    async with serving(Listener(), tmp_path) as served:
        failed = await refused(served, config(extra={"json": '{"language":"fr"}'}))
    assert failed.violations == [("extra", "member 'language' belongs in the field language")]


async def test_audio_past_the_limit_is_refused(tmp_path: Path) -> None:
    """G34: without waiting for its end."""
    adapter = Listener()
    async with serving(adapter, tmp_path, max_upload_bytes=1000) as served:
        fine = stub(served).LiveTranscribe(feed(config(), audio(b"x" * 500), audio(b"x" * 500)))
        assert len((await fine.read()).final.text) == 1000
        call = stub(served).LiveTranscribe()
        await call.write(config())
        await call.write(audio(b"x" * 600))
        await call.write(audio(b"x" * 401))
        failed = await failure(call)
    assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
    assert dict(failed.detail(error_details_pb2.ErrorInfo).metadata) == {"limit_bytes": "1000"}
    assert [ended.usage.outcome for ended in served.ended] == ["OK", "RESOURCE_EXHAUSTED"]


async def test_an_adapter_s_error_ends_the_stream(tmp_path: Path) -> None:
    adapter = FakeAdapter()

    async def transcribe(request: Body, call: Call) -> Body:
        raise errors.UpstreamUnavailable("gone")

    adapter.transcribe = transcribe
    async with serving(adapter, tmp_path) as served:
        failed = await refused(served, config())
    assert (failed.code, failed.reason) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")


async def test_an_answer_that_is_no_json_comes_as_a_document(tmp_path: Path) -> None:
    adapter = FakeAdapter()

    async def transcribe(request: Body, call: Call) -> Body:
        return Body.from_document("TranscribeResponse", Document("text/vtt", "WEBVTT\n"))

    adapter.transcribe = transcribe
    async with serving(adapter, tmp_path) as served:
        answer = await stub(served).LiveTranscribe(feed(config(), audio(b"a"))).read()
    assert answer.final.document.text == "WEBVTT\n"


async def test_a_live_call_may_last_longer_than_a_unary_one(tmp_path: Path) -> None:
    """It lasts as long as somebody speaks: the limit of streams holds."""
    adapter = Listener(Timeouts(total=0.05, stream_total=30))
    async with serving(adapter, tmp_path) as served:
        call = stub(served).LiveTranscribe()
        await call.write(config())
        for _ in range(4):
            await asyncio.sleep(0.03)
            await call.write(audio(b"a"))
        await call.done_writing()
        assert (await call.read()).final.text == "aaaa"


async def test_the_limit_of_streams_ends_a_live_call(tmp_path: Path) -> None:
    """G21."""
    adapter = Listener(Timeouts(stream_total=0.1))
    async with serving(adapter, tmp_path) as served:
        call = stub(served).LiveTranscribe()
        await call.write(config())
        failed = await failure(call)
    assert failed.code == "DEADLINE_EXCEEDED"
    assert failed.detail(error_details_pb2.ErrorInfo).metadata["which"] == "total"
    assert adapter.left.is_set()


async def test_a_cancel_ends_the_adapter_s_work(tmp_path: Path) -> None:
    """G5."""
    adapter = Listener()
    async with serving(adapter, tmp_path) as served:
        call = stub(served).LiveTranscribe()
        await call.write(config())
        await call.write(audio(b"a"))
        await asyncio.wait_for(adapter.heard.get(), 5)
        call.cancel()
        await asyncio.wait_for(adapter.left.wait(), 5)
        assert await served.in_flight.idle(2)
    (ended,) = served.ended
    assert ended.usage.outcome == "CANCELLED"
