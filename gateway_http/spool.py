"""A file that arrives in pieces: small ones stay in memory, larger ones go to the disk.

The disk is only touched in a thread, so that it never holds up the event loop.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from typing import IO

MEMORY = 1024 * 1024
READ = 256 * 1024


class Spool:
    """Written once, then read as often as wanted. `size` counts bytes. To be closed."""

    def __init__(self, memory: int = MEMORY) -> None:
        self.size = 0
        self._memory = memory
        self._held = bytearray()
        self._file: IO[bytes] | None = None

    async def write(self, data: bytes) -> None:
        """Add to its end."""
        self._held += data
        self.size += len(data)
        if len(self._held) > self._memory:
            await self._flush()

    async def end(self) -> None:
        """All is written."""
        if self._file is not None:
            await self._flush()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content from its beginning; several may read at once."""
        file = self._file
        if file is None:
            held = bytes(self._held)
            for start in range(0, len(held), READ):
                yield held[start : start + READ]
            return
        at = 0
        while at < self.size:
            data = await asyncio.to_thread(os.pread, file.fileno(), READ, at)
            if not data:
                raise OSError("a spooled upload is shorter than what was written")
            at += len(data)
            yield data

    def close(self) -> None:
        """Forget the content."""
        self._held = bytearray()
        if self._file is not None:
            self._file.close()

    async def _flush(self) -> None:
        data, self._held = self._held, bytearray()
        file = self._file
        if file is None:
            file = self._file = await asyncio.to_thread(_open)
        await asyncio.to_thread(_write_all, file, data)


def _open() -> IO[bytes]:
    # Unbuffered, so that reads by position see all that was written.
    return tempfile.TemporaryFile(buffering=0)


def _write_all(file: IO[bytes], data: bytearray) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
