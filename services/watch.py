"""Watches providers: which of them answer, and what they say of themselves.

Probes cost no tokens. A provider that is down is never an error here, only not ready.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from types import TracebackType

from services import errors
from services.assembly import Watched, learn
from services.upstream import base, kinds, probe
from services.upstream.transport import Transport

_FIRST_ROUND = 2.0
"""Seconds that the start waits for providers to answer; slower ones come in later."""

_log = logging.getLogger("tetrad")


class Watch:
    """Probes all providers, first on entering and then every `interval` seconds until left."""

    def __init__(self, watched: list[Watched], transport: Transport, interval: float) -> None:
        self._watched = watched
        self._transport = transport
        self._interval = interval
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Watch:
        firsts = [asyncio.Event() for _ in self._watched]
        self._tasks = [
            asyncio.create_task(self._watch(one, first))
            for one, first in zip(self._watched, firsts, strict=True)
        ]
        waits = [asyncio.create_task(first.wait()) for first in firsts]
        if waits:
            _, late = await asyncio.wait(waits, timeout=_FIRST_ROUND)
            for task in late:
                task.cancel()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, one: Watched, first: asyncio.Event) -> None:
        told: bool | None = None
        while True:
            try:
                one.route.ready = await self._probe(one)
                reason = "it does not answer its probe"
            except errors.TetradError as error:
                one.route.ready, reason = False, str(error)
            except TimeoutError:
                one.route.ready, reason = False, "it does not answer its probe in time"
            except Exception:
                # A watch that died would leave the provider out for ever.
                _log.exception("probing %s failed", one.route.name)
                one.route.ready, reason = False, "the probe failed"
            if one.route.ready is not told:
                if one.route.ready:
                    _log.info("%s answers: `%s` is ready", one.route.name, one.model.name)
                else:
                    _log.warning(
                        "%s: `%s` is not ready: %s", one.route.name, one.model.name, reason
                    )
                told = one.route.ready
            first.set()
            await asyncio.sleep(self._interval)

    async def _probe(self, one: Watched) -> bool:
        async with asyncio.timeout(max(self._interval, 1.0)):
            if not one.recognise:
                return await probe.alive(self._transport, one.endpoint)
            recognised = await probe.recognise(self._transport, one.endpoint.url, one.endpoint.key)
        self._become(one, recognised)
        return True

    def _become(self, one: Watched, recognised: probe.Recognised) -> None:
        """The server told what it is: from now on it is spoken to in its own dialect."""
        one.endpoint = replace(
            one.endpoint,
            name=base.endpoint_name(recognised.kind, one.endpoint.url),
            kind=recognised.kind,
        )
        one.route.adapter = kinds.build(one.endpoint, self._transport)
        one.route.name = one.endpoint.name
        one.recognise = False
        for found in recognised.models:
            if found.model == one.endpoint.model:
                learn(one.model, found)
