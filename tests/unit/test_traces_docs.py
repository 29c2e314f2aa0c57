"""docs/traces.md and the spans are the same: attributes, bounds, what is an error."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from services.config import Telemetry
from services.telemetry import trace_environ, trace_export
from services.telemetry.metrics import OPERATIONS
from services.telemetry.trace import MOST_ATTEMPTS
from services.telemetry.traces import CLIENT, FAULTS, SERVER

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "traces.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w.]+)` \| (both|server|client) \| (.+) \|$", re.MULTILINE)


def test_every_attribute_is_documented_on_the_spans_that_have_it() -> None:
    server, client = ({*kind.fixed, *kind.own} for kind in (SERVER, CLIENT))
    both = dict.fromkeys(server, "server") | dict.fromkeys(client, "client")
    both |= dict.fromkeys(server & client, "both")
    assert {match[1]: match[2] for match in ROW.finditer(TEXT)} == both


def test_the_outcomes_that_are_errors_are_documented() -> None:
    said = re.search(r"conventions for gRPC: (.*?)\.", TEXT, re.DOTALL)
    assert said
    assert set(re.findall(r"`(\w+)`", said[1])) == FAULTS


def test_the_bounds_are_documented() -> None:
    assert f"go {trace_export.BATCH} at a time" in TEXT
    assert f"up to\n{trace_export.MAX_QUEUE} spans" in TEXT
    assert f"for each, {MOST_ATTEMPTS} at most" in TEXT
    for status in trace_export.AGAIN:
        assert str(int(status)) in TEXT


def test_the_variables_of_the_environment_are_documented() -> None:
    for name in (*trace_environ.HEADERS, trace_environ.NAME, trace_environ.ATTRIBUTES):
        assert f"`{name}`" in TEXT


def test_the_operations_of_models_are_documented() -> None:
    said = next(match[3] for match in ROW.finditer(TEXT) if match[1] == "gen_ai.operation.name")
    listing = {OPERATIONS["ListModels"].name, OPERATIONS["GetModel"].name}
    assert set(re.findall(r"`(\w+)`", said)) == {o.name for o in OPERATIONS.values()} - listing


def test_the_example_is_a_configuration() -> None:
    example = yaml.safe_load(TEXT.partition("```yaml")[2].partition("```")[0])
    assert Telemetry(**example["telemetry"]).trace_sample_ratio == 0.05
    assert Telemetry().trace_sample_ratio == 1
