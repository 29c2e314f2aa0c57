"""Several workers as one program: started, replaced when they die, reloaded, drained together.

This process answers no call and never loads gRPC. All workers have one configuration: a new one is
tried on one of them, then on the rest; if any refuses, all go back to the old one.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from services import supervisor_child as child_state
from services import worker_channel as say
from services.config import Config, Fault
from services.reload import Change, Source
from services.supervisor_child import Child
from services.supervisor_ports import Ports
from services.telemetry import snapshot
from services.worker_channel import Line

CLEAN, FAILED = 0, 1
ENDED = "ended"

_QUICK = 10.0
"""Seconds that a worker must live for its successor to be started at once."""

_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a successor of one that died quickly; doubled each time."""

_TAKE = 30.0
"""Seconds that a worker has to take a configuration; one that needs longer is ended."""

_BEYOND = 10.0
"""Seconds beyond drain.grace until a worker that drains is killed."""

_AT_ONCE = 5.0
"""Seconds until a worker that was told to end is killed."""

_log = logging.getLogger("tetrad")


def workers_of(config: Config) -> int:
    """How many processes: 0 means one for each core that this process may use."""
    return config.workers or len(os.sched_getaffinity(0))


class Supervisor:
    """Runs `count` workers on what `source` holds, at the addresses of `ports`."""

    def __init__(self, source: Source, config: Config, ports: Ports, count: int) -> None:
        self._source = source
        self._config = config
        self._ports = ports
        self._numbers = range(1, count + 1)
        self._children: dict[int, Child] = {}
        self._faults: list[Line] = []
        self._taking = asyncio.Lock()
        self._welcomes: dict[int, str] = {}
        self._all_ready = asyncio.Event()
        self._stop, self._at_once = asyncio.Event(), asyncio.Event()
        self._code = CLEAN
        self._remains = b""
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, announce: Callable[[str], None]) -> int:
        """Until SIGTERM or SIGINT; a second one, or one before the start, ends at once.

        `announce` gets what to print when all workers are ready. Returns the exit code.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._struck)
        loop.add_signal_handler(signal.SIGHUP, self._source.reload)
        life = asyncio.create_task(self._live(announce))
        workers = asyncio.create_task(self._mind_all())
        try:
            await self._ending(workers, life)
        finally:
            tasks = (life, workers, *self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for child in self._children.values():  # none is left but after an error of ours
                await child.kill()
        return self._code

    async def _mind_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in self._numbers:
                group.create_task(self._mind(number))

    def _struck(self) -> None:
        first = self._all_ready.is_set() and not self._stop.is_set()
        (self._stop if first else self._at_once).set()

    async def _live(self, announce: Callable[[str], None]) -> None:
        await self._all_ready.wait()
        announce(self._welcomes[min(self._welcomes)])
        async for change in self._source.changes():
            await self._take(change)

    # One worker after the other in each place.

    async def _mind(self, number: int) -> None:
        pause = 0.0
        while not self._leaving():
            async with self._taking:  # not while it is open which configuration is the one
                child = await Child.spawn(number, self._ports.listener, self._start)
                self._children[number] = child
            if self._leaving():
                child.end()
            async for line in child.lines():
                self._heard(child, line)
            self._keep(child)
            code = await child.wait(_AT_ONCE)  # it has closed its channel: it is at its end
            if self._leaving():
                return
            if not self._all_ready.is_set():
                self._refuse_start(child, code)
                return
            lived = time.monotonic() - child.born
            pause = 0.0 if lived >= _QUICK else min(max(_PAUSE, pause * 2), _LONGEST_PAUSE)
            said = child.failure[1] if child.failure else _end(code)
            _log.error(
                "worker %d (process %d) ended after %.0f s: %s; it is replaced in %g s",
                *(number, child.pid, lived, said, pause),
            )
            await _either(pause, self._stop, self._at_once)

    def _leaving(self) -> bool:
        return self._stop.is_set() or self._at_once.is_set()

    def _start(self, number: int) -> Line:
        return {
            "number": number,
            "generation": self._source.generation,
            "config": self._dump(self._config),
            "faults": self._faults,
        }

    def _dump(self, config: Config) -> Line:
        return self._ports.placed(config).model_dump(mode="json")

    def _heard(self, child: Child, line: Line) -> None:
        if line["do"] == say.READY:
            if self._leaving():  # it began to serve when the others were told already
                child.drain()
            self._welcomes.setdefault(child.number, line["welcome"])
            if len(self._welcomes) == len(self._numbers):
                self._all_ready.set()
        elif line["do"] == say.ASK:
            task = asyncio.create_task(self._gather(child, line["id"], line["what"]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _refuse_start(self, child: Child, code: int) -> None:
        """A worker that never served: the program does not start. The first one says why."""
        if self._code == CLEAN:
            why = f"tetrad: worker {child.number} did not start: {_end(code)}"
            self._code, message = child.failure or (code if code > 0 else FAILED, why)
            print(message, file=sys.stderr)
        self._at_once.set()

    # What all of them are asked.

    async def _gather(self, asker: Child, id: int, what: str) -> None:
        told = await asyncio.gather(*(self._tell(number, what) for number in self._numbers))
        if what == say.METRICS and self._remains:
            told.append(_row(0, 0, ENDED, 0, _text(self._remains)))
        asker.say(say.TOLD, id=id, workers=told)

    async def _tell(self, number: int, what: str) -> Line:
        child = self._children.get(number)
        if child is None:
            return _row(number, 0, child_state.DOWN, 0, None)
        body = await child.tell(what)
        state = child.state
        if body is None and state in (child_state.RUNNING, child_state.DRAINING):
            state = child_state.SILENT
            # Its counters would seem to fall.
            body = child.last.get(what) if what == say.METRICS else None
        return _row(number, child.pid, state, child.generation, body)

    def _keep(self, child: Child) -> None:
        """What it counted, as far as it is known, stays in the sums of the others."""
        last = child.last.get(say.METRICS)
        if last is not None:
            parts = [self._remains, base64.b64decode(last)]
            self._remains = snapshot.remains(filter(None, parts))

    # Reloads.

    async def _take(self, change: Change) -> None:
        if change.config is None:
            self._tell_faults([asdict(fault) for fault in change.faults])
            return
        async with self._taking:
            error = await self._roll(change.generation, change.config)
            if error is None:
                self._config, self._faults = change.config, []
            self._source.applied(change.generation, error)
        if error is None:
            _log.info("generation %d of the configuration: all have it", change.generation)
        else:
            self._tell_faults([asdict(Fault(change.config.source, 0, 0, "", error))])

    def _tell_faults(self, faults: list[Line]) -> None:
        self._faults = faults
        for child in self._children.values():
            child.say(say.FAULTS, generation=self._source.generation, faults=faults)

    async def _roll(self, generation: int, config: Config) -> str | None:
        """Have all workers take it; None when they did. Else all have the old one, and why."""
        living = [one for one in self._children.values() if one.state != child_state.DOWN]
        first, rest = living[:1], living[1:]
        dump = self._dump(config)
        said: dict[Child, str | None] = {}
        for some in (first, rest):
            took = await asyncio.gather(*(one.take(generation, dump, _TAKE) for one in some))
            said |= dict(zip(some, took, strict=True))
            # A later one that died meanwhile is no reason: its successor starts on the new one.
            refused = {one: why for one, why in said.items() if why is not None}
            if any(one in first or one.state != child_state.DOWN for one in refused):
                await self._roll_back(said)
                one, why = next(iter(refused.items()))
                return f"worker {one.number}: {why}"
        return None

    async def _roll_back(self, said: dict[Child, str | None]) -> None:
        dump = self._dump(self._config)
        took = [one for one, why in said.items() if why is None]
        back = await asyncio.gather(
            *(one.take(self._source.generation, dump, _TAKE) for one in took)
        )
        lost = [one for one, why in zip(took, back, strict=True) if why is not None]
        # Who never answered may take it yet: its successor has the old one for sure.
        for one in (*lost, *(one for one, why in said.items() if one.is_silent)):
            _log.error("worker %d has no sure configuration: it is replaced", one.number)
            await one.kill()

    # The end.

    async def _ending(self, workers: asyncio.Task[None], life: asyncio.Task[None]) -> None:
        """Wait for a reason to end, then for the workers; raises what a task raised."""
        await _either(None, self._stop, self._at_once, workers, life)
        if life.done():
            self._at_once.set()
        if self._stop.is_set() and not self._at_once.is_set():
            grace = self._config.drain.grace
            _log.info("stopping: open calls have %g s to end", grace)
            for child in self._children.values():
                child.drain()
            await _either(grace + _BEYOND, self._at_once, workers)
        if not workers.done():
            for child in self._children.values():
                child.end()
            await _either(_AT_ONCE, workers)
        if not workers.done():
            for child in self._children.values():
                if child.lives:
                    _log.error("worker %d does not end: it is killed", child.number)
                    self._code = self._code or FAILED
                    await child.kill()
        await workers
        if life.done():
            await life


async def _either(seconds: float | None, *things: asyncio.Event | asyncio.Future[Any]) -> None:
    """Wait until one of them is set or done, for so many seconds at most."""
    waits = [
        asyncio.ensure_future(one.wait()) if isinstance(one, asyncio.Event) else one
        for one in things
    ]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait, one in zip(waits, things, strict=True):
            if isinstance(one, asyncio.Event):
                wait.cancel()


def _row(number: int, pid: int, state: str, generation: int, body: str | None) -> Line:
    """What worker_seat.Told is made of."""
    return {"number": number, "pid": pid, "state": state, "generation": generation, "body": body}


def _text(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _end(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
