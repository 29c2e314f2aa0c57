"""What the gateway counts: a sink for ended calls, and the page that tells all of it.

Children of metrics are bound once per kind of call, since looking one up costs more than counting
in it. Labels hold configured names and names of ours only, never what a caller made up.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeGuard

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from services.call import Call, Face
from services.errors import TABLE, Reason
from services.telemetry import catalogue
from services.telemetry import snapshot as snapshots
from services.telemetry.catalogue import PROVIDER, Instrument
from services.telemetry.gauges import Gauges, Sources
from services.telemetry.tally import Count, Spread, Tally
from services.usage import UsageRecord


class Operation(NamedTuple):
    """A method's gen_ai.operation.name, and whether its caller waits for a first event."""

    name: str
    streamed: bool = False


OPERATIONS: Final[Mapping[str, Operation]] = {
    "Chat": Operation("chat"),
    "StreamChat": Operation("chat", streamed=True),
    "Embed": Operation("embeddings"),
    "Transcribe": Operation("transcription"),
    "StreamTranscribe": Operation("transcription", streamed=True),
    "LiveTranscribe": Operation("transcription"),
    "Rerank": Operation("rerank"),
    # Sinks are told of these only where they fail, and of a bulk's items as Embed.
    "BulkEmbed": Operation("embeddings"),
    "ListModels": Operation("list_models"),
    "GetModel": Operation("get_model"),
}
OTHER: Final = "_OTHER"
"""The conventions' word for what has no name."""

MOST_ATTEMPTS: Final = 10
"""Calls with more are counted with those that had as many."""

_ERROR_TYPES: Final = frozenset(Reason) | {row.grpc for row in TABLE.values()}
_EXACT: Final = float(2**53)
"""A figure past it, or below zero, is an upstream's nonsense: it would spoil a sum for ever."""


class _Bound:
    """The children for one kind of call; `tokens` by kind and source."""

    __slots__ = ("calls", "duration", "operation", "overhead", "refused", "tokens")

    def __init__(self, calls: Count, duration: Spread, operation: Operation) -> None:
        self.calls = calls
        self.duration = duration
        self.operation = operation
        self.overhead: Spread | None = None
        self.refused: Count | None = None
        self.tokens: dict[tuple[str, str], Spread] = {}


class Metrics:
    """The metrics of one process. `call_ended` is a sink of calls; nothing here raises."""

    def __init__(self, sources: Sources | None = None, version: str = "") -> None:
        self.sources = sources or Sources()
        self._registry = CollectorRegistry()
        self._counts: dict[Instrument, Tally[Count]] = {}
        self._spreads: dict[Instrument, Tally[Spread]] = {}
        self._gauges: dict[Instrument, Gauge] = {}
        for one in catalogue.NOTED:
            self._make(one)
        self._bound: dict[tuple[str | int, ...], _Bound] = {}
        self._registry.register(Gauges(self.sources))
        ProcessCollector(registry=self._registry)
        self._gauges[catalogue.BUILD].labels(version, platform.python_version()).set(1)
        self._gauges[catalogue.WORKERS].set(1)
        self._gauges[catalogue.RELOAD_OK].set(1)
        self._delay = self._spreads[catalogue.CANCEL].of()
        self._not_reloaded = self._counts[catalogue.RELOADS_FAILED].of()

    def call_ended(self, call: Call) -> None:
        """Count a call; its usage record is closed."""
        usage = call.usage
        error = "" if usage.outcome == "OK" else _error_type(call)
        attempts = call.attempts if call.attempts < MOST_ATTEMPTS else MOST_ATTEMPTS
        key = (call.method, call.face, call.model, call.endpoint, attempts, error)
        bound = self._bound.get(key) or self._bind(key)
        ended = time.monotonic() if call.ended_at is None else call.ended_at
        duration = ended - call.began
        bound.calls.value += 1
        bound.duration.note(duration)
        if bound.refused is not None:
            bound.refused.value += 1
        if call.upstream_seconds and bound.overhead is not None:
            spent = duration - call.upstream_seconds - call.queued
            bound.overhead.note(spent if spent > 0.0 else 0.0)
        if call.queued:
            self._spread(catalogue.QUEUED, call.model).note(call.queued)
        if call.first_at is not None and bound.operation.streamed:
            self._streamed(call, bound.operation.name, ended, call.first_at)
        if call.left_at is not None and (delay := call.cancel_delay) is not None:
            self._delay.note(delay)
        self._used(usage, bound, call.model)

    def refused(self, reason: Reason, face: Face) -> None:
        """Count what a face refused without a call: a path or method that does not exist."""
        self._count(catalogue.REFUSED, face, reason.value).add()

    def reloaded(self, generation: int, ok: bool) -> None:
        """A configuration was taken, or refused and `generation` is still the one in use."""
        self._gauges[catalogue.GENERATION].set(generation)
        self._gauges[catalogue.OLDEST_GENERATION].set(generation)
        self._gauges[catalogue.RELOAD_OK].set(ok)
        if not ok:
            self._not_reloaded.add()

    def page(self) -> tuple[str, bytes]:
        """Media type and body, in Prometheus's text format."""
        return snapshots.MEDIA_TYPE, snapshots.render(self._families())

    def snapshot(self) -> bytes:
        """All of it, to be merged with those of other workers: see snapshot.merge."""
        return snapshots.pack(self._families())

    def _families(self) -> list[snapshots.Family]:
        return snapshots.families(self._registry, catalogue.ACROSS)

    def _make(self, one: Instrument) -> None:
        """An instrument with nothing in it."""
        if one.kind == "gauge":
            made = self._gauges[one] = Gauge(one.name, one.says, one.labels, registry=None)
            self._registry.register(made)
        elif one.kind == "counter":
            self._registry.register(self._counts.setdefault(one, Tally(one, Count)))
        else:
            self._registry.register(self._spreads.setdefault(one, Tally(one, Spread)))

    def _count(self, instrument: Instrument, *labels: str) -> Count:
        return self._counts[instrument].of(*labels)

    def _spread(self, instrument: Instrument, *labels: str) -> Spread:
        return self._spreads[instrument].of(*labels)

    def _bind(self, key: tuple[str, Face, str, str, int, str]) -> _Bound:
        method, face, model, endpoint, attempts, error = key
        operation = OPERATIONS.get(method) or Operation(OTHER)
        bound = _Bound(
            self._count(
                catalogue.CALLS,
                *(operation.name, model, endpoint, face, str(attempts), error),
            ),
            self._spread(catalogue.DURATION, operation.name, PROVIDER, model, error),
            operation,
        )
        if attempts:
            bound.overhead = self._spread(catalogue.OVERHEAD, operation.name, face)
        elif error and error != Reason.CANCELLED:
            bound.refused = self._count(catalogue.REFUSED, face, error)
        self._bound[key] = bound
        return bound

    def _streamed(self, call: Call, operation: str, ended: float, first: float) -> None:
        """A stream that its caller was given something of."""
        names = (operation, PROVIDER, call.model)
        self._spread(catalogue.FIRST, *names).note(first - call.began)
        tokens, told = call.usage.completion_tokens, ended - first
        if call.usage.outcome == "OK" and tokens is not None and 1 < tokens <= _EXACT:
            self._spread(catalogue.PER_TOKEN, *names).note(told / (tokens - 1))
        if call.chunks > 1:
            each = told / (call.chunks - 1)
            self._spread(catalogue.PER_CHUNK, operation, call.model).note(each)

    def _used(self, usage: UsageRecord, bound: _Bound, model: str) -> None:
        """G12: tokens, audio and documents, whatever the call's outcome."""
        if _sane(tokens := usage.prompt_tokens):
            self._tokens(bound, model, "input", usage.source).note(tokens)
        if _sane(tokens := usage.completion_tokens):
            self._tokens(bound, model, "output", usage.source).note(tokens)
        if _sane(seconds := usage.audio_seconds):
            self._count(catalogue.AUDIO, bound.operation.name, model, usage.source).add(seconds)
        if _sane(documents := usage.documents):
            self._count(catalogue.DOCUMENTS, model).add(documents)

    def _tokens(self, bound: _Bound, model: str, kind: str, source: str) -> Spread:
        spread = bound.tokens.get((kind, source))
        if spread is None:
            names = (bound.operation.name, PROVIDER, model, kind, source)
            spread = bound.tokens[kind, source] = self._spread(catalogue.TOKENS, *names)
        return spread


def _error_type(call: Call) -> str:
    """The error's reason, or the status's name where nobody noted one."""
    said = call.error or call.usage.outcome
    return said if said in _ERROR_TYPES else OTHER


def _sane(figure: float | None) -> TypeGuard[float]:
    return figure is not None and 0 <= figure <= _EXACT
