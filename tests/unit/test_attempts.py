"""services/routing/attempts.py through a dispatch: which failures go to another provider.

The upstream calls are counted: there is one layer of retries, and it has a budget.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from random import Random
from typing import Any

import pytest

from services import errors
from services.body import Body
from services.call import Call
from services.chat import ChatService
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.routing.attempts import is_worth_another, verdict
from services.routing.budget import RetryBudget
from services.routing.table import Route, RoutedModel, Router, Table
from services.transcribe import TranscribeService
from services.upload import Upload
from services.upstream_error import UpstreamFault
from tests.lib.fake_adapter import ANSWER, CHAT, EMBED, SPEECH, FakeAdapter, a_call, error_status

Failure = Callable[[], errors.TetradError]


def said(status: int) -> UpstreamFault:
    return UpstreamFault("fake", status, "", "", None, "", None)


WORTH: dict[str, Failure] = {
    "no connection": lambda: errors.UpstreamUnavailable("refused"),
    "a reset before the answer": lambda: errors.UpstreamUnavailable("reset", reached=True),
    "502": lambda: errors.from_upstream(502, {}, b"", endpoint="fake"),
    "503": lambda: errors.from_upstream(503, {}, b"", endpoint="fake"),
    "529": lambda: errors.from_upstream(529, {}, b"", endpoint="fake"),
    "429": lambda: errors.from_upstream(429, {}, b"", endpoint="fake"),
    "broken off": lambda: errors.UpstreamTruncated("half", reached=True),
    "an error in a 200": lambda: errors.from_error_body({"message": "boom"}, endpoint="fake"),
    "no connection in time": lambda: errors.DeadlineExceeded("connect", seconds=5),
    "no first byte in time": lambda: errors.DeadlineExceeded("first_byte", reached=True),
}
NOT_WORTH: dict[str, Failure] = {
    "400": lambda: errors.from_upstream(400, {}, b"", endpoint="fake"),
    "401": lambda: errors.from_upstream(401, {}, b"", endpoint="fake"),
    "404": lambda: errors.from_upstream(404, {}, b"", endpoint="fake"),
    "422": lambda: errors.from_upstream(422, {}, b"", endpoint="fake"),
    "500": lambda: errors.from_upstream(500, {}, b"", endpoint="fake"),
    "501": lambda: errors.from_upstream(501, {}, b"", endpoint="fake"),
    "504": lambda: errors.from_upstream(504, {}, b"", endpoint="fake"),
    "an empty account": lambda: errors.QuotaExhausted("paid up"),
    "silence in the middle": lambda: errors.DeadlineExceeded("idle", reached=True),
    "the caller's deadline": lambda: errors.DeadlineExceeded("deadline"),
    "no JSON": lambda: errors.UpstreamProtocol("what?", reached=True),
    "ours": lambda: errors.Internal(),
}
COUNTED = {*WORTH, "500", "504", "silence in the middle"}


@pytest.mark.parametrize("what", [*WORTH, *NOT_WORTH])
def test_what_is_tried_elsewhere_and_what_the_breaker_counts(what: str) -> None:
    """G16: a 4xx never counts."""
    error = (WORTH | NOT_WORTH)[what]()
    assert is_worth_another(error) is (what in WORTH)
    assert verdict(error) is (False if what in COUNTED else None)


class Fleet:
    """A model at three providers, each of which does what a test says, and is counted.

    The first one is asked first, unless they are all alike (`spread`).
    """

    def __init__(
        self,
        type: str = CHAT,
        providers: int = 3,
        attempts: int = 2,
        spread: bool = False,
        **more: Any,
    ) -> None:
        self.asked: list[str] = []
        self.does: dict[str, Any] = {}
        self.routes = [self._route(name) for name in "abc"[:providers]]
        for priority, route in enumerate(self.routes):
            route.priority = 0 if spread else priority
        self.model = RoutedModel("m", type, self.routes, strategy="round_robin", default=True)
        self.ended: list[Call] = []
        self.now = 1000.0
        router = Router(Table([self.model]), Random(1), lambda: self.now)  # noqa: S311
        self.dispatch = Dispatch(router, [self.ended.append], attempts=attempts, **more)
        self.chat = ChatService(self.dispatch)

    def _route(self, name: str) -> Route:
        adapter = FakeAdapter()

        async def unary(request: Body, call: Call) -> Body:
            self.asked.append(name)
            doing = self.does.get(name)
            if callable(doing):
                raise doing()
            return doing or Body.from_json("ChatResponse", ANSWER)

        async def stream(request: Body, call: Call) -> AsyncIterator[list[Body]]:
            self.asked.append(name)
            for doing in self.does.get(name, [text(name), text("", "stop")]):
                if callable(doing):
                    raise doing()
                yield [doing]

        adapter.chat = adapter.embed = unary
        adapter.stream_chat = stream
        return Route(name, adapter, ready=True)

    async def ask(self, call: Call | None = None) -> Body:
        return await self.chat.chat(chat(), call or a_call())

    async def read(self, call: Call | None = None) -> list[str]:
        """The contents of a stream's chunks."""
        told = []
        stream: Any = self.chat.stream_chat(chat(), call or a_call("StreamChat"))
        async with aclosing(stream) as batches:
            async for batch in batches:
                told += [body.value()["choices"][0]["delta"].get("content") for body in batch]
        return told


def chat() -> Body:
    return Body.from_value("ChatRequest", {"messages": [{"role": "user", "content": "hi"}]})


def text(content: str | None, finish: str | None = None, **more: Any) -> Body:
    choice = {"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}
    return Body.from_value("StreamChatResponse", {"choices": [choice]})


@pytest.mark.parametrize("what", WORTH)
async def test_another_provider_answers_for_one_that_fails(what: str) -> None:
    """G18. The caller notices nothing, and one record says how it was."""
    fleet = Fleet()
    fleet.does["a"] = WORTH[what]
    call = a_call()
    assert (await fleet.ask(call)).json() == ANSWER
    assert fleet.asked == ["a", "b"]
    assert (call.attempts, call.endpoint, call.out["x-tetrad-endpoint"]) == (2, "b", "b")
    assert [one.usage.outcome for one in fleet.ended] == ["OK"]


@pytest.mark.parametrize("what", NOT_WORTH)
async def test_what_would_fail_elsewhere_too_is_asked_once(what: str) -> None:
    """G19: upstream calls are counted."""
    fleet = Fleet()
    fleet.does["a"] = NOT_WORTH[what]
    with pytest.raises(errors.TetradError):
        await fleet.ask()
    assert fleet.asked == ["a"]


async def test_the_attempts_are_bounded_and_their_end_is_final() -> None:
    """G19: clients are told not to multiply them."""
    for attempts, asked in [(1, 1), (2, 2), (3, 3), (9, 3)]:
        fleet = Fleet(attempts=attempts)
        fleet.does = dict.fromkeys("abc", WORTH["no connection"])
        with pytest.raises(errors.UpstreamUnavailable) as caught:
            await fleet.ask()
        assert len(fleet.asked) == asked
        assert len(set(fleet.asked)) == asked
        assert caught.value.retryable_by_client is (attempts == 1)


async def test_a_provider_is_never_asked_twice_for_one_call() -> None:
    fleet = Fleet(providers=1, attempts=5)
    fleet.does["a"] = WORTH["503"]
    with pytest.raises(errors.UpstreamUnavailable):
        await fleet.ask()
    assert fleet.asked == ["a"]


async def test_retries_end_with_their_budget() -> None:
    """G19."""
    budget = RetryBudget(0.0, lambda: 0.0)
    fleet = Fleet(budget=budget)
    fleet.does["a"] = WORTH["503"]
    with pytest.raises(errors.UpstreamUnavailable) as caught:
        await fleet.ask()
    assert fleet.asked == ["a"]
    assert caught.value.gave_up
    assert not caught.value.retryable_by_client


async def test_a_connection_that_never_came_about_costs_no_budget() -> None:
    fleet = Fleet(budget=RetryBudget(0.0, lambda: 0.0))
    fleet.does["a"] = WORTH["no connection"]
    await fleet.ask()
    assert fleet.asked == ["a", "b"]


async def test_a_provider_that_cannot_be_reached_is_left_alone_until_a_probe_says_otherwise() -> (
    None
):
    """G20."""
    fleet = Fleet(spread=True)
    fleet.does["a"] = WORTH["no connection"]
    for _ in range(6):
        await fleet.ask()
    assert fleet.asked.count("a") == 1
    fleet.routes[0].ready = True
    del fleet.does["a"]
    fleet.asked.clear()
    for _ in range(3):
        await fleet.ask()
    assert sorted(fleet.asked) == ["a", "b", "c"]


async def test_a_provider_is_left_in_peace_for_as_long_as_it_asks() -> None:
    """G19: Retry-After is obeyed."""
    fleet = Fleet(spread=True)
    fleet.does["a"] = lambda: errors.from_upstream(429, {"retry-after": "7"}, b"", endpoint="fake")
    for _ in range(6):
        await fleet.ask()
    assert fleet.asked.count("a") == 1
    fleet.now += 6.9
    await fleet.ask()
    assert fleet.asked.count("a") == 1
    fleet.now += 0.2
    for _ in range(3):
        await fleet.ask()
    assert fleet.asked.count("a") == 2


async def test_failures_in_a_row_open_the_breaker_and_bad_requests_do_not() -> None:
    """G16, G17."""
    fleet = Fleet(spread=True, attempts=1)
    breaker = fleet.routes[0].breaker
    fleet.does = dict.fromkeys("abc", NOT_WORTH["400"])
    for _ in range(150):
        with pytest.raises(errors.UpstreamInvalidRequest):
            await fleet.ask()
    assert breaker.state == "closed"
    fleet.does = {"a": NOT_WORTH["500"]}
    for _ in range(5 * 3):
        try:
            await fleet.ask()
        except errors.UpstreamFailed:
            continue
    assert breaker.state == "open"
    fleet.asked.clear()
    for _ in range(9):
        await fleet.ask()
    assert "a" not in fleet.asked


async def test_a_stream_s_outcome_is_told_at_its_end() -> None:
    """G17."""
    fleet = Fleet(providers=1)
    route = fleet.routes[0]
    fleet.does["a"] = [text("x"), WORTH["broken off"]]
    stream: Any = fleet.chat.stream_chat(chat(), a_call("StreamChat"))
    seen: list[str] = []
    route.breaker = _Told(seen, route.breaker)  # type: ignore[assignment]
    await anext(stream)
    assert seen == []
    with pytest.raises(errors.UpstreamTruncated):
        await anext(stream)
    assert seen == ["failed"]


class _Told:
    """A breaker that notes what it is told."""

    def __init__(self, seen: list[str], inner: Any) -> None:
        self._seen, self._inner = seen, inner

    def __getattr__(self, name: str) -> Any:
        if name in ("failed", "succeeded", "neither"):
            self._seen.append(name)
        return getattr(self._inner, name)


PREAMBLE = [text(None, role="assistant"), text("", role="assistant")]


@pytest.mark.parametrize("what", WORTH)
async def test_a_stream_goes_elsewhere_before_its_first_content(what: str) -> None:
    """G18: also after a chunk that holds nothing but the role, which is held back."""
    fleet = Fleet()
    fleet.does["a"] = [*PREAMBLE, WORTH[what]]
    call = a_call("StreamChat")
    assert await fleet.read(call) == ["b", ""]
    assert fleet.asked == ["a", "b"]
    assert call.out["x-tetrad-endpoint"] == "b"


@pytest.mark.parametrize("what", WORTH)
async def test_a_stream_never_goes_elsewhere_after_content(what: str) -> None:
    """G18."""
    fleet = Fleet()
    fleet.does["a"] = [*PREAMBLE, text("x"), WORTH[what]]
    told: list[Any] = []
    stream: Any = fleet.chat.stream_chat(chat(), a_call("StreamChat"))

    async def read() -> None:
        async for batch in stream:
            told.extend(body.value()["choices"][0]["delta"].get("content") for body in batch)

    with pytest.raises(errors.TetradError):
        await read()
    assert told == [None, "", "x"]
    assert fleet.asked == ["a"]


async def test_what_was_held_back_is_delivered_in_order() -> None:
    fleet = Fleet()
    fleet.does["a"] = [*PREAMBLE, text("x"), text("", "stop")]
    assert await fleet.read() == [None, "", "x", ""]
    fleet = Fleet()
    fleet.does["a"] = PREAMBLE
    assert await fleet.read() == [None, ""]


async def test_nothing_is_held_back_where_there_is_nowhere_to_go() -> None:
    fleet = Fleet(providers=1)
    fleet.does["a"] = [*PREAMBLE, WORTH["broken off"]]
    stream: Any = fleet.chat.stream_chat(chat(), a_call("StreamChat"))
    assert len(await anext(stream)) == 1
    await stream.aclose()


async def test_an_upload_is_sent_again_only_if_it_can_be() -> None:
    fleet = Fleet(SPEECH)
    read: list[bytes] = []

    def reading(name: str, fails: bool) -> Any:
        async def transcribe(request: Body, call: Call) -> Body:
            fleet.asked.append(name)
            assert request.upload is not None
            if fails is not None:
                async for piece in request.upload.chunks():
                    read.append(piece)
            if fails:
                raise WORTH["503"]()
            return Body.from_json("TranscribeResponse", b'{"text":"a"}')

        return transcribe

    for route, fails in zip(fleet.routes, (True, False, False), strict=True):
        route.adapter.transcribe = reading(route.name, fails)
    service = TranscribeService(fleet.dispatch, 1000)

    async def once() -> AsyncIterator[bytes]:
        yield b"RIFF"

    request = Body.from_value("TranscribeRequest", {})
    request.upload = Upload.of(b"RIFF")
    await service.transcribe(request, a_call("Transcribe"))
    assert (fleet.asked, read) == (["a", "b"], [b"RIFF"] * 2)
    fleet.asked.clear()
    request = Body.from_value("TranscribeRequest", {})
    request.upload = Upload.stream(once())
    with pytest.raises(errors.UpstreamUnavailable):
        await service.transcribe(request, a_call("Transcribe"))
    assert fleet.asked == ["a"]


async def test_vectors_of_another_length_are_refused_and_another_provider_is_asked() -> None:
    """G30."""
    fleet = Fleet(EMBED)

    def vector(*numbers: float) -> Body:
        data = [{"object": "embedding", "index": 0, "embedding": list(numbers)}]
        return Body.from_value("EmbedResponse", {"object": "list", "data": data})

    service = EmbedService(fleet.dispatch, error_status)
    fleet.does = {"a": vector(1.0, 2.0), "b": vector(1.0), "c": vector(3.0, 4.0)}
    texts = Body.from_value("EmbedRequest", {"input": "x"})
    for _ in range(3):
        answer = await service.embed(texts, a_call("Embed"))
        assert len(answer.value()["data"][0]["embedding"]) == 2
        fleet.routes[0].ready = False
    assert fleet.asked == ["a", "b", "c", "b", "c"]
    assert fleet.model.dimension == 2
    fleet.does["c"] = vector(3.0)
    with pytest.raises(errors.WrongDimension, match="vectors of 1 dimensions, another provider"):
        await service.embed(texts, a_call("Embed"))


async def test_a_shorter_vector_that_was_asked_for_is_no_fault() -> None:
    fleet = Fleet(EMBED)
    data = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
    fleet.routes[1].dimension = 2
    fleet.does["a"] = Body.from_value("EmbedResponse", {"data": data})
    service = EmbedService(fleet.dispatch, error_status)
    request = Body.from_value("EmbedRequest", {"input": "x", "dimensions": 1})
    await service.embed(request, a_call("Embed"))
    assert fleet.asked == ["a"]
