"""services/telemetry/gauges.py: what is read when the page is asked for, and only then."""

from __future__ import annotations

from services.telemetry.gauges import EndpointState, LedgerState, ModelState, Sources
from services.telemetry.metrics import Metrics
from tests.lib.metric_lines import series, total


def test_models_and_endpoints_are_told_as_they_are_when_asked() -> None:
    models = [ModelState("a", in_flight=2, waiting=1), ModelState("b")]
    endpoints = [
        EndpointState("a", "vllm", ready=True, in_flight=2, upstream_load=7.0),
        EndpointState("a", "other", breaker="half_open"),
    ]
    metrics = Metrics(Sources(lambda: models, lambda: endpoints))
    _, got = metrics.page()
    assert total(got, "tetrad_model_in_flight", gen_ai_request_model="a") == 2
    assert total(got, "tetrad_model_waiting", gen_ai_request_model="a") == 1
    assert {one["gen_ai_request_model"] for one in series(got, "tetrad_model_in_flight")} == {
        "a",
        "b",
    }
    vllm = {"gen_ai_request_model": "a", "endpoint": "vllm"}
    assert total(got, "tetrad_endpoint_ready", **vllm) == 1
    assert total(got, "tetrad_endpoint_ready", endpoint="other") == 0
    assert total(got, "tetrad_endpoint_in_flight", **vllm) == 2
    assert series(got, "tetrad_endpoint_upstream_load") == [vllm]
    assert total(got, "tetrad_endpoint_upstream_load", **vllm) == 7
    states = [
        total(got, "tetrad_endpoint_breaker_state", endpoint="other", state=state)
        for state in ("closed", "half_open", "open")
    ]
    assert states == [0, 1, 0]

    models.pop()
    models[0] = ModelState("a", waiting=5)
    endpoints.clear()
    _, got = metrics.page()
    assert total(got, "tetrad_model_waiting") == 5
    assert len(series(got, "tetrad_model_in_flight")) == 1
    assert series(got, "tetrad_endpoint_ready") == []


def test_sources_may_be_set_when_there_is_something_to_read() -> None:
    metrics = Metrics()
    assert series(metrics.page()[1], "tetrad_model_in_flight") == []
    metrics.sources.models = lambda: [ModelState("a", in_flight=3)]
    assert total(metrics.page()[1], "tetrad_model_in_flight") == 3


def test_limits_and_the_ledger_tell_what_was_rejected_and_lost() -> None:
    """G14, G35."""
    metrics = Metrics(
        Sources(rejections=lambda: {"rpm": 4, "tpd": 0}, ledger=lambda: LedgerState(3, 2))
    )
    _, got = metrics.page()
    assert total(got, "tetrad_limit_rejections_total", limit="rpm") == 4
    assert len(series(got, "tetrad_limit_rejections_total")) == 2
    assert total(got, "tetrad_ledger_queue_length") == 3
    assert total(got, "tetrad_ledger_dropped_records_total") == 2
    assert series(Metrics().page()[1], "tetrad_ledger_queue_length") == []


def test_two_providers_of_one_name_are_told_once() -> None:
    """Two providers at one URL are called alike; a page with a sample twice would be refused."""
    alike = [
        EndpointState("m", "e", ready, 2, upstream_load=load)
        for ready, load in ((True, 3), (False, 4))
    ]
    _, got = Metrics(Sources(endpoints=lambda: alike)).page()
    for name, value in (("ready", 0), ("in_flight", 4), ("upstream_load", 4)):
        assert got.count(f"\ntetrad_endpoint_{name}{{".encode()) == 1
        assert total(got, f"tetrad_endpoint_{name}") == value
