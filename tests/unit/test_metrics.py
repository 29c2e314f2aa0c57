"""services/telemetry/metrics.py: what a call that has ended leaves in the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from services import codec
from services.call import Call
from services.errors import Reason
from services.telemetry.metrics import OPERATIONS, OTHER, Metrics
from services.usage import UsageRecord
from tests.lib.metric_lines import samples, series, total

DURATION = "gen_ai_server_request_duration_seconds"
FIRST = "gen_ai_server_time_to_first_token_seconds"
PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"
TOKENS = "gen_ai_client_token_usage"
PER_CHUNK = "tetrad_time_per_output_chunk_seconds"


def ended(method: str = "Chat", outcome: str = "OK", **facts: Any) -> Call:
    """A call of 2 s that has ended; the usage is in `facts`, too."""
    usage = facts.pop("usage", None) or UsageRecord()
    usage.close(outcome)
    known: dict[str, Any] = {
        "model": "m",
        "endpoint": "e",
        "attempts": 1,
        "began": 100.0,
        "ended_at": 102.0,
    }
    return Call("id", method, "rest", usage=usage, **(known | facts))


def page(*calls: Call) -> bytes:
    metrics = Metrics()
    for call in calls:
        metrics.call_ended(call)
    return metrics.page()[1]


def test_a_call_is_counted_once_in_each_metric_that_it_belongs_to() -> None:
    got = page(ended(), ended(), ended("Embed"))
    assert total(got, "tetrad_calls_total") == 3
    assert total(got, "tetrad_calls_total", gen_ai_operation_name="chat", endpoint="e") == 2
    assert total(got, f"{DURATION}_count", gen_ai_operation_name="embeddings") == 1
    assert total(got, f"{DURATION}_sum") == 6.0
    assert total(got, f"{DURATION}_bucket", gen_ai_operation_name="chat", le="1.28") == 0
    assert total(got, f"{DURATION}_bucket", gen_ai_operation_name="chat", le="2.56") == 2


def test_the_attributes_that_the_conventions_demand_are_there_and_no_others() -> None:
    (labels,) = series(page(ended()), f"{DURATION}_count")
    assert labels == {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "tetrad",
        "gen_ai_request_model": "m",
        "error_type": "",
    }


def test_every_method_has_an_operation() -> None:
    methods = {method.name for plan in codec.service_plans() for method in plan.methods}
    assert methods == OPERATIONS.keys()
    assert series(page(ended("Brand")), f"{DURATION}_count")[0]["gen_ai_operation_name"] == OTHER


@pytest.mark.parametrize(
    ("outcome", "error", "type"),
    [
        ("OK", "", ""),
        ("UNAVAILABLE", Reason.UPSTREAM_TRUNCATED, "UPSTREAM_TRUNCATED"),
        ("CANCELLED", "", "CANCELLED"),
        ("DEADLINE_EXCEEDED", "", "DEADLINE_EXCEEDED"),
        ("INTERNAL", "", "INTERNAL"),
        ("whatever a caller said", "", "_OTHER"),
    ],
)
def test_an_error_has_the_name_of_its_reason(outcome: str, error: str, type: str) -> None:
    got = page(ended(outcome=outcome, error=error))
    assert total(got, f"{DURATION}_count", error_type=type) == 1
    assert total(got, "tetrad_calls_total", error_type=type) == 1


# Usage.


@pytest.mark.parametrize("outcome", ["OK", "CANCELLED", "UNAVAILABLE"])
@pytest.mark.parametrize("source", ["upstream", "estimated"])
def test_tokens_count_whatever_the_call_s_end(outcome: str, source: str) -> None:
    """G11: also those of a caller who left."""
    used = [UsageRecord(12, 345, 357, source=source), UsageRecord(1, 2, 3, source=source)]
    got = page(*(ended(outcome=outcome, usage=usage) for usage in used))
    for kind, sum_of in (("input", 13), ("output", 347)):
        labels = {"gen_ai_token_type": kind, "source": source}
        assert total(got, f"{TOKENS}_sum", **labels) == sum_of
        assert total(got, f"{TOKENS}_count", **labels) == 2


def test_zero_tokens_are_a_figure_and_none_is_not() -> None:
    """G10."""
    got = page(ended(usage=UsageRecord(0, None, source="upstream")))
    assert total(got, f"{TOKENS}_count", gen_ai_token_type="input") == 1
    assert series(got, f"{TOKENS}_count")[0]["gen_ai_token_type"] == "input"
    assert len(series(got, f"{TOKENS}_count")) == 1


def test_all_four_operations_are_metered() -> None:
    """G12."""
    got = page(
        ended("StreamChat", usage=UsageRecord(3, 4, source="upstream")),
        ended("Embed", usage=UsageRecord(5, source="upstream")),
        ended("Transcribe", usage=UsageRecord(audio_seconds=2.5, source="upstream")),
        ended("LiveTranscribe", usage=UsageRecord(audio_seconds=1.5, source="upstream")),
        ended("Rerank", usage=UsageRecord(6, documents=7, source="estimated")),
    )
    chat, embed, rerank = ("chat", 7), ("embeddings", 5), ("rerank", 6)
    for operation, tokens in (chat, embed, rerank):
        assert total(got, f"{TOKENS}_sum", gen_ai_operation_name=operation) == tokens
    assert total(got, "tetrad_audio_seconds_total", source="upstream") == 4.0
    assert total(got, "tetrad_rerank_documents_total", gen_ai_request_model="m") == 7


NONSENSE: list[Any] = [-1, 10**400, float("inf"), float("nan")]


@pytest.mark.parametrize("figure", NONSENSE, ids=str)
def test_figures_that_cannot_be_leave_the_sums_alone(figure: Any) -> None:
    """An upstream tells them; a sink does not raise, and a sum that is infinite stays so."""
    usage = UsageRecord(figure, figure, audio_seconds=figure, documents=figure, source="upstream")
    assert samples(page(ended(usage=usage))).keys() == samples(page(ended())).keys()


# Times.


def test_a_stream_leaves_one_figure_of_each_kind_however_long_it_was() -> None:
    usage = UsageRecord(1, 5, source="upstream")
    got = page(ended("StreamChat", first_at=101.0, chunks=11, usage=usage))
    assert {total(got, f"{name}_count") for name in (FIRST, PER_TOKEN, PER_CHUNK)} == {1}
    assert total(got, f"{FIRST}_sum") == 1.0
    assert total(got, f"{PER_TOKEN}_sum") == 0.25
    assert total(got, f"{PER_CHUNK}_sum") == 0.1


def test_a_stream_that_failed_has_no_time_per_token() -> None:
    usage = UsageRecord(1, 5, source="estimated")
    got = page(ended("StreamChat", "CANCELLED", first_at=101.0, chunks=11, usage=usage))
    assert total(got, f"{PER_TOKEN}_count") == 0
    assert total(got, f"{FIRST}_count") == total(got, f"{PER_CHUNK}_count") == 1


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_one_event_or_token_has_no_time_in_between(tokens: int | None) -> None:
    usage = UsageRecord(1, tokens, source="upstream")
    got = page(ended("StreamChat", first_at=101.0, chunks=1, usage=usage))
    assert total(got, f"{FIRST}_count") == 1
    assert total(got, f"{PER_TOKEN}_count") + total(got, f"{PER_CHUNK}_count") == 0


def test_an_answer_in_one_piece_has_no_time_to_its_first_token() -> None:
    got = page(ended("Chat", first_at=101.0, chunks=1), ended("StreamChat"))
    assert total(got, f"{FIRST}_count") == 0


def test_overhead_is_what_neither_queue_nor_upstream_took() -> None:
    name = "tetrad_overhead_seconds"
    got = page(ended(upstream_seconds=1.25, queued=0.5))
    assert total(got, f"{name}_sum", face="rest", gen_ai_operation_name="chat") == 0.25
    got = page(ended(upstream_seconds=3.0))
    assert (total(got, f"{name}_count"), total(got, f"{name}_sum")) == (1, 0.0)
    assert total(page(ended(attempts=0)), f"{name}_count") == 0


def test_only_calls_that_waited_are_in_the_queue_s_times() -> None:
    got = page(ended(), ended(queued=0.25))
    assert total(got, "tetrad_queued_seconds_count", gen_ai_request_model="m") == 1
    assert total(got, "tetrad_queued_seconds_sum") == 0.25


def test_a_cancel_s_delay_is_from_the_leaving_to_the_closed_connection() -> None:
    """G5."""
    left = ended(outcome="CANCELLED", left_at=101.0, closed_at=101.03125)
    got = page(left, ended(outcome="CANCELLED", left_at=101.0), ended())
    assert total(got, "tetrad_cancel_delay_seconds_count") == 1
    assert total(got, "tetrad_cancel_delay_seconds_sum") == 0.03125


# Attempts and refusals.


def test_calls_are_told_apart_by_their_attempts() -> None:
    got = page(*(ended(attempts=number) for number in (1, 1, 2, 10, 11, 99)))
    attempts = {
        labels["attempts"]: total(got, "tetrad_calls_total", **labels)
        for labels in series(got, "tetrad_calls_total")
    }
    assert attempts == {"1": 2, "2": 1, "10": 3}


def test_what_was_refused_before_any_upstream_was_asked_is_told_by_its_reason() -> None:
    """G15."""
    metrics = Metrics()
    refused: dict[str, Any] = {"attempts": 0, "endpoint": "", "model": ""}
    metrics.call_ended(ended(outcome="NOT_FOUND", error=Reason.MODEL_NOT_FOUND, **refused))
    metrics.call_ended(ended(outcome="CANCELLED", **refused))
    metrics.call_ended(ended(outcome="INTERNAL", error=Reason.UPSTREAM_FAILED))
    metrics.refused(Reason.METHOD_UNKNOWN, "grpc")
    metrics.refused(Reason.METHOD_UNKNOWN, "grpc")
    _, got = metrics.page()
    name = "tetrad_refused_calls_total"
    assert total(got, name) == 3
    assert total(got, name, face="rest", error_type="MODEL_NOT_FOUND") == 1
    assert total(got, name, face="grpc", error_type="METHOD_UNKNOWN") == 2
    assert total(got, "tetrad_calls_total") == 3


# Reloads, and the page.


def test_reloads_tell_the_generation_and_whether_the_last_one_was_taken() -> None:
    """G37."""
    metrics = Metrics()
    names = ("generation", "generation_oldest", "last_reload_successful", "reload_failures_total")

    def told() -> list[float]:
        return [total(metrics.page()[1], f"tetrad_config_{name}") for name in names]

    metrics.reloaded(1, ok=True)
    assert told() == [1, 1, 1, 0]
    metrics.reloaded(1, ok=False)
    metrics.reloaded(1, ok=False)
    assert told() == [1, 1, 0, 2]
    metrics.reloaded(2, ok=True)
    assert told() == [2, 2, 1, 2]


def test_the_page_says_its_format_and_who_runs() -> None:
    media_type, got = Metrics(version='1.0"b\\').page()
    assert media_type == "text/plain; version=0.0.4; charset=utf-8"
    assert series(got, "tetrad_build_info")[0]["version"] == '1.0"b\\'
    assert total(got, "process_resident_memory_bytes") > 0
    assert b"_created" not in got


def test_two_gateways_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.call_ended(ended())
    assert total(one.page()[1], "tetrad_calls_total") == 1
    assert total(other.page()[1], "tetrad_calls_total") == 0


# Cost: about 10 us a stream and 6 us a unary call where this was written.

MOST: dict[str, tuple[Callable[[], Call], float]] = {
    "unary": (lambda: ended(usage=UsageRecord(1, 2, source="upstream")), 60e-6),
    "stream": (
        lambda: ended(
            "StreamChat",
            first_at=101.0,
            chunks=300,
            upstream_seconds=1.0,
            usage=UsageRecord(1, 300, source="upstream"),
        ),
        100e-6,
    ),
}


@pytest.mark.parametrize("kind", MOST)
def test_counting_a_call_is_cheap(kind: str) -> None:
    make, most = MOST[kind]
    call, metrics, times = make(), Metrics(), 500

    def spent() -> float:
        start = time.process_time()
        for _ in range(times):
            metrics.call_ended(call)
        return (time.process_time() - start) / times

    assert min(spent() for _ in range(5)) < most
