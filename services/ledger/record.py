"""One record of the ledger: its columns as a table, and how a call becomes one.

A record is a plain tuple that every store takes as it is: text is clean and short, numbers are
finite and fit into 64 bits. Zero is a value, None is unknown.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from services.call import Call

Value = str | int | float | None
Record = tuple[Value, ...]
"""Values in the order of COLUMNS."""

Prices = Callable[[str], tuple[float, float] | None]
"""A model's name -> price of a million (prompt, completion) tokens; None for no such model."""

TABLE = "tetrad_usage"

_MAX_TEXT = 256
_MAX_COUNT = 10**15
_MILLION = 1_000_000
_NOT_TEXT = str.maketrans({0: None, 10: " ", 13: " "})


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its type in SQLite and in PostgreSQL, and what it holds."""

    name: str
    sqlite: str
    postgres: str
    says: str


COLUMNS = (
    Column("uuid", "TEXT PRIMARY KEY", "uuid PRIMARY KEY", "the record's own id"),
    Column("time", "TEXT NOT NULL", "timestamptz NOT NULL", "when the call ended, UTC"),
    Column("id", "TEXT NOT NULL", "text NOT NULL", "the request's id (x-request-id)"),
    Column("key", "TEXT NOT NULL", "text NOT NULL", "name of the caller's key, or anonymous"),
    Column("method", "TEXT NOT NULL", "text NOT NULL", "Chat, StreamChat, Embed, ..."),
    Column("face", "TEXT NOT NULL", "text NOT NULL", "grpc or rest"),
    Column("model", "TEXT", "text", "the model's name here"),
    Column("endpoint", "TEXT", "text", "the provider that answered"),
    Column("attempts", "INTEGER NOT NULL", "bigint NOT NULL", "attempts at providers"),
    Column("outcome", "TEXT NOT NULL", "text NOT NULL", "OK, CANCELLED or a gRPC code"),
    Column("prompt_tokens", "INTEGER", "bigint", "tokens of the request"),
    Column("completion_tokens", "INTEGER", "bigint", "tokens of the answer"),
    Column("total_tokens", "INTEGER", "bigint", "both, as the upstream told it"),
    Column("audio_seconds", "REAL", "double precision", "length of the audio"),
    Column("documents", "INTEGER", "bigint", "documents that were reranked"),
    Column("source", "TEXT NOT NULL", "text NOT NULL", "upstream, estimated or none"),
    Column("cost", "REAL", "double precision", "from the model's prices"),
    Column("duration_ms", "REAL NOT NULL", "double precision NOT NULL", "the whole call"),
    Column("first_ms", "REAL", "double precision", "until the first delivery"),
    Column("queued_ms", "REAL NOT NULL", "double precision NOT NULL", "waiting for a free slot"),
)

NAMES = tuple(column.name for column in COLUMNS)


def of(call: Call, prices: Prices) -> Record:
    """The record of a call that has ended, with the prices of now."""
    usage = call.usage
    ended = time.monotonic() if call.ended_at is None else call.ended_at
    prompt, completion = _count(usage.prompt_tokens), _count(usage.completion_tokens)
    total = _count(usage.total_tokens)
    return (
        str(uuid.uuid4()),
        iso(time.time()),
        _text(call.id),
        _text(call.principal.name),
        _text(call.method),
        call.face,
        _text(call.model) or None,
        _text(call.endpoint) or None,
        _count(call.attempts) or 0,
        _text(usage.outcome),
        prompt,
        completion,
        total,
        _finite(usage.audio_seconds),
        _count(usage.documents),
        _text(usage.source),
        _finite(cost(prompt, completion, total, prices(call.model))),
        _milliseconds(ended - call.began),
        None if call.first_at is None else _milliseconds(call.first_at - call.began),
        _milliseconds(call.queued),
    )


def cost(
    prompt: int | None,
    completion: int | None,
    total: int | None,
    price: tuple[float, float] | None,
) -> float | None:
    """What the known tokens cost; None without a price, or where no tokens are known.

    Where only a total is told, as rerankers do, all of it is prompt.
    """
    if prompt is None and completion is None:
        prompt = total
    if price is None or (prompt is None and completion is None):
        return None
    return ((prompt or 0) * price[0] + (completion or 0) * price[1]) / _MILLION


def iso(seconds: float) -> str:
    """Seconds since the epoch as 2026-01-31T23:59:59.000Z: sorts as text."""
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def _text(text: str) -> str:
    """Short, and without what UTF-8, PostgreSQL or a line of text cannot hold."""
    return text[:_MAX_TEXT].translate(_NOT_TEXT).encode("utf-8", "replace").decode()


def _count(number: int | None) -> int | None:
    """The number, or None where nobody can have counted so far."""
    return number if number is not None and -_MAX_COUNT <= number <= _MAX_COUNT else None


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _milliseconds(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
