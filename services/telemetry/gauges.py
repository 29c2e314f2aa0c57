"""What is looked up when the metrics are asked for: models, endpoints, limits, the ledger.

It is handed callables that give plain data, and knows nothing of where that comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.telemetry import catalogue
from services.telemetry.catalogue import Instrument

BreakerState = Literal["closed", "half_open", "open"]
BREAKER_STATES: Final[tuple[BreakerState, ...]] = ("closed", "half_open", "open")


@dataclass(frozen=True, slots=True)
class ModelState:
    """A configured model: calls under way, and calls that wait for a provider."""

    name: str
    in_flight: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class EndpointState:
    """A provider of a model. `upstream_load`: requests that it runs and holds, None if unknown."""

    model: str
    name: str
    ready: bool = False
    in_flight: int = 0
    breaker: BreakerState = "closed"
    upstream_load: float | None = None


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Usage records that wait, and how many were dropped since the start."""

    queued: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class TracesState:
    """Spans that wait to be sent, and how many were dropped since the start."""

    queued: int = 0
    dropped: int = 0


def _none() -> tuple[()]:
    return ()


def _no_rejections() -> Mapping[str, int]:
    return {}


@dataclass(slots=True)
class Sources:
    """Where the figures come from; each is called once per page. Without a ledger, or
    traces that go anywhere: None.

    `rejections`: how many calls each limit has rejected since the start, by its name.
    """

    models: Callable[[], Iterable[ModelState]] = _none
    endpoints: Callable[[], Iterable[EndpointState]] = _none
    rejections: Callable[[], Mapping[str, int]] = _no_rejections
    ledger: Callable[[], LedgerState | None] = lambda: None
    traces: Callable[[], TracesState | None] = lambda: None


_Row = tuple[tuple[str, ...], float]


class Gauges(Collector):
    """Reads the sources."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterator[Metric]:
        """The families without samples."""
        return (_family(instrument, ()) for instrument in catalogue.READ)

    def collect(self) -> Iterator[Metric]:
        """The families of this moment."""
        sources = self._sources
        models, endpoints = [*sources.models()], [*sources.endpoints()]
        ledger = sources.ledger()
        ledgers = [] if ledger is None else [ledger]
        senders = [] if (traces := sources.traces()) is None else [traces]
        rows: Mapping[Instrument, Iterable[_Row]] = {
            catalogue.MODEL_IN_FLIGHT: (((one.name,), one.in_flight) for one in models),
            catalogue.MODEL_WAITING: (((one.name,), one.waiting) for one in models),
            catalogue.READY: (((one.model, one.name), one.ready) for one in endpoints),
            catalogue.IN_FLIGHT: (((one.model, one.name), one.in_flight) for one in endpoints),
            catalogue.BREAKER: (
                ((one.model, one.name, state), one.breaker == state)
                for one in endpoints
                for state in BREAKER_STATES
            ),
            catalogue.LOAD: (
                ((one.model, one.name), one.upstream_load)
                for one in endpoints
                if one.upstream_load is not None
            ),
            catalogue.LIMITED: (((name,), count) for name, count in sources.rejections().items()),
            catalogue.LEDGER_QUEUE: (((), one.queued) for one in ledgers),
            catalogue.LEDGER_DROPPED: (((), one.dropped) for one in ledgers),
            catalogue.TRACES_QUEUE: (((), one.queued) for one in senders),
            catalogue.TRACES_DROPPED: (((), one.dropped) for one in senders),
        }
        return (_family(instrument, rows[instrument]) for instrument in catalogue.READ)


def _family(instrument: Instrument, rows: Iterable[_Row]) -> Metric:
    kind = CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily
    family = kind(instrument.name, instrument.says, labels=instrument.labels)
    for labels, value in rows:
        family.add_metric(labels, float(value))
    return family
