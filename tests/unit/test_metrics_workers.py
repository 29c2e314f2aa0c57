"""services/telemetry/snapshot.py: the figures of several workers as one page."""

from __future__ import annotations

from typing import Any

import pytest

from services.call import Call
from services.telemetry import catalogue
from services.telemetry.gauges import EndpointState, LedgerState, ModelState, Sources
from services.telemetry.metrics import Metrics
from services.telemetry.snapshot import merge, remains
from services.usage import UsageRecord
from tests.lib.metric_lines import samples, total

TOKENS = "gen_ai_client_token_usage"


def call(model: str = "m", tokens: int = 5, seconds: float = 0.5) -> Call:
    usage = UsageRecord(tokens, source="upstream", outcome="OK")
    ended = Call("id", "Chat", "grpc", model=model, endpoint="e", attempts=1, usage=usage)
    ended.ended_at = ended.began + seconds
    return ended


def worker(*calls: Call, **sources: Any) -> Metrics:
    metrics = Metrics(Sources(**sources), "1")
    for one in calls:
        metrics.call_ended(one)
    return metrics


def test_one_worker_s_page_is_the_merged_one() -> None:
    metrics = worker(call(), models=lambda: [ModelState("m", 1)])
    ours = {k: v for k, v in samples(metrics.page()[1]).items() if "process" not in k[0]}
    merged = samples(merge([metrics.snapshot()]))
    assert {k: v for k, v in merged.items() if "process" not in k[0]} == ours


def test_what_counts_is_added_up() -> None:
    workers = [worker(call(), call(tokens=7)), worker(call("other", seconds=30.0)), worker(call())]
    got = merge([one.snapshot() for one in workers])
    assert total(got, "tetrad_calls_total", gen_ai_request_model="m") == 3
    assert total(got, "tetrad_calls_total", gen_ai_request_model="other") == 1
    assert total(got, f"{TOKENS}_sum", gen_ai_request_model="m") == 17
    assert total(got, f"{TOKENS}_bucket", gen_ai_request_model="m", le="4.0") == 0
    assert total(got, f"{TOKENS}_bucket", gen_ai_request_model="m", le="16.0") == 3
    assert total(got, "gen_ai_server_request_duration_seconds_count") == 4
    assert total(got, "tetrad_workers") == 3


def test_gauges_are_added_up_or_the_highest_or_the_lowest() -> None:
    one = worker(
        models=lambda: [ModelState("m", 2, 1)],
        endpoints=lambda: [EndpointState("m", "e", True, 2, "closed", 9.0)],
        ledger=lambda: LedgerState(4, 1),
    )
    other = worker(
        models=lambda: [ModelState("m", 3, 0)],
        endpoints=lambda: [EndpointState("m", "e", False, 3, "open", 8.0)],
        ledger=lambda: LedgerState(5, 0),
    )
    one.reloaded(2, ok=True)
    other.reloaded(1, ok=False)
    got = merge([one.snapshot(), other.snapshot()])
    expected = {
        "tetrad_model_in_flight": 5,
        "tetrad_model_waiting": 1,
        "tetrad_endpoint_ready": 0,
        "tetrad_endpoint_in_flight": 5,
        "tetrad_endpoint_upstream_load": 9,
        "tetrad_ledger_queue_length": 9,
        "tetrad_ledger_dropped_records_total": 1,
        "tetrad_config_generation": 2,
        "tetrad_config_generation_oldest": 1,
        "tetrad_config_last_reload_successful": 0,
        "tetrad_config_reload_failures_total": 1,
        "tetrad_build_info": 1,
    }
    assert {name: total(got, name) for name in expected} == expected
    for state, workers in (("closed", 1), ("half_open", 0), ("open", 1)):
        assert total(got, "tetrad_endpoint_breaker_state", state=state) == workers


def test_the_order_of_workers_does_not_matter() -> None:
    snapshots = [worker(call(), call("b")).snapshot(), worker(call("b")).snapshot()]
    assert samples(merge(snapshots)) == samples(merge(reversed(snapshots)))


def test_a_worker_that_ended_leaves_its_counts_and_not_its_gauges() -> None:
    gone = [worker(call(), models=lambda: [ModelState("m", 9)]) for _ in range(2)]
    left = remains([gone[0].snapshot()])
    left = remains([left, gone[1].snapshot()])
    got = merge([left, worker(call(), models=lambda: [ModelState("m", 1)]).snapshot()])
    assert total(got, "tetrad_calls_total") == 3
    assert total(got, f"{TOKENS}_sum") == 15
    assert total(got, "tetrad_model_in_flight") == 1
    assert total(got, "tetrad_workers") == 1


def test_nothing_merged_is_an_empty_page() -> None:
    assert merge([]) == b""


@pytest.mark.parametrize("name", ['a"b', "back\\slash", "two\nlines", "été 🚢", "a{b=c},d"])
def test_any_name_of_a_model_survives(name: str) -> None:
    got = merge([worker(call(name)).snapshot(), worker(call(name)).snapshot()])
    assert total(got, "tetrad_calls_total", gen_ai_request_model=name) == 2


def test_only_gauges_say_how_they_join() -> None:
    assert {one.across for one in catalogue.ALL if one.kind != "gauge"} == {"sum"}
