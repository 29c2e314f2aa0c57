"""services/dispatch.py and the services on it: routes, limits, headers, one record a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from services import errors
from services.body import Body
from services.call import Call
from services.chat import ChatService
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.rerank import RerankService
from services.routing.table import Route, RoutedModel, Router
from services.transcribe import TranscribeService
from services.upload import Upload
from services.upstream import Timeouts
from tests.lib.fake_adapter import (
    ANSWER,
    CHAT,
    RERANK,
    FakeAdapter,
    a_call,
    error_status,
    plain,
    router,
)


def chat(**members: Any) -> Body:
    return Body.from_value(
        "ChatRequest", {"messages": [{"role": "user", "content": "hi"}]} | members
    )


class Bench:
    """A dispatch on a fake adapter; `ended` are the calls that were accounted for."""

    def __init__(self, adapter: FakeAdapter, *models: RoutedModel) -> None:
        self.ended: list[Call] = []
        self.router: Router = router(adapter, *models)
        self.dispatch = Dispatch(self.router, [self.ended.append])
        self.chat = ChatService(self.dispatch)

    @property
    def leases(self) -> int:
        return sum(route.in_flight for model in self.router.table.models for route in model.routes)

    @property
    def outcomes(self) -> list[str]:
        return [call.usage.outcome for call in self.ended]


async def test_a_call_goes_to_the_model_s_route_and_tells_where_it_went() -> None:
    adapter = plain(FakeAdapter())
    bench = Bench(adapter, RoutedModel("m", CHAT, [Route("r1", adapter)], aliases=("alias",)))
    for name in (None, "m", "alias"):
        call = a_call()
        answer = await bench.chat.chat(chat(model=name), call)
        assert answer.json() == ANSWER
        assert call.out == {"x-tetrad-model": "m", "x-tetrad-endpoint": "r1"}
        assert call.model == "m"
    assert bench.outcomes == ["OK"] * 3


async def test_a_stream_s_route_is_held_to_its_end() -> None:
    adapter = FakeAdapter()
    chunk = Body.from_json("StreamChatResponse", b"{}")

    async def stream_chat(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield [chunk, chunk]
        yield [chunk]

    adapter.stream_chat = stream_chat
    bench = Bench(adapter)
    sizes = []
    async for batch in bench.chat.stream_chat(chat(), a_call("StreamChat")):
        sizes.append(len(batch))
        assert bench.leases == 1
        assert bench.ended == []
    assert (sizes, bench.leases, bench.outcomes) == ([2, 1], 0, ["OK"])


async def test_leaving_a_stream_closes_the_adapter_s() -> None:
    """G5, G9, G13."""
    adapter = FakeAdapter()
    closed = []

    async def stream_chat(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        try:
            while True:
                yield [Body.from_json("StreamChatResponse", b"{}")]
        finally:
            closed.append(True)

    adapter.stream_chat = stream_chat
    bench = Bench(adapter)
    stream: Any = bench.chat.stream_chat(chat(), a_call("StreamChat"))
    async with aclosing(stream) as batches:
        async for _ in batches:
            break
    assert (closed, bench.leases, bench.outcomes) == ([True], 0, ["CANCELLED"])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.UpstreamUnavailable("gone"), "UNAVAILABLE"),
        (errors.InvalidRequest("no"), "INVALID_ARGUMENT"),
        (ValueError("bug"), "INTERNAL"),
        (asyncio.CancelledError(), "CANCELLED"),
    ],
)
async def test_a_failed_call_has_one_record_and_no_lease(
    error: BaseException, outcome: str
) -> None:
    """G9, G13."""
    adapter = FakeAdapter()

    async def fail(request: Body, call: Call) -> Body:
        raise error

    async def fail_stream(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield []
        raise error

    adapter.chat, adapter.stream_chat = fail, fail_stream
    bench = Bench(adapter)
    with pytest.raises(type(error)):
        await bench.chat.chat(chat(), a_call())

    async def all_of() -> None:
        async for _ in bench.chat.stream_chat(chat(), a_call("StreamChat")):
            pass

    with pytest.raises(type(error)):
        await all_of()
    assert (bench.leases, bench.outcomes) == (0, [outcome] * 2)


async def test_a_refused_call_is_recorded_without_a_route() -> None:
    """G14: it costs nothing at an upstream."""
    adapter = plain(FakeAdapter())
    bench = Bench(adapter)
    for members, kind, code in [
        ({"model": "nothing"}, errors.ModelNotFound, "NOT_FOUND"),
        ({"model": "e"}, errors.NotOffered, "UNIMPLEMENTED"),
    ]:
        call = a_call()
        with pytest.raises(kind):
            await bench.chat.chat(chat(**members), call)
        assert call.out == {}
        assert bench.ended[-1] is call
        assert call.usage.outcome == code
    assert adapter.asked == []


@pytest.mark.parametrize(
    ("given", "said"),
    [(5, "a number"), (True, "a boolean"), (["m"], "an array"), ({"id": "m"}, "an object")],
)
async def test_a_model_that_is_no_name_is_not_answered_by_another(given: Any, said: str) -> None:
    bench = Bench(plain(FakeAdapter()))
    with pytest.raises(errors.InvalidRequest, match=f"expected a model's name, found {said}"):
        await bench.chat.chat(chat(model=given), a_call())


async def test_the_total_limit_bounds_a_unary_call() -> None:
    """G21."""
    adapter = FakeAdapter(Timeouts(total=0.02))

    async def hang(request: Body, call: Call) -> Body:
        await asyncio.Event().wait()
        raise AssertionError

    adapter.chat = hang
    bench = Bench(adapter)
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await bench.chat.chat(chat(), a_call())
    assert caught.value.which == "total"
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await bench.chat.chat(chat(), a_call(seconds=0.01))
    assert caught.value.which == "deadline"
    assert (bench.leases, bench.outcomes) == (0, ["DEADLINE_EXCEEDED"] * 2)


async def test_the_stream_s_limit_bounds_a_stream() -> None:
    """G21."""
    adapter = FakeAdapter(Timeouts(stream_total=0.02))

    async def hang(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield []
        await asyncio.Event().wait()

    adapter.stream_chat = hang
    bench = Bench(adapter)

    async def all_of(call: Call) -> None:
        stream: Any = bench.chat.stream_chat(chat(), call)
        with call.limit(None, "deadline"):
            async with aclosing(stream) as batches:
                async for _ in batches:
                    pass

    with pytest.raises(errors.DeadlineExceeded) as caught:
        await all_of(a_call("StreamChat"))
    assert caught.value.which == "total"
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await all_of(a_call("StreamChat", seconds=0.01))
    assert caught.value.which == "deadline"
    assert (bench.leases, bench.outcomes) == (0, ["DEADLINE_EXCEEDED"] * 2)


@pytest.mark.parametrize("outer", [None, "deadline"])
async def test_a_cancel_after_the_deadline_is_recorded_as_that(outer: str | None) -> None:
    """grpc ends a late call by cancelling it, maybe before our own limit strikes."""
    adapter = FakeAdapter()

    async def late(request: Body, call: Call) -> Body:
        call.deadline = asyncio.get_running_loop().time() - 1
        raise asyncio.CancelledError

    adapter.chat = late
    bench = Bench(adapter)
    with pytest.raises(asyncio.CancelledError):
        await bench.chat.chat(chat(), a_call())
    assert bench.outcomes == ["DEADLINE_EXCEEDED"]


async def test_one_prefix_goes_to_one_route() -> None:
    asked: list[str] = []

    def named(name: str) -> Route:
        adapter = FakeAdapter()

        async def answer(request: Body, call: Call) -> Body:
            asked.append(name)
            return Body.from_json("ChatResponse", b"{}")

        adapter.chat = answer
        return Route(name, adapter, ready=True)

    routes = [named(str(number)) for number in range(4)]
    bench = Bench(FakeAdapter(), RoutedModel("m", CHAT, routes, strategy="prefix_affinity"))

    def prompt(number: int) -> Body:
        start = f"system prompt {number} " * 100
        return chat(
            messages=[{"role": "system", "content": start}, {"role": "user", "content": "x"}]
        )

    homes = {}
    for number in range(30):
        for _ in range(3):
            await bench.chat.chat(prompt(number), a_call())
        homes[number] = asked[-1]
        assert asked[-3:] == [asked[-1]] * 3
    assert len(set(homes.values())) == 4


# --- what each service looks at itself ---------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, False),
        ({"include_usage": True}, True),
        ({"include_usage": False}, False),
        ({"include_usage": 1}, False),
        ([], False),
        ("x", False),
    ],
)
def test_whether_usage_was_asked_for_is_read_from_the_request(options: Any, expected: bool) -> None:
    call = a_call("StreamChat")
    Bench(FakeAdapter()).chat.stream_chat(chat(stream_options=options), call)
    assert call.include_usage is expected


@pytest.mark.parametrize("body", [{}, {"input": None}, {"messages": []}])
async def test_an_embedding_needs_an_input_or_messages(body: dict[str, Any]) -> None:
    service = EmbedService(Bench(plain(FakeAdapter())).dispatch, error_status)
    with pytest.raises(errors.InvalidRequest) as caught:
        await service.embed(Body.from_value("EmbedRequest", body), a_call("Embed"))
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    "body", [{"input": ""}, {"input": []}, {"input": [1]}, {"messages": [{"role": "user"}]}]
)
async def test_whether_an_input_is_good_is_for_the_upstream_to_say(body: dict[str, Any]) -> None:
    adapter = plain(FakeAdapter())
    service = EmbedService(Bench(adapter).dispatch, error_status)
    await service.embed(Body.from_value("EmbedRequest", body), a_call("Embed"))
    assert adapter.asked[0].value() == body


@pytest.mark.parametrize("documents", [None, [], "", {}])
async def test_a_rerank_needs_documents(documents: Any) -> None:
    service = RerankService(Bench(FakeAdapter()).dispatch)
    body = Body.from_value("RerankRequest", {"query": "q", "documents": documents})
    with pytest.raises(errors.InvalidRequest) as caught:
        await service.rerank(body, a_call("Rerank"))
    assert caught.value.param == "documents"


@pytest.mark.parametrize(("documents", "count"), [(["a", {"text": "b"}], 2), ("a", 1)])
async def test_the_documents_of_a_rerank_are_counted(documents: Any, count: int) -> None:
    """G12."""
    adapter = FakeAdapter()

    async def rerank(request: Body, call: Call) -> Body:
        return Body.from_json("RerankResponse", b"{}")

    adapter.rerank = rerank
    bench = Bench(adapter, RoutedModel("r", RERANK, [Route("r1", adapter)]))
    body = Body.from_value("RerankRequest", {"query": "q", "documents": documents})
    await RerankService(bench.dispatch).rerank(body, a_call("Rerank"))
    assert bench.ended[0].usage.documents == count


@pytest.mark.parametrize("method", ["transcribe", "stream_transcribe"])
async def test_a_transcription_needs_a_sound_or_where_to_fetch_it(method: str) -> None:
    adapter = FakeAdapter()

    async def transcribe(request: Body, call: Call) -> Body:
        return Body.from_json("TranscribeResponse", b"{}")

    async def stream_transcribe(request: Body, call: Call) -> AsyncIterator[list[Body]]:
        yield [Body.from_json("StreamTranscribeResponse", b"{}")]

    adapter.transcribe, adapter.stream_transcribe = transcribe, stream_transcribe
    service = TranscribeService(Bench(adapter).dispatch, 1000)

    async def run(body: dict[str, Any], upload: Upload | None) -> None:
        request = Body.from_value("TranscribeRequest", body, upload)
        if method == "transcribe":
            await service.transcribe(request, a_call("Transcribe"))
        else:
            async for _ in service.stream_transcribe(request, a_call("StreamTranscribe")):
                pass

    for body in ({}, {"url": ""}, {"language": "fr"}):
        with pytest.raises(errors.InvalidRequest) as caught:
            await run(body, None)
        assert caught.value.param == "file"
    await run({}, Upload.of(b""))
    for name in ("url", "file_url", "file_id"):
        await run({name: "https://x/a.wav"}, None)
