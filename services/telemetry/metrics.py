"""What the gateway counts: a sink for ended calls, and the page that tells all of it.

Children of metrics are bound once per kind of call, since looking one up costs more than counting
in it. Labels hold configured names and names of ours only, never what a caller made up.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from math import inf
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from services.call import Call, Face
from services.errors import TABLE, Reason
from services.telemetry import catalogue
from services.telemetry import snapshot as snapshots
from services.telemetry.catalogue import PROVIDER, Instrument
from services.telemetry.gauges import Gauges, Sources
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
    """The children for one kind of call. Those that few calls need are bound by the first."""

    __slots__ = ("calls", "duration", "operation", "overhead", "refused")

    def __init__(self, calls: Counter, duration: Histogram, operation: Operation) -> None:
        self.calls = calls
        self.duration = duration
        self.operation = operation
        self.overhead: Histogram | None = None
        self.refused: Counter | None = None


class Metrics:
    """The metrics of one process. `call_ended` is a sink of calls; nothing here raises."""

    def __init__(self, sources: Sources | None = None, version: str = "") -> None:
        self.sources = sources or Sources()
        self._registry = CollectorRegistry()
        made = {one: _make(one, self._registry) for one in catalogue.NOTED}
        self._made: Mapping[Instrument, Any] = made
        self._bound: dict[tuple[str, ...], _Bound] = {}
        self._children: dict[tuple[Any, ...], Any] = {}
        self._registry.register(Gauges(self.sources))
        ProcessCollector(registry=self._registry)
        made[catalogue.BUILD].labels(version, platform.python_version()).set(1)
        made[catalogue.WORKERS].set(1)
        made[catalogue.RELOAD_OK].set(1)

    def call_ended(self, call: Call) -> None:
        """Count a call; its usage record is closed."""
        usage = call.usage
        error = "" if usage.outcome == "OK" else _error_type(call)
        attempts = str(min(call.attempts, MOST_ATTEMPTS))
        key = (call.method, call.face, call.model, call.endpoint, attempts, error)
        bound = self._bound.get(key) or self._bind(key)
        ended = time.monotonic() if call.ended_at is None else call.ended_at
        duration = ended - call.began
        bound.calls.inc()
        bound.duration.observe(duration)
        if bound.refused is not None:
            bound.refused.inc()
        if call.upstream_seconds and bound.overhead is not None:
            spent = duration - call.upstream_seconds - call.queued
            bound.overhead.observe(spent if spent > 0.0 else 0.0)
        if call.queued:
            self._child(catalogue.QUEUED, call.model).observe(call.queued)
        if call.first_at is not None and bound.operation.streamed:
            self._streamed(call, bound.operation.name, ended, call.first_at)
        if call.left_at is not None and (delay := call.cancel_delay) is not None:
            self._made[catalogue.CANCEL].observe(delay)
        self._used(usage, bound.operation.name, call.model)

    def refused(self, reason: Reason, face: Face) -> None:
        """Count what a face refused without a call: a path or method that does not exist."""
        self._child(catalogue.REFUSED, face, reason.value).inc()

    def reloaded(self, generation: int, ok: bool) -> None:
        """A configuration was taken, or refused and `generation` is still the one in use."""
        self._made[catalogue.GENERATION].set(generation)
        self._made[catalogue.OLDEST_GENERATION].set(generation)
        self._made[catalogue.RELOAD_OK].set(ok)
        if not ok:
            self._made[catalogue.RELOADS_FAILED].inc()

    def page(self) -> tuple[str, bytes]:
        """Media type and body, in Prometheus's text format."""
        return snapshots.MEDIA_TYPE, snapshots.render(self._families())

    def snapshot(self) -> bytes:
        """All of it, to be merged with those of other workers: see snapshot.merge."""
        return snapshots.pack(self._families())

    def _families(self) -> list[snapshots.Family]:
        return snapshots.families(self._registry, catalogue.ACROSS)

    def _bind(self, key: tuple[str, str, str, str, str, str]) -> _Bound:
        method, face, model, endpoint, attempts, error = key
        operation = OPERATIONS.get(method) or Operation(OTHER)
        bound = _Bound(
            self._child(catalogue.CALLS, operation.name, model, endpoint, face, attempts, error),
            self._child(catalogue.DURATION, operation.name, PROVIDER, model, error),
            operation,
        )
        if attempts != "0":
            bound.overhead = self._child(catalogue.OVERHEAD, operation.name, face)
        elif error and error != Reason.CANCELLED:
            bound.refused = self._child(catalogue.REFUSED, face, error)
        self._bound[key] = bound
        return bound

    def _child(self, instrument: Instrument, *labels: str) -> Any:
        key = (instrument.name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._made[instrument].labels(*labels)
        return child

    def _streamed(self, call: Call, operation: str, ended: float, first: float) -> None:
        """A stream that its caller was given something of."""
        names = (operation, PROVIDER, call.model)
        self._child(catalogue.FIRST, *names).observe(first - call.began)
        tokens, told = call.usage.completion_tokens, ended - first
        if call.usage.outcome == "OK" and tokens is not None and 1 < tokens <= _EXACT:
            self._child(catalogue.PER_TOKEN, *names).observe(told / (tokens - 1))
        if call.chunks > 1:
            each = told / (call.chunks - 1)
            self._child(catalogue.PER_CHUNK, operation, call.model).observe(each)

    def _used(self, usage: UsageRecord, operation: str, model: str) -> None:
        """G12: tokens, audio and documents, whatever the call's outcome."""
        names = (operation, PROVIDER, model)
        if _sane(tokens := usage.prompt_tokens):
            self._child(catalogue.TOKENS, *names, "input", usage.source).observe(tokens)
        if _sane(tokens := usage.completion_tokens):
            self._child(catalogue.TOKENS, *names, "output", usage.source).observe(tokens)
        if _sane(seconds := usage.audio_seconds):
            self._child(catalogue.AUDIO, operation, model, usage.source).inc(seconds)
        if _sane(documents := usage.documents):
            self._child(catalogue.DOCUMENTS, model).inc(documents)


def _make(instrument: Instrument, registry: CollectorRegistry) -> Any:
    name, kind, says, labels, buckets, _ = instrument
    if kind == "histogram":
        return Histogram(name, says, labels, buckets=(*buckets, inf), registry=registry)
    made = Counter if kind == "counter" else Gauge
    return made(name, says, labels, registry=registry)


def _error_type(call: Call) -> str:
    """The error's reason, or the status's name where nobody noted one."""
    said = call.error or call.usage.outcome
    return said if said in _ERROR_TYPES else OTHER


def _sane(figure: float | None) -> bool:
    return figure is not None and 0 <= figure <= _EXACT
