"""How many retries all calls together may make, so that an outage is not made worse by them.

Pure: the clock is an argument. Knows nothing of calls: its user earns per call, spends per retry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

RESERVE: Final = 100.0
"""Retries in hand at the start: a small fleet survives the loss of a server."""

REFILL: Final = 10.0
"""Retries a second that come back, up to the reserve: a quiet gateway is not left without."""

CEILING: Final = 1000.0
"""Never more in hand: what was earned in a good hour is not spent in a bad minute."""


_WHOLE = 1 - 1e-9
"""Ten tenths add up to a little less than one."""


class RetryBudget:
    """`ratio` retries are earned by each call; 0 = never any retry. `clock` is in seconds.

    Retries are at most RESERVE + REFILL * seconds + ratio * calls, whatever happens.
    """

    __slots__ = ("_at", "_clock", "_in_hand", "ratio")

    def __init__(self, ratio: float, clock: Callable[[], float]) -> None:
        self.ratio = ratio
        self._clock = clock
        self._at = clock()
        self._in_hand = RESERVE if ratio > 0 else 0.0

    @property
    def in_hand(self) -> float:
        """Retries that could be made now; fractions are on their way to one."""
        if self.ratio > 0 and self._in_hand < RESERVE:
            refilled = self._in_hand + REFILL * max(0.0, self._clock() - self._at)
            return min(RESERVE, refilled)
        return self._in_hand

    def earn(self) -> None:
        """A call has come (not a retry)."""
        # What time brings back is added when it is asked for.
        self._in_hand = min(CEILING, self._in_hand + self.ratio)

    def spend(self) -> bool:
        """Takes one retry; false, and nothing taken, if there is none."""
        if self.in_hand < _WHOLE:
            return False
        self._in_hand = max(0.0, self.in_hand - 1.0)
        self._at = self._clock()
        return True
