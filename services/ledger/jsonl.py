"""JSON lines: one record a line, appended whole. Several processes may append to one file.

A line that a full disk or a killed process cut is ended before the next one begins; whoever
reads skips it. A file that was moved away is made anew.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import orjson

from services.ledger.record import NAMES, Record
from services.ledger.store import StoreDown, StoreFault, Thread

_MODE = 0o640
_NEWLINE = b"\n"


class JsonLines:
    """A file of JSON lines. The end of a batch may be refused, which `write` tells."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1
        self._thread = Thread("ledger-jsonl")
        self._stale = False

    async def open(self) -> None:
        """Raises StoreFault where the file cannot be appended to."""
        await self._thread.run(self._open)

    async def write(self, records: Sequence[Record]) -> int:
        """See Store. Raises StoreDown."""
        return await self._thread.run(lambda: self._write(records))

    def interrupt(self) -> None:
        """Nothing ends a write to a file."""

    def reopen(self) -> None:
        """For a rotation that nobody can see from the file's name."""
        self._stale = True

    async def aclose(self) -> None:
        """Closes the file once what was begun is done."""
        await self._thread.end(self._close)

    def _open(self) -> None:
        self._close()
        try:
            self._file = _append_to(self._path)
        except OSError as error:
            hint = "make its directory, and let this user write there"
            raise StoreFault(f"{self._path}: {_reason(error)}", hint) from None

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, records: Sequence[Record]) -> int:
        lines = [orjson.dumps(dict(zip(NAMES, one, strict=True))) + _NEWLINE for one in records]
        try:
            if self._file < 0 or self._stale or self._moved():
                self._open()
                self._stale = False
            # One write for all of them: that is what keeps other processes' lines out of ours.
            before = _NEWLINE if self._torn() else b""
            taken = os.write(self._file, before + b"".join(lines)) - len(before)
        except StoreFault as error:
            raise StoreDown(str(error)) from None
        except OSError as error:
            raise StoreDown(f"{self._path}: {_reason(error)}") from None
        return _whole(lines, taken, self._path)

    def _moved(self) -> bool:
        ours = os.fstat(self._file)
        if not stat.S_ISREG(ours.st_mode):
            return False
        try:
            named = Path(self._path).stat()
        except FileNotFoundError:
            return True
        return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino)

    def _torn(self) -> bool:
        """Whether the file ends within a line."""
        about = os.fstat(self._file)
        if not stat.S_ISREG(about.st_mode) or not about.st_size:
            return False
        return os.pread(self._file, 1, about.st_size - 1) != _NEWLINE


def _append_to(path: str) -> int:
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        pipe = not stat.S_ISREG(Path(path).stat().st_mode)
    except FileNotFoundError:
        pipe = False
    # A pipe or a terminal, such as /dev/stdout, must not be held open for reading as well.
    return os.open(path, flags | (os.O_WRONLY if pipe else os.O_RDWR), _MODE)


def _whole(lines: list[bytes], taken: int, path: str) -> int:
    """How many lines are in `taken` bytes; one that lacks only its line break is in them."""
    done = 0
    for line in lines:
        if taken < len(line) - 1:
            break
        taken -= len(line)
        done += 1
    if not done:
        raise StoreDown(f"{path}: only a part of a line was taken")
    return done


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
