"""Calls that have ended, made directly, for the tests of the ledger; and what they add up to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from services.auth import Principal
from services.call import Call
from services.ledger import totals

PRICES = {"chat": (0.5, 1.5), "e5": (0.1, 0.0), "free": (0.0, 0.0)}


def ended(id: str = "req_1", key: str = "indexer", model: str = "chat", **usage: Any) -> Call:
    """A call that has ended, with members of its usage record."""
    call = Call(id, "Chat", "grpc", principal=Principal(key), model=model, endpoint=f"{model}-a")
    call.attempts = 1
    outcome = usage.pop("outcome", "OK")
    for name, value in usage.items():
        setattr(call.usage, name, value)
    call.usage.close(outcome)
    call.ended_at = time.monotonic()
    return call


def some_calls(seed: int, count: int) -> list[Call]:
    """All kinds of calls; a fifth of them are cancelled, and any figure may be zero or unknown."""
    random = Random(seed)  # noqa: S311

    def figure(top: int) -> int | None:
        return random.choice([None, 0, random.randrange(top)])

    return [
        ended(
            id=f"req_{number}",
            key=random.choice(["indexer", "clés", "anonymous"]),
            model=random.choice([*PRICES, "unknown", ""]),
            prompt_tokens=figure(5000),
            completion_tokens=figure(900),
            total_tokens=figure(6000),
            audio_seconds=random.choice([None, 0.0, random.random() * 100]),
            documents=figure(50),
            source=random.choice(["upstream", "none"]),
            outcome="CANCELLED" if number % 5 == 0 else random.choice(["OK", "OK", "UNAVAILABLE"]),
        )
        for number in range(count)
    ]


def added_up(calls: Iterable[Call], prices: Mapping[str, tuple[float, float]]) -> dict[Any, Any]:
    """The rows that `totals.read(url, ["key", "model"], ...)` must give: figures by key and model.

    Worked out from the calls alone.
    """
    rows: dict[Any, dict[str, float]] = {}
    for call in calls:
        used = call.usage
        row = rows.setdefault(
            (call.principal.name, call.model or None), dict.fromkeys(totals.FIGURES, 0)
        )
        row["calls"] += 1
        row["cancelled"] += used.outcome == "CANCELLED"
        row["failed"] += used.outcome == "UNAVAILABLE"
        for name in totals.SUMS[:-1]:
            row[name] += getattr(used, name) or 0
        prompt, completion = used.prompt_tokens, used.completion_tokens
        if prompt is None and completion is None:
            prompt = used.total_tokens
        if call.model in prices:
            price = prices[call.model]
            row["cost"] += ((prompt or 0) * price[0] + (completion or 0) * price[1]) / 1e6
    return {key: list(row.values()) for key, row in rows.items()}
