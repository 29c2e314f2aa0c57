"""Builds everything, starts both faces, and ends them in order. Only this module knows everything.

Nothing half-started stays behind: whatever fails, what was begun is closed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from gateway_http import RestApp, RestSettings
from services import assembly, rest_server
from services.auth import Keyring
from services.chat import ChatService
from services.config import Address, Config, Fault
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.errors import DeadlineExceeded, TetradError, UpstreamUnavailable
from services.inflight import InFlight
from services.models import ModelService
from services.rerank import RerankService
from services.routing.table import RoutedModel, Router, Table
from services.server import bind, face, status
from services.telemetry.logs import log_call
from services.transcribe import TranscribeService
from services.upstream import probe
from services.upstream.transport import Transport
from services.watch import Watch

FIRST_ANSWER = 10.0
"""Seconds that a server named by `--upstream` may take to answer at the start."""

_ASK_AGAIN = 0.25
"""Seconds between two attempts to reach it."""

_CLOSING = 1.0
"""Seconds that pages, connections and last statuses get to end when all calls have."""

_ENDING = 2.0
"""Seconds that calls get to tell their callers that they are ended."""

_NO_RELOAD = "SIGHUP: this version does not reload; restart it to take a new configuration"

BindErrors = (face.BindError, rest_server.BindError)

_log = logging.getLogger("tetrad")


class StartError(Exception):
    """The gateway cannot start on this configuration; `faults` are for the user."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers: where, and with which models. `http` is None without REST."""

    grpc: Address
    http: Address | None
    table: Table


@dataclass(slots=True)
class Life:
    """What the REST face sees of the process: readiness and drain."""

    router: Router
    in_flight: InFlight

    @property
    def draining(self) -> bool:
        """Whether no further call is let in."""
        return self.in_flight.draining

    def enter(self) -> None:
        """A call begins. Raises errors.Draining and errors.Overloaded."""
        self.in_flight.__enter__()

    def leave(self) -> None:
        """A call that had entered has ended."""
        self.in_flight.__exit__(None, None, None)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready unless draining; and each model's state."""
        models = {
            model.name: {
                "type": model.type,
                "ready": model.ready,
                "providers": {route.name: route.ready for route in model.routes},
            }
            for model in self.router.table.models
        }
        return not self.draining, {"draining": self.draining, "models": models}


@asynccontextmanager
async def gateway(config: Config) -> AsyncIterator[Running]:
    """A running gateway; leaving the block drains it.

    Raises StartError and one of BindErrors.
    """
    transport = Transport()
    try:
        table, watch = await _models(config, transport)
        faults = config.required_type_faults({model.type for model in table.models})
        if faults:
            raise StartError(faults)
        router = Router(table, SystemRandom())
        in_flight = InFlight(config.limits.max_in_flight)
        services = _services(config, router, in_flight)
        grpc_face = face.GrpcFace(
            services,
            bind.Settings(
                Keyring.of(config),
                in_flight,
                config.limits.max_request_bytes,
                config.metadata.pass_in,
            ),
        )
        rest = _rest(config, services, Life(router, in_flight)) if config.http else None
        async with watch, _faces(config, grpc_face, rest, in_flight) as (grpc_at, http_at):
            yield Running(grpc_at, http_at, table)
    finally:
        await transport.aclose()


async def _models(config: Config, transport: Transport) -> tuple[Table, Watch]:
    configured, watched = assembly.table(config, transport)
    models: dict[str, RoutedModel] = {model.name: model for model in configured.models}
    for url in config.upstreams:
        recognised = await _first_answer(transport, url)
        for model, one in assembly.found_models(config, url, recognised, transport):
            known = models.setdefault(model.name, model)
            if known.type != model.type:
                raise StartError([_clash(url, known, model)])
            if known is not model:
                known.routes += model.routes
            watched.append(one)
    return Table(models.values()), Watch(watched, transport, config.probes.interval)


def _clash(url: str, known: RoutedModel, found: RoutedModel) -> Fault:
    said = f"its model `{found.name}` is of type {found.type}, one of that name is {known.type}"
    hint = "give one of them another name in a configuration"
    return Fault("", 0, 0, f"--upstream {url}", said, hint)


async def _first_answer(transport: Transport, url: str) -> probe.Recognised:
    """What the server at an `--upstream URL` is. It may still be starting. Raises StartError."""
    until = asyncio.get_running_loop().time() + FIRST_ANSWER
    said = "it does not answer"
    try:
        async with asyncio.timeout_at(until):
            while True:
                try:
                    return await probe.recognise(transport, url, "")
                except (UpstreamUnavailable, DeadlineExceeded) as error:
                    said = str(error)
                await asyncio.sleep(_ASK_AGAIN)
    except TimeoutError:
        said = f"no answer within {FIRST_ANSWER:g} s: {said}"
    except TetradError as error:
        said = str(error)
    hint = "start the server, or correct the URL"
    raise StartError([Fault("", 0, 0, f"--upstream {url}", said, hint)])


def _services(config: Config, router: Router, in_flight: InFlight) -> Mapping[str, object]:
    dispatch = Dispatch(router, log_call, lambda: in_flight.ending)

    def error_status(error: TetradError, request_id: str) -> bytes:
        return status.rpc_status(error, request_id).SerializeToString()

    return {
        "tetrad.v1.ChatService": ChatService(dispatch),
        "tetrad.v1.EmbedService": EmbedService(dispatch, error_status),
        "tetrad.v1.TranscribeService": TranscribeService(dispatch, config.limits.max_upload_bytes),
        "tetrad.v1.RerankService": RerankService(dispatch),
        "tetrad.v1.ModelService": ModelService(router),
    }


def _rest(config: Config, services: Mapping[str, object], life: Life) -> rest_server.RestServer:
    assert config.http is not None  # noqa: S101  (the caller asked)
    settings = RestSettings(
        keyring=Keyring.of(config),
        state=life,
        max_request_bytes=config.limits.max_request_bytes,
        max_upload_bytes=config.limits.max_upload_bytes,
        cors=config.http.cors,
        relay=config.relay,
        heartbeat_first=config.heartbeat.first,
        heartbeat_every=config.heartbeat.every,
        pass_in=frozenset(config.metadata.pass_in),
        pass_out=frozenset(config.metadata.pass_out),
    )
    return rest_server.RestServer(RestApp(services, settings))


@asynccontextmanager
async def _faces(
    config: Config,
    grpc_face: face.GrpcFace,
    rest: rest_server.RestServer | None,
    in_flight: InFlight,
) -> AsyncIterator[tuple[Address, Address | None]]:
    """Both faces bound, then both started; drained on the way out, or ended at once on an error."""
    grace = closing = 0.0
    try:
        grpc_at = config.grpc.address.with_port(grpc_face.bind(config.grpc.address))
        http_at = None
        if rest is not None and config.http is not None:
            http_at = config.http.address.with_port(rest.bind(config.http.address))
            await rest.start()
        await grpc_face.start()
        yield grpc_at, http_at
        grace = config.drain.grace
    finally:
        in_flight.drain()
        try:
            await grpc_face.not_serving()
            if grace and not await in_flight.idle(grace):
                _log.warning("%d calls did not end within %g s", in_flight.count, grace)
            closing = _CLOSING
        finally:  # also when a second signal cut the wait short
            in_flight.end_all()
            await in_flight.idle(_ENDING if closing else _CLOSING)
            await asyncio.gather(
                grpc_face.stop(closing), rest.stop(closing) if rest else _nothing()
            )
            await in_flight.idle(1)


async def _nothing() -> None:
    return


async def serve(config: Config, announce: Callable[[Running], None]) -> None:
    """Run until SIGTERM or SIGINT; a second one, or one before the start, ends at once.

    Raises as `gateway`.
    """
    started, stop, at_once = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def struck() -> None:
        (stop if started.is_set() and not stop.is_set() else at_once).set()

    def start(running: Running) -> None:
        announce(running)
        started.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, struck)
    loop.add_signal_handler(signal.SIGHUP, _log.warning, _NO_RELOAD)
    run = asyncio.create_task(_run(config, start, stop))
    second = asyncio.create_task(at_once.wait())
    await asyncio.wait({run, second}, return_when=asyncio.FIRST_COMPLETED)
    second.cancel()
    if not run.done():
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        return
    await run


async def _run(config: Config, announce: Callable[[Running], None], stop: asyncio.Event) -> None:
    async with gateway(config) as running:
        announce(running)
        await stop.wait()
        _log.info("stopping: open calls have %g s to end", config.drain.grace)
