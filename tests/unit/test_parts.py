"""Requests beyond an upstream's limit: cut, sent at once, joined in the input's order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services import errors
from services.body import Body
from services.call import Call
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.embed_parts import pieces_of
from services.parts import AT_ONCE, added
from services.rerank import RerankService
from services.routing.table import Route, RoutedModel, Router, Table
from tests.fakes import answers
from tests.lib.fake_adapter import EMBED, RERANK, FakeAdapter, a_call, error_status

ITEMS = st.lists(st.text(max_size=6) | st.lists(st.integers(0, 9), max_size=3), max_size=40)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ITEMS, st.none() | st.integers(1, 9), st.none() | st.integers(1, 40))
def test_pieces_are_the_whole_in_its_order(
    items: list[Any], most: int | None, most_bytes: int | None
) -> None:
    """G29."""
    pieces = list(pieces_of(items, most, most_bytes))
    assert [item for piece in pieces for item in piece] == items
    for piece in pieces:
        assert most is None or len(piece) <= most
        size = sum(len(json.dumps(one, separators=(",", ":"), ensure_ascii=False).encode()) + 1
                   for one in piece)  # fmt: skip
        assert most_bytes is None or size <= most_bytes or len(piece) == 1


class Upstream(FakeAdapter):
    """Answers with the fakes' vectors, in an order that `random` picks; at most `most` inputs."""

    def __init__(self, name: str = "one", most: int = 1000, random: Random | None = None) -> None:
        super().__init__()
        self.name, self.most, self.random = name, most, random
        self.sizes: list[int] = []
        self.embed, self.rerank = self._embed, self._rerank

    async def _embed(self, request: Body, call: Call) -> Body:
        given = answers.inputs(request.get("input"))
        assert len(given) <= self.most
        self.sizes.append(len(given))
        self.asked.append(request)
        data = [
            {"object": "embedding", "index": place, "embedding": answers.vector(one), "n": place}
            for place, one in enumerate(given)
        ]
        if self.random is not None:
            self.random.shuffle(data)
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0)
        used = sum(map(answers.tokens, given))
        call.usage.tokens({"prompt_tokens": used, "total_tokens": used})
        usage = {"prompt_tokens": used, "total_tokens": used, "details": {"n": 1, "kind": "x"}}
        value = {"object": "list", "data": data, "model": "m", "usage": usage}
        return Body.from_value("EmbedResponse", value)

    async def _rerank(self, request: Body, call: Call) -> Body:
        texts = request.get("documents")
        assert len(texts) <= self.most
        self.sizes.append(len(texts))
        self.asked.append(request)
        results = [
            {"index": index, "relevance_score": score, "document": {"text": texts[index]}}
            for index, score in answers.ranking(request.get("query"), texts)
        ][: request.get("top_n") or None]
        call.usage.tokens({"total_tokens": len(texts)})
        meta = {"billed_units": {"search_units": 1.0}, "api": "2"}
        value = {"results": results, "meta": meta, "usage": {"total_tokens": len(texts)}}
        return Body.from_value("RerankResponse", value)


class Bench:
    """Services in front of upstreams that share one model of each kind."""

    def __init__(self, *upstreams: FakeAdapter, **members: Any) -> None:
        self.ended: list[Call] = []
        self.models = [
            RoutedModel(
                name,
                type,
                [Route(f"r{n}", one, ready=True) for n, one in enumerate(upstreams)],
                **members,
            )
            for name, type in (("e", EMBED), ("r", RERANK))
        ]
        self.router = Router(Table(self.models), Random(1))  # noqa: S311
        self.dispatch = Dispatch(self.router, [self.ended.append])
        self.service = EmbedService(self.dispatch, error_status)
        self.reranker = RerankService(self.dispatch)

    async def embed(self, given: Any, call: Call | None = None, **members: Any) -> Any:
        request = Body.from_value("EmbedRequest", {"input": given, "model": "e"} | members)
        return (await self.service.embed(request, call or a_call("Embed"))).value()

    async def rerank(self, documents: list[str], **members: Any) -> Any:
        value = {"query": "q", "documents": documents, "model": "r"} | members
        body = Body.from_value("RerankRequest", value)
        return (await self.reranker.rerank(body, a_call("Rerank"))).value()

    @property
    def leases(self) -> int:
        return sum(route.in_flight for model in self.models for route in model.routes)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_vectors_come_back_in_the_order_of_their_inputs(
    texts: list[str], most: int, providers: int, seed: int
) -> None:
    """G29: however answers are ordered and whichever part is answered first."""
    random = Random(seed)  # noqa: S311
    upstreams = [Upstream(str(n), most, random) for n in range(providers)]
    bench = Bench(*upstreams, max_batch=most)
    value = asyncio.run(bench.embed(texts))
    data = value["data"]
    if len(texts) <= most:  # one request, whose answer is passed on as it came
        data = sorted(data, key=lambda item: item["index"])
    assert [item["index"] for item in data] == [*range(len(texts))]
    assert [item["embedding"] for item in data] == [answers.vector(t) for t in texts]
    used = sum(map(answers.tokens, texts))
    assert value["usage"]["total_tokens"] == used
    (call,) = bench.ended
    assert (call.usage.total_tokens, call.usage.source) == (used, "upstream")
    assert (call.usage.outcome, call.attempts) == ("OK", 1)


async def test_the_parts_of_a_call_are_one_call() -> None:
    """One record with the sums, one admission by the caller's limits."""
    admitted: list[Call] = []

    class Limiter:
        async def admit(self, call: Call) -> None:
            admitted.append(call)

    upstreams = [Upstream("a"), Upstream("b")]
    bench = Bench(*upstreams, max_batch=3)
    bench.dispatch.limiter = Limiter()
    call = a_call("Embed")
    value = await bench.embed([str(n) for n in range(10)], call, dimensions=8, user="u")
    assert admitted == bench.ended == [call]
    assert sorted(upstreams[0].sizes + upstreams[1].sizes) == [1, 3, 3, 3]
    assert call.out["x-tetrad-endpoint"].split(", ") in (["r0", "r1"], ["r1", "r0"])
    assert (call.endpoint in ("r0", "r1"), call.model, call.chunks) == (True, "e", 1)
    assert value["usage"] == {
        "prompt_tokens": 10, "total_tokens": 10, "details": {"n": 4, "kind": "x"},
    }  # fmt: skip
    for request in upstreams[0].asked + upstreams[1].asked:
        rest = {name: item for name, item in request.value().items() if name != "input"}
        assert rest == {"model": "e", "dimensions": 8, "user": "u"}
    assert bench.leases == 0


@pytest.mark.parametrize("given", ["one text", [1, 2, 3, 4, 5], ["a", "b"]])
async def test_what_fits_is_one_request_as_it_came(given: Any) -> None:
    """A list of token ids is one input."""
    upstream = Upstream()
    bench = Bench(upstream, max_batch=2)
    await bench.embed(given)
    assert [request.get("input") for request in upstream.asked] == [given]


@pytest.mark.parametrize(
    ("members", "sizes"),
    [
        ({"own_max_batch": 4}, [4, 4, 2]),
        ({"own_max_batch": 4, "max_batch": 5}, [4, 4, 2]),
        ({"own_max_batch": 9, "max_batch": 5}, [5, 5]),
        ({"max_batch_bytes": 12}, [3, 3, 3, 1]),
        ({}, [10]),
    ],
)
async def test_limits_are_learnt_or_configured(members: dict[str, Any], sizes: list[int]) -> None:
    upstream = Upstream()
    await Bench(upstream, **members).embed([str(n) for n in range(10)])
    assert sorted(upstream.sizes, reverse=True) == sizes


async def test_a_part_that_fails_is_tried_elsewhere_alone() -> None:
    broken, good = Upstream("broken"), Upstream("good")

    async def embed(request: Body, call: Call) -> Body:
        broken.asked.append(request)
        raise errors.UpstreamUnavailable("gone", reached=False)

    broken.embed = embed
    bench = Bench(broken, good, max_batch=1)
    texts = [str(n) for n in range(8)]
    value = await bench.embed(texts)
    assert [item["embedding"] for item in value["data"]] == [answers.vector(t) for t in texts]
    assert len(good.asked) == 8
    assert len(broken.asked) >= 1
    assert bench.ended[0].attempts == 1 + len(broken.asked)


class Slow(Upstream):
    """Waits for ever, but for inputs that a test names; `cancelled` counts."""

    def __init__(self, fail: str = "") -> None:
        super().__init__()
        self.fail, self.waiting, self.cancelled = fail, 0, 0
        self.all_there = asyncio.Event()
        self.embed = self._wait

    async def _wait(self, request: Body, call: Call) -> Body:
        (text,) = request.get("input")
        if text == self.fail:
            await self.all_there.wait()
            raise errors.UpstreamFailed("no", reached=True)
        if text == "done":
            return await self._embed(request, call)
        self.waiting += 1
        if self.waiting == AT_ONCE - 1:
            self.all_there.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError


async def test_the_first_part_to_fail_ends_the_others() -> None:
    """What was used until then is on the record."""
    upstream = Slow("bad")
    bench = Bench(upstream, max_batch=1)
    with pytest.raises(errors.UpstreamFailed):
        await bench.embed(["done", "bad", *"abcdefgh"])
    assert upstream.cancelled == AT_ONCE - 1
    (call,) = bench.ended
    assert (call.usage.outcome, call.error) == ("INTERNAL", "UPSTREAM_FAILED")
    assert (call.usage.total_tokens, bench.leases) == (1, 0)


async def test_a_cancel_ends_all_parts() -> None:
    """G5."""
    upstream = Slow()
    bench = Bench(upstream, max_batch=1)
    task = asyncio.create_task(bench.embed(list("abcdefgh")))
    await asyncio.wait_for(upstream.all_there.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert upstream.cancelled == upstream.waiting >= AT_ONCE - 1
    assert [call.usage.outcome for call in bench.ended] == ["CANCELLED"]
    assert bench.leases == 0


async def test_one_call_takes_no_more_than_its_share_of_a_provider() -> None:
    upstream = Slow()
    bench = Bench(upstream, max_batch=1)
    bench.models[0].routes[0].max_concurrency = 2
    task = asyncio.create_task(bench.embed(list("abcdefgh")))
    for _ in range(100):
        await asyncio.sleep(0)
    assert (upstream.waiting, bench.dispatch.admission.waiting) == (2, 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _without(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"data": answer["data"][1:]}


def _twice(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"data": [item | {"index": 0} for item in answer["data"]]}


def _more(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"data": [*answer["data"], answer["data"][0]]}


@pytest.mark.parametrize("spoil", [_without, _twice, _more])
async def test_a_part_without_a_vector_for_each_input_is_no_answer(
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Nothing is shifted onto another input."""
    upstream = Upstream()

    async def embed(request: Body, call: Call) -> Body:
        whole = await upstream._embed(request, call)
        return Body.from_value("EmbedResponse", spoil(whole.value()))

    upstream.embed = embed
    with pytest.raises(errors.UpstreamProtocol, match="not one vector for each of 2 inputs"):
        await Bench(upstream, max_batch=2).embed(list("abcd"))


@pytest.mark.parametrize("top_n", [None, 0, 1, 3, 7, 30])
async def test_results_of_parts_are_ranked_together(top_n: int | None) -> None:
    """G32: the index is the whole request's, top_n holds after the merge."""
    upstreams = [Upstream("a", 4), Upstream("b", 4)]
    bench = Bench(*upstreams, max_batch=4)
    documents = [f"document {n}" for n in range(18)]
    value = await bench.rerank(documents, top_n=top_n, raw_scores=True)
    expected = [
        {"index": index, "relevance_score": score, "document": {"text": documents[index]}}
        for index, score in answers.ranking("q", documents, top_n or 0)
    ]
    assert value["results"] == expected
    assert value["meta"] == {"billed_units": {"search_units": 5.0}, "api": "2"}
    assert value["usage"] == {"total_tokens": 18}
    (call,) = bench.ended
    assert (call.usage.documents, call.usage.total_tokens) == (18, 18)
    assert all(request.get("raw_scores") for one in upstreams for request in one.asked)


async def test_a_refused_rerank_has_used_no_documents() -> None:
    class Limiter:
        async def admit(self, call: Call) -> None:
            raise errors.RateLimited("slow down")

    bench = Bench(Upstream())
    bench.dispatch.limiter = Limiter()
    with pytest.raises(errors.RateLimited):
        await bench.rerank(["a", "b"])
    assert bench.ended[0].usage.documents is None
    bench.dispatch.limiter = None
    await bench.rerank(["a", "b"])
    assert bench.ended[1].usage.documents == 2


def test_only_numbers_add_up() -> None:
    first = {"a": 1, "b": 0.5, "c": True, "d": "x", "e": {"f": 1}, "g": None}
    second = {"a": 2, "b": 0.25, "c": True, "d": "y", "e": {"f": 2, "h": 3}, "i": 9}
    assert added(first, second) == {
        "a": 3, "b": 0.75, "c": True, "d": "x", "e": {"f": 3, "h": 3}, "g": None, "i": 9,
    }  # fmt: skip
