"""Fixed windows: how much of a limit is used, and when its window ends.

A window begins with the first use and ends a minute or a day later. Several limits are taken all
or none. Times are seconds. Knows neither calls nor stores beyond the memory of this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MINUTE, DAY = 60, 86_400

PERIODS = {"rpm": MINUTE, "rpd": DAY, "tpm": MINUTE, "tpd": DAY}
"""The limits by name, and the length of their windows."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of one key. `key` is its counter's name; `closed`: it refuses while its store is
    away; `counts_tokens`: when a call has ended, else requests, before it begins; `cost`: what
    admission takes of it."""

    name: str
    key: str
    limit: int
    period: int
    closed: bool = False
    counts_tokens: bool = field(init=False)
    cost: int = field(init=False)

    def __post_init__(self) -> None:
        tokens = self.name.startswith("t")
        object.__setattr__(self, "counts_tokens", tokens)
        object.__setattr__(self, "cost", 0 if tokens else 1)


class Level(NamedTuple):
    """How far a limit was used, before what was asked for now, and seconds until its window ends
    (all of it, if it has not begun)."""

    used: int
    left: float


class Windows:
    """The counters of this process. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, tuple[int, float]] = {}

    def take(self, rules: Sequence[Rule]) -> list[Level]:
        """Take what admission costs of every rule, or of none if one is used up."""
        now = self._clock()
        levels = []
        room = True
        for rule in rules:
            used, ends = self._open.get(rule.key, (0, 0.0))
            if ends <= now:
                used, ends = 0, now + rule.period
            levels.append(Level(used, ends - now))
            room = room and used < rule.limit
        if room:
            for rule, level in zip(rules, levels, strict=True):
                if rule.cost:
                    self._open[rule.key] = (level.used + rule.cost, now + level.left)
        return levels

    def add(self, key: str, period: int, amount: int) -> None:
        """Count what was used already, whatever the limit."""
        now = self._clock()
        used, ends = self._open.get(key, (0, 0.0))
        if ends <= now:
            used, ends = 0, now + period
        self._open[key] = (used + amount, ends)
