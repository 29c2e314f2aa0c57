"""docs/metrics.md and the metrics are the same: names, types, labels and meanings."""

from __future__ import annotations

import json
import re
from pathlib import Path

from services.telemetry import catalogue
from services.telemetry.metrics import OPERATIONS, OTHER, Metrics

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) ?\| (.*) \|$", re.MULTILINE)
LABEL = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (.*) \|$", re.MULTILINE)
QUERY = re.compile(r"\b(?:gen_ai|tetrad|process)_\w+")


def names(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`(\w+)`", text))


def documented() -> list[tuple[str, str, tuple[str, ...], str]]:
    text = PAGE.read_text(encoding="utf-8")
    return [(m[1], m[2], names(m[3]), m[4]) for m in ROW.finditer(text)]


def test_every_metric_is_documented_and_none_that_is_not_there() -> None:
    ours = [(one.name, one.kind, one.labels, one.says) for one in catalogue.ALL]
    assert documented() == ours


def test_the_catalogue_is_what_the_page_of_a_gateway_holds() -> None:
    families = {row[0]: (row[1], row[2]) for row in json.loads(Metrics().snapshot())}
    assert families == {
        one.name: (one.kind, families[one.name][1])
        if one in catalogue.PROCESS
        else (one.kind, one.says)
        for one in catalogue.ALL
    }


def test_every_label_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Labels")[2].partition("\n## ")[0]
    explained = [name for match in LABEL.finditer(text) for name in names(match[1])]
    used = {label for one in catalogue.ALL for label in one.labels}
    assert sorted(explained) == sorted(used)
    for operation in {one.name for one in OPERATIONS.values()}:
        assert f"`{operation}`" in text
    assert f"`{OTHER}`" in text


def test_the_example_queries_name_metrics_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("```promql")[2].partition("```")[0]
    labels = {label for one in catalogue.ALL for label in one.labels}
    series = {one.name for one in catalogue.ALL}
    for one in catalogue.ALL:
        if one.kind == "histogram":
            series |= {f"{one.name}_{part}" for part in ("bucket", "sum", "count")}
    assert set(QUERY.findall(text)) <= series | labels
    assert len(set(QUERY.findall(text)) & series) >= 5
