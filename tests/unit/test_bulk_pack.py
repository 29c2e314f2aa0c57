"""Items of bulks that share requests: how they are packed, answered, refused, and given up."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from tetrad.v1 import embed_service_pb2

from services import bulk_pack, errors
from services.body import Body
from services.bulk_pack import USUAL
from services.call import Call
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.parts import AT_ONCE, shared
from services.routing.table import Route, RoutedModel, Router, Table
from tests.fakes import answers
from tests.lib.fake_adapter import EMBED, FakeAdapter, a_call, error_status, router

BulkRequest: Any = embed_service_pb2.BulkEmbedRequest


class Upstream(FakeAdapter):
    """Answers with the fakes' vectors, last input first; refuses whole requests with "bad"."""

    def __init__(self) -> None:
        super().__init__()
        self.open = self.most_open = 0
        self.held: asyncio.Event | None = None
        self.cancelled = 0
        self.embed = self._embed

    @property
    def sizes(self) -> list[int]:
        return [len(answers.inputs(request.get("input"))) for request in self.asked]

    async def _embed(self, request: Body, call: Call) -> Body:
        self.asked.append(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.held is not None:
                await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1
        given = answers.inputs(request.get("input"))
        if "bad" in given:
            raise errors.UpstreamInvalidRequest("an input is bad", reached=True)
        data = [
            {"object": "embedding", "index": place, "embedding": answers.vector(one)}
            for place, one in enumerate(given)
        ]
        usage = {"prompt_tokens": 7 * len(given), "total_tokens": 7 * len(given)}
        call.usage.tokens(usage)
        value = {"object": "list", "data": data[::-1], "model": "m", "usage": usage, "x": [1]}
        return Body.from_value("EmbedResponse", value)


class Bench:
    """The service in front of one upstream, or more that share a model."""

    def __init__(self, *upstreams: FakeAdapter, **members: Any) -> None:
        self.ended: list[Call] = []
        routes = [Route(f"r{n}", one, ready=True) for n, one in enumerate(upstreams)]
        self.model = RoutedModel("e", EMBED, routes, **members)
        other = RoutedModel("other", EMBED, [Route("o", upstreams[0], ready=True)])
        self.router = Router(Table([self.model, other]), router(upstreams[0]).random)
        self.dispatch = Dispatch(self.router, [self.ended.append])
        self.service = EmbedService(self.dispatch, error_status)

    async def bulk(self, *items: Any, call: Call | None = None) -> dict[str, Any]:
        """Answers by id."""

        async def requests() -> AsyncIterator[Body]:
            for one in items:
                yield Body.from_wire("BulkEmbedRequest", one.SerializeToString())

        stream = self.service.bulk_embed(requests(), call or a_call("BulkEmbed"))
        return {one.id: one async for batch in stream for one in map(Body.parsed, batch)}


def item(name: str, *texts: str, tokens: list[int] | None = None, **more: Any) -> Any:
    given: dict[str, Any] = {"text": texts[0]} if len(texts) == 1 else {"texts": {"texts": texts}}
    if tokens is not None:
        given = {"tokens": {"ids": tokens}}
    return BulkRequest(id=name, request={"model": "e", "input": given, **more})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        for _ in iter(holds, True):
            await asyncio.sleep(0.001)


def vectors(answer: Any) -> list[list[float]]:
    assert answer.WhichOneof("result") == "response", answer.error
    data = sorted(answer.response.data, key=lambda one: one.index)
    assert [one.index for one in data] == [*range(len(data))]
    return [list(one.embedding.floats.values) for one in data]


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4), max_size=40),
    st.integers(1, 9),
)
def test_every_item_gets_the_vectors_of_its_own_inputs(texts: list[list[str]], most: int) -> None:
    """G29: however items were packed, and in whatever order the upstream answers."""
    upstream = Upstream()
    bench = Bench(upstream, max_batch=most)
    items = [item(str(n), *own) for n, own in enumerate(texts)]
    found = asyncio.run(bench.bulk(*items))
    assert found.keys() == {str(n) for n in range(len(texts))}
    for n, own in enumerate(texts):
        assert vectors(found[str(n)]) == [answers.vector(text) for text in own]
    assert all(size <= most for size in upstream.sizes)
    assert len(bench.ended) == len(texts)
    assert sum(call.usage.total_tokens or 0 for call in bench.ended) == 7 * sum(map(len, texts))


async def test_items_that_agree_share_requests_of_the_upstream_s_size() -> None:
    upstream = Upstream()
    await Bench(upstream, max_batch=8).bulk(*(item(str(n), f"text {n}") for n in range(64)))
    assert upstream.sizes == [8] * 8
    upstream = Upstream()
    await Bench(upstream).bulk(*(item(str(n), f"text {n}") for n in range(2 * USUAL)))
    assert upstream.sizes == [USUAL] * 2


async def test_items_that_differ_in_any_member_share_none() -> None:
    upstream = Upstream()
    found = await Bench(upstream).bulk(
        item("a", "x"),
        item("b", "x", dimensions=8),
        item("c", "x", truncate=True),
        item("d", tokens=[1, 2]),
        item("e", "y"),
        item("f", tokens=[3]),
        item("g", "x", model="other"),
        item("h", "x", extra={"json": '{"z":1}'}),
    )
    assert sorted(upstream.sizes) == [1, 1, 1, 1, 2, 2]
    assert vectors(found["d"]) == [answers.vector([1, 2])]
    assert vectors(found["e"]) == [answers.vector("y")]
    sent = [request.get("input") for request in upstream.asked]
    assert ["x", "y"] in sent
    assert [[1, 2], [3]] in sent
    assert found["a"].response.extra.json == '{"x":[1]}'


async def test_an_item_alone_is_sent_as_it_came() -> None:
    upstream = Upstream()
    await Bench(upstream).bulk(item("a", "x", user="u"))
    assert [r.value() for r in upstream.asked] == [{"model": "e", "input": "x", "user": "u"}]


async def test_chats_and_mixed_inputs_go_alone() -> None:
    upstream = Upstream()
    chats = [{"role": "user", "content": {"text": "hi"}}]
    mixed = BulkRequest(id="b", request={"model": "e", "input": {"other": {"json": '["a",[1]]'}}})
    long = item("c", *(str(n) for n in range(USUAL + 1)))
    await Bench(upstream, max_batch=USUAL).bulk(item("a", "x", messages=chats), mixed, long)
    assert sorted(upstream.sizes) == [1, 1, 2, USUAL]


async def test_items_of_two_streams_share_a_request_but_not_their_records() -> None:
    upstream = Upstream()
    bench = Bench(upstream)
    calls = [a_call("BulkEmbed"), a_call("BulkEmbed")]
    calls[1].headers = {"x-request-id": "another", "traceparent": "00-1-2-01"}
    one, two = await asyncio.gather(
        bench.bulk(item("a", "x"), call=calls[0]), bench.bulk(item("a", "yy"), call=calls[1])
    )
    assert upstream.sizes == [2]
    assert (vectors(one["a"]), vectors(two["a"])) == (
        [answers.vector("x")],
        [answers.vector("yy")],
    )
    assert [call.usage.outcome for call in bench.ended] == ["OK", "OK"]
    assert sorted(call.usage.total_tokens or 0 for call in bench.ended) == [5, 9]
    assert {(call.endpoint, call.attempts, call.chunks) for call in bench.ended} == {("r0", 1, 1)}


async def test_headers_that_go_upstream_must_agree() -> None:
    """A header that the configuration passes in may say who asks."""
    upstream = Upstream()
    bench = Bench(upstream)
    calls = [a_call("BulkEmbed"), a_call("BulkEmbed")]
    calls[1].headers = {"x-tenant": "b"}
    await asyncio.gather(*(bench.bulk(item("a", "x"), call=call) for call in calls))
    assert upstream.sizes == [1, 1]


async def test_one_bad_item_fails_alone() -> None:
    """A refused request is sent again item by item."""
    upstream = Upstream()
    bench = Bench(upstream)
    texts = {str(n): f"text {n}" for n in range(9)} | {"9": "bad"}
    found = await bench.bulk(*(item(name, text) for name, text in texts.items()))
    assert found["9"].error.code == code_pb2.INVALID_ARGUMENT
    assert "an input is bad" in found["9"].error.message
    for name, text in texts.items():
        if text != "bad":
            assert vectors(found[name]) == [answers.vector(text)]
    assert upstream.sizes == [10] + [1] * 10
    assert upstream.most_open <= AT_ONCE
    assert sorted(call.usage.outcome for call in bench.ended) == ["INVALID_ARGUMENT"] + ["OK"] * 9


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UpstreamFailed("no", reached=True), code_pb2.INTERNAL),
        (errors.UpstreamUnavailable("gone", reached=True), code_pb2.UNAVAILABLE),
        (ValueError("secret"), code_pb2.INTERNAL),
        (asyncio.CancelledError(), code_pb2.INTERNAL),
    ],
)
async def test_any_other_failure_is_every_item_s(error: BaseException, code: int) -> None:
    """And is not sent again: one attempt at each provider is what an item has."""
    upstream = Upstream()

    async def embed(request: Body, call: Call) -> Body:
        upstream.asked.append(request)
        raise error

    upstream.embed = embed
    bench = Bench(upstream)
    found = await bench.bulk(*(item(str(n), "x") for n in range(5)))
    assert [one.error.code for one in found.values()] == [code] * 5
    assert "secret" not in str(found)
    assert upstream.sizes == [5]
    assert len(bench.ended) == 5


async def test_an_answer_without_a_vector_for_each_input_is_none() -> None:
    upstream = Upstream()

    async def embed(request: Body, call: Call) -> Body:
        whole = (await upstream._embed(request, call)).value()
        return Body.from_value("EmbedResponse", whole | {"data": whole["data"][1:]})

    upstream.embed = embed
    found = await Bench(upstream).bulk(item("a", "x"), item("b", "y"))
    assert {one.error.code for one in found.values()} == {code_pb2.INTERNAL}


async def test_several_providers_are_kept_busy() -> None:
    upstreams = [Upstream(), Upstream(), Upstream()]
    held = asyncio.Event()
    for one in upstreams:
        one.held = held
    bench = Bench(*upstreams, max_batch=4)
    task = asyncio.create_task(bench.bulk(*(item(str(n), str(n)) for n in range(200))))
    await until(lambda: sum(one.open for one in upstreams) == 3 * AT_ONCE)
    for _ in range(100):
        await asyncio.sleep(0)
    assert [one.open for one in upstreams] == [AT_ONCE] * 3
    held.set()
    assert len(await task) == 200
    assert all(len(one.asked) > AT_ONCE for one in upstreams)


async def test_no_more_requests_are_sent_than_a_provider_takes() -> None:
    upstream = Upstream()
    upstream.held = asyncio.Event()
    bench = Bench(upstream, max_batch=1)
    bench.model.routes[0].max_concurrency = 2
    task = asyncio.create_task(bench.bulk(*(item(str(n), str(n)) for n in range(20))))
    await until(lambda: upstream.open == 2)
    assert bench.dispatch.admission.waiting == 0
    upstream.held.set()
    assert len(await task) == 20
    assert upstream.most_open == 2


async def test_what_nobody_waits_for_is_ended() -> None:
    """G5: a stream that leaves ends its requests, but none that another stream waits for."""
    upstream = Upstream()
    upstream.held = asyncio.Event()
    bench = Bench(upstream)
    leaving = asyncio.create_task(bench.bulk(item("a", "x"), item("b", "x", user="u")))
    staying = asyncio.create_task(bench.bulk(item("a", "y")))
    await until(lambda: upstream.open == 2)
    assert sorted(upstream.sizes) == [1, 2]
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: upstream.open == 1)
    assert upstream.cancelled == 1
    upstream.held.set()
    assert vectors((await staying)["a"]) == [answers.vector("y")]
    assert bench.model.in_flight == 0
    assert not bench.service._packer._lines


async def test_what_was_not_sent_yet_is_not_sent_once_its_stream_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk_pack, "WAIT", 30)
    upstream = Upstream()
    bench = Bench(upstream)

    async def requests() -> AsyncIterator[Body]:
        yield Body.from_wire("BulkEmbedRequest", item("a", "x").SerializeToString())
        await asyncio.Event().wait()

    async with aclosing(bench.service.bulk_embed(requests(), a_call("BulkEmbed"))) as stream:
        reading = asyncio.create_task(anext(stream))
        await until(lambda: bool(bench.service._packer._lines))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert not bench.service._packer._lines
    assert upstream.asked == []
    assert [call.usage.outcome for call in bench.ended] == ["CANCELLED"]


async def test_memory_is_flat_over_many_items() -> None:
    """50,000 of them: nothing is kept of an item that was answered."""
    upstream = Upstream()
    bench = Bench(upstream)
    bench.dispatch = Dispatch(bench.router, [])
    service = EmbedService(bench.dispatch, error_status)
    whole, before = 50_000, 10_000

    async def requests() -> AsyncIterator[Body]:
        for n in range(whole):
            yield Body.from_wire("BulkEmbedRequest", item(str(n), "x").SerializeToString())

    done, first = 0, 0
    async for batch in service.bulk_embed(requests(), a_call("BulkEmbed")):
        done += len(batch)
        upstream.asked.clear()
        if not first and done >= before:
            first = resident()
    assert done == whole
    assert resident() - first < 8 * 1024 * 1024


def resident() -> int:
    """Bytes of memory that this process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@given(st.integers(0, 10**6), st.lists(st.integers(1, 1000), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_shares_of_a_usage_add_up_to_it(total: int, weights: list[int]) -> None:
    usage = {"total_tokens": total, "details": {"cached": total // 3, "kind": "x"}, "ok": True}
    shares = shared(usage, weights)
    assert sum(one["total_tokens"] for one in shares) == total
    assert sum(one["details"]["cached"] for one in shares) == total // 3
    for one, weight in zip(shares, weights, strict=True):
        assert abs(one["total_tokens"] - total * weight / sum(weights)) <= 1
        assert (one["details"]["kind"], one["ok"]) == ("x", True)
