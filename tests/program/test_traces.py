"""Traces of `tetrad serve`: a real receiver gets them, of every operation over both faces (G40)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream, Json, Raw, Received, Stall
from tests.lib import otlp
from tests.lib.faces import OPERATIONS, Case, File, Outcome, over_grpc, over_rest
from tests.lib.gateway import message
from tests.lib.metric_lines import total
from tests.lib.tetrad import Served, configuration, model, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, EMBED, SPEECH, RERANK = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)
SECRET = "what nobody but the model may read"
ASKED: Mapping[str, dict[str, Any]] = {
    "Chat": {"messages": [{"role": "user", "content": SECRET}]},
    "StreamChat": {"messages": [{"role": "user", "content": SECRET}]},
    "Embed": {"input": SECRET},
    "Transcribe": {"prompt": SECRET},
    "StreamTranscribe": {"prompt": SECRET},
    "Rerank": {"query": SECRET, "documents": [SECRET, "b"]},
}
MODELS = {
    "Chat": "chatty",
    "StreamChat": "chatty",
    "Embed": "vectors",
    "Transcribe": "ears",
    "StreamTranscribe": "ears",
    "Rerank": "judge",
}
NAMES = {
    "Chat": "chat",
    "StreamChat": "chat",
    "Embed": "embeddings",
    "Transcribe": "transcription",
    "StreamTranscribe": "transcription",
    "Rerank": "rerank",
}
FACES = {"grpc": over_grpc, "rest": over_rest}
PARENT = "b7ad6b7169203331"
PROFILES = {"chatty": "vllm", "vectors": "tei", "ears": "whisper", "judge": "tei-reranker"}


@dataclass
class Bench:
    """A gateway that begins no traces of its own, its upstreams by model, and the receiver."""

    served: Served
    upstreams: dict[str, FakeUpstream]
    receiver: FakeUpstream
    traces: int = 0

    def trace(self) -> str:
        """An id that no other test has."""
        self.traces += 1
        return f"{self.traces:032x}"

    def asked(self, name: str) -> list[Received]:
        """The calls that an upstream got."""
        return [one for one in self.upstreams[name].requests if one.method == "POST"]

    async def run(self, face: str, method: str, **headers: str) -> Outcome:
        request = {**ASKED[method], "model": MODELS[method]}
        sound = File() if OPERATIONS[method].form else None
        return await FACES[face](
            self.served.gate, Case(method, method, request, None, file=sound), headers
        )

    async def spans(self, trace: str, count: int) -> list[otlp.Got]:
        """The spans of a trace, once there are so many: the call's own first."""

        def found() -> list[otlp.Got]:
            return [one for one in otlp.received(self.receiver.requests) if one.trace == trace]

        await self.receiver.until(lambda: len(found()) >= count)
        return sorted(found(), key=lambda one: (one.kind != "server", one.begin))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        names = (*PROFILES, "broken", "receiver")
        fakes = {name: await stack.enter_async_context(FakeUpstream()) for name in names}
        otlp.receive(fakes["receiver"])
        for name, profile in PROFILES.items():
            profiles.PROFILES[profile](fakes[name])
        profiles.vllm(fakes["broken"])
        busy = Json({"error": {"message": "busy", "type": "x"}}, 503)
        fakes["broken"].on("POST", "/v1/chat/completions", busy)
        first, second = (
            {"type": "vllm", "url": fakes[name].url, "model_name": "qwen3-8b", "priority": place}
            for place, name in enumerate(("broken", "chatty"))
        )
        config = configuration(
            tmp_path_factory.mktemp("traces"),
            [
                model("chatty", CHAT, "vllm", fakes["chatty"].url, "qwen3-8b"),
                model("vectors", EMBED, "tei", fakes["vectors"].url),
                model("ears", SPEECH, "whisper", fakes["ears"].url, "Systran/faster-whisper-small"),
                model("judge", RERANK, "tei", fakes["judge"].url),
                {"name": "twice", "type": CHAT, "providers": [first, second]},
            ],
            retry={"budget_ratio": 1},
            telemetry={
                "log_format": "json",
                "otlp_endpoint": fakes["receiver"].url,
                "trace_sample_ratio": 0,
            },
        )
        served = await stack.enter_async_context(serving("--config", config))
        yield Bench(served, {name: fakes[name] for name in names[:-1]}, fakes["receiver"])


async def test_every_operation_over_both_faces_is_a_span_in_the_caller_s_trace_and_its_upstream_s(
    bench: Bench,
) -> None:
    """G40: context in from the caller and on to the upstream; no span per chunk, no prompt."""
    made = {}
    for face in FACES:
        for method in OPERATIONS:
            trace = bench.trace()
            context = {"traceparent": f"00-{trace}-{PARENT}-01", "tracestate": "vendor=1"}
            outcome = await bench.run(face, method, **context)
            assert outcome.failure is None, (face, method, outcome.failure)
            made[face, method] = trace, bench.asked(MODELS[method])[-1].headers
    for (face, method), (trace, sent) in made.items():
        server, client = await bench.spans(trace, 2)
        assert sent["traceparent"] == f"00-{trace}-{client.id}-01"
        assert sent["tracestate"] == "vendor=1"
        assert (server.kind, server.parent, server.remote) == ("server", PARENT, True)
        assert (client.kind, client.parent, client.remote) == ("client", server.id, False)
        assert server.begin <= client.begin <= client.end <= server.end
        assert not server.failed
        assert not client.failed
        assert server.name == f"{NAMES[method]} {MODELS[method]}"
        assert server.attributes["gen_ai.operation.name"] == NAMES[method]
        assert server.attributes["gen_ai.request.model"] == MODELS[method]
        assert server.attributes["tetrad.face"] == face
        assert server.attributes["tetrad.outcome"] == "OK"
        upstream = bench.upstreams[MODELS[method]]
        assert client.attributes["gen_ai.operation.name"] == NAMES[method]
        assert client.attributes["server.address"] == "127.0.0.1"
        assert client.attributes["server.port"] == upstream.port
        assert server.resource["service.name"] == "tetrad"
        if method == "Chat":
            assert server.attributes["gen_ai.usage.input_tokens"] > 0
            assert server.attributes["gen_ai.usage.output_tokens"] > 0
    bodies = b"".join(one.body for one in bench.receiver.requests)
    assert SECRET.encode() not in bodies


async def test_what_the_caller_does_not_sample_passes_unchanged_and_is_not_sent(
    bench: Bench,
) -> None:
    before, trace, last = len(bench.asked("chatty")), bench.trace(), bench.trace()
    given = {"traceparent": f"00-{trace}-{PARENT}-00", "tracestate": "vendor=1"}
    for face in FACES:
        assert (await bench.run(face, "Chat", **given)).failure is None
        assert (await bench.run(face, "Chat")).failure is None
    sent = [one.headers for one in bench.asked("chatty")[before:]]
    assert [{name: one.get(name) for name in given} for one in sent] == [
        given,
        dict.fromkeys(given),
    ] * 2
    await bench.run("rest", "Chat", traceparent=f"00-{last}-{PARENT}-01")
    await bench.spans(last, 2)
    assert all(one.trace != trace for one in otlp.received(bench.receiver.requests))


async def test_every_attempt_is_a_span_that_its_own_upstream_was_told(bench: Bench) -> None:
    trace = bench.trace()
    request = {**ASKED["Chat"], "model": "twice"}
    outcome = await over_grpc(
        bench.served.gate,
        Case("twice", "Chat", request, None),
        {"traceparent": f"00-{trace}-{PARENT}-01"},
    )
    assert outcome.failure is None
    server, failed, good = await bench.spans(trace, 3)
    assert server.attributes["tetrad.attempts"] == 2
    assert (server.failed, failed.failed, good.failed) == (False, True, False)
    assert failed.attributes["error.type"] == "UPSTREAM_UNAVAILABLE"
    assert failed.attributes["http.response.status_code"] == 503
    assert {failed.parent, good.parent} == {server.id}
    told = [bench.asked(name)[-1].headers["traceparent"] for name in ("broken", "chatty")]
    assert told == [f"00-{trace}-{one.id}-01" for one in (failed, good)]


async def test_items_of_a_bulk_stream_are_spans_and_what_they_share_is_an_attempt_of_one(
    bench: Bench,
) -> None:
    before, trace = len(bench.asked("vectors")), bench.trace()
    items = [
        message("BulkEmbedRequest", {"id": str(n), "request": {"model": "vectors", "input": "a"}})
        for n in range(3)
    ]
    stub = bench.served.gate.stub("EmbedService", "BulkEmbed")
    call = stub(iter(items), metadata=(("traceparent", f"00-{trace}-{PARENT}-01"),))
    assert len([answer async for answer in call]) == 3
    sent = [one.headers["traceparent"] for one in bench.asked("vectors")[before:]]
    found = await bench.spans(trace, 3 + len(sent))
    servers, clients = found[:3], found[3:]
    assert [(one.kind, one.parent, one.name) for one in servers] == [
        ("server", PARENT, "embeddings vectors")
    ] * 3
    assert {one.parent for one in clients} <= {one.id for one in servers}
    assert sorted(sent) == sorted(f"00-{trace}-{one.id}-01" for one in clients)


async def test_a_call_that_reaches_no_upstream_is_a_span_of_its_own(bench: Bench) -> None:
    made = {}
    for name, request in {
        "unknown model": {**ASKED["Chat"], "model": "none"},
        "no messages": {"model": "chatty", "messages": []},
    }.items():
        for face, run in FACES.items():
            trace = made[name, face] = bench.trace()
            context = {"traceparent": f"00-{trace}-{PARENT}-01"}
            outcome = await run(bench.served.gate, Case(name, "Chat", request, None), context)
            assert outcome.failure is not None
    for (name, _), trace in made.items():
        (span,) = await bench.spans(trace, 1)
        assert not span.failed  # it is the caller's fault
        wanted = "MODEL_NOT_FOUND" if name == "unknown model" else "INVALID_REQUEST"
        assert span.attributes["tetrad.error"] == wanted


async def test_a_caller_who_leaves_a_stream_ends_its_spans(bench: Bench) -> None:
    upstream, trace = bench.upstreams["chatty"], bench.trace()
    upstream.on("POST", "/v1/chat/completions", Stall("mid", after=1))
    body = {**ASKED["Chat"], "model": "chatty", "stream": True}
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    call = asyncio.create_task(
        bench.served.gate.rest.post("/v1/chat/completions", json=body, headers=headers)
    )
    count = len(bench.asked("chatty"))
    await upstream.until(lambda: len(bench.asked("chatty")) > count)
    call.cancel()
    await asyncio.wait({call})
    server, client = await bench.spans(trace, 2)
    assert server.attributes["tetrad.outcome"] == "CANCELLED"
    assert client.attributes["tetrad.error"] == "CANCELLED"
    assert not server.failed
    assert not client.failed
    profiles.vllm(upstream)


async def test_what_the_receiver_does_not_take_is_counted(bench: Bench) -> None:
    bench.receiver.on("POST", otlp.PATH, Raw(b"", None, 400))
    context = {"traceparent": f"00-{bench.trace()}-{PARENT}-01"}
    assert (await bench.run("rest", "Chat", **context)).failure is None
    await bench.served.program.line("spans are refused .it answered 400")
    page = await bench.served.gate.rest.get("/metrics")
    assert total(page.content, "tetrad_traces_dropped_spans_total") == 2
    assert total(page.content, "tetrad_traces_queue_length") == 0
    otlp.receive(bench.receiver)


async def test_the_end_of_the_gateway_sends_what_waits(tmp_path: Path) -> None:
    async with FakeUpstream() as upstream, FakeUpstream() as receiver:
        profiles.vllm(upstream)
        otlp.receive(receiver)
        config = configuration(
            tmp_path,
            [model("chatty", CHAT, "vllm", upstream.url, "qwen3-8b")],
            required_types=[],
            telemetry={"otlp_endpoint": receiver.url},
        )
        async with serving("--config", config) as served:
            case = Case("last", "Chat", {**ASKED["Chat"], "model": "chatty"}, None)
            assert (await over_rest(served.gate, case)).failure is None
            assert await served.program.stop() == 0
        server, client = otlp.received(receiver.requests)
        assert (server.parent, server.remote) == ("", False)  # a trace that begins here
        asked = [one for one in upstream.requests if one.method == "POST"]
        assert asked[-1].headers["traceparent"] == f"00-{server.trace}-{client.id}-01"
        assert json.loads(asked[-1].body)["messages"] == ASKED["Chat"]["messages"]
