"""What `tetrad top` computes from two looks at a gateway: figures by hand, and pages of a real
registry. Pure."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from services.commands.top_figures import FAILED, Figures, figures, quantile, restarted
from services.commands.top_pages import Pages, parse
from services.error_table import Reason
from services.telemetry import catalogue

START = 1_000.0
BUCKETS = [(1.0, 50.0), (2.0, 90.0), (4.0, 100.0), (inf, 100.0)]
CALLS = catalogue.CALLS.name
READY = {
    "status": "ready",
    "models": {
        "m": {"type": "text-generation", "ready": True, "providers": {"e": True, "f": False}},
        "quiet": {"type": "text-classification", "ready": False, "providers": {}},
    },
}


def pages(text: str, at: float = 0.0, ready: Any = READY, start: float = START) -> Pages:
    """At `at` seconds after a hundred of the gateway's life."""
    samples = parse(f"process_start_time_seconds {start}\n{text}")
    return Pages(samples, ready, at, START + 100.0 + at)


def calls(count: float, error: str = "", endpoint: str = "e", model: str = "m") -> str:
    return (
        f'{CALLS}{{gen_ai_operation_name="chat",gen_ai_request_model="{model}",'
        f'endpoint="{endpoint}",face="rest",attempts="1",error_type="{error}"}} {count}\n'
    )


def shown(now: str, before: str | None = "", after: float = 10.0) -> Figures:
    return figures(pages(now, after), None if before is None else pages(before))


@pytest.mark.parametrize(
    ("share", "value"),
    [(0.5, 1.0), (0.25, 0.5), (0.7, 1.5), (0.95, 3.0), (1.0, 4.0)],
)
def test_a_quantile_lies_in_its_bucket_as_promql_has_it(share: float, value: float) -> None:
    assert quantile(share, BUCKETS) == pytest.approx(value)


def test_a_quantile_of_nothing_is_none_and_above_the_last_bucket_infinite() -> None:
    assert quantile(0.5, []) is None
    assert quantile(0.5, [(1.0, 0.0), (inf, 0.0)]) is None
    assert quantile(0.95, [(1.0, 5.0), (inf, 100.0)]) == inf


def test_a_rate_is_the_growth_between_two_looks() -> None:
    found = shown(calls(130) + calls(20, endpoint="f"), calls(100))
    model = found.models[0]
    assert (found.calls, found.seconds, found.since_start) == (5.0, 10.0, False)
    assert model.calls == 5.0
    assert {one.name: one.calls for one in model.providers} == {"e": 3.0, "f": 2.0}


def test_without_an_earlier_look_it_is_the_growth_since_the_start() -> None:
    found = shown(calls(220), None)
    assert (found.calls, found.seconds, found.since_start) == (2.0, 110.0, True)
    assert found.up == 110.0


def test_only_faults_of_the_gateway_and_the_upstreams_are_failures() -> None:
    now = calls(60) + calls(20, "RATE_LIMITED") + calls(10, "UPSTREAM_FAILED") + calls(10, "_OTHER")
    found = shown(now)
    assert found.failed == pytest.approx(0.2)
    assert found.models[0].failed == pytest.approx(0.2)
    assert found.errors == {"RATE_LIMITED": 2.0, "UPSTREAM_FAILED": 1.0, "_OTHER": 1.0}
    assert next(iter(found.errors)) == "RATE_LIMITED"
    assert found.models[1].failed is None


def test_every_reason_is_somebody_s_fault() -> None:
    """A new reason has to be thought of here."""
    callers = {
        *("INVALID_REQUEST", "UPSTREAM_INVALID_REQUEST", "CONTEXT_LENGTH_EXCEEDED"),
        *("UNSUPPORTED_MEDIA_TYPE", "REQUEST_TOO_LARGE", "UNAUTHENTICATED", "MODEL_FORBIDDEN"),
        *("MODEL_NOT_FOUND", "NOT_FOUND", "CONFLICT", "RATE_LIMITED"),
        *("CANCELLED", "NOT_OFFERED", "METHOD_UNKNOWN", "METHOD_NOT_ALLOWED"),
    }
    assert callers | FAILED == {*Reason, "_OTHER"}
    assert not callers & FAILED


def test_durations_and_tokens_are_of_the_model_and_of_the_time_between() -> None:
    def page(scale: float, model: str) -> str:
        labels = f'gen_ai_operation_name="chat",gen_ai_request_model="{model}",error_type=""'
        duration = "".join(
            f'gen_ai_server_request_duration_seconds_bucket{{{labels},le="{bound}"}} {count}\n'
            for bound, count in ((0.5, 50 * scale), (1.0, 100 * scale), ("+Inf", 100 * scale))
        )
        tokens = "".join(
            f'gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type="{kind}",'
            f'source="{source}"}} {scale * 10}\n'
            for kind in ("input", "output")
            for source in ("upstream", "estimated")
        )
        overhead = f"tetrad_overhead_seconds_sum {scale * 0.5}\n"
        return duration + tokens + overhead + f"tetrad_overhead_seconds_count {scale * 100}\n"

    found = shown(page(2, "m") + calls(1), page(1, "m"))
    model = found.models[0]
    assert (model.p50, model.p95) == (pytest.approx(0.5), pytest.approx(0.95))
    assert (model.tokens_in, model.tokens_out, found.tokens_out) == (2.0, 2.0, 2.0)
    assert found.overhead == pytest.approx(0.005)
    assert found.models[1].p50 is None
    assert found.models[1].tokens_in == 0.0


def test_states_are_read_as_they_are_now() -> None:
    at = 'gen_ai_request_model="m",endpoint='
    found = shown(
        'tetrad_model_in_flight{gen_ai_request_model="m"} 7\n'
        'tetrad_model_waiting{gen_ai_request_model="m"} 3\n'
        f'tetrad_endpoint_in_flight{{{at}"e"}} 5\n'
        f'tetrad_endpoint_upstream_load{{{at}"e"}} 9\n'
        f'tetrad_endpoint_breaker_state{{{at}"e",state="closed"}} 1\n'
        f'tetrad_endpoint_breaker_state{{{at}"e",state="half_open"}} 0\n'
        f'tetrad_endpoint_breaker_state{{{at}"e",state="open"}} 1\n'
        'tetrad_build_info{version="1.2",python="3"} 1\n'
        "tetrad_config_generation 4\ntetrad_workers 2\nprocess_resident_memory_bytes 5e6\n"
    )
    first, second = found.models[0].providers
    assert (found.in_flight, found.waiting, found.workers, found.generation) == (7, 3, 2, 4)
    assert (found.version, found.memory) == ("1.2", 5e6)
    assert (first.in_flight, first.load, first.breaker, first.ready) == (5, 9, "open", True)
    assert (second.in_flight, second.load, second.breaker, second.ready) == (0, None, "closed", 0)


def test_a_gateway_that_started_again_is_noticed() -> None:
    assert not restarted(pages("", start=START), pages("", start=START))
    assert restarted(pages("", start=START + 50), pages("", start=START))
    assert shown(calls(5), calls(100)).calls == 0.0


def test_a_page_s_labels_may_hold_anything() -> None:
    page = 'a{b="x\\"y}, z",c="back\\\\slash\\nline"} 1.5\nb 2\n# HELP a b\nnonsense\nc{} x\n'
    assert parse(page) == {
        "a": [({"b": 'x"y}, z', "c": "back\\slash\nline"}, 1.5)],
        "b": [({}, 2.0)],
    }
