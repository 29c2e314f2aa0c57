"""Watches providers: which of their servers answer, how busy they are, what they say they have.

Probes cost no tokens, and all providers of one server share one. A server that is down is never
an error here, only not ready. Whoever finds out before may set a route's `ready` to False.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random, SystemRandom
from types import TracebackType
from typing import Final

from services import errors
from services.assembly import Watched, learn
from services.upstream import base, kinds, load, probe
from services.upstream.transport import Transport

PROBES_AN_INTERVAL: Final = 2
"""So that a server that hangs right after a probe is out an interval later: one half until the
next probe, the other until that one's time is over."""

LEAST_LIMIT, MOST_LIMIT = 0.5, 5.0
"""Bounds of a probe's time limit in seconds: with less, a busy machine of ours is taken for a
server that hangs."""

STALE_AFTER: Final = 3
"""Intervals for which a load holds that is not told again."""

_ASK_AGAIN = 600.0
"""Seconds until a server that did not tell its load is asked for it again."""

_FIRST_ROUND = 2.0
"""Seconds that the start waits for providers to answer; slower ones come in later."""

_APART, _SPREAD = 0.001, 0.5
"""Seconds between the first probes of two servers, and between those of all of them at most."""

_log = logging.getLogger("tetrad")


@dataclass(slots=True)
class _Server:
    """One server, and the providers that it is. All of them have the same endpoint but model.

    recognise: it is asked what it is, whenever it comes up. known: it was asked what it has since
    it came up. told: the state that was logged last. load_in: rounds until its load is asked for.
    """

    providers: list[Watched]
    recognise: bool
    known: bool = False
    told: bool | None = None
    load_in: int = 0
    load_at: float = 0.0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> base.Endpoint:
        """Where it is."""
        return self.providers[0].endpoint


class Watch:
    """Probes all servers, first on entering and then until left.

    Each is asked several times in `interval` seconds, so that one that dies, hangs or comes back
    is noticed within one.
    """

    def __init__(
        self,
        watched: Iterable[Watched],
        transport: Transport,
        interval: float,
        random: Random | None = None,
    ) -> None:
        self._servers = _servers(watched)
        self._transport = transport
        self._interval = interval
        self._period = interval / PROBES_AN_INTERVAL
        self._limit = min(max(self._period, LEAST_LIMIT), MOST_LIMIT)
        self._random = random or SystemRandom()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Watch:
        apart = min(_APART, _SPREAD / max(len(self._servers), 1))
        self._tasks = [
            asyncio.create_task(self._watch(server, turn * apart))
            for turn, server in enumerate(self._servers)
        ]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_ROUND):
                    for server in self._servers:
                        await server.asked.wait()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, server: _Server, delay: float) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(delay)
        began = clock()
        await self._round(server)
        server.asked.set()
        # Each server has a beat of its own, or they would all be asked in one instant for ever.
        due = began + self._period * self._random.uniform(0.5, 1.0)
        while True:
            await asyncio.sleep(max(due - clock(), 0.0))
            await self._round(server)
            due = max(due + self._period, clock())

    async def _round(self, server: _Server) -> None:
        """One probe and, now and then, a look at the load. Never raises: a watch that died would
        leave its providers out for ever."""
        try:
            await asyncio.gather(self._check(server), self._measure(server))
        except Exception:
            _log.exception("watching %s failed", server.endpoint.name)

    # Is it there?

    async def _check(self, server: _Server) -> None:
        reason = "it does not answer its probe"
        ready = False
        try:
            async with asyncio.timeout(self._limit):
                ready = await self._answers(server)
        except errors.TetradError as error:
            reason = str(error)
        except TimeoutError:
            reason = "it does not answer its probe in time"
        except Exception:
            _log.exception("probing %s failed", server.endpoint.name)
            reason = "the probe failed"
        self._tell(server, ready, reason)
        if not ready:
            server.known = False
            server.load_in = 0
            _set_load(server, None)
        elif not server.known:
            server.known = True
            await self._learn(server)

    async def _answers(self, server: _Server) -> bool:
        if server.known or not server.recognise:
            return await probe.alive(self._transport, server.endpoint)
        endpoint = server.endpoint
        told = await probe.recognise(
            self._transport, endpoint.url, endpoint.key, via=endpoint.transport
        )
        self._become(server, told)
        server.known = True
        return True

    def _tell(self, server: _Server, ready: bool, reason: str) -> None:
        for one in server.providers:
            if ready and not one.route.ready:
                one.route.breaker.reset()
            one.route.ready = ready
            if ready is server.told:
                continue
            if ready:
                _log.info("%s answers: `%s` is ready", one.route.name, one.model.name)
            else:
                _log.warning("%s: `%s` is not ready: %s", one.route.name, one.model.name, reason)
        server.told = ready

    # What is it, and what has it?

    def _become(self, server: _Server, told: probe.Recognised) -> None:
        """The server told what it is: from now on it is spoken to in its own dialect."""
        for one in server.providers:
            name = base.endpoint_name(told.kind, one.endpoint.url)
            if one.route.name != name or one.endpoint.kind != told.kind:
                one.endpoint = replace(one.endpoint, name=name, kind=told.kind)
                one.route.adapter = kinds.build(one.endpoint, self._transport)
                one.route.name = name
            one.recognise = False
        self._take(server, told)

    async def _learn(self, server: _Server) -> None:
        names = {one.endpoint.model for one in server.providers}
        with contextlib.suppress(TimeoutError):  # it is well, and that is what counts
            async with asyncio.timeout(self._limit):
                self._take(server, await probe.learnt(self._transport, server.endpoint, names))

    def _take(self, server: _Server, told: probe.Recognised) -> None:
        for one in server.providers:
            one.found = told.of(one.endpoint.model) or one.found
        models = {id(one.model): one.model for one in server.providers}
        for model in models.values():
            every = (one for other in self._servers for one in other.providers)
            learn(model, [one.found for one in every if one.model is model and one.found])

    # How busy is it?

    async def _measure(self, server: _Server) -> None:
        if not server.told:
            return
        server.load_in -= 1
        if server.load_in > 0:
            return
        clock = asyncio.get_running_loop().time
        server.load_in = PROBES_AN_INTERVAL
        try:
            async with asyncio.timeout(self._limit):
                told = await load.ask(self._transport, server.endpoint)
        except (errors.TetradError, TimeoutError):
            if clock() - server.load_at > STALE_AFTER * self._interval:
                _set_load(server, None)
            return
        if told is None:
            server.load_in = max(int(_ASK_AGAIN / self._period), PROBES_AN_INTERVAL)
        server.load_at = clock()
        _set_load(server, told)


def _set_load(server: _Server, told: load.Load | None) -> None:
    for one in server.providers:
        one.route.upstream_load = None if told is None else told.of(one.endpoint.model)


def _servers(watched: Iterable[Watched]) -> list[_Server]:
    """Providers by what a probe of them would ask: the same server, in the same words."""
    found: dict[object, _Server] = {}
    for one in watched:
        at = one.endpoint
        headers = tuple(sorted(at.headers.items()))
        same = (at.url, at.key, headers, at.transport, None if one.recognise else at.kind)
        server = found.setdefault(same, _Server([], one.recognise))
        server.providers.append(one)
    return list(found.values())
