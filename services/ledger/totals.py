"""What was used: sums over the records of a ledger, by any of its columns or by day.

A file of lines is read as a stream, a database adds up itself; both give the same rows.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from urllib.parse import quote

import orjson

from services.ledger import stores
from services.ledger.record import TABLE
from services.ledger.store import StoreDown, StoreFault

SUMS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "audio_seconds",
    "documents",
    "cost",
)
FIGURES = ("calls", "failed", "cancelled", *SUMS)
_FLOATS = frozenset({"audio_seconds", "cost"})

GROUPS = ("key", "model", "endpoint", "day", "month", "method", "face", "outcome", "source")
"""What can be grouped by. Days and months are those of UTC."""

_DATES = {"day": "YYYY-MM-DD", "month": "YYYY-MM"}
"""Groups that are the beginning of a record's time, as long as this."""

_TIME = "%Y-%m-%dT%H:%M:%S."

Key = tuple[str | None, ...]


class Unreadable(Exception):
    """The ledger cannot be read; the message is for the user and holds no URL."""


@dataclass(slots=True)
class Usage:
    """Rows of figures in the order of FIGURES, by what they are grouped by; sorted."""

    rows: dict[Key, list[float]] = field(default_factory=dict)
    unread: int = 0

    def total(self) -> list[float]:
        """The figures of all rows together."""
        columns = zip(*self.rows.values(), strict=True) if self.rows else [[0]] * len(FIGURES)
        return [sum(column) for column in columns]


def read(url: str, by: Sequence[str], since: datetime | None, until: datetime | None) -> Usage:
    """The usage from `since` on and before `until`; times have a zone.

    Raises Unreadable, and ValueError for a URL that is no ledger's.
    """
    kind = stores.scheme(url)
    if kind == "jsonl":
        usage = _of_lines(stores.path(url), by, _text(since), _text(until))
    elif kind == "sqlite":
        usage = _of_sqlite(stores.path(url), by, _text(since), _text(until))
    else:
        usage = asyncio.run(_of_postgres(url, by, since, until))
    order = sorted(usage.rows, key=lambda key: tuple(str(part or "") for part in key))
    return Usage({key: usage.rows[key] for key in order}, usage.unread)


def _text(moment: datetime | None) -> str | None:
    """As records have it, in UTC; to be compared as text."""
    if moment is None:
        return None
    utc = datetime.fromtimestamp(moment.timestamp(), UTC)
    return f"{utc.strftime(_TIME)}{utc.microsecond // 1000:03d}Z"


# --- lines ---------------------------------------------------------------------------------------


def _of_lines(path: str, by: Sequence[str], since: str | None, until: str | None) -> Usage:
    usage = Usage()
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.isspace():
                    _add_line(usage, line, by, since or "", until)
    except OSError as error:
        raise Unreadable(f"{path}: {(error.strerror or '').lower()}") from None
    return usage


def _add_line(usage: Usage, line: bytes, by: Sequence[str], since: str, until: str | None) -> None:
    try:
        one = orjson.loads(line)
        when, outcome = one["time"], one["outcome"]
        if when < since or (until is not None and when >= until):
            return
        key = tuple(when[: len(_DATES[name])] if name in _DATES else one[name] for name in by)
        figures = [1, outcome not in ("OK", "CANCELLED"), outcome == "CANCELLED"]
        figures += [one[name] or 0 for name in SUMS]
        if not all(isinstance(figure, int | float) for figure in figures):
            raise TypeError
        row = usage.rows.setdefault(key, [0.0 if name in _FLOATS else 0 for name in FIGURES])
        for index, figure in enumerate(figures):
            row[index] += figure
    except (ValueError, TypeError, KeyError):  # a line that was cut, or of something else
        usage.unread += 1


# --- databases -----------------------------------------------------------------------------------


def _query(by: Sequence[str], parts: Iterable[str], conditions: Sequence[str]) -> str:
    """Made of our own names only; values are parameters."""
    sums = (f"COALESCE(SUM({name}), 0)" for name in SUMS)
    counts = (
        "COUNT(*)",
        "SUM(CASE WHEN outcome IN ('OK', 'CANCELLED') THEN 0 ELSE 1 END)",
        "SUM(CASE WHEN outcome = 'CANCELLED' THEN 1 ELSE 0 END)",
    )
    groups = ", ".join(str(number) for number in range(1, len(by) + 1))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    grouped = f" GROUP BY {groups}" if by else ""
    return f"SELECT {', '.join(chain(parts, counts, sums))} FROM {TABLE}{where}{grouped}"  # noqa: S608


def _usage(rows: Iterable[Sequence[Any]], by: Sequence[str]) -> Usage:
    usage = Usage()
    for row in rows:
        figures = [
            float(value) if name in _FLOATS else int(value or 0)
            for name, value in zip(FIGURES, row[len(by) :], strict=True)
        ]
        if figures[0]:  # without groups there is a row for no calls, too
            usage.rows[tuple(row[: len(by)])] = figures
    return usage


def _of_sqlite(path: str, by: Sequence[str], since: str | None, until: str | None) -> Usage:
    parts = (f"substr(time, 1, {len(_DATES[name])})" if name in _DATES else name for name in by)
    bounds = {"time >= ?": since, "time < ?": until}
    given = {condition: value for condition, value in bounds.items() if value is not None}
    # Read only: else a name that is mistyped would make a new file.
    uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            rows = connection.execute(_query(by, parts, [*given]), [*given.values()])
            return _usage(rows, by)
    except sqlite3.Error as error:
        raise Unreadable(f"{path}: {error}") from None


async def _of_postgres(
    url: str, by: Sequence[str], since: datetime | None, until: datetime | None
) -> Usage:
    from services.ledger import postgres

    parts = (
        f"to_char(time AT TIME ZONE 'UTC', '{_DATES[name]}')" if name in _DATES else name
        for name in by
    )
    bounds = {"time >= ": since, "time < ": until}
    given = {condition: value for condition, value in bounds.items() if value is not None}
    conditions = [f"{condition}${number}" for number, condition in enumerate(given, 1)]
    try:
        connection = await postgres.connect(url)
        try:
            with postgres.faults():
                return _usage(
                    await connection.fetch(_query(by, parts, conditions), *given.values()), by
                )
        finally:
            connection.terminate()
    except (StoreDown, StoreFault) as error:
        raise Unreadable(str(error)) from None
