"""The state of one worker's metrics as bytes, and several of them as one page.

Pure: what each sample means for all workers together stands in the snapshot itself. Knows no
metric by name. Written in Prometheus's text format, version 0.0.4.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_JOIN: Final[Mapping[str, Callable[[float, float], float]]] = {
    "sum": lambda one, other: one + other,
    "max": max,
    "min": min,
}
_NEVER_FALL: Final = ("counter", "histogram")
_TAKEN_AT: Final = "_created"
_TOTAL: Final = "_total"
_IN_LABELS: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_IN_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Family(NamedTuple):
    """A metric and its samples, by name and labels as they are printed.

    across: sum, max or min of what several workers have.
    """

    name: str
    kind: str
    says: str
    across: str
    samples: dict[str, float]


def families(registry: CollectorRegistry, across: Mapping[str, str]) -> list[Family]:
    """What a registry holds now; `across` is by the metric's printed name, and else a sum."""
    found = []
    for metric in registry.collect():
        name = metric.name + (_TOTAL if metric.type == "counter" else "")
        family = Family(name, metric.type, metric.documentation, across.get(name, "sum"), {})
        for sample in metric.samples:
            if not sample.name.endswith(_TAKEN_AT):  # would double the page
                _add(family, _printed(sample.name, sample.labels), float(sample.value))
        found.append(family)
    return found


def _add(family: Family, sample: str, value: float) -> None:
    """A page that tells a sample twice would be refused as a whole."""
    samples = family.samples
    samples[sample] = _JOIN[family.across](samples[sample], value) if sample in samples else value


def _printed(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    inside = ",".join([f'{key}="{value.translate(_IN_LABELS)}"' for key, value in labels.items()])
    return f"{name}{{{inside}}}"


def pack(found: Iterable[Family]) -> bytes:
    """Families as bytes that `merge` and `remains` read."""
    return json.dumps([*found]).encode()


def merge(snapshots: Iterable[bytes]) -> bytes:
    """The page of all workers together, from a snapshot of each.

    Counters, histograms and most gauges are added up, others are the highest or the lowest.
    """
    return render(_together(snapshots))


def remains(snapshots: Iterable[bytes]) -> bytes:
    """A snapshot of what may not fall when workers have ended: their counters and histograms.

    Whoever merges the living adds this one, or the sums would fall back, which readers take for
    a restart of everything.
    """
    return pack(family for family in _together(snapshots) if family.kind in _NEVER_FALL)


def render(found: Iterable[Family]) -> bytes:
    """Families as text."""
    return "".join(_lines(found)).encode()


def _lines(found: Iterable[Family]) -> Iterator[str]:
    for name, kind, says, _, samples in found:
        yield f"# HELP {name} {says.translate(_IN_HELP)}\n# TYPE {name} {kind}\n"
        for sample, value in samples.items():
            yield f"{sample} {value!r}\n"


def _together(snapshots: Iterable[bytes]) -> list[Family]:
    joined: dict[str, Family] = {}
    for snapshot in snapshots:
        for name, kind, says, across, samples in json.loads(snapshot):
            family = joined.setdefault(name, Family(name, kind, says, across, {}))
            for sample, value in samples.items():
                _add(family, sample, value)
    return list(joined.values())
