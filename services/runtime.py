"""What runs between the faces and the upstreams, made from a configuration and changed by another.

A reload is atomic: everything that can fail is done first, then all is exchanged in one step.
Calls in flight end as they began. Knows no sockets of callers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from random import Random, SystemRandom
from typing import Final

from gateway_http import RestSettings
from gateway_http.pages import playground
from gateway_http.settings import Page, PageAnswer
from services import assembly, worker_pages
from services.assembly import Watched
from services.auth import Keyring, Principal
from services.call import Face
from services.chat import ChatService
from services.config import Config, Fault
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.errors import (
    Overloaded,
    Reason,
    TetradError,
)
from services.inflight import InFlight
from services.ledger import Ledger, LedgerFault
from services.life import Life
from services.limits import Limiter
from services.models import ModelService
from services.named import StartError, clash, first_answer
from services.rerank import RerankService
from services.routing.admission import Admission
from services.routing.budget import RetryBudget
from services.routing.table import RoutedModel, Router, Table
from services.server import bind, status
from services.telemetry import snapshot
from services.telemetry.gauges import EndpointState, LedgerState, ModelState, TracesState
from services.telemetry.logs import log_call
from services.telemetry.metrics import Metrics
from services.telemetry.trace_export import Answer
from services.telemetry.tracing import Tracing, tracing
from services.transcribe import TranscribeService
from services.upstream.base import Timeouts
from services.upstream.transport import Transport
from services.version import version
from services.watch import Watch
from services.worker_seat import Seat

_LAST_SPANS: Final = 5.0
"""Seconds that the receiver of traces gets at the end to take what waits."""

_RECEIVER: Final = Timeouts(connect=5.0, first_byte=10.0, idle=10.0)
_LONGEST_ANSWER: Final = 1024 * 1024

_LAST_RECORDS: Final = 5.0
"""Seconds that the ledger gets at the end to write what waits."""

_log = logging.getLogger("tetrad")


class Runtime:
    """Made by `start`; to be closed. `grpc` is what the gRPC face runs on, changed in place by a
    reload; for REST there are new `rest_settings`. `seat`: its place among several workers."""

    def __init__(self, config: Config, transport: Transport, seat: Seat | None = None) -> None:
        self.config = config
        self.transport = transport
        self.refused: list[str] = []
        random = SystemRandom()
        self.router = Router(Table(()), random)
        self.in_flight = InFlight()
        self.admission = Admission(random, time.monotonic)
        self.metrics = Metrics(version=version())
        self.limiter = _limiter(config)
        ledger = config.ledger
        self.ledger = Ledger(ledger.url, self._prices, ledger.max_queue) if ledger.url else None
        sinks = [log_call, self.metrics.call_ended, self.limiter.charge]
        if self.ledger is not None:
            sinks.append(self.ledger.put)
        self.tracing = self._tracing(random)
        if self.tracing is not None:
            sinks.append(self.tracing.traces.ended)
        self.dispatch = Dispatch(
            self.router,
            sinks,
            ending=lambda: self.in_flight.ending,
            admission=self.admission,
            limiter=self.limiter,
            began=None if self.tracing is None else self.tracing.traces.begin,
        )
        self._transcribe = TranscribeService(self.dispatch, config.limits.max_upload_bytes)
        self._list = ModelService(self.router, _rates)
        self.services = self._services()
        self.grpc = bind.Settings(
            Keyring.of(config),
            self.in_flight,
            config.limits.max_request_bytes,
            config.metadata.pass_in,
            ended=self.dispatch.ended,
            certified=config.grpc.tls is not None and config.grpc.tls.client_ca is not None,
            overload=lambda: self._overload("grpc"),
        )
        self._found: list[tuple[RoutedModel, Watched]] = []
        self._watched: list[Watched] = []
        self._watch = Watch([], transport, config.probes.interval)
        self._live = Life(self.in_flight, self.router, lambda: self.refused)
        self._pages = self._make_pages(seat)
        self._full = _full(config.limits.max_queue)
        self._measure()

    @classmethod
    async def start(cls, config: Config, transport: Transport, seat: Seat | None = None) -> Runtime:
        """A runtime whose models have been asked for the first time. Raises StartError."""
        runtime = cls(config, transport, seat)
        try:
            await runtime._start(seat.source.generation if seat else 1)
        except BaseException:
            await runtime.close()
            raise
        return runtime

    async def _start(self, generation: int) -> None:
        config = self.config
        if self.ledger is not None:
            try:
                await self.ledger.start()
            except LedgerFault as error:
                self.ledger = None
                fault = Fault(config.source, 0, 0, "ledger.url", error.message, error.hint)
                raise StartError([fault]) from None
        await self.limiter.start()
        if self.tracing is not None:
            self.tracing.export.start()
        for url in config.upstreams:
            recognised = await first_answer(self.transport, url)
            self._found += assembly.found_models(config, url, recognised, self.transport)
        await self.take(config, generation)

    async def take(self, config: Config, generation: int) -> None:
        """Go on with another configuration. Raises StartError, and nothing has changed then."""
        models, watched = self._models(config)
        faults = config.required_type_faults({model.type for model in models})
        if faults:
            raise StartError(faults)
        # From here to the watch nothing is awaited and nothing can fail.
        assembly.carry_over(
            self._watched, watched, self.transport, breakers=config.breaker == self.config.breaker
        )
        present = {id(one.model): one.model for one in watched}.values()
        self.router.table = Table(present, generation)
        self._configure(config, len(present))
        old, self._watch = self._watch, Watch(watched, self.transport, config.probes.interval)
        self._watched = watched
        await old.__aexit__(None, None, None)
        await self._watch.__aenter__()

    def refuse(self, faults: Sequence[Fault]) -> None:
        """A newer configuration is no good: /ready says why, until a good one is taken."""
        self.refused = [str(fault) for fault in faults]
        self.metrics.reloaded(self.router.table.generation, ok=False)

    def _models(self, config: Config) -> tuple[list[RoutedModel], list[Watched]]:
        configured, watched = assembly.configured_models(config, self.transport)
        models = {model.name: model for model in configured}
        for model, one in self._found:
            known = models.setdefault(model.name, model)
            if known.type != model.type:
                raise StartError([clash(one.endpoint.url, known, model)])
            if known is not model:
                known.routes += [one.route]
                one.model = known
            watched.append(one)
        return list(models.values()), watched

    def _configure(self, config: Config, models: int) -> None:
        limits, self.config = config.limits, config
        self._full = _full(limits.max_queue)
        self.refused = []
        self.in_flight.limit = _wall(limits.max_in_flight, limits.max_queue)
        self.admission.configure(
            limits.max_in_flight, limits.max_queue, config.timeouts.queue, models
        )
        if self.dispatch.budget.ratio != config.retry.budget_ratio:
            self.dispatch.budget = RetryBudget(config.retry.budget_ratio, time.monotonic)
        self.dispatch.attempts = config.retry.attempts
        if self.tracing is not None:
            self.tracing.traces.sample(config.telemetry.trace_sample_ratio)
        self._transcribe.max_upload_bytes = limits.max_upload_bytes
        self._list.max_upload_bytes = limits.max_upload_bytes
        self.metrics.reloaded(self.router.table.generation, ok=True)
        self.grpc.keyring = Keyring.of(config)
        self.grpc.pass_in = config.metadata.pass_in

    def rest_settings(self) -> RestSettings:
        """What the REST face runs on from now on."""
        config = self.config
        assert config.http is not None  # noqa: S101  (the caller asked)
        return RestSettings(
            keyring=self.grpc.keyring,
            state=self._live,
            ended=self.dispatch.ended,
            overload=lambda: self._overload("rest"),
            max_request_bytes=config.limits.max_request_bytes,
            max_upload_bytes=config.limits.max_upload_bytes,
            cors=config.http.cors,
            relay=config.relay,
            version=version(),
            heartbeat_first=config.heartbeat.first,
            heartbeat_every=config.heartbeat.every,
            pass_in=frozenset(config.metadata.pass_in),
            pass_out=frozenset(config.metadata.pass_out),
            opengatellm=config.compat.opengatellm,
            pages={**self._pages, **self._playground()},
        )

    def _overload(self, face: Face) -> TetradError | None:
        """The error of a call that no model has room for; it is counted, and not logged: a line a
        call would cost more than the refusal."""
        if not self.admission.is_full(self.router.table.models):
            return None
        self.metrics.refused(Reason.OVERLOADED, face)
        return self._full

    def _services(self) -> Mapping[str, object]:
        def error_status(error: TetradError, request_id: str) -> bytes:
            return status.rpc_status(error, request_id).SerializeToString()

        return {
            "tetrad.v1.ChatService": ChatService(self.dispatch),
            "tetrad.v1.EmbedService": EmbedService(self.dispatch, error_status),
            "tetrad.v1.TranscribeService": self._transcribe,
            "tetrad.v1.RerankService": RerankService(self.dispatch),
            "tetrad.v1.ModelService": self._list,
        }

    def _make_pages(self, seat: Seat | None) -> dict[str, Page]:
        """/metrics, and with other workers also /ready: whoever is asked answers for all."""
        metrics = self.metrics
        if seat is None:
            return {"/metrics": lambda: PageAnswer(*metrics.page())}

        def merged(snapshots: list[bytes]) -> PageAnswer:
            return PageAnswer(snapshot.MEDIA_TYPE, snapshot.merge(snapshots))

        return {
            "/metrics": worker_pages.metrics(seat, metrics.snapshot, merged),
            "/ready": worker_pages.ready(seat, self._live.ready),
        }

    def _playground(self) -> dict[str, Page]:
        """The page at / and its files, unless the configuration leaves them out."""
        grpc, http = self.config.grpc, self.config.http
        if http is None or not http.playground:
            return {}
        fixed = bool(grpc.address.port and not grpc.address.path)
        shown = str(grpc.address if fixed else type(grpc)().address)
        return playground(shown, tls=grpc.tls is not None)

    def _measure(self) -> None:
        """What the metrics look up when they are asked for."""
        router, sources = self.router, self.metrics.sources
        sources.models = lambda: [
            ModelState(model.name, model.in_flight, self.admission.waiting_for(model))
            for model in router.table.models
        ]
        sources.endpoints = lambda: [
            EndpointState(
                model.name,
                route.name,
                route.ready,
                route.in_flight,
                route.breaker.state,
                route.upstream_load,
            )
            for model in router.table.models
            for route in model.routes
        ]
        sources.rejections = lambda: self.limiter.rejected
        ledger = self.ledger
        if ledger is not None:
            sources.ledger = lambda: LedgerState(ledger.queued, ledger.dropped)
        if self.tracing is not None:
            export = self.tracing.export
            sources.traces = lambda: TracesState(export.queued, export.dropped)

    def _tracing(self, random: Random) -> Tracing | None:
        """What sends traces, if they go anywhere."""

        async def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
            sent = self.transport.request(
                "POST", url, headers, body, _RECEIVER, endpoint="the receiver of traces"
            )
            async with sent as response:
                told = await response.read(_LONGEST_ANSWER)
                return response.status, response.headers, told

        telemetry = self.config.telemetry
        if telemetry.otlp_endpoint is None:
            return None
        return tracing(telemetry.otlp_endpoint, telemetry.trace_sample_ratio, post, random)

    def _prices(self, name: str) -> tuple[float, float] | None:
        return self.router.table.prices(name)

    async def close(self) -> None:
        """End the probes and write the last records. Calls have ended before."""
        await self._watch.__aexit__(None, None, None)
        await self.limiter.aclose()
        if self.tracing is not None:
            await self.tracing.export.aclose(_LAST_SPANS)
        if self.ledger is not None:
            lost = await self.ledger.aclose(_LAST_RECORDS)
            if lost:
                _log.error("%d usage records could not be written to the ledger", lost)


def _limiter(config: Config) -> Limiter:
    try:
        return Limiter.of(config)
    except ValueError as error:
        hint = "write it as redis://HOST:PORT/0, or unix:///PATH for a socket file"
        raise StartError([Fault(config.source, 0, 0, "state.url", str(error), hint)]) from None


def _full(most: int | None) -> Overloaded:
    """What is told of a queue that is full, by all calls alike: a new one each time would cost
    half of a refusal."""
    return Overloaded(
        f"{most} calls wait already, as many as limits.max_queue allows",
        metadata={"limit": str(most)},
        retry_after=1.0,
    )


def _rates(principal: Principal) -> dict[str, int | None]:
    """What a caller's key may use, as the list of models tells it."""
    limits = principal.limits
    if limits is None:
        return {}
    return {"rpm": limits.rpm, "rpd": limits.rpd, "tpm": limits.tpm, "tpd": limits.tpd}


def _wall(in_flight: int | None, queue: int | None) -> int | None:
    """Calls let in at all, those included whose body is still being read: twice what may be
    served, since a model's share is let in beyond, and what may wait."""
    return None if in_flight is None or queue is None else 2 * in_flight + queue
