"""PostgreSQL, by asyncpg on one connection. Imported only where a ledger is there.

Every wait has an end: a server that is frozen is dropped, and its records are written again on
the next connection; their own ids keep one from being written twice.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from services.ledger.record import COLUMNS, NAMES, TABLE, Record
from services.ledger.store import StoreDown, StoreFault

CONNECT = 5.0
"""Seconds that a connection may take."""

SCHEMA = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (\n  "
    + ",\n  ".join(f"{column.name} {column.postgres}" for column in COLUMNS)
    + "\n)",
    f"CREATE INDEX IF NOT EXISTS {TABLE}_time ON {TABLE} (time)",
)

_TYPES = [re.sub(" (NOT NULL|PRIMARY KEY)", "", column.postgres) for column in COLUMNS]
_ARRAYS = ", ".join(f"${number}::{type}[]" for number, type in enumerate(_TYPES, 1))
# Our own names, and numbered parameters.
_INSERT = (
    f"INSERT INTO {TABLE} ({', '.join(NAMES)}) SELECT * FROM unnest({_ARRAYS}) "  # noqa: S608
    "ON CONFLICT (uuid) DO NOTHING"
)
_LOOK = f"SELECT {', '.join(NAMES)} FROM {TABLE} LIMIT 0"  # noqa: S608
_LOCK = 0x7465747261640001  # "tetrad" and a number: nobody else's, as far as that can be had
_TIME = NAMES.index("time")

_WRITE_SO = (
    "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and %2F for a / in the password, "
    "%40 for @, %3A for :"
)

# What the server says of a configuration that is wrong, and what to do.
_FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, "correct its user or password"),
    (asyncpg.InvalidCatalogNameError, "make that database, or name another one"),
    (asyncpg.InsufficientPrivilegeError, "let that user make and fill the table there"),
    (asyncpg.UndefinedColumnError, f"its table {TABLE} is of another version; rename that table"),
)


class Postgres:
    """A table in a PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    async def open(self) -> None:
        """Raises StoreDown where no server answers, StoreFault where one refuses."""
        self.interrupt()
        self._connection = await connect(self._url)
        with faults():
            await self._schema()

    async def write(self, records: Sequence[Record]) -> int:
        """All of them or none. Raises StoreDown."""
        if self._connection is None or self._connection.is_closed():
            try:
                await self.open()
            except StoreFault as error:
                raise StoreDown(str(error)) from None
        columns: list[list[Any]] = [list(column) for column in zip(*records, strict=True)]
        columns[_TIME] = [datetime.fromisoformat(one) for one in columns[_TIME]]
        try:
            with faults():
                await self._connection.execute(_INSERT, *columns)
        except StoreFault as error:
            self.interrupt()
            raise StoreDown(str(error)) from None
        except StoreDown:
            self.interrupt()
            raise
        return len(records)

    def interrupt(self) -> None:
        """Drops the connection at once, whatever the server does."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def reopen(self) -> None:
        """The next write makes a connection."""
        self.interrupt()

    async def aclose(self) -> None:
        """Closes the connection politely, or drops it if the server does not answer."""
        if self._connection is not None:
            with contextlib.suppress(Exception):  # all was committed or given up before
                await self._connection.close(timeout=1)
        self.interrupt()

    async def _schema(self) -> None:
        # Only a missing table is made, since that takes a right which the user may not have; and
        # by one process at a time, since CREATE ... IF NOT EXISTS fails when two do it.
        if await self._connection.fetchval("SELECT to_regclass($1)::text", TABLE) is None:
            async with self._connection.transaction():
                await self._connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                for statement in SCHEMA:
                    await self._connection.execute(statement)
        await self._connection.execute(_LOOK)


async def connect(url: str) -> Any:
    """A connection that also works through a pooler. Raises StoreDown and StoreFault."""
    with faults():
        try:
            return await asyncpg.connect(
                url,
                timeout=CONNECT,
                statement_cache_size=0,
                server_settings={"application_name": "tetrad"},
            )
        except ValueError:  # asyncpg.ClientConfigurationError is one
            raise StoreFault("a URL that cannot be read", _WRITE_SO) from None


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Errors as ours. Only the server's own words are repeated: others may quote the URL."""
    try:
        yield
    except tuple(kind for kind, _ in _FAULTS) as error:
        hint = next(hint for kind, hint in _FAULTS if isinstance(error, kind))
        raise StoreFault(f"PostgreSQL refuses: {error}", hint) from None
    except asyncpg.PostgresError as error:
        raise StoreDown(f"PostgreSQL says: {error}") from None
    except OSError as error:  # TimeoutError is one
        reason = "it does not answer in time" if isinstance(error, TimeoutError) else error.strerror
        raise StoreDown(f"PostgreSQL: {(reason or 'no connection').lower()}") from None
    except asyncpg.InterfaceError as error:
        raise StoreDown(f"PostgreSQL: {error}") from None
    except asyncpg.InternalClientError:  # words about its own states, after a broken connection
        raise StoreDown("PostgreSQL: the connection was lost") from None
