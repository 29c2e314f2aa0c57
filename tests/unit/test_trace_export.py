"""services/telemetry/trace_export.py: spans reach a receiver, or are counted as lost; none waits.

The receiver is a real server over our own HTTP client.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from services import errors
from services.telemetry import trace_export, trace_wire
from services.telemetry.trace_export import BATCH, Answer, TraceExport
from services.telemetry.traces import Span
from services.telemetry.tracing import tracing
from services.upstream.base import Timeouts
from services.upstream.transport import Transport
from tests.fakes.upstream import FakeUpstream, Raw, Received, Sequence, Stall
from tests.lib import otlp
from tests.lib.rig import until
from tests.unit.trace_calls import attempt, end, new, traces

AT_ONCE = {"retry-after": "0"}
BUSY = Raw(b"", None, 503, AT_ONCE)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(trace_export, "LINGER", 0.02)
    monkeypatch.setattr(trace_export, "FIRST_PAUSE", 0.02)
    caplog.set_level(logging.INFO, "tetrad.traces")


@asynccontextmanager
async def posting() -> AsyncIterator[trace_export.Post]:
    """What posts, as the gateway does."""
    transport = Transport()

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        async with transport.request("POST", url, headers, body, Timeouts()) as response:
            told = await response.read(1000)
            return response.status, response.headers, told

    try:
        yield post
    finally:
        await transport.aclose()


@asynccontextmanager
async def exporting(endpoint: str, **options: Any) -> AsyncIterator[TraceExport]:
    async with posting() as post:
        export = TraceExport(endpoint, post, Random(3), **options)  # noqa: S311
        export.start()
        try:
            yield export
        finally:
            await export.aclose(5)


def some(count: int = 1) -> list[Span]:
    """Spans of so many calls without an attempt."""
    ours, made = traces()
    for _ in range(count):
        ours.ended(end(new()))
    return made


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tetrad.traces"]


@pytest.mark.parametrize("path", ["", otlp.PATH])
async def test_a_call_s_spans_arrive_as_they_were_made(upstream: FakeUpstream, path: str) -> None:
    otlp.receive(upstream)
    async with exporting(
        upstream.url + path, resource={"service.name": "t"}, headers={"x-tenant": "north"}
    ) as export:
        ours, made = traces()
        call = new("Embed")
        ours.begin(call)
        attempt(call)
        before = time.time_ns()
        ours.ended(end(call))
        export.put(made)
        server, client = await otlp.spans(upstream, 2)
        await until(lambda: export.sent == 2)
    assert (server.kind, client.kind) == ("server", "client")
    assert client.parent == server.id
    assert client.trace == server.trace
    assert server.resource == {"service.name": "t"}
    assert abs(server.end - before) < 1e9
    sent = upstream.requests[0].headers
    assert sent["content-type"] == "application/x-protobuf"
    assert sent["x-tenant"] == "north"
    assert export.dropped == 0


async def test_spans_that_come_together_share_a_request(upstream: FakeUpstream) -> None:
    otlp.receive(upstream)
    async with exporting(upstream.url) as export:
        for span in some(20):
            export.put([span])
        await otlp.spans(upstream, 20)
    assert len(upstream.requests) == 1


async def test_a_full_batch_is_sent_without_waiting_and_none_is_larger(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_export, "LINGER", 1000)
    otlp.receive(upstream)
    async with exporting(upstream.url) as export:
        export.put(some())
        await asyncio.sleep(0)  # it lingers for more
        export.put(some(BATCH + 2))
        await until(lambda: export.sent == BATCH)
        assert export.queued == 3
    assert [len(otlp.read(one.body)) for one in upstream.requests] == [BATCH, 3]


async def test_calls_get_their_turn_while_a_batch_is_encoded(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    otlp.receive(upstream)
    most = turns = 0
    encode = trace_wire.span

    def counted(one: Span, offset: int) -> bytes:
        nonlocal most, turns
        turns += 1
        most = max(most, turns)
        return encode(one, offset)

    monkeypatch.setattr(trace_wire, "span", counted)
    async with exporting(upstream.url) as export:
        export.put(some(BATCH))
        while export.sent < BATCH:
            turns = 0
            await asyncio.sleep(0)
    assert 0 < most <= 64


async def test_a_busy_receiver_is_asked_again_with_the_same_spans(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.on("POST", otlp.PATH, Sequence([BUSY, BUSY, otlp.taken()]))
    async with exporting(upstream.url) as export:
        export.put(some(2))
        await until(lambda: export.sent == 2)
    bodies = [one.body for one in upstream.requests]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert export.dropped == 0
    said = lines(caplog)
    assert len(said) == 2
    assert "are not sent (it answered 503)" in said[0]
    assert "again" in said[1]


@pytest.mark.parametrize("status", [429, 502, 504])
async def test_other_passing_troubles_are_waited_out(upstream: FakeUpstream, status: int) -> None:
    upstream.on("POST", otlp.PATH, Sequence([Raw(b"", None, status, AT_ONCE), otlp.taken()]))
    async with exporting(upstream.url) as export:
        export.put(some())
        await until(lambda: export.sent == 1)


async def test_a_receiver_s_wish_to_be_left_alone_is_kept_to(upstream: FakeUpstream) -> None:
    busy = Raw(b"", None, 503, {"retry-after-ms": "400"})
    upstream.on("POST", otlp.PATH, Sequence([busy, otlp.taken()]))
    async with exporting(upstream.url) as export:
        export.put(some())
        await until(lambda: export.sent == 1)
    first, second = (one.arrived_at for one in upstream.requests)
    assert second - first >= 0.39


async def test_what_a_receiver_refuses_is_lost_counted_and_told_once(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    refuses = Raw(b"no such key", "text/plain", 401)
    upstream.on("POST", otlp.PATH, Sequence([refuses, refuses, otlp.taken()]))
    async with exporting(upstream.url) as export:
        for _ in range(2):
            export.put(some())
            await until(lambda: export.queued == 0)
        assert export.dropped == 2
        export.put(some())
        await until(lambda: export.sent == 1)
        said = lines(caplog)
    assert len(upstream.requests) == 3
    assert len(said) == 2
    assert "are refused (it answered 401)" in said[0]
    assert "again" in said[1]


async def test_what_a_receiver_takes_in_part_is_counted_and_not_sent_again(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.on("POST", otlp.PATH, otlp.taken(2, "too old"))
    async with exporting(upstream.url) as export:
        export.put(some(5))
        await until(lambda: export.sent == 3)
        assert export.dropped == 2
    assert len(upstream.requests) == 1
    assert "are refused (too old)" in lines(caplog)[0]


async def test_an_answer_that_is_no_protobuf_is_a_trouble_that_is_told(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    page = Sequence([Raw(b"<html>hello</html>", "text/html"), otlp.taken()])
    upstream.on("POST", otlp.PATH, page)
    async with exporting(upstream.url) as export:
        export.put(some())
        await until(lambda: export.dropped == 1)
        export.put(some())
        await until(lambda: export.sent == 1)
    assert "Malformed" in lines(caplog)[0]


async def test_spans_wait_for_a_receiver_that_is_down(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    otlp.receive(upstream)
    await upstream.stop_listening()
    async with exporting(upstream.url) as export:
        export.put(some(3))
        await until(lambda: bool(lines(caplog)))
        export.put(some(2))
        assert export.queued == 5  # those of the batch under way, too
        await upstream.listen()
        await otlp.spans(upstream, 5)
        await until(lambda: export.sent == 5)
    assert export.dropped == 0
    assert "cannot be reached" in lines(caplog)[0]
    assert len(lines(caplog)) == 2


async def test_memory_is_bounded_while_a_receiver_is_down(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    await upstream.stop_listening()
    async with exporting(upstream.url, max_queue=10) as export:
        for span in some(25):
            export.put([span])
        assert (export.queued, export.dropped) == (10, 15)
        export.put(some(3))
        assert export.dropped == 18
    assert sum("further ones are lost" in line for line in lines(caplog)) == 1
    assert export.dropped == 28


async def test_a_batch_that_waits_takes_its_room(upstream: FakeUpstream) -> None:
    await upstream.stop_listening()
    async with exporting(upstream.url, max_queue=10) as export:
        export.put(some(6))
        await until(lambda: export._sending == 6)
        export.put(some(6))
        assert (export.queued, export.dropped) == (6, 6)


async def test_each_time_that_there_was_no_room_is_told(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    otlp.receive(upstream)
    async with exporting(upstream.url, max_queue=10) as export:
        for _ in range(2):
            export.put(some(9))
            export.put(some(9))
            await until(lambda: export.queued == 0)
    assert sum("further ones are lost" in line for line in lines(caplog)) == 2


async def test_pauses_between_attempts_grow(upstream: FakeUpstream) -> None:
    upstream.on("POST", otlp.PATH, Sequence([*[Raw(b"", None, 503)] * 5, otlp.taken()]))
    async with exporting(upstream.url) as export:
        export.put(some())
        await until(lambda: export.sent == 1)
    at = [one.arrived_at for one in upstream.requests]
    assert at[-1] - at[-2] >= 0.5 * 0.02 * 16


async def test_a_call_s_spans_are_kept_or_lost_together(upstream: FakeUpstream) -> None:
    await upstream.stop_listening()
    async with exporting(upstream.url, max_queue=10) as export:
        export.put(some(8))
        export.put(some(3))
        assert (export.queued, export.dropped) == (8, 3)
        export.put(some(2))
        assert (export.queued, export.dropped) == (10, 3)


async def test_the_end_sends_what_waits_at_once(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_export, "LINGER", 1000)
    otlp.receive(upstream)
    async with exporting(upstream.url) as export:
        export.put(some(2))
        assert await export.aclose(5) == 0
        assert export.sent == 2
        export.put(some())  # a call that ends too late
        assert export.dropped == 1
    assert len(otlp.received(upstream.requests)) == 2


async def test_the_end_does_not_wait_long_for_a_receiver_that_hangs(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.on("POST", otlp.PATH, Stall())
    async with exporting(upstream.url) as export:
        export.put(some(3))
        await upstream.received()
        export.put(some(1))
        began = time.monotonic()
        assert await export.aclose(0.2) == 4
        assert time.monotonic() - began < 5
    assert "traces: 4 spans were lost, 4 of them at the end" in lines(caplog)


async def test_the_end_waits_for_no_receiver_that_is_down(upstream: FakeUpstream) -> None:
    await upstream.stop_listening()
    async with exporting(upstream.url) as export:
        export.put(some(3))
        began = time.monotonic()
        assert await export.aclose(60) == 3
        assert time.monotonic() - began < 20


async def test_a_receiver_that_hangs_is_taken_for_down(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace_export, "ANSWER", 0.1)
    upstream.on("POST", otlp.PATH, Sequence([Stall(), otlp.taken()]))
    async with exporting(upstream.url) as export:
        export.put(some())
        await until(lambda: export.sent == 1)
    assert "no answer within 0.1 s" in lines(caplog)[0]


async def test_a_span_that_cannot_be_encoded_loses_its_batch_and_no_more(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    otlp.receive(upstream)
    async with exporting(upstream.url) as export:
        export.put([some()[0]._replace(own=())])
        await until(lambda: export.dropped == 1)
        export.put(some())
        await until(lambda: export.sent == 1)
    assert "ValueError" in lines(caplog)[0]
    assert caplog.records[0].exc_info


async def test_the_port_of_the_other_protocol_is_pointed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        raise errors.UpstreamProtocol("it does not speak HTTP/1.1")

    export = TraceExport("http://h:4317", post, Random(3))  # noqa: S311
    export.put(some())
    export.start()
    await until(lambda: bool(lines(caplog)))
    await export.aclose(1)
    assert "HTTP's is 4318" in lines(caplog)[0]


async def test_put_together_they_take_the_environment_s_headers_and_names(
    upstream: FakeUpstream,
) -> None:
    otlp.receive(upstream)
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20k", "OTEL_SERVICE_NAME": "gw"}
    async with posting() as post:
        whole = tracing(upstream.url, 1.0, post, Random(3), environ)  # noqa: S311
        whole.export.start()
        call = new()
        whole.traces.begin(call)
        whole.traces.ended(end(call))
        (span,) = await otlp.spans(upstream, 1)
        await whole.export.aclose(5)
    assert span.resource["service.name"] == "gw"
    assert len(str(span.resource["service.instance.id"])) == 36
    request: Received = upstream.requests[0]
    assert request.headers["authorization"] == "Bearer k"
