"""Picks one route of a model's, by its strategy.

Pure: randomness, the turn and the key are arguments. Knows nothing of calls or upstreams.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final, Protocol, TypeVar


class Choice(Protocol):
    """What balancing looks at."""

    @property
    def name(self) -> str:
        """Stable name, for the affinity."""

    @property
    def weight(self) -> float:
        """Share of the load, above 0."""

    @property
    def in_flight(self) -> int:
        """Calls in work."""


C = TypeVar("C", bound=Choice)

_GOLDEN = (math.sqrt(5) - 1) / 2
_BOUND = 1.25
"""A route with more than its share of the calls, times this, passes its keys on to the next."""

_FEW = 4
"""So many calls at once are never too many: with few calls, shares say nothing."""


def _load(choice: Choice) -> float:
    return (choice.in_flight + 1) / choice.weight


def _shuffle(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    return random.choices(choices, [choice.weight for choice in choices])[0]


def _round_robin(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    if len({choice.weight for choice in choices}) == 1:
        return choices[turn % len(choices)]
    # Multiples of the golden ratio visit every share of the whole evenly.
    point = turn * _GOLDEN % 1 * sum(choice.weight for choice in choices)
    for choice in choices:
        point -= choice.weight
        if point < 0:
            return choice
    return choices[-1]


def _least_busy(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    least = min(map(_load, choices))
    return random.choice([choice for choice in choices if _load(choice) == least])


def _power_of_two(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    pair = random.sample(range(len(choices)), min(2, len(choices)))
    return min((choices[index] for index in pair), key=_load)


def _prefix_affinity(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    # Weighted rendezvous hashing: when one of n leaves, only its own keys move.
    def score(choice: C) -> float:
        digest = hashlib.blake2b(choice.name.encode() + b"\0" + key, digest_size=8).digest()
        point = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
        return -choice.weight / math.log(point)

    calls = 1 + sum(choice.in_flight for choice in choices)
    each = _BOUND * calls / sum(choice.weight for choice in choices)
    calm = [c for c in choices if c.in_flight < max(_FEW, math.ceil(each * c.weight))]
    return max(calm or choices, key=score)


Strategy = Callable[[Sequence[C], Random, int, bytes], C]

STRATEGIES: Final[Mapping[str, Callable[..., Choice]]] = MappingProxyType(
    {
        "shuffle": _shuffle,
        "round_robin": _round_robin,
        "least_busy": _least_busy,
        "power_of_two": _power_of_two,
        "prefix_affinity": _prefix_affinity,
    }
)


def pick(strategy: str, choices: Sequence[C], random: Random, turn: int, key: bytes = b"") -> C:
    """One of `choices`, which are not empty. `key` is what prefix_affinity keeps together."""
    if len(choices) == 1:
        return choices[0]
    chosen: C = STRATEGIES[strategy](choices, random, turn, key)  # type: ignore[assignment]
    return chosen
