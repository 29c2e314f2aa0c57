"""The dashboards and alerts of deploy/ ask for metrics and labels that there are.

Whether Prometheus takes them, and whether they find anything, is tried in tests/interop.
"""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.commands.top_figures import FAILED
from services.telemetry import catalogue
from tests.lib import queries
from tests.lib.queries import ALERT_TESTS, BOARDS, ROOT, Query

SERIES = queries.series()
ALERTS = queries.alerts()
EVERY = [query for path in BOARDS for query in queries.of_board(path)] + [
    Query(rule["alert"], rule["expr"], " ".join(rule["annotations"].values())) for rule in ALERTS
]
BUILT_IN = {"__rate_interval", "__all"}
LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")
GUIDE = ROOT / "docs" / "monitoring.md"
each_board = pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)


def ids(query: Query) -> str:
    return query.where


def faults(query: Query) -> list[str]:
    """What an expression asks for that does not exist, or treats as what it is not."""
    read = queries.read(query.expr)
    found = []
    known: set[str] = set()
    for name, labels in read.used:
        if name == "up":
            known |= queries.TARGET_LABELS
        elif name not in SERIES:
            found.append(f"there is no series {name}")
        else:
            known |= SERIES[name][1]
            found += [f"{name} has no label {label}" for label in labels - SERIES[name][1]]
    found += [f"nothing in it has the label {label}" for label in read.by - known]
    found += [f"{name} never only grows" for name in read.rated & _gauges()]
    found += [f"{name} is a counter, and not rated" for name in _counters(read) - read.rated]
    kept = read.by if " by (" in query.expr else known
    if " by (" not in query.expr and re.search(r"\b(sum|min|max|count)\(", query.expr):
        kept = frozenset()
    found += [f"{label} is shown, but gone" for label in {*LEGEND.findall(query.legend)} - kept]
    return found


def _gauges() -> set[str]:
    return {name for name, (metric, _) in SERIES.items() if metric.kind == "gauge"}


def _counters(read: queries.Read) -> set[str]:
    return {name for name, _ in read.used if name in SERIES} - _gauges()


@pytest.mark.parametrize("query", EVERY, ids=ids)
def test_every_query_asks_for_metrics_and_labels_that_exist(query: Query) -> None:
    read = queries.read(query.expr)
    assert read.used
    assert faults(query) == []


@pytest.mark.parametrize(
    ("expr", "legend", "fault"),
    [
        ("sum(rate(tetrad_call_total[5m]))", "", "there is no series tetrad_call_total"),
        ("sum(rate(tetrad_overhead_seconds[5m]))", "", "no series tetrad_overhead_seconds"),
        ('tetrad_workers{face="grpc"}', "", "tetrad_workers has no label face"),
        ("sum by (modle) (tetrad_model_waiting)", "", "has the label modle"),
        ("rate(tetrad_model_waiting[5m])", "", "tetrad_model_waiting never only grows"),
        ("tetrad_refused_calls_total", "", "is a counter, and not rated"),
        ("sum by (face) (rate(tetrad_refused_calls_total[1m]))", "{{error_type}}", "but gone"),
        ("sum(tetrad_model_waiting)", "{{instance}}", "but gone"),
    ],
)
def test_the_reading_finds_what_is_wrong(expr: str, legend: str, fault: str) -> None:
    assert fault in " ".join(faults(Query("", expr, legend)))


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {
        SERIES[name][0].name
        for path in BOARDS
        for query in queries.of_board(path)
        for name, _ in queries.read(query.expr).used
    }
    assert {one.name for one in catalogue.ALL} - shown == {"process_virtual_memory_bytes"}


@each_board
def test_variables_are_defined_and_used_and_ask_for_labels_that_exist(path: Path) -> None:
    variables = queries.variables(path)
    text = path.read_text(encoding="utf-8")
    used = {one or other for one, other in queries.VARIABLE.findall(text)} - BUILT_IN
    assert used == variables.keys()
    for one in variables.values():
        if one["type"] != "query":
            continue
        asked = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", one["query"]["query"])
        assert asked is not None
        metric, matchers, label = asked.groups()
        labels = {*re.findall(r"(\w+)=~", matchers or ""), label}
        assert labels <= SERIES[metric][1], one["name"]
        earlier = [*variables][: [*variables].index(one["name"])]
        assert {*re.findall(r"\$(\w+)", matchers or "")} <= {*earlier}, one["name"]


@each_board
def test_panels_explain_themselves_and_do_not_overlap(path: Path) -> None:
    board = queries.board(path)
    every: list[Any] = board["panels"]
    assert len({one["id"] for one in every}) == len(every)
    for panel in queries.panels(path):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        sources = [panel["datasource"], *(one["datasource"] for one in panel["targets"])]
        assert {one["uid"] for one in sources} == {"${datasource}"}, panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len({*refs}) == len(refs)
    places = [(one["title"], one["gridPos"]) for one in every]
    for title, place in places:
        assert place["x"] + place["w"] <= 24, title
    for (title, one), (other, two) in combinations(places, 2):
        apart = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        below = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert apart or below, (title, other)


def test_dashboards_have_names_of_their_own_and_know_each_other() -> None:
    boards = [queries.board(path) for path in BOARDS]
    for name in ("uid", "title"):
        assert len({one[name] for one in boards}) == len(boards) >= 2
    assert all(one["links"][0]["tags"] == one["tags"] == ["tetrad"] for one in boards)


def test_what_counts_as_failed_is_the_same_everywhere() -> None:
    """In `tetrad top`, on the dashboards, and in the alerts."""
    lists = [queries.variables(path)["failed"]["query"] for path in BOARDS]
    listed = re.compile(r'error_type=~"([^"]*INTERNAL[^"]*)"')
    lists += [found for rule in ALERTS for found in listed.findall(rule["expr"])]
    assert len(lists) == 4
    for one in lists:
        assert {*one.split("|")} == {str(reason) for reason in FAILED}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_is_explained_and_tried(rule: Any) -> None:
    name, said = rule["alert"], rule["annotations"]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert {"summary", "description", "runbook"} == said.keys()
    assert said["runbook"] == f"docs/monitoring.md#{name.lower()}"
    assert f"\n### {name}\n" in GUIDE.read_text(encoding="utf-8")
    tried = yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
    firing = " ".join(
        str(one.get("exp_alerts", "") and one["alertname"]) + str(one.get("exp_samples", ""))
        for test in tried
        for one in (*test.get("alert_rule_test", ()), *test.get("promql_expr_test", ()))
    )
    assert re.search(rf"\b{name}\b", firing), f"no test has {name} fire"


def test_the_guide_explains_no_alert_that_is_not_there() -> None:
    explained = re.findall(r"^### (Tetrad\w+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == [rule["alert"] for rule in ALERTS]
