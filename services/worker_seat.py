"""A worker's side of the channel: what it is told to do, and what it asks of the others.

`app` is given the seat of a process that shares its ports, and looks at nothing else of workers.
Knows no server.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services import worker_channel as say
from services.config import Config, Fault
from services.reload import Change
from services.worker_channel import Channel, Line

PATIENCE = 2.0
"""Seconds that the supervisor may take to gather the others' answers; it waits for 1 s itself."""

_log = logging.getLogger("tetrad")


@dataclass(frozen=True, slots=True)
class Told:
    """What one worker answered: its number, pid, state, generation; `body` None if it did not.

    `state` is starting, ready, draining, "not answering" or down. Number 0 ("ended") is what those
    left that are no more.
    """

    number: int
    pid: int
    state: str
    generation: int
    body: bytes | None


class Seat:
    """The place of a process among those that share both ports.

    `listener` is the REST socket when the supervisor holds it (a socket file); else each listens
    by itself with SO_REUSEPORT. `stop` is set when the process shall drain, `at_once` when it
    shall end. `source` is where its reloads come from.
    """

    def __init__(self, channel: Channel, start: Line, listener: socket.socket | None) -> None:
        self.number: int = start["number"]
        self.config = Config.model_validate(start["config"])
        self.listener = listener
        self.stop, self.at_once = asyncio.Event(), asyncio.Event()
        self.source = ChannelSource(channel, start)
        self._channel = channel
        self._answers: dict[str, Callable[[], bytes]] = {}
        self._asked: dict[int, asyncio.Future[list[Told]]] = {}
        self._ids = itertools.count()
        self._ready = False
        self._alone = False

    def answers(self, what: str, answer: Callable[[], bytes]) -> None:
        """What this process answers when any of them asks for `what`."""
        self._answers[what] = answer

    async def ask(self, what: str) -> list[Told]:
        """Every worker's answer, this one's too; one whose answer did not come says so.

        If the supervisor is gone, or does not answer in time, only this one's.
        """
        if self._alone:
            return [self._own(what)]
        number = next(self._ids)
        future: asyncio.Future[list[Told]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._channel.say(say.ASK, what=what, id=number)
        try:
            async with asyncio.timeout(PATIENCE):
                return await future
        except TimeoutError:
            return [self._own(what)]
        finally:
            del self._asked[number]

    def ready(self, welcome: str) -> None:
        """Both faces answer; `welcome` is what the program prints when all workers do."""
        self._ready = True
        self._channel.say(say.READY, welcome=welcome)

    async def failed(self, code: int, message: str) -> None:
        """It cannot start; the program's exit code, if this was the first start."""
        self._channel.say(say.FAILED, code=code, message=message)
        await self._channel.flush()

    async def obey(self, lines: AsyncIterator[Line]) -> None:
        """Do what the supervisor says, until it is gone: then drain."""
        async for line in lines:
            self._do(line)
        self._alone = True
        self.drain()

    def drain(self) -> None:
        """Let open calls finish, or end now if no call was ever let in."""
        (self.stop if self._ready else self.at_once).set()

    def _do(self, line: Line) -> None:
        what = line["do"]
        if what == say.TELL:
            self._tell(line)
        elif what == say.TOLD:
            future = self._asked.get(line["id"])
            if future is not None and not future.done():
                future.set_result([_told(one) for one in line["workers"]])
        elif what == say.RELOAD:
            config = Config.model_validate(line["config"])
            self.source.offer(Change(line["generation"], config))
        elif what == say.FAULTS:
            self.source.offer(_bad(line["generation"], line["faults"]))
        elif what == say.DRAIN:
            self.drain()
        elif what == say.END:
            self.stop.set()
            self.at_once.set()

    def _tell(self, line: Line) -> None:
        try:
            body = self._answers[line["what"]]()
        except Exception:
            _log.exception("no answer for the other workers: %s", line["what"])
            return  # it counts as one that does not answer
        self._channel.say(say.ANSWER, id=line["id"], body=base64.b64encode(body).decode())

    def _own(self, what: str) -> Told:
        state = "draining" if self.stop.is_set() else "ready"
        body = self._answers[what]()
        return Told(self.number, os.getpid(), state, self.source.generation, body)


class ChannelSource:
    """Reloads as the supervisor sends them; see reload.Source."""

    def __init__(self, channel: Channel, start: Line) -> None:
        self._channel = channel
        self._generation: int = start["generation"]
        self._offers: asyncio.Queue[Change] = asyncio.Queue()
        if start["faults"]:
            self.offer(_bad(self._generation, start["faults"]))

    @property
    def generation(self) -> int:
        """The generation that was taken last."""
        return self._generation

    def offer(self, change: Change) -> None:
        """A change for `changes`."""
        self._offers.put_nowait(change)

    async def changes(self) -> AsyncIterator[Change]:
        """The changes, in their order."""
        while True:
            yield await self._offers.get()

    def applied(self, generation: int, error: str | None) -> None:
        """Tell the supervisor."""
        if error is None:
            self._generation = generation
        self._channel.say(say.APPLIED, generation=generation, error=error)

    def reload(self) -> None:
        """Nothing: the supervisor reads the file."""


def _bad(generation: int, faults: list[Mapping[str, Any]]) -> Change:
    return Change(generation, None, tuple(Fault(**fault) for fault in faults))


def _told(one: Mapping[str, Any]) -> Told:
    body = one["body"]
    return Told(**{**one, "body": None if body is None else base64.b64decode(body)})
