"""A page of metrics as its samples: read with Prometheus's own parser, which refuses bad lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples(page: bytes) -> Samples:
    """Every sample by its name and labels; none may stand there twice."""
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for one in family.samples:
            key = one.name, frozenset(one.labels.items())
            assert key not in found, one
            found[key] = one.value
    return found


def total(page: bytes, name: str, **labels: str) -> float:
    """The sum of all samples of that name that have these labels."""
    wanted = frozenset(labels.items())
    return sum(
        value for (sample, has), value in samples(page).items() if sample == name and wanted <= has
    )


def series(page: bytes, name: str) -> list[dict[str, str]]:
    """The label sets of a name."""
    return [dict(labels) for (sample, labels) in samples(page) if sample == name]
