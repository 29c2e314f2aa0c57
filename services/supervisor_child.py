"""One worker process as the supervisor sees it: started, spoken to, waited for.

Spawned, never forked: nothing of gRPC is loaded here, and nothing is shared but the sockets that
are passed on. Decides nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from services import worker_channel as say
from services.worker_channel import Channel, Line

STARTING, RUNNING, DRAINING, SILENT, DOWN = "starting", "ready", "draining", "not answering", "down"

PROGRAM = "services.worker"
"""The module that is a worker."""

ANSWER_WITHIN = 1.0
"""Seconds that a worker has to tell its state or its metrics."""

_LATER = {signal.SIGINT, signal.SIGHUP}
"""Signals that a terminal sends to all of us, and that a worker ignores as soon as it runs."""


class Child:
    """A living worker, or one that has ended: then `lines` has come to its end."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.number = number
        self.pid = process.pid
        self.state = STARTING
        self.generation = 0
        self.born = time.monotonic()
        self.failure: tuple[int, str] | None = None
        self._process = process
        self._channel = channel
        self._ids = itertools.count()
        self._owed: dict[int, asyncio.Future[str]] = {}
        self._taking: asyncio.Future[str | None] | None = None
        self.is_silent = False
        self.last: dict[str, str] = {}

    @classmethod
    async def spawn(
        cls, number: int, listener: socket.socket | None, start: Callable[[int], Line]
    ) -> Child:
        """Start a process; `start(number)` is what it is told first."""
        ours, theirs = socket.socketpair()
        with theirs:
            passed = [theirs.fileno(), *([listener.fileno()] if listener else [])]
            numbers = [str(theirs.fileno()), str(listener.fileno() if listener else -1)]
            command = [sys.executable, "-P", "-m", PROGRAM, *numbers, str(os.getpid())]
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _LATER)
            try:
                process = subprocess.Popen(  # noqa: S603, ASYNC220  (ours; a fork takes no time)
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=passed,
                    env={**os.environ, "PYTHONPATH": _roots()},
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        child = cls(number, process, await Channel.on(ours))
        first = start(number)
        child.generation = first["generation"]
        child._channel.say(say.START, **first)
        return child

    async def lines(self) -> AsyncIterator[Line]:
        """What it says that concerns others, until it is gone."""
        async for line in self._channel.lines():
            what = line["do"]
            if what == say.ANSWER:
                future = self._owed.pop(line["id"], None)
                if future is not None and not future.done():
                    future.set_result(line["body"])
            elif what == say.APPLIED:
                self._settle(line["error"])
            elif what == say.FAILED:
                self.failure = (line["code"], line["message"])
            else:
                if what == say.READY and self.state == STARTING:
                    self.state = RUNNING
                yield line
        self.state = DOWN
        self._settle("it ended")
        for future in self._owed.values():
            future.cancel()

    def say(self, do: str, /, **more: Any) -> None:
        """Tell it something."""
        self._channel.say(do, **more)

    async def tell(self, what: str) -> str | None:
        """Its answer (base64), or None when it gives none in time."""
        if self._owed or self.state not in (RUNNING, DRAINING):
            return None  # one that is stuck is not sent more and more
        number = next(self._ids)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._owed[number] = future
        self.say(say.TELL, what=what, id=number)
        done, _ = await asyncio.wait({future}, timeout=ANSWER_WITHIN)
        if not done or future.cancelled():
            return None
        self.last[what] = future.result()
        return future.result()

    async def take(self, generation: int, config: Line, within: float) -> str | None:
        """Have it take a configuration. None when it did, else why not."""
        self._taking = asyncio.get_running_loop().create_future()
        self.say(say.RELOAD, generation=generation, config=config)
        await asyncio.wait({self._taking}, timeout=within)
        self.is_silent = not self._taking.done()
        said = f"no answer in {within:g} s" if self.is_silent else self._taking.result()
        self._taking = None
        if said is None:
            self.generation = generation
        return said

    def drain(self) -> None:
        """Let it finish its calls; one that has not begun to serve ends."""
        if self.state == STARTING:
            self.end()
        elif self.state == RUNNING:
            self.state = DRAINING
            self.say(say.DRAIN)

    def end(self) -> None:
        """Have it end its calls now."""
        self.say(say.END)
        if self.state == STARTING:  # it may be long until it reads that
            self._process.terminate()

    @property
    def lives(self) -> bool:
        """Whether the process is there."""
        return self._process.returncode is None

    async def kill(self) -> None:
        """End it by force, if it still lives."""
        self._process.kill()
        await self.wait()

    async def wait(self, within: float | None = None) -> int:
        """Wait for its end: its exit code, negative for a signal. Then it is killed."""
        ending = asyncio.ensure_future(asyncio.to_thread(self._process.wait))
        done, _ = await asyncio.wait({ending}, timeout=within)
        if not done:
            self._process.kill()
        code = await ending
        self._channel.close()
        return code

    def _settle(self, said: str | None) -> None:
        if self._taking is not None and not self._taking.done():
            self._taking.set_result(said)


def _roots() -> str:
    """What we were imported from: never a folder that has our names where we were started."""
    return os.pathsep.join(map(os.path.abspath, sys.path))
