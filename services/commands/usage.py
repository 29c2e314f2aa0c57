"""`tetrad usage`: what callers used, as a table or as JSON, from the gateway's ledger."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.config import ConfigError, load
from services.ledger import stores, totals

DONE, FAILED, BAD_USAGE = 0, 1, 2

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d{1,6})([mhdw])")

_HEADS = {"cancelled": "LEFT", "audio_seconds": "AUDIO S"}
"""Figures whose head is not their name."""

_EMPTY = "-"


class _Mistake(Exception):
    """The command line cannot be meant so."""


def usage(args: argparse.Namespace) -> int:
    """Print the totals. 1 if there is no ledger or it cannot be read, 2 for bad usage."""
    try:
        by = _groups(args.by)
        now = datetime.now(UTC)
        since, until = _moment("--since", args.since, now), _moment("--until", args.until, now)
        url = _ledger(args)
        found = totals.read(url, by, since, until)
    except _Mistake as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return BAD_USAGE
    except ConfigError as error:
        print(error, file=sys.stderr)
        return FAILED
    except totals.Unreadable as error:
        print(f"tetrad: the ledger cannot be read: {error}", file=sys.stderr)
        return FAILED
    if found.unread:
        print(f"warning: {found.unread} lines are no records, and not counted", file=sys.stderr)
    print(_json(found, by, since, until) if args.json else _table(found, by))
    return DONE


def _groups(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in totals.GROUPS]
    if wrong or len(set(names)) != len(names):
        known = ", ".join(totals.GROUPS)
        raise _Mistake(f"--by {text}: give some of {known}, each once, with commas between")
    return names


def _moment(option: str, text: str | None, now: datetime) -> datetime | None:
    """A time, or a span before now; without a zone it is in UTC."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise _Mistake(
            f"{option} {text}: give a time such as 2026-01-31 or 2026-01-31T12:00 (in UTC), "
            "or a span before now such as 7d, 12h or 30m"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _ledger(args: argparse.Namespace) -> str:
    """The URL to read. Raises ConfigError, totals.Unreadable and _Mistake."""
    if args.ledger is not None:
        try:
            stores.scheme(args.ledger)
        except ValueError as error:
            raise _Mistake(f"--ledger: {error}") from None
        return str(args.ledger)
    config = load(args.config or Path("tetrad.yaml"), os.environ)
    if config.ledger.url is None:
        raise totals.Unreadable(
            f"{config.source} has none; set its ledger.url, or name one with --ledger URL"
        )
    return config.ledger.url


def _json(
    found: totals.Usage, by: Sequence[str], since: datetime | None, until: datetime | None
) -> str:
    def figures(row: Sequence[float]) -> dict[str, float]:
        rounded = (round(value, 9) if isinstance(value, float) else value for value in row)
        return dict(zip(totals.FIGURES, rounded, strict=True))

    document = {
        "since": since.isoformat() if since else None,
        "until": until.isoformat() if until else None,
        "by": by,
        "rows": [
            {**dict(zip(by, key, strict=True)), **figures(row)} for key, row in found.rows.items()
        ],
        "total": figures(found.total()),
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def _table(found: totals.Usage, by: Sequence[str]) -> str:
    heads = [_HEADS.get(name, name.replace("_", " ").upper()) for name in (*by, *totals.FIGURES)]
    rows = [heads, *([*map(_name, key), *_figures(row)] for key, row in found.rows.items())]
    if len(found.rows) != 1:  # one row is its own total
        rows.append([*(["TOTAL", *[""] * len(by)][: len(by)]), *_figures(found.total())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines.append(
            "  ".join(
                cell.ljust(width) if index < len(by) else cell.rjust(width)
                for index, (cell, width) in enumerate(cells)
            ).rstrip()
        )
    return "\n".join(lines)


def _name(value: str | None) -> str:
    """Nothing in a name may move a terminal's cursor."""
    text = _EMPTY if value is None else str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def _figures(row: Sequence[float]) -> list[str]:
    figures = dict(zip(totals.FIGURES, row, strict=True))
    shown = {name: f"{value:,.0f}" for name, value in figures.items()}
    shown["audio_seconds"] = f"{figures['audio_seconds']:,.1f}"
    shown["cost"] = f"{figures['cost']:,.4f}"
    return list(shown.values())
