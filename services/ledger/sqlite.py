"""SQLite, by the standard library in a thread. Several processes may write to one file.

The write-ahead log lets others read meanwhile. The records' own ids keep one that was written
by a commit nobody heard of from being written again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from services.ledger.record import COLUMNS, NAMES, TABLE, Record
from services.ledger.store import StoreDown, StoreFault, Thread

BUSY = 5.0
"""Seconds to wait for another process's write."""

SCHEMA = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (\n  "
    + ",\n  ".join(f"{column.name} {column.sqlite}" for column in COLUMNS)
    + "\n)",
    f"CREATE INDEX IF NOT EXISTS {TABLE}_time ON {TABLE} (time)",
)

# Our own names, and question marks.
_INSERT = (
    f"INSERT INTO {TABLE} ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))}) "  # noqa: S608
    "ON CONFLICT (uuid) DO NOTHING"
)
_LOOK = f"SELECT {', '.join(NAMES)} FROM {TABLE} LIMIT 0"  # noqa: S608

_PASSING = ("locked", "busy", "full")
"""What SQLite says of faults that go away by themselves."""


class Sqlite:
    """A table in an SQLite file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._thread = Thread("ledger-sqlite")
        self._stale = False

    async def open(self) -> None:
        """Raises StoreFault where there can be no such table, StoreDown where it is locked."""
        await self._thread.run(self._open)

    async def write(self, records: Sequence[Record]) -> int:
        """All of them or none. Raises StoreDown."""
        return await self._thread.run(lambda: self._write(records))

    def interrupt(self) -> None:
        """Nothing ends a write to a file."""

    def reopen(self) -> None:
        """The next write opens the file anew."""
        self._stale = True

    async def aclose(self) -> None:
        """Closes the file once what was begun is done."""
        await self._thread.end(self._close)

    def _open(self) -> sqlite3.Connection:
        self._close()
        try:
            self._connection = connection = sqlite3.connect(
                self._path, timeout=BUSY, isolation_level=None
            )
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(_LOOK)
            self._inode = Path(self._path).stat().st_ino
        except (sqlite3.Error, OSError) as error:
            self._close()
            if any(word in str(error) for word in _PASSING):
                raise StoreDown(f"{self._path}: {error}") from None
            raise StoreFault(f"{self._path}: {error}", _hint(error)) from None
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # what was committed is in it
                connection.close()

    def _write(self, records: Sequence[Record]) -> int:
        try:
            connection = self._connection
            if connection is None or self._stale or self._moved():
                connection = self._open()
                self._stale = False
            # Immediate: a transaction that only becomes a writer later cannot wait for the others.
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(_INSERT, records)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except StoreFault as error:
            raise StoreDown(str(error)) from None
        except (sqlite3.Error, OSError) as error:
            raise StoreDown(f"{self._path}: {error}") from None
        return len(records)

    def _moved(self) -> bool:
        try:
            return Path(self._path).stat().st_ino != self._inode
        except FileNotFoundError:
            return True


def _hint(error: Exception) -> str:
    text = str(error)
    if "no such column" in text or "no column" in text:
        return f"its table {TABLE} is of another version; move the file away"
    if "not a database" in text:
        return "name another file, or move this one away"
    return "make its directory, and let this user write there"
