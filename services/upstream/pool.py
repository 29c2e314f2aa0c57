"""Connections that are kept between two requests, by where they lead: the last one is used first.

Nothing is searched: what is too old lies at the bottom. There is no limit on their number; calls
in flight are limited elsewhere. Knows addresses, and nothing of requests.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from services.upstream.connection import Connection
from services.upstream.dial import dial

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept: less than the 5 s of uvicorn (vLLM) and llama.cpp, so
that it is we who close, and no request meets a connection that the server just gave up."""

MAX_AGE: Final = 300.0
"""Seconds after which a connection is not used again, so that a changed DNS answer or certificate
is noticed however busy it is."""


@dataclass(slots=True, eq=False)
class Origin:
    """Where connections lead. `idle`: the one that was used last stands last."""

    host: str
    port: int
    tls: bool
    idle: deque[Connection] = field(default_factory=deque)


class Pool:
    """The connections of one event loop, idle and in use."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._origins: dict[tuple[str, int, bool], Origin] = {}
        self._of: dict[Connection, Origin] = {}
        self._leaving: set[Connection] = set()
        self._settled: asyncio.Future[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def origin(self, host: str, port: int, *, tls: bool) -> Origin:
        """The one origin of that name."""
        key = (host, port, tls)
        found = self._origins.get(key)
        if found is None:
            found = self._origins[key] = Origin(host, port, tls)
        return found

    def take(self, origin: Origin) -> Connection | None:
        """The idle connection that was used last."""
        idle = origin.idle
        while idle:
            connection = idle.pop()
            if not connection.closed:
                if asyncio.get_running_loop().time() - connection.idle_since < KEEP_ALIVE:
                    return connection
                connection.abort()
        return None

    async def connect(self, origin: Origin) -> Connection:
        """A new connection. Raises OSError; cancelling it leaves no socket."""
        tls = self._tls if origin.tls else None
        connection = await dial(lambda: Connection(self), origin.host, origin.port, tls)
        if not connection.closed:  # the server may have left already; whoever asks is told
            self._of[connection] = origin
        return connection

    def give(self, connection: Connection) -> None:
        """Keeps a connection whose answer is complete, if another request may follow."""
        now = asyncio.get_running_loop().time()
        if not connection.reusable or now - connection.born > MAX_AGE:
            connection.abort()
            return
        connection.rest()
        connection.idle_since = now
        self._of[connection].idle.append(connection)
        if self._sweeper is None:
            self._sweep_in(KEEP_ALIVE)

    async def settle(self) -> None:
        """Waits until what was left has been closed or kept."""
        while self._leaving:
            if self._settled is None:
                self._settled = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._settled)

    async def aclose(self) -> None:
        """Closes all connections, those in use too."""
        await self.settle()
        for connection in list(self._of):
            connection.abort()
        await self.settle()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    # For connections.

    def rested(self, connection: Connection) -> None:
        """See `connection.Owner`."""
        self._left(connection)
        self.give(connection)

    def leaves(self, connection: Connection) -> None:
        """See `connection.Owner`."""
        self._leaving.add(connection)

    def gone(self, connection: Connection) -> None:
        """See `connection.Owner`."""
        self._of.pop(connection, None)
        self._left(connection)

    def _left(self, connection: Connection) -> None:
        self._leaving.discard(connection)
        if not self._leaving and self._settled is not None:
            settled, self._settled = self._settled, None
            settled.set_result(None)

    def _sweep_in(self, seconds: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Closes what nobody took for `KEEP_ALIVE` seconds."""
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        oldest = now + KEEP_ALIVE
        for origin in self._origins.values():
            idle = origin.idle
            while idle and (idle[0].closed or now - idle[0].idle_since >= KEEP_ALIVE):
                idle.popleft().abort()
            if idle:
                oldest = min(oldest, idle[0].idle_since)
        if oldest <= now:
            self._sweep_in(oldest + KEEP_ALIVE - now)
