"""Picks one route of a model's, by its strategy.

Pure: randomness, the turn and the key are arguments. Knows nothing of calls or upstreams. It runs
for every call, so the strategies build no lists and look at each route once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
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
        """Calls of ours in work."""

    @property
    def upstream_load(self) -> float | None:
        """Calls that run and wait there, whoever's they are; None if it does not tell."""

    @property
    def latency(self) -> float:
        """Smoothed seconds to an answer, 0 while unknown."""


C = TypeVar("C", bound=Choice)

_GOLDEN = (math.sqrt(5) - 1) / 2
_BOUND = 1.25
"""A route with more than its share of the calls, times this, passes its keys on to the next."""

_FEW = 4
"""So many calls at once are never too many: with few calls, shares say nothing."""

_ANYWAY = 1 / 64
"""Share of the calls that go to the worse of two, so that a route that was slow once is measured
again: its latency is known from calls alone."""

_64 = 2**64 - 1


def _shuffle(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    return _at(choices, random.random())


def _round_robin(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    weight = choices[0].weight
    for choice in choices:
        if choice.weight != weight:
            # Multiples of the golden ratio visit every share of the whole evenly.
            return _at(choices, turn * _GOLDEN % 1)
    return choices[turn % len(choices)]


def _at(choices: Sequence[C], point: float) -> C:
    """The choice at that point of their weights laid end to end; the whole is 1 long."""
    left = 0.0
    for choice in choices:
        left += choice.weight
    left *= point
    for choice in choices:
        left -= choice.weight
        if left < 0:
            return choice
    return choices[-1]


def _least_busy(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    best = choices[0]
    least, equal = math.inf, 1
    for choice in choices:
        load: float = choice.in_flight
        told = choice.upstream_load
        if told is not None and told > load:
            load = told
        load = (load + 1) / choice.weight
        if load < least:
            best, least, equal = choice, load, 1
        elif load == least:
            equal += 1  # the k-th of equals wins with 1/k: all come out with the same chance
            if random.random() * equal < 1:
                best = choice
    return best


def _power_of_two(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    count = len(choices)
    index = int(random.random() * count)
    other = int(random.random() * (count - 1))
    one, two = choices[index], choices[other + (other >= index)]
    if random.random() < _ANYWAY:
        return one
    first, second = one.latency, two.latency
    if not first or not second:
        # Unknown ones are tried with one call at a time; more than that is judged by load alone.
        if not first and not one.in_flight:
            return one
        if not second and not two.in_flight:
            return two
        first = second = 1.0
    mine = (one.in_flight + 1) * first / one.weight
    return one if mine <= (two.in_flight + 1) * second / two.weight else two


def _prefix_affinity(choices: Sequence[C], random: Random, turn: int, key: bytes) -> C:
    # Weighted rendezvous hashing: when one of n leaves, only its own keys move.
    calls, weights = 1, 0.0
    for choice in choices:
        calls += choice.in_flight
        weights += choice.weight
    each = _BOUND * calls / weights
    point = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    home = calm = choices[0]
    best = best_calm = -1.0
    for choice in choices:
        # The key is mixed with each name's own number: far cheaper than a digest per route.
        mixed = ((point ^ _seed(choice.name)) * 0x9E3779B97F4A7C15) & _64
        mixed = ((mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93) & _64
        score = choice.weight / -math.log(((mixed >> 11) + 0.5) * 2**-53)
        if score > best:
            home, best = choice, score
        if score > best_calm:
            busy = choice.in_flight
            if busy < _FEW or busy < each * choice.weight:
                calm, best_calm = choice, score
    return calm if best_calm >= 0 else home


@lru_cache(maxsize=4096)
def _seed(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


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
