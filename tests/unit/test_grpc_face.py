"""The gRPC face over a real unix socket, with adapters that the tests write."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tetrad.v1 import (
    chat_service_pb2,
    chat_service_pb2_grpc,
    embed_service_pb2,
    embed_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    rerank_service_pb2,
    rerank_service_pb2_grpc,
    transcribe_service_pb2,
    transcribe_service_pb2_grpc,
)

from services import errors
from services.auth import Keyring
from services.body import Body
from services.call import Call
from services.config import Address, Key
from services.inflight import InFlight
from services.routing.table import Route, RoutedModel
from services.server.bind import Settings
from services.server.face import BindError, GrpcFace
from services.upstream import Timeouts
from tests.lib.fake_adapter import CHAT, FakeAdapter, Served, failure, plain, serving
from tests.lib.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
USER: Any = [{"role": "user", "content": {"text": "hi"}}]
REQUEST = chat_service_pb2.ChatRequest(messages=USER)
SERVICES = ["Chat", "Embed", "Transcribe", "Rerank", "Model"]
NAMES = ["", *(f"tetrad.v1.{name}Service" for name in SERVICES)]


def chat_of(served: Served) -> Any:
    return chat_service_pb2_grpc.ChatServiceStub(served.channel)


def raising(error: BaseException) -> FakeAdapter:
    """Every method of it fails with that error."""
    adapter = FakeAdapter()

    async def fail(request: Body, call: Call) -> Body:
        raise error

    async def fail_stream(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        raise error
        yield []

    adapter.chat, adapter.stream_chat = fail, fail_stream
    return adapter


def chunks(*texts: str) -> list[Body]:
    return [
        Body.from_value(
            "StreamChatResponse", {"choices": [{"index": 0, "delta": {"content": text}}]}
        )
        for text in texts
    ]


def said(chunk: chat_service_pb2.StreamChatResponse) -> str:
    return chunk.choices[0].delta.content.text


# --- answers -------------------------------------------------------------------------------------


async def test_a_call_is_answered_with_its_metadata(tmp_path: Path) -> None:
    adapter = plain(FakeAdapter())
    async with serving(adapter, tmp_path) as served:
        call = chat_of(served).Chat(REQUEST, metadata=[("x-request-id", "req-7")])
        answer = await call
        assert answer.choices[0].message.content.text == "hi"
        assert dict(await call.trailing_metadata()) == {
            "x-request-id": "req-7",
            "x-tetrad-model": "m",
            "x-tetrad-endpoint": "fake one",
        }
        assert dict(await call.initial_metadata()) == {}
    (ended,) = served.ended
    assert (ended.method, ended.face, ended.usage.outcome) == ("Chat", "grpc", "OK")
    assert adapter.asked[0].value() == {"messages": [{"role": "user", "content": "hi"}]}


async def test_every_method_of_every_service_answers(tmp_path: Path) -> None:
    adapter = plain(FakeAdapter())

    async def stream_chat(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield chunks("a", "b")
        yield chunks("c")

    async def rerank(request: Body, call: Call) -> Body:
        return Body.from_json("RerankResponse", b'{"results":[{"index":0,"relevance_score":0.5}]}')

    async def transcribe(request: Body, call: Call) -> Body:
        assert request.upload is not None
        sound = b"".join([piece async for piece in request.upload.chunks()])
        return Body.from_value("TranscribeResponse", {"text": sound.decode()})

    async def stream_transcribe(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield [
            Body.from_value(
                "StreamTranscribeResponse", {"type": "transcript.text.done", "text": "d"}
            )
        ]

    adapter.stream_chat, adapter.rerank = stream_chat, rerank
    adapter.transcribe, adapter.stream_transcribe = transcribe, stream_transcribe
    async with serving(adapter, tmp_path) as served:
        chat = chat_of(served)
        assert (await chat.Chat(REQUEST)).id == "c1"
        assert [said(chunk) async for chunk in chat.StreamChat(REQUEST)] == ["a", "b", "c"]
        embed = embed_service_pb2_grpc.EmbedServiceStub(served.channel)
        vectors = await embed.Embed(embed_service_pb2.EmbedRequest(input={"text": "a"}))
        assert list(vectors.data[0].embedding.floats.values) == [0.5, 1]
        ranks = rerank_service_pb2_grpc.RerankServiceStub(served.channel)
        asked = rerank_service_pb2.RerankRequest(query={"text": "q"}, documents=[{"text": "d"}])
        assert (await ranks.Rerank(asked)).results[0].relevance_score == 0.5
        speech = transcribe_service_pb2_grpc.TranscribeServiceStub(served.channel)
        sound = transcribe_service_pb2.TranscribeRequest(file={"data": b"abc"})
        assert (await speech.Transcribe(sound)).text == "abc"
        events = [event async for event in speech.StreamTranscribe(sound)]
        assert [event.done.text for event in events] == ["d"]
        models = model_service_pb2_grpc.ModelServiceStub(served.channel)
        listed = await models.ListModels(model_service_pb2.ListModelsRequest())
        assert [model.id for model in listed.models] == ["e", "m", "r", "w"]
        one = await models.GetModel(model_service_pb2.GetModelRequest(model="m"))
        assert one.model.type == CHAT
    assert [call.method for call in served.ended] == [
        "Chat",
        "StreamChat",
        "Embed",
        "Rerank",
        "Transcribe",
        "StreamTranscribe",
    ]
    assert {call.usage.outcome for call in served.ended} == {"OK"}


async def test_a_stream_s_messages_come_as_they_are_made(tmp_path: Path) -> None:
    adapter = FakeAdapter()
    go_on = asyncio.Event()

    async def stream_chat(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield chunks("a")
        await go_on.wait()
        yield chunks("b")

    adapter.stream_chat = stream_chat
    async with serving(adapter, tmp_path) as served:
        call = chat_of(served).StreamChat(REQUEST)
        first = await call.read()
        assert said(first) == "a"
        assert dict(await call.initial_metadata())["x-tetrad-model"] == "m"
        go_on.set()
        assert said(await call.read()) == "b"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_the_caller_s_tracing_reaches_the_adapter(tmp_path: Path) -> None:
    """G40."""
    adapter = FakeAdapter()
    seen: list[Call] = []

    async def chat(request: Body, call: Call) -> Body:
        seen.append(call)
        return Body.from_json("ChatResponse", b"{}")

    adapter.chat = chat
    told = [("traceparent", "00-a-b-01"), ("x-tenant", "t"), ("x-other", "o"), ("cookie", "c")]
    async with serving(adapter, tmp_path, pass_in=("x-tenant", "cookie")) as served:
        await chat_of(served).Chat(REQUEST, metadata=told, timeout=30)
    (call,) = seen
    assert call.headers == {"x-request-id": call.id, "traceparent": "00-a-b-01", "x-tenant": "t"}
    assert call.id.startswith("req_")
    assert call.remaining() == pytest.approx(30, abs=5)


async def test_what_is_told_of_a_call_is_made_fit_for_metadata(tmp_path: Path) -> None:
    """A name or a header of an upstream must not break a good answer."""
    adapter = FakeAdapter()

    async def chat(request: Body, call: Call) -> Body:
        call.out |= {
            "x-note": "naïve\n",
            "content-length": "5",
            "grpc-status": "3",
            "x-raw-bin": "abc",
            "x-long": "x" * 20_000,
            "x-last": "z",
        }
        return Body.from_json("ChatResponse", b"{}")

    adapter.chat = chat
    model = RoutedModel("modèle", CHAT, [Route("fake one", adapter, ready=True)], default=True)
    async with serving(adapter, tmp_path, model) as served:
        call = chat_of(served).Chat(REQUEST)
        await call
        told = dict(await call.trailing_metadata())
    assert told.pop("x-request-id")
    assert told == {
        "x-tetrad-model": "mod%C3%A8le",
        "x-tetrad-endpoint": "fake one",
        "x-note": "na%C3%AFve%0A",
    }


# --- failures ------------------------------------------------------------------------------------

FAULT = errors.UpstreamFault(
    endpoint="vllm a:1", http_status=400, type="BadRequest", code="c", param="p", body='{"a":1}'
)


@pytest.mark.parametrize(
    ("error", "code", "reason", "pushback"),
    [
        (errors.InvalidRequest("no", param="a.b"), "INVALID_ARGUMENT", "INVALID_REQUEST", False),
        (errors.Overloaded("full", retry_after=2.5), "RESOURCE_EXHAUSTED", "OVERLOADED", False),
        (errors.UpstreamUnavailable("gone"), "UNAVAILABLE", "UPSTREAM_UNAVAILABLE", False),
        (errors.UpstreamTruncated("cut", reached=True), "UNAVAILABLE", "UPSTREAM_TRUNCATED", True),
        (errors.NotOffered("not here"), "UNIMPLEMENTED", "NOT_OFFERED", False),
        (
            errors.DeadlineExceeded("first_byte", seconds=1),
            "DEADLINE_EXCEEDED",
            "DEADLINE_EXCEEDED",
            True,
        ),
        (
            errors.UpstreamInvalidRequest("é 100%", upstream=FAULT),
            "INVALID_ARGUMENT",
            "UPSTREAM_INVALID_REQUEST",
            True,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
@pytest.mark.parametrize("method", ["Chat", "StreamChat"])
async def test_an_error_is_a_status_with_details(
    tmp_path: Path, error: errors.TetradError, code: str, reason: str, pushback: bool, method: str
) -> None:
    """G22."""
    async with serving(raising(error), tmp_path) as served:
        failed = await failure(
            getattr(chat_of(served), method)(REQUEST, metadata=[("x-request-id", "req-7")])
        )
    assert (failed.code, failed.reason) == (code, reason)
    assert failed.message == error.message == failed.status.message
    assert failed.detail(error_details_pb2.RequestInfo).request_id == "req-7"
    # What comes before the first message would commit the call and end the client's retries.
    assert failed.initial == {}
    assert failed.trailers["x-request-id"] == "req-7"
    assert failed.trailers["x-tetrad-model"] == "m"
    assert (failed.trailers.get("grpc-retry-pushback-ms") == "-1") == pushback
    assert ("upstream" in vars(error) and error.upstream is not None) == (
        failed.upstream is not None
    )
    if failed.upstream is not None:
        assert failed.upstream.body == '{"a":1}'
    retry = failed.detail(error_details_pb2.RetryInfo)
    if reason == "OVERLOADED":
        assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (2, 500_000_000)
    (ended,) = served.ended
    assert ended.usage.outcome == code


@pytest.mark.parametrize(
    "error", [ValueError("secret"), asyncio.CancelledError(), RuntimeError("x"), TimeoutError()]
)
@pytest.mark.parametrize("method", ["Chat", "StreamChat"])
async def test_a_fault_of_ours_is_internal_and_tells_nothing(
    tmp_path: Path, error: BaseException, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A CancelledError that our own code raises would hang the client to its deadline."""
    async with serving(raising(error), tmp_path) as served:
        failed = await failure(getattr(chat_of(served), method)(REQUEST, timeout=20))
        assert (failed.code, failed.reason) == ("INTERNAL", "INTERNAL")
        assert "secret" not in failed.message + str(failed.status)
        assert failed.initial == {}
        (record,) = [each for each in caplog.records if each.name == "tetrad.grpc"]
        assert failed.trailers["x-request-id"] in record.getMessage()
        assert record.exc_info is not None
        assert (await failure(chat_of(served).Chat(REQUEST))).code == "INTERNAL"  # it lives


async def test_an_error_after_some_messages_is_the_status(tmp_path: Path) -> None:
    """G1."""
    adapter = FakeAdapter()

    async def stream_chat(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield chunks("a", "b")
        raise errors.UpstreamTruncated("cut", reached=True)

    adapter.stream_chat = stream_chat
    async with serving(adapter, tmp_path) as served:
        call = chat_of(served).StreamChat(REQUEST)
        assert [said(await call.read()) for _ in range(2)] == ["a", "b"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.initial_metadata())["x-tetrad-model"] == "m"
    (ended,) = served.ended
    assert ended.usage.outcome == "UNAVAILABLE"


async def test_an_answer_that_cannot_be_read_is_the_upstream_s_fault(tmp_path: Path) -> None:
    """G2: and nothing is sent before it, so that the client may retry."""
    adapter = FakeAdapter()

    async def chat(request: Body, call: Call) -> Body:
        return Body.from_json("ChatResponse", b"[]")

    async def stream_chat(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield []
        yield [Body.from_json("StreamChatResponse", b"5")]

    adapter.chat, adapter.stream_chat = chat, stream_chat
    async with serving(adapter, tmp_path) as served:
        for method in ("Chat", "StreamChat"):
            failed = await failure(getattr(chat_of(served), method)(REQUEST))
            assert (failed.code, failed.reason) == ("INTERNAL", "UPSTREAM_PROTOCOL")
            assert failed.initial == {}


async def test_lone_surrogates_of_an_upstream_are_replaced(tmp_path: Path) -> None:
    adapter = FakeAdapter()

    async def chat(request: Body, call: Call) -> Body:
        return Body.from_json("ChatResponse", b'{"id":"a\\ud800"}')

    adapter.chat = chat
    async with serving(adapter, tmp_path) as served:
        assert (await chat_of(served).Chat(REQUEST)).id == "a\ufffd"


@pytest.mark.parametrize(
    ("request_", "violations"),
    [
        (chat_service_pb2.ChatRequest(), [("messages", "required, but absent")]),
        (
            chat_service_pb2.ChatRequest(messages=USER, extra={"json": '{"model":"m"}'}),
            [("extra", "member 'model' belongs in the field model")],
        ),
        (
            chat_service_pb2.ChatRequest(messages=USER, temperature=float("nan")),
            [("temperature", "nan has no JSON: give a finite number")],
        ),
    ],
)
@pytest.mark.parametrize("method", ["Chat", "StreamChat"])
async def test_a_bad_request_is_refused_by_its_fields(
    tmp_path: Path,
    request_: chat_service_pb2.ChatRequest,
    violations: list[tuple[str, str]],
    method: str,
) -> None:
    adapter = plain(FakeAdapter())
    async with serving(adapter, tmp_path) as served:
        failed = await failure(getattr(chat_of(served), method)(request_))
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert failed.violations == violations
    assert adapter.asked == []


@pytest.mark.parametrize(
    "method",
    [
        "ChatService/Chat",
        "ChatService/StreamChat",
        "EmbedService/Embed",
        "RerankService/Rerank",
        "TranscribeService/Transcribe",
        "TranscribeService/StreamTranscribe",
        "ModelService/GetModel",
    ],
)
async def test_bytes_that_are_no_message_are_refused(tmp_path: Path, method: str) -> None:
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        path = f"/tetrad.v1.{method}"
        call: Any = served.channel.unary_unary(path)
        if "/Stream" in method:
            call = served.channel.unary_stream(path)
        failed = await failure(call(b"\xff\xff"))
    assert failed.code == "INVALID_ARGUMENT"
    assert "the bytes are not a" in failed.message


@pytest.mark.parametrize("method", ["EmbedService/BulkEmbed", "TranscribeService/LiveTranscribe"])
async def test_bytes_that_are_no_message_end_a_bidirectional_stream(
    tmp_path: Path, method: str
) -> None:
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        call: Any = served.channel.stream_stream(f"/tetrad.v1.{method}")()
        await call.write(b"\xff\xff")
        failed = await failure(call)
    assert failed.code == "INVALID_ARGUMENT"
    assert "the bytes are not a" in failed.message


async def test_unknown_methods_are_answered_with_details(tmp_path: Path) -> None:
    async with serving(FakeAdapter(), tmp_path) as served:
        for path in ("/tetrad.v1.ChatService/Nothing", "/other.Service/Method", "/x/y"):
            calls: list[Any] = [
                served.channel.unary_unary(path)(b"x"),
                served.channel.unary_stream(path)(b"x"),
                served.channel.stream_stream(path)(),
            ]
            for call in calls:
                failed = await failure(call)
                assert (failed.code, failed.reason) == ("UNIMPLEMENTED", "METHOD_UNKNOWN")
                assert path in failed.message
                assert failed.trailers["x-request-id"]


async def test_a_message_over_the_limit_is_refused_with_details(tmp_path: Path) -> None:
    """G28."""
    adapter = plain(FakeAdapter())
    limit = 100_000

    def request(size: int) -> chat_service_pb2.ChatRequest:
        message = chat_service_pb2.ChatRequest(messages=USER, user="x" * size)
        message.user = "x" * (2 * size - message.ByteSize())
        assert message.ByteSize() == size
        return message

    async with serving(adapter, tmp_path, max_request_bytes=limit) as served:
        assert (await chat_of(served).Chat(request(limit))).id == "c1"
        for size in (limit + 1, limit + 1024 * 1024):
            for method in ("Chat", "StreamChat"):
                failed = await failure(getattr(chat_of(served), method)(request(size)))
                assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
                assert f"the message has {size} bytes, the limit is {limit}" in failed.message
        beyond = await failure(chat_of(served).Chat(request(limit + 2 * 1024 * 1024)))
        assert beyond.code == "RESOURCE_EXHAUSTED"  # grpc's own, without details
        speech = transcribe_service_pb2_grpc.TranscribeServiceStub(served.channel)
        sound = transcribe_service_pb2.TranscribeRequest(file={"data": bytes(limit)})
        for method in ("Transcribe", "StreamTranscribe"):
            failed = await failure(getattr(speech, method)(sound))
            assert "send longer audio through LiveTranscribe" in failed.message
    assert len(adapter.asked) == 1


async def test_answers_may_be_of_any_size(tmp_path: Path) -> None:
    """G28."""
    adapter = FakeAdapter()

    async def chat(request: Body, call: Call) -> Body:
        return Body.from_value("ChatResponse", {"id": "x" * 8_000_000})

    adapter.chat = chat
    async with serving(adapter, tmp_path) as served:
        assert len((await chat_of(served).Chat(REQUEST)).id) == 8_000_000


async def test_a_key_is_required_where_there_are_keys(tmp_path: Path) -> None:
    keys = [
        Key(name="ada", sha256=hashlib.sha256(b"tk-a").hexdigest()),
        Key(name="bob", sha256=hashlib.sha256(b"tk-b").hexdigest(), models=("other",)),
    ]
    adapter = plain(FakeAdapter())
    async with serving(adapter, tmp_path, keyring=Keyring(keys, open=False)) as served:
        chat = chat_of(served)
        for metadata in ([], [("authorization", "Bearer tk-x")], [("authorization", "tk-a")]):
            failed = await failure(chat.Chat(REQUEST, metadata=metadata))
            assert (failed.code, failed.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            assert "tk-x" not in str(failed)
        named = chat_service_pb2.ChatRequest(messages=USER, model="m")
        failed = await failure(chat.Chat(named, metadata=[("authorization", "Bearer tk-b")]))
        assert (failed.code, failed.reason) == ("PERMISSION_DENIED", "MODEL_FORBIDDEN")
        await chat.Chat(REQUEST, metadata=[("authorization", "Bearer tk-a")])
    assert served.ended[-1].principal.name == "ada"
    assert len(adapter.asked) == 1


async def test_too_many_calls_at_once_are_refused(tmp_path: Path) -> None:
    """G15."""
    adapter = FakeAdapter()
    started, go_on = asyncio.Event(), asyncio.Event()

    async def chat(request: Body, call: Call) -> Body:
        started.set()
        await go_on.wait()
        return Body.from_json("ChatResponse", b"{}")

    adapter.chat = chat
    async with serving(adapter, tmp_path, max_in_flight=1) as served:
        call = chat_of(served).Chat(REQUEST)
        await started.wait()
        failed = await failure(chat_of(served).Chat(REQUEST))
        assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert failed.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        go_on.set()
        await call
        await chat_of(served).Chat(REQUEST)


async def test_a_draining_server_lets_no_call_in(tmp_path: Path) -> None:
    """G36."""
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        served.in_flight.drain()
        failed = await failure(chat_of(served).Chat(REQUEST))
    assert (failed.code, failed.reason) == ("UNAVAILABLE", "DRAINING")
    assert "grpc-retry-pushback-ms" not in failed.trailers  # another replica will take it


# --- deadlines and cancels ---------------------------------------------------------------------


class Hanging(FakeAdapter):
    """It begins, and never ends; `left` is set once it was cancelled."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        super().__init__(timeouts)
        self.entered, self.left = asyncio.Event(), asyncio.Event()
        self.chat, self.stream_chat = self._chat, self._stream_chat

    async def _chat(self, request: Body, call: Call) -> Body:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError("nobody sets it")

    async def _stream_chat(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield chunks("a")
        await self._chat(request, call)


@pytest.mark.parametrize("method", ["Chat", "StreamChat"])
async def test_a_deadline_ends_the_call_and_the_adapter_s_work(tmp_path: Path, method: str) -> None:
    """G5."""
    adapter = Hanging()
    async with serving(adapter, tmp_path) as served:
        call = getattr(chat_of(served), method)(REQUEST, timeout=0.3)
        if method == "StreamChat":
            await call.read()
        failed = await failure(call)
        assert failed.code == "DEADLINE_EXCEEDED"
        await asyncio.wait_for(adapter.left.wait(), 2)
        assert await served.in_flight.idle(2)
    (ended,) = served.ended
    # The caller's clock began to run before ours did: it may break off first.
    assert ended.usage.outcome in ("DEADLINE_EXCEEDED", "CANCELLED")


@pytest.mark.parametrize(
    ("method", "timeouts"),
    [("Chat", Timeouts(total=0.1)), ("StreamChat", Timeouts(stream_total=0.1))],
)
async def test_our_own_limit_is_told_with_its_name(
    tmp_path: Path, method: str, timeouts: Timeouts
) -> None:
    """G21."""
    adapter = Hanging(timeouts)
    async with serving(adapter, tmp_path) as served:
        call = getattr(chat_of(served), method)(REQUEST, timeout=30)
        if method == "StreamChat":
            await call.read()
        failed = await failure(call)
    assert (failed.code, failed.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert dict(failed.detail(error_details_pb2.ErrorInfo).metadata) == {
        "which": "total",
        "seconds": "0.1",
    }
    assert adapter.left.is_set()
    (ended,) = served.ended
    assert ended.usage.outcome == "DEADLINE_EXCEEDED"


async def test_a_stream_s_limit_strikes_although_the_caller_does_not_read(tmp_path: Path) -> None:
    adapter = FakeAdapter(Timeouts(stream_total=0.3))
    closed = asyncio.Event()

    async def stream_chat(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        try:
            while True:
                yield chunks("x" * 100_000)
        finally:
            closed.set()

    adapter.stream_chat = stream_chat
    async with serving(adapter, tmp_path) as served:
        call = chat_of(served).StreamChat(REQUEST)
        await asyncio.wait_for(closed.wait(), 5)
        assert await served.in_flight.idle(2)  # the status waits for the caller, the slot does not
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (ended,) = served.ended
    assert ended.usage.outcome == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("method", ["Chat", "StreamChat"])
async def test_a_cancel_reaches_the_adapter(tmp_path: Path, method: str) -> None:
    """G5, G8."""
    adapter = Hanging()
    async with serving(adapter, tmp_path) as served:
        call = getattr(chat_of(served), method)(REQUEST)
        if method == "StreamChat":
            await call.read()
        else:
            running = asyncio.ensure_future(call)
        await asyncio.wait_for(adapter.entered.wait(), 2)
        call.cancel()
        await asyncio.wait_for(adapter.left.wait(), 2)
        assert await served.in_flight.idle(2)
        if method == "Chat":
            with pytest.raises(asyncio.CancelledError):
                await running
        assert served.router.table.models[1].routes[0].in_flight == 0
    (ended,) = served.ended
    assert ended.usage.outcome == "CANCELLED"


# --- health, reflection, life ------------------------------------------------------------------


async def test_health_tells_of_every_service(tmp_path: Path) -> None:
    async with serving(FakeAdapter(), tmp_path) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        for name in NAMES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
        failed = await failure(health.Check(health_pb2.HealthCheckRequest(service="nothing")))
        assert failed.code == "NOT_FOUND"
        await served.face.not_serving()
        for name in NAMES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING, name


@pytest.mark.parametrize("name", ["", "tetrad.v1.ChatService", "nothing"])
async def test_a_watch_ends_when_the_server_drains(tmp_path: Path, name: str) -> None:
    """G36: an open watch must not hold up the drain."""
    response = health_pb2.HealthCheckResponse
    before = response.SERVICE_UNKNOWN if name == "nothing" else response.SERVING
    async with serving(FakeAdapter(), tmp_path) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=name))
        assert (await watch.read()).status == before
        await served.face.not_serving()
        if name != "nothing":
            assert (await watch.read()).status == response.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        assert await watch.code() is grpc.StatusCode.OK
        late = [each.status async for each in health.Watch(health_pb2.HealthCheckRequest())]
        assert late == [response.NOT_SERVING]
        async with asyncio.timeout(5):
            await served.face.stop(60)


async def test_a_cancelled_watch_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(FakeAdapter(), tmp_path) as served:
        health = health_pb2_grpc.HealthStub(served.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        watch.cancel()
        async with asyncio.timeout(5):
            await served.face.stop(60)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services(tmp_path: Path, version: str) -> None:
    async with serving(FakeAdapter(), tmp_path) as served:
        reflect = served.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="tetrad.v1.ChatRequest"),
        ]
        listed, file = [answer async for answer in reflect(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        *NAMES[1:],
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert file.file_descriptor_response.file_descriptor_proto


async def test_grpcurl_finds_its_way_by_reflection(tmp_path: Path) -> None:
    grpcurl = Path(sys.executable).parent / "grpcurl"
    adapter = plain(FakeAdapter())

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [grpcurl, "-plaintext", "-unix", *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    async with serving(adapter, tmp_path) as served:
        path = str(served.path)
        listed = await asyncio.to_thread(run, path, "list")
        assert "tetrad.v1.ChatService" in listed.splitlines()
        described = await asyncio.to_thread(run, path, "describe", "tetrad.v1.ChatService.Chat")
        assert "rpc Chat ( .tetrad.v1.ChatRequest )" in described
        body = json.dumps({"messages": [{"role": "user", "content": {"text": "hi"}}]})
        answer = await asyncio.to_thread(run, "-d", body, path, "tetrad.v1.ChatService/Chat")
    assert json.loads(answer)["choices"][0]["message"]["content"] == {"text": "hi"}


def face() -> GrpcFace:
    nothing = type("Nothing", (), {"__getattr__": lambda self, name: None})()
    services: dict[str, object] = dict.fromkeys(NAMES[1:], nothing)
    return GrpcFace(services, Settings(Keyring([], open=True), InFlight(), 1024))


async def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    """Two servers on one port would share its connections silently."""
    port = free_port()
    first, second = face(), face()
    assert first.bind(Address.parse(f"127.0.0.1:{port}")) == port
    with pytest.raises(BindError, match=f"gRPC cannot listen on 127.0.0.1:{port}: address already"):
        second.bind(Address.parse(f"127.0.0.1:{port}"))
    await first.stop(0)
    await second.stop(0)


async def test_a_free_port_is_chosen_for_port_0() -> None:
    one = face()
    port = one.bind(Address.parse("127.0.0.1:0"))
    assert port > 0
    await one.stop(0)


async def test_a_socket_file_has_no_port(tmp_path: Path) -> None:
    one = face()
    assert one.bind(Address.parse(f"unix:{tmp_path / 'a.sock'}")) == 0
    await one.stop(0)


async def test_a_socket_file_that_is_served_is_not_taken_over(tmp_path: Path) -> None:
    """grpc would unlink it under the other server."""
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        second = face()
        with pytest.raises(BindError, match="another server listens there"):
            second.bind(Address.parse(f"unix:{served.path}"))
        await second.stop(0)
        assert (await chat_of(served).Chat(REQUEST)).id == "c1"


async def test_a_socket_file_that_nobody_serves_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        assert served.path == path
        assert (await chat_of(served).Chat(REQUEST)).id == "c1"


async def test_a_socket_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    one = face()
    with pytest.raises(BindError, match="gRPC cannot listen on unix:"):
        one.bind(Address.parse(f"unix:{tmp_path / 'no' / 'a.sock'}"))
    await one.stop(0)


async def test_a_stop_ends_open_calls_after_its_grace(tmp_path: Path) -> None:
    adapter = Hanging()
    async with serving(adapter, tmp_path) as served:
        call = chat_of(served).StreamChat(REQUEST)
        await call.read()
        await asyncio.wait_for(adapter.entered.wait(), 2)
        await served.face.stop(0.1)
        await asyncio.wait_for(adapter.left.wait(), 2)
        assert await served.in_flight.idle(2)
        failed = await failure(call)
        assert failed.code in ("UNAVAILABLE", "CANCELLED")
