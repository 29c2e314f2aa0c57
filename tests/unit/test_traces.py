"""services/telemetry/{trace,traces}.py: what is sampled, what upstreams are told, which spans."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from services import errors
from services.telemetry.metrics import OPERATIONS
from services.telemetry.trace import MOST_ATTEMPTS
from services.telemetry.traces import CLIENT, FAULTS, SERVER
from tests.unit.trace_calls import (
    NOT_SAMPLED,
    PARENT,
    SAMPLED,
    TRACE,
    attempt,
    end,
    new,
    route,
    told,
    traced,
    traces,
)

HALF = 1 << 55


def test_a_caller_that_samples_is_followed_whatever_the_ratio() -> None:
    ours, made = traces(ratio=0)
    call = new(traceparent=SAMPLED, tracestate="a=1,b=2")
    ours.begin(call)
    ours.ended(end(call))
    (span,) = made
    assert f"{span.trace:032x}" == TRACE
    assert f"{span.parent:016x}" == PARENT
    assert span.remote
    assert span.state == "a=1,b=2"


@pytest.mark.parametrize("header", [NOT_SAMPLED, f"00-{TRACE}-{PARENT}-02"])
def test_a_caller_that_does_not_sample_is_followed_whatever_the_ratio(header: str) -> None:
    ours, made = traces(ratio=1)
    call = new(traceparent=header)
    before = call.headers
    ours.begin(call)
    attempt(call)
    ours.ended(end(call))
    assert (made, call.trace) == ([], False)
    assert call.headers is before


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (SAMPLED, True),
        (f"00-{TRACE}-{PARENT}-03", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}", False),
        (f"00-{TRACE}-{PARENT}-1", False),
        (f"00-{TRACE}-{PARENT}-01\n", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_a_context_that_is_none_begins_a_trace_of_its_own(header: str, trace: bool) -> None:
    ours, _ = traces(ratio=1)
    call = new(traceparent="-")
    call.headers = {"traceparent": header, "tracestate": "a=1"}
    ours.begin(call)
    assert (f"{traced(call).id:032x}" == TRACE) is trace
    assert bool(traced(call).parent) is trace
    assert bool(traced(call).state) is trace


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_new_traces_is_the_configured_one(ratio: float) -> None:
    ours, _ = traces(ratio)
    calls = [new() for _ in range(4000)]
    for call in calls:
        ours.begin(call)
    sampled = sum(bool(call.trace) for call in calls)
    assert abs(sampled - ratio * 4000) <= 150
    assert ratio not in (0.0, 1.0) or sampled == ratio * 4000


def test_a_trace_s_id_says_whether_it_is_sampled_so_that_others_decide_the_same() -> None:
    ours, _ = traces(ratio=0.5)
    calls = [new() for _ in range(200)]
    for call in calls:
        ours.begin(call)
    ids = [traced(call).id for call in calls if call.trace]
    assert len(ids) > 50
    assert all(id % (1 << 56) >= HALF for id in ids)


def test_another_ratio_holds_for_calls_to_come() -> None:
    ours, _ = traces(ratio=0)
    ours.sample(1.0)
    call = new()
    ours.begin(call)
    assert call.trace


def test_each_attempt_tells_its_upstream_a_span_of_its_own_in_the_caller_s_trace() -> None:
    """G40"""
    ours, made = traces()
    call = new(traceparent=SAMPLED, tracestate="a=1", baggage="k=v")
    given = call.headers
    ours.begin(call)
    sent = []
    for error in (errors.UpstreamUnavailable("down", reached=True), None):
        attempt(call, error)
        sent.append(call.headers)
    ours.ended(end(call))
    server, *clients = made
    assert [f"00-{TRACE}-{one.id:016x}-01" for one in clients] == [
        headers["traceparent"] for headers in sent
    ]
    assert all({**headers, "traceparent": SAMPLED} == given for headers in sent)
    assert given["traceparent"] == SAMPLED
    assert {one.parent for one in clients} == {server.id}
    assert len({server.id, *(one.id for one in clients)}) == 3
    assert not any(one.remote for one in clients)


def test_the_state_of_a_trace_that_is_not_gone_on_with_is_not_passed_on() -> None:
    ours, made = traces()
    call = new(traceparent="nonsense", tracestate="a=1")
    ours.begin(call)
    attempt(call)
    ours.ended(end(call))
    assert "tracestate" not in call.headers
    assert [span.state for span in made] == ["", ""]
    assert made[0].parent == 0
    assert not made[0].remote


def test_a_request_that_several_calls_share_is_told_the_trace_of_the_one_that_is_sampled() -> None:
    ours, made = traces()
    call = new("Embed", SAMPLED, tracestate="a=1")
    ours.begin(call)
    other = new("Embed", NOT_SAMPLED, tracestate="b=2")
    shared = replace(other, trace=call.trace)
    attempt(shared)
    ours.ended(end(call))
    assert shared.headers["tracestate"] == "a=1"
    assert shared.headers["traceparent"] == f"00-{TRACE}-{made[1].id:016x}-01"


def test_a_call_that_ends_before_it_is_begun_is_decided_on_at_its_end() -> None:
    ours, made = traces()
    ours.ended(end(new(), "UNAUTHENTICATED", "UNAUTHENTICATED"))
    (span,) = made
    assert span.kind is SERVER
    ours.sample(0)
    ours.ended(end(new(), "UNAUTHENTICATED", "UNAUTHENTICATED"))
    assert len(made) == 1


def test_a_stream_s_spans_tell_all_that_is_known_of_it() -> None:
    """G40"""
    ours, made = traces()
    call = new("StreamChat")
    ours.begin(call)
    attempt(call)
    call.prices = (1.0, 2.0)
    call.queued = 0.25
    end(call, prompt_tokens=12, completion_tokens=500_000, source="upstream")
    call.first_at = call.began
    trace = traced(call)
    trace.attempts[0] = trace.attempts[0]._replace(began=call.began - 0.5, ended=call.began + 1)
    ours.ended(call)
    server, client = made
    assert server.name == "chat chatty"
    assert told(server) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "tetrad",
        "gen_ai.request.model": "chatty",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.0,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 500_000,
        "tetrad.attempts": 1,
        "tetrad.cost": 1.000012,
        "tetrad.endpoint": "vllm h:8000",
        "tetrad.face": "grpc",
        "tetrad.key": "indexer",
        "tetrad.method": "StreamChat",
        "tetrad.outcome": "OK",
        "tetrad.queued_seconds": 0.25,
        "tetrad.request.id": "req_1",
        "tetrad.usage.source": "upstream",
    }
    assert client.name == "chat qwen3-8b"
    assert told(client) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "qwen3-8b",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.5,
        "server.address": "h",
        "server.port": 8000,
        "tetrad.endpoint": "vllm h:8000",
    }


@pytest.mark.parametrize("method", OPERATIONS)
def test_every_operation_s_spans_are_named_by_operation_and_model(method: str) -> None:
    ours, made = traces()
    call = new(method)
    ours.begin(call)
    attempt(call)
    ours.ended(end(call))
    operation = OPERATIONS[method].name
    assert [span.name for span in made] == [f"{operation} chatty", f"{operation} qwen3-8b"]
    assert [told(span)["gen_ai.operation.name"] for span in made] == [operation] * 2


@pytest.mark.parametrize(
    ("kind", "url", "place"),
    [
        ("mistral", "https://api.mistral.ai", ("mistral_ai", "api.mistral.ai", 443)),
        ("cohere", "http://[::1]:9/x", ("cohere", "::1", 9)),
        ("tei", "http://tei.local", ("tei", "tei.local", 80)),
    ],
)
def test_an_attempt_names_its_provider_and_where_it_is(
    kind: str, url: str, place: tuple[str, str, int]
) -> None:
    ours, made = traces()
    call = new()
    ours.begin(call)
    at = route("h", kind, "")
    at.adapter.endpoint.url = url
    attempt(call, at=at)
    ours.ended(end(call))
    got = told(made[1])
    names = ("gen_ai.provider.name", "server.address", "server.port")
    assert tuple(got[name] for name in names) == place
    assert got["gen_ai.request.model"] == "chatty"


FAULTY: list[tuple[BaseException, str, int | None]] = [
    (errors.UpstreamUnavailable("down"), "UPSTREAM_UNAVAILABLE", None),
    (errors.UpstreamFailed("x", upstream_status=500), "UPSTREAM_FAILED", 500),
    (errors.DeadlineExceeded("total", seconds=1.0), "DEADLINE_EXCEEDED", None),
    (ZeroDivisionError(), "INTERNAL", None),
]


@pytest.mark.parametrize(("error", "reason", "status"), FAULTY, ids=lambda one: str(one)[:20])
def test_a_failed_attempt_says_why(error: BaseException, reason: str, status: int | None) -> None:
    ours, made = traces()
    call = new()
    ours.begin(call)
    attempt(call, error)
    ours.ended(end(call, "UNAVAILABLE", "UPSTREAM_UNAVAILABLE"))
    client = made[1]
    got = told(client)
    assert client.failed
    assert (got["error.type"], got["tetrad.error"]) == (reason, reason)
    assert got.get("http.response.status_code") == status


@pytest.mark.parametrize("left", [asyncio.CancelledError(), GeneratorExit()])
async def test_a_caller_who_leaves_is_nobody_s_error(left: BaseException) -> None:
    ours, made = traces()
    call = new("StreamChat")
    ours.begin(call)
    attempt(call, left)
    ours.ended(end(call, "CANCELLED"))
    assert [span.failed for span in made] == [False, False]
    assert [told(span).get("error.type") for span in made] == [None, None]
    assert [told(span)["tetrad.error"] for span in made] == ["CANCELLED", "CANCELLED"]


async def test_an_attempt_that_the_caller_s_deadline_ends_says_so() -> None:
    ours, made = traces()
    call = new("StreamChat")
    call.deadline = asyncio.get_running_loop().time() - 1
    ours.begin(call)
    attempt(call, asyncio.CancelledError())
    ours.ended(end(call, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"))
    assert [told(span)["error.type"] for span in made] == ["DEADLINE_EXCEEDED"] * 2


OUTCOMES = sorted({row.grpc for row in errors.TABLE.values()} | {"OK", "CANCELLED"})


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_only_what_the_server_is_to_blame_for_is_an_error(outcome: str) -> None:
    ours, made = traces()
    ours.ended(end(new(), outcome))
    got = told(made[0])
    assert made[0].failed is (outcome in FAULTS)
    assert got.get("error.type") == (outcome if outcome in FAULTS else None)
    assert got.get("tetrad.error") == (None if outcome == "OK" else outcome)


def test_every_outcome_that_is_a_fault_exists() -> None:
    assert FAULTS - set(OUTCOMES) <= {"UNKNOWN", "DATA_LOSS"}


def test_the_parts_of_a_call_are_attempts_under_its_span() -> None:
    """Parts run at once, each on a call of its own with the same trace."""
    ours, made = traces()
    call = new("Embed", SAMPLED)
    ours.begin(call)
    parts = [replace(call, out={}) for _ in range(3)]
    for part in parts:
        traced(part).attempt(part)
    for part in reversed(parts):
        traced(part).attempted(part, route(), part.began, None)
    ours.ended(end(call))
    sent = {part.headers["traceparent"] for part in parts}
    assert {f"00-{TRACE}-{one.id:016x}-01" for one in made[1:]} == sent
    assert len(sent) == 3
    assert call.headers["traceparent"] == SAMPLED


def test_a_call_of_very_many_parts_has_a_bounded_number_of_spans() -> None:
    ours, made = traces()
    call = new("Embed")
    ours.begin(call)
    for _ in range(MOST_ATTEMPTS + 5):
        attempt(call)
    ours.ended(end(call))
    assert len(made) == 1 + MOST_ATTEMPTS
    assert told(made[0])["tetrad.attempts"] == MOST_ATTEMPTS + 5


def test_spans_lie_within_each_other_and_the_client_s_end_is_the_attempt_s() -> None:
    ours, made = traces()
    call = new()
    ours.begin(call)
    attempt(call)
    ours.ended(end(call))
    server, client = made
    assert server.began <= client.began <= client.ended <= server.ended


def test_no_attribute_has_room_for_a_prompt_or_an_answer() -> None:
    """G40: what may be recorded is a closed list, without the conventions' opt-in messages."""
    names = {*SERVER.fixed, *SERVER.own, *CLIENT.fixed, *CLIENT.own}
    forbidden = ("messages", "content", "instructions", "arguments", "query", "documents_text")
    assert not [name for name in names if name.endswith(forbidden)]
    known = ("gen_ai.", "tetrad.", "server.", "http.response.status_code", "error.type")
    assert all(name.startswith(known) for name in names)


def _microseconds(work: Any, calls: list[Any]) -> float:
    began = time.thread_time()
    for call in calls:
        work(call)
    return (time.thread_time() - began) / len(calls) * 1e6


@pytest.mark.parametrize("header", ["", NOT_SAMPLED])
def test_a_call_that_is_not_sampled_costs_next_to_nothing(header: str) -> None:
    """Measured: 1.0 and 1.3 us; the budget is 2."""
    ours, made = traces(ratio=0)

    def both(call: Any) -> None:
        ours.begin(call)
        ours.ended(call)

    best = min(_microseconds(both, [new(traceparent=header) for _ in range(500)]) for _ in range(9))
    assert not made
    assert best < 13
