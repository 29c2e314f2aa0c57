"""What the supervisor and a worker say to each other: one JSON object a line, on a socket pair.

Both ends are here, and the names of all that is said. Knows no configuration and no server.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

LONGEST = 256 * 1024 * 1024
"""Bytes of one line: a configuration, or a worker's metrics."""

# From the supervisor. `start` is the first line: {number, generation, config, faults}.
START, RELOAD, FAULTS, DRAIN, END, TELL, TOLD = (
    "start",
    "reload",
    "faults",
    "drain",
    "end",
    "tell",
    "told",
)
# From a worker: {ready, welcome}, {failed, code, message}, {applied, generation, error},
# {answer, id, body}, {ask, what}.
READY, FAILED, APPLIED, ANSWER, ASK = "ready", "failed", "applied", "answer", "ask"

# What one worker asks of all.
STATE, METRICS = "ready", "metrics"

Line = dict[str, Any]


class Channel:
    """One end. Lines written to a peer that is gone are lost, as the peer is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def on(cls, end: socket.socket) -> Channel:
        """The channel on this end of a socket pair, which it owns from now on."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LONGEST))

    def say(self, do: str, /, **more: Any) -> None:
        """Send a line; `do` is what it is about."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"do": do, **more}).encode() + b"\n")

    async def lines(self) -> AsyncIterator[Line]:
        """What the other end says, until it is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except ConnectionError:
                return
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    async def flush(self) -> None:
        """Wait until what was said has left."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        """The other end sees the end."""
        self._writer.close()
