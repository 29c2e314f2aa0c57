"""CPU time of small functions, in interleaved rounds; never wall clock.

The machine's clock drifts by half within seconds, so that only what runs in the same round is
compared: a ratio is the median of the rounds' ratios, not the ratio of two medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Operation = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU microseconds per call (user and system, all threads), one figure a round."""

    rounds: Sequence[float]

    @property
    def median(self) -> float:
        """The median of the rounds, in microseconds."""
        return median(self.rounds)

    def times(self, other: Measured) -> float:
        """How many times cheaper this one is than the other, round by round."""
        pairs = zip(other.rounds, self.rounds, strict=True)
        return median(theirs / ours for theirs, ours in pairs)


def interleaved(
    operations: Mapping[str, Operation], *, rounds: int, batch: float = 0.01
) -> dict[str, Measured]:
    """Run all operations in turn, `rounds` times, each for about `batch` seconds a round."""
    counts = {name: _count(operation, batch) for name, operation in operations.items()}
    found: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(rounds):
        for name, operation in operations.items():
            found[name].append(_cost(operation, counts[name]))
    return {name: Measured(costs) for name, costs in found.items()}


def _count(operation: Operation, batch: float) -> int:
    """How many calls take about that long, found by doubling, which warms up as well."""
    count = 1
    while (cost := _cost(operation, count)) * count * 1e-6 < batch / 4:
        count *= 2
    return max(1, round(batch * 1e6 / cost))


def _cost(operation: Operation, count: int) -> float:
    """CPU microseconds per call."""
    calls = range(count)
    began = time.process_time_ns()
    for _ in calls:
        operation()
    return (time.process_time_ns() - began) / count / 1000
