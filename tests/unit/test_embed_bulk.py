"""BulkEmbed over a real gRPC stream: order, bounds, failures, cancels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2, error_details_pb2
from tetrad.v1 import embed_service_pb2, embed_service_pb2_grpc

from services import errors
from services.body import Body
from services.bulk import IN_FLIGHT, IN_FLIGHT_BYTES
from services.bulk_pack import USUAL
from services.call import Call
from services.dispatch import Dispatch
from services.embed import ALONE, EmbedService
from services.parts import AT_ONCE
from tests.lib.fake_adapter import (
    VECTOR,
    Failure,
    FakeAdapter,
    Served,
    a_call,
    error_status,
    failure,
    plain,
    router,
    serving,
)

Request = embed_service_pb2.BulkEmbedRequest


def item(name: str, text: str = "a", **more: Any) -> Request:
    """One that shares no request with items of other names."""
    request: Any = {"input": {"text": text}, "user": name} | more
    return Request(id=name, request=request)


def stub(served: Served) -> Any:
    return embed_service_pb2_grpc.EmbedServiceStub(served.channel)


async def feed(items: Iterable[Request]) -> AsyncIterator[Request]:
    for one in items:
        yield one


async def refused(served: Served, *items: Request) -> Failure:
    """How a stream ends whose last item is wrong; it is not half-closed, which would race."""
    call = stub(served).BulkEmbed()
    for one in items:
        await call.write(one)
    return await failure(call)


class Gate(FakeAdapter):
    """Each item waits until the test lets its text go; `open` are those that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, asyncio.Event] = {}
        self.open: set[str] = set()
        self.most = 0
        self.changed = asyncio.Condition()
        self.embed = self._embed

    async def _embed(self, request: Body, call: Call) -> Body:
        text = request.get("user")
        self.open.add(text)
        self.most = max(self.most, len(self.open))
        await self._tell()
        try:
            await self.gates.setdefault(text, asyncio.Event()).wait()
        finally:
            self.open.discard(text)
            await self._tell()
        return Body.from_json("EmbedResponse", VECTOR)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, count: int) -> None:
        """Wait until so many items are open."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: len(self.open) == count)

    def let(self, text: str) -> None:
        self.gates.setdefault(text, asyncio.Event()).set()


async def test_items_are_answered_under_their_ids(tmp_path: Path) -> None:
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        answers = [
            one async for one in stub(served).BulkEmbed(feed(item(str(n)) for n in range(100)))
        ]
    assert sorted(int(one.id) for one in answers) == list(range(100))
    for one in answers:
        assert list(one.response.data[0].embedding.floats.values) == [0.5, 1]
    assert len(served.ended) == 100
    assert {(call.method, call.usage.outcome) for call in served.ended} == {("Embed", "OK")}


async def test_nothing_asked_is_nothing_answered(tmp_path: Path) -> None:
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        assert [one async for one in stub(served).BulkEmbed(feed([]))] == []


async def test_answers_come_as_they_finish(tmp_path: Path) -> None:
    adapter = Gate()
    async with serving(adapter, tmp_path) as served:
        call = stub(served).BulkEmbed(feed(item(name, name) for name in "abc"))
        await adapter.until(3)
        for name in "cab":
            adapter.let(name)
            assert (await call.read()).id == name
        assert not await call.read()


async def test_an_answer_does_not_wait_for_the_last_question(tmp_path: Path) -> None:
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        call = stub(served).BulkEmbed()
        for name in "abc":
            await call.write(item(name))
            assert (await call.read()).id == name
        await call.done_writing()
        assert not await call.read()


async def test_no_more_than_so_many_items_are_at_the_upstream_at_once(tmp_path: Path) -> None:
    """G15: what cannot share a request goes in its turn."""
    adapter = Gate()
    texts = [str(number) for number in range(100)]
    async with serving(adapter, tmp_path) as served:
        given: Any = {"other": {"json": '["a",[1]]'}}
        mixed = [item(text, input=given) for text in texts]
        call = stub(served).BulkEmbed(feed(mixed))
        await adapter.until(ALONE)
        for done in range(100):
            adapter.let(texts[done])
            assert (await call.read()).id == texts[done]
            await adapter.until(min(ALONE, 99 - done))
        assert not await call.read()
    assert adapter.most == ALONE == 32


async def test_items_that_are_open_are_bounded_in_bytes_too() -> None:
    """G15: one that is larger than the bound goes alone."""
    taken: list[int] = []

    async def requests() -> AsyncIterator[Body]:
        for size in (1, IN_FLIGHT_BYTES + 1, 1, IN_FLIGHT_BYTES // 2, IN_FLIGHT_BYTES // 2, 1):
            taken.append(size)
            wire = item(str(len(taken)), "x" * size).SerializeToString()
            yield Body.from_wire("BulkEmbedRequest", wire)

    stream = EmbedService(_at_once(), error_status).bulk_embed(requests(), a_call("BulkEmbed"))
    seen = []
    async for _batch in stream:
        for _ in range(100):
            await asyncio.sleep(0)
        seen.append(len(taken))
    # One is read ahead, and waits until enough of those before it have been answered and read.
    assert seen == [3, 5, 6, 6]


async def test_answers_that_nobody_reads_hold_back_further_items() -> None:
    """What waits to be sent is bounded as well: a caller that only writes fills no memory."""
    taken = 0

    async def requests() -> AsyncIterator[Body]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            wire = item(str(number)).SerializeToString()
            yield Body.from_wire("BulkEmbedRequest", wire)

    stream = EmbedService(_at_once(), error_status).bulk_embed(requests(), a_call("BulkEmbed"))
    first = await anext(stream)
    for _ in range(200):
        await asyncio.sleep(0)
    assert 1 <= len(first) <= IN_FLIGHT
    assert taken <= len(first) + IN_FLIGHT + 1
    rest = [body async for batch in stream for body in batch]
    assert len(first) + len(rest) == taken == 1000


def _at_once() -> Any:
    class AtOnce:
        async def unary(self, *arguments: Any) -> Body:
            return Body.from_json("EmbedResponse", VECTOR)

        part = unary

    return AtOnce()


async def test_an_item_that_fails_does_not_end_the_stream(tmp_path: Path) -> None:
    adapter = FakeAdapter()

    async def embed(request: Body, call: Call) -> Body:
        if request.get("input") == "bad":
            raise errors.UpstreamFailed("no", reached=True)
        return Body.from_json("EmbedResponse", VECTOR)

    adapter.embed = embed
    items = [item("a"), item("b", "bad"), item("c", model="none"), Request(id="d"), item("e")]
    async with serving(adapter, tmp_path) as served:
        call = stub(served).BulkEmbed(feed(items), metadata=[("x-request-id", "req-7")])
        answers = {one.id: one async for one in call}
    assert {name: one.WhichOneof("result") for name, one in answers.items()} == {
        "a": "response",
        "b": "error",
        "c": "error",
        "d": "error",
        "e": "response",
    }
    codes = {name: answers[name].error.code for name in "bcd"}
    assert codes == {
        "b": code_pb2.INTERNAL,
        "c": code_pb2.NOT_FOUND,
        "d": code_pb2.INVALID_ARGUMENT,
    }
    info = error_details_pb2.ErrorInfo()
    assert answers["b"].error.details[0].Unpack(info)
    assert info.reason == "UPSTREAM_FAILED"
    ids = error_details_pb2.RequestInfo()
    assert any(each.Unpack(ids) for each in answers["b"].error.details)
    assert ids.request_id == "req-7"


@pytest.mark.parametrize("error", [ValueError("secret"), asyncio.CancelledError(), TimeoutError()])
async def test_a_fault_of_ours_is_answered_too(tmp_path: Path, error: BaseException) -> None:
    """An item without an answer would wait for ever."""
    adapter = FakeAdapter()

    async def embed(request: Body, call: Call) -> Body:
        if request.get("input") == "bad":
            raise error
        return Body.from_json("EmbedResponse", VECTOR)

    adapter.embed = embed
    async with serving(adapter, tmp_path) as served:
        call = stub(served).BulkEmbed()
        await call.write(item("a", "bad"))
        failed = await call.read()
        assert (failed.id, failed.error.code) == ("a", code_pb2.INTERNAL)
        assert "secret" not in str(failed)
        await call.write(item("b"))
        assert (await call.read()).WhichOneof("result") == "response"
        await call.done_writing()
        assert not await call.read()


async def test_a_duplicate_open_id_ends_the_stream(tmp_path: Path) -> None:
    adapter = Gate()
    async with serving(adapter, tmp_path) as served:
        failed = await refused(served, item("a", "x"), item("a", "y"))
        assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        ((field, description),) = failed.violations
        assert field == "id"
        assert description.startswith("the id 'a' is still open")
        await adapter.until(0)  # what was under way has ended


async def test_an_id_may_come_again_once_it_was_answered(tmp_path: Path) -> None:
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        call = stub(served).BulkEmbed()
        for _ in range(3):
            await call.write(item("a"))
            assert (await call.read()).id == "a"
        await call.done_writing()
        assert not await call.read()


async def test_an_item_without_an_id_ends_the_stream(tmp_path: Path) -> None:
    async with serving(plain(FakeAdapter()), tmp_path) as served:
        failed = await refused(served, item(""))
    assert failed.code == "INVALID_ARGUMENT"
    assert failed.violations == [("id", "required, but absent")]


async def test_an_item_over_the_limit_ends_the_stream(tmp_path: Path) -> None:
    """G28."""
    async with serving(plain(FakeAdapter()), tmp_path, max_request_bytes=10_000) as served:
        failed = await refused(served, item("a", "x" * 20_000))
    assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")


async def test_a_cancel_ends_every_item(tmp_path: Path) -> None:
    """G5."""
    adapter = Gate()
    async with serving(adapter, tmp_path) as served:
        call = stub(served).BulkEmbed(feed(item(str(n), str(n)) for n in range(300)))
        await adapter.until(AT_ONCE * USUAL)
        call.cancel()
        await adapter.until(0)
        assert await served.in_flight.idle(2)
        assert served.router.table.models[0].routes[0].in_flight == 0
    assert AT_ONCE * USUAL <= len(served.ended) <= IN_FLIGHT
    assert {ended.usage.outcome for ended in served.ended} == {"CANCELLED"}


async def test_whoever_leaves_a_bulk_ends_every_item() -> None:
    """G5: also while more may still be asked."""
    adapter = Gate()
    ended: list[Call] = []
    service = EmbedService(Dispatch(router(adapter), [ended.append]), error_status)

    async def requests() -> AsyncIterator[Body]:
        for name in "abcde":
            yield Body.from_wire("BulkEmbedRequest", item(name, name).SerializeToString())
        await asyncio.Event().wait()

    async with aclosing(service.bulk_embed(requests(), a_call("BulkEmbed"))) as stream:
        reading = asyncio.create_task(anext(stream))
        await adapter.until(5)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await adapter.until(0)
    assert [call.usage.outcome for call in ended] == ["CANCELLED"] * 5


async def test_a_deadline_ends_every_item(tmp_path: Path) -> None:
    adapter = Gate()
    async with serving(adapter, tmp_path) as served:
        call = stub(served).BulkEmbed(feed(item(str(n), str(n)) for n in range(5)), timeout=0.3)
        await adapter.until(5)
        await adapter.until(0)
        assert await served.in_flight.idle(2)
        assert (await failure(call)).code == "DEADLINE_EXCEEDED"
    assert len(served.ended) == 5
    # The caller's clock began to run before ours did: it may break off first.
    assert {ended.usage.outcome for ended in served.ended} <= {"DEADLINE_EXCEEDED", "CANCELLED"}


async def test_a_caller_that_breaks_off_ends_what_is_under_way(tmp_path: Path) -> None:
    adapter = Gate()

    async def broken() -> AsyncIterator[Request]:
        yield item("a", "a")
        await adapter.until(1)
        raise ValueError("the caller's own fault")

    async with serving(adapter, tmp_path) as served:
        call = stub(served).BulkEmbed(broken())
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        await adapter.until(0)
        assert await served.in_flight.idle(2)
