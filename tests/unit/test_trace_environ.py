"""services/telemetry/trace_environ.py: OpenTelemetry's environment variables."""

from __future__ import annotations

import pytest

from services.telemetry import trace_environ


def test_headers_are_percent_decoded_pairs_with_names_in_lower_case() -> None:
    told = "Authorization=Bearer%20a%2Cb, x-tenant = north ,"
    assert trace_environ.headers({"OTEL_EXPORTER_OTLP_HEADERS": told}) == {
        "authorization": "Bearer a,b",
        "x-tenant": "north",
    }


def test_headers_for_traces_hold_over_those_for_everything() -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "a=1", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "b=2"}
    assert trace_environ.headers(environ) == {"b": "2"}


@pytest.mark.parametrize("told", ["", "no pair", "=value", ","])
def test_what_is_no_pair_is_left_out(told: str) -> None:
    assert trace_environ.headers({"OTEL_EXPORTER_OTLP_HEADERS": told}) == {}


def test_a_value_may_hold_the_sign() -> None:
    assert trace_environ.headers({"OTEL_EXPORTER_OTLP_HEADERS": "k=YQ=="}) == {"k": "YQ=="}


def test_the_environment_s_attributes_hold_over_ours_and_its_name_over_both() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,k8s.pod.name=tetrad-0"}
    assert trace_environ.resource(environ, "one") == {
        "service.name": "a",
        "service.instance.id": "one",
        "k8s.pod.name": "tetrad-0",
    }
    environ["OTEL_SERVICE_NAME"] = "gateway"
    assert trace_environ.resource(environ, "one")["service.name"] == "gateway"
    assert trace_environ.resource({}, "one", "1.2") == {
        "service.name": "tetrad",
        "service.instance.id": "one",
        "service.version": "1.2",
    }
