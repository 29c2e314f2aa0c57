"""What the dashboards and the alerts of deploy/ ask Prometheus for, and a reading of it.

`read` knows as much of PromQL as they use: names, matchers, what is summed by, and what is rated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from services.telemetry import catalogue
from services.telemetry.catalogue import Instrument

ROOT = Path(__file__).parents[2]
BOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
ALERT_TESTS = ROOT / "deploy" / "prometheus" / "alerts_test.yaml"
EXAMPLE = ROOT / "deploy" / "prometheus" / "prometheus.yaml"

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_MATCHERS = re.compile(r'(\w+)\{((?:[^"}]|"[^"]*")*)\}')
_LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_BY = re.compile(r"\bby \(([^)]*)\)")
_TEXT = re.compile(r'"[^"]*"')
_RATED = re.compile(r"\b(?:rate|increase)\((\w+)")
_NAME = re.compile(r"\b(?:(?:gen_ai|tetrad|process)_\w+|up)\b")

TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to every series."""


class Query(NamedTuple):
    """One expression; `where` is for messages."""

    where: str
    expr: str
    legend: str = ""


class Read(NamedTuple):
    """`used`: each metric's name with the labels that it is matched by; `rated`: the names that
    are treated as counters; `by`: the labels that are kept."""

    used: list[tuple[str, frozenset[str]]]
    rated: frozenset[str]
    by: frozenset[str]


def board(path: Path) -> Any:
    """A dashboard."""
    return json.loads(path.read_text(encoding="utf-8"))


def panels(path: Path) -> list[Any]:
    """Its panels but for the rows that group them."""
    return [one for one in board(path)["panels"] if one["type"] != "row"]


def of_board(path: Path) -> Iterator[Query]:
    """Its panels' queries and its annotations'."""
    for panel in panels(path):
        for target in panel["targets"]:
            where = f"{path.name}: {panel['title']}"
            yield Query(where, target["expr"], target["legendFormat"])
    for one in board(path)["annotations"]["list"]:
        yield Query(f"{path.name}: {one['name']}", one["expr"], one["textFormat"])


def alerts() -> list[Any]:
    """The alert rules."""
    document = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def variables(path: Path) -> Mapping[str, Any]:
    """A dashboard's variables, by name."""
    return {one["name"]: one for one in board(path)["templating"]["list"]}


def filled(text: str, values: Mapping[str, str]) -> str:
    """With values in place of variables; KeyError for one that has none."""
    return VARIABLE.sub(lambda found: values[found[1] or found[2]], text)


def read(expr: str) -> Read:
    """The parts of an expression that can be wrong."""
    used = []
    for name, inside in _MATCHERS.findall(expr):
        used.append((name, frozenset(_LABEL.findall(inside))))
    bare = _MATCHERS.sub(" ", expr)
    by = {label.strip() for group in _BY.findall(bare) for label in group.split(",")}
    bare = _TEXT.sub(" ", _BY.sub(" ", bare))
    used += [(name, frozenset()) for name in _NAME.findall(bare)]
    return Read(used, frozenset(_RATED.findall(expr)), frozenset(by))


def series() -> Mapping[str, tuple[Instrument, frozenset[str]]]:
    """Every series that /metrics may have, with its metric and its labels."""
    found = {}
    for one in catalogue.ALL:
        labels = TARGET_LABELS | {*one.labels}
        if one.kind == "histogram":
            found[f"{one.name}_bucket"] = one, labels | {"le"}
            found[f"{one.name}_sum"] = found[f"{one.name}_count"] = one, labels
        else:
            found[one.name] = one, labels
    return found
