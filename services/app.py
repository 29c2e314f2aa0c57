"""Starts both faces on a runtime, takes new configurations, and ends all in order.

Nothing half-started stays behind: whatever fails, what was begun is closed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway_http import RestApp
from services import certificates, rest_server
from services.config import Address, Config
from services.named import StartError
from services.reload import Change, Source
from services.routing.table import Table
from services.runtime import Runtime
from services.server import face
from services.upstream.transport import Transport
from services.worker_seat import Seat

__all__ = ["BindErrors", "Running", "StartError", "gateway", "serve"]

STRAGGLERS = 0.25
"""Seconds for calls on their way to a gateway that is told to end."""

_CLOSING = 1.0
"""Seconds that pages, connections and last statuses get to end when all calls have."""

_ENDING = 2.0
"""Seconds that calls get to tell their callers that they are ended."""

_RUBBISH = (20_000, 20, 100)
"""Objects made beyond those given up until the youngest are searched, and how many such searches
come before the older ones are."""

BindErrors = (face.BindError, rest_server.BindError)

_log = logging.getLogger("tetrad")


@dataclass(slots=True)
class Running:
    """A gateway that answers: where, and with which models. `http` is None without REST."""

    grpc: Address
    http: Address | None
    runtime: Runtime
    rest: RestApp | None
    _not_serving: Callable[[], Awaitable[None]]

    @property
    def table(self) -> Table:
        """The models in use."""
        return self.runtime.router.table

    async def drain(self) -> None:
        """Let no further call in, and say so to who asks for health."""
        self.runtime.in_flight.drain()
        await self._not_serving()

    async def take(self, config: Config, generation: int) -> None:
        """Go on with another configuration. Raises StartError, and nothing has changed then."""
        await self.runtime.take(config, generation)
        if self.rest is not None:
            self.rest.configure(self.runtime.rest_settings())


@asynccontextmanager
async def gateway(config: Config, seat: Seat | None = None) -> AsyncIterator[Running]:
    """A running gateway; leaving the block drains it. `seat`: its place among several workers.

    Raises StartError and one of BindErrors.
    """
    try:
        tls = certificates.read(config)
    except certificates.CertificateError as error:
        raise StartError(error.faults) from None
    transport = Transport()
    try:
        runtime = await Runtime.start(config, transport, seat)
        try:
            grpc_face = face.GrpcFace(
                runtime.services,
                runtime.grpc,
                shared=seat is not None,
                age=config.grpc.max_connection_age,
                certificates=tls.grpc,
            )
            app = RestApp(runtime.services, runtime.rest_settings()) if config.http else None
            rest = rest_server.RestServer(app, tls.http) if app else None
            async with (
                tls.watched(),
                _faces(runtime, grpc_face, rest, seat) as (grpc_at, http_at),
            ):
                yield Running(grpc_at, http_at, runtime, app, grpc_face.not_serving)
        finally:
            await runtime.close()
    finally:
        await transport.aclose()


@asynccontextmanager
async def _faces(
    runtime: Runtime,
    grpc_face: face.GrpcFace,
    rest: rest_server.RestServer | None,
    seat: Seat | None,
) -> AsyncIterator[tuple[Address, Address | None]]:
    """Both faces bound, then both started; drained on the way out, or ended at once on an error."""
    config, in_flight = runtime.config, runtime.in_flight
    grace = closing = 0.0
    try:
        grpc_at = config.grpc.address.with_port(grpc_face.bind(config.grpc.address))
        http_at = None
        if rest is not None and config.http is not None:
            port = rest.bind(
                config.http.address,
                shared=seat is not None,
                listener=seat.listener if seat else None,
            )
            http_at = config.http.address.with_port(port)
            await rest.start()
        await grpc_face.start()
        yield grpc_at, http_at
        grace = runtime.config.drain.grace
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
            await _stop_both(grpc_face, rest, closing)
            await in_flight.idle(1)


async def _stop_both(
    grpc_face: face.GrpcFace, rest: rest_server.RestServer | None, grace: float
) -> None:
    """Both at the same time, to their ends, also when a second signal cuts the grace short."""
    stops = [asyncio.create_task(grpc_face.stop(grace))]
    if rest is not None:
        stops.append(asyncio.create_task(rest.stop(grace)))
    try:
        await asyncio.wait(stops)
    except asyncio.CancelledError:
        for stop in stops[1:]:
            stop.cancel()
        await grpc_face.stop(0)
        await asyncio.wait(stops)
        raise
    await asyncio.gather(*stops)


def _settle_in() -> None:
    """What stands now lives as long as the process: rubbish is not looked for in it again.

    Calls leave few cycles behind, so that looking is worth its time less often than by default.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_RUBBISH)


def _nothing_to_reload() -> None:
    _log.warning("SIGHUP: this gateway runs without a file, so there is nothing to read again")


async def serve(
    config: Config,
    announce: Callable[[Running], None],
    source: Source | None = None,
    seat: Seat | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; a second one, or one before the start, ends at once.

    `source` is where new configurations come from; SIGHUP asks it for one. With a `seat` it is the
    supervisor who says when to stop, and signals are not looked at. Raises as `gateway`.
    """
    started = asyncio.Event()
    stop, at_once = (seat.stop, seat.at_once) if seat else _signals(source, started)

    def start(running: Running) -> None:
        announce(running)
        _settle_in()
        started.set()

    run = asyncio.create_task(_run(config, start, stop, source, seat))
    second = asyncio.create_task(at_once.wait())
    await asyncio.wait({run, second}, return_when=asyncio.FIRST_COMPLETED)
    second.cancel()
    if not run.done():
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        return
    await run


def _signals(source: Source | None, started: asyncio.Event) -> tuple[asyncio.Event, asyncio.Event]:
    """Events that the process's signals set: to stop in order, and to end at once."""
    stop, at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def struck() -> None:
        (stop if started.is_set() and not stop.is_set() else at_once).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, struck)
    loop.add_signal_handler(signal.SIGHUP, source.reload if source else _nothing_to_reload)
    return stop, at_once


async def _run(
    config: Config,
    announce: Callable[[Running], None],
    stop: asyncio.Event,
    source: Source | None,
    seat: Seat | None,
) -> None:
    async with gateway(config, seat) as running:
        announce(running)
        reloads = asyncio.create_task(_reload(running, source)) if source else None
        ends = asyncio.create_task(stop.wait())
        try:
            # A source that fails ends the gateway, rather than that nobody sees it.
            await asyncio.wait(
                {ends, *([reloads] if reloads else [])}, return_when=asyncio.FIRST_COMPLETED
            )
            if reloads is not None and reloads.done():
                reloads.result()
        finally:
            ends.cancel()
            if reloads is not None:
                reloads.cancel()
                await asyncio.wait({reloads})
        _log.info("stopping: open calls have %g s to end", running.runtime.config.drain.grace)
        await running.drain()
        # Calls that are on their way to a gateway without others would meet a closed port, and
        # their clients could not tell what became of them: they are refused in order instead.
        await asyncio.sleep(min(STRAGGLERS, running.runtime.config.drain.grace))


async def _reload(running: Running, source: Source) -> None:
    """Take what comes from the source, for ever."""
    async for change in source.changes():
        if change.config is None:
            running.runtime.refuse(change.faults)
            continue
        source.applied(change.generation, await _take(running, change, change.config))


async def _take(running: Running, change: Change, config: Config) -> str | None:
    """Take a change; None, or why it was not taken."""
    try:
        await running.take(config, change.generation)
    except StartError as error:
        running.runtime.refuse(tuple(error.faults))
        return str(error)
    _log.info("generation %d of the configuration is in use", change.generation)
    return None
