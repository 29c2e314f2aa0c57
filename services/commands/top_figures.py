"""What `tetrad top` shows, computed from a gateway's pages at two moments.

Pure. A rate is a counter's growth between the two; without an earlier one, since its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from services.commands.top_pages import Labels, Pages, Samples
from services.error_table import Reason
from services.telemetry import catalogue
from services.telemetry.catalogue import Instrument

FAILED: Final = frozenset(
    {
        *(Reason.DEADLINE_EXCEEDED, Reason.DRAINING, Reason.INTERNAL, Reason.OVERLOADED),
        *(Reason.QUOTA_EXHAUSTED, Reason.UPSTREAM_AUTH, Reason.UPSTREAM_FAILED),
        *(Reason.UPSTREAM_PROTOCOL, Reason.UPSTREAM_RATE_LIMITED),
        *(Reason.UPSTREAM_TRUNCATED, Reason.UPSTREAM_UNAVAILABLE),
        "_OTHER",
    }
)
"""Outcomes that are the gateway's or an upstream's fault. The rest is the callers': what they
asked wrong, may not have, or did not wait for."""

_MODEL = "gen_ai_request_model"
_START = "process_start_time_seconds"
_CPU, _MEMORY = "process_cpu_seconds_total", "process_resident_memory_bytes"


@dataclass(frozen=True, slots=True)
class Provider:
    """An endpoint of a model. `failed`: share of its calls; `load` as the upstream tells it."""

    name: str
    ready: bool
    breaker: str
    in_flight: float
    load: float | None
    calls: float
    failed: float | None


@dataclass(frozen=True, slots=True)
class Model:
    """A configured model. Rates are per second; durations in seconds, None without calls,
    infinite when they lie above the highest bucket."""

    name: str
    type: str
    ready: bool
    in_flight: float
    waiting: float
    calls: float
    failed: float | None
    p50: float | None
    p95: float | None
    first_p95: float | None
    tokens_in: float
    tokens_out: float
    providers: tuple[Provider, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """A gateway. `seconds` is what rates were measured over, `since_start` whether that is its
    whole life. `errors`: calls a second by reason, callers' mistakes too, the most first."""

    version: str
    status: str
    not_taken: tuple[str, ...]
    generation: int
    workers: int
    up: float
    seconds: float
    since_start: bool
    in_flight: float
    waiting: float
    calls: float
    failed: float | None
    errors: Mapping[str, float]
    tokens_in: float
    tokens_out: float
    overhead: float | None
    cpu: float
    memory: float
    models: tuple[Model, ...]


def restarted(now: Pages, before: Pages) -> bool:
    """Whether counters began again between the two."""
    return _value(now.samples, _START) > _value(before.samples, _START) + 1.0


def figures(now: Pages, before: Pages | None) -> Figures:
    """All figures of this moment."""
    grown = _Grown(now, before)
    ready = now.ready
    calls = [*grown.of(catalogue.CALLS.name)]
    reasons: dict[str, float] = {}
    for labels, growth in calls:
        if growth and labels["error_type"]:
            reasons[labels["error_type"]] = reasons.get(labels["error_type"], 0.0) + growth
    rates = ((name, growth / grown.seconds) for name, growth in reasons.items())
    models = tuple(
        _model(name, state, now.samples, grown) for name, state in sorted(ready["models"].items())
    )
    return Figures(
        version=next((one["version"] for one, _ in _all(now.samples, catalogue.BUILD)), ""),
        status=str(ready.get("status", "")),
        not_taken=tuple(map(str, ready.get("not_taken", ()))),
        generation=int(_value(now.samples, catalogue.GENERATION.name)),
        workers=int(_value(now.samples, catalogue.WORKERS.name)),
        up=grown.up,
        seconds=grown.seconds,
        since_start=before is None,
        in_flight=sum(one.in_flight for one in models),
        waiting=sum(one.waiting for one in models),
        calls=sum(growth for _, growth in calls) / grown.seconds,
        failed=_failed(calls),
        errors=dict(sorted(rates, key=lambda pair: (-pair[1], pair[0]))),
        tokens_in=grown.rate(_sum(catalogue.TOKENS), gen_ai_token_type="input"),  # noqa: S106
        tokens_out=grown.rate(_sum(catalogue.TOKENS), gen_ai_token_type="output"),  # noqa: S106
        overhead=grown.mean(catalogue.OVERHEAD),
        cpu=grown.rate(_CPU),
        memory=_value(now.samples, _MEMORY),
        models=models,
    )


def _model(name: str, state: Mapping[str, Any], samples: Samples, grown: _Grown) -> Model:
    mine = {_MODEL: name}
    calls = [*grown.of(catalogue.CALLS.name, **mine)]
    breakers = {
        labels["endpoint"]: labels["state"]
        for labels, value in _all(samples, catalogue.BREAKER, **mine)
        if value and labels["state"] != "closed"
    }
    loads = {one["endpoint"]: value for one, value in _all(samples, catalogue.LOAD, **mine)}

    def provider(endpoint: str, ready: bool) -> Provider:
        asked = [(labels, growth) for labels, growth in calls if labels["endpoint"] == endpoint]
        return Provider(
            name=endpoint,
            ready=ready,
            breaker=breakers.get(endpoint, "closed"),
            in_flight=_value(samples, catalogue.IN_FLIGHT.name, **mine, endpoint=endpoint),
            load=loads.get(endpoint),
            calls=sum(growth for _, growth in asked) / grown.seconds,
            failed=_failed(asked),
        )

    return Model(
        name=name,
        type=str(state.get("type", "")),
        ready=bool(state.get("ready")),
        in_flight=_value(samples, catalogue.MODEL_IN_FLIGHT.name, **mine),
        waiting=_value(samples, catalogue.MODEL_WAITING.name, **mine),
        calls=sum(growth for _, growth in calls) / grown.seconds,
        failed=_failed(calls),
        p50=grown.quantile(0.5, catalogue.DURATION, **mine),
        p95=grown.quantile(0.95, catalogue.DURATION, **mine),
        first_p95=grown.quantile(0.95, catalogue.FIRST, **mine),
        tokens_in=grown.rate(_sum(catalogue.TOKENS), **mine, gen_ai_token_type="input"),  # noqa: S106
        tokens_out=grown.rate(_sum(catalogue.TOKENS), **mine, gen_ai_token_type="output"),  # noqa: S106
        providers=tuple(
            provider(endpoint, bool(ready))
            for endpoint, ready in state.get("providers", {}).items()
        ),
    )


def _failed(calls: Iterable[tuple[Labels, float]]) -> float | None:
    """The share of calls that failed; None of no calls."""
    ended = failed = 0.0
    for labels, growth in calls:
        ended += growth
        failed += growth if labels["error_type"] in FAILED else 0.0
    return failed / ended if ended else None


class _Grown:
    """By how much counters have grown. `seconds`: in that time."""

    def __init__(self, now: Pages, before: Pages | None) -> None:
        self._now = now.samples
        self._before = before.samples if before else {}
        self._known: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        started = _value(now.samples, _START)
        self.up = max(now.told_at - started, 0.0) if started else 0.0
        since = now.read_at - before.read_at if before else self.up
        self.seconds = max(since, 1e-3)

    def of(self, name: str, **wanted: str) -> Iterator[tuple[Labels, float]]:
        """Labels and growth of the samples that have the wanted labels."""
        if name not in self._known:
            self._known[name] = {
                frozenset(labels.items()): value for labels, value in self._before.get(name, ())
            }
        known = self._known[name]
        for labels, value in _matching(self._now.get(name, ()), wanted):
            yield labels, max(value - known.get(frozenset(labels.items()), 0.0), 0.0)

    def rate(self, name: str, **wanted: str) -> float:
        """Growth of all of them, a second."""
        return sum(growth for _, growth in self.of(name, **wanted)) / self.seconds

    def mean(self, instrument: Instrument) -> float | None:
        """The mean of what a histogram has seen."""
        count = self.rate(f"{instrument.name}_count")
        return self.rate(_sum(instrument)) / count if count else None

    def quantile(self, share: float, instrument: Instrument, **wanted: str) -> float | None:
        """A quantile of what a histogram has seen, as PromQL's histogram_quantile tells it."""
        buckets: dict[float, float] = {}
        for labels, growth in self.of(f"{instrument.name}_bucket", **wanted):
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + growth
        return quantile(share, sorted(buckets.items()))


def quantile(share: float, buckets: list[tuple[float, float]]) -> float | None:
    """From cumulative buckets by their upper bounds: None of nothing, infinite in the last."""
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return inf


def _sum(instrument: Instrument) -> str:
    return f"{instrument.name}_sum"


def _all(samples: Samples, of: Instrument, **wanted: str) -> Iterator[tuple[Labels, float]]:
    return _matching(samples.get(of.name, ()), wanted)


def _matching(
    samples: Iterable[tuple[Labels, float]], wanted: Mapping[str, str]
) -> Iterator[tuple[Labels, float]]:
    fits: Callable[[Labels], bool] = lambda has: wanted.items() <= has.items()  # noqa: E731
    return ((labels, value) for labels, value in samples if fits(labels))


def _value(samples: Samples, name: str, **wanted: str) -> float:
    """The sum of the samples that have the wanted labels; 0 of none."""
    return sum(value for _, value in _matching(samples.get(name, ()), wanted))
