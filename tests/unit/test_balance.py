"""services/routing/balance.py: how each strategy spreads calls, by simulation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest

from services.routing.balance import STRATEGIES, pick

KEYS = [f"prompt {number}".encode() for number in range(6000)]


@dataclass
class One:
    """A route as balancing sees it."""

    name: str
    weight: float = 1.0
    in_flight: int = 0
    upstream_load: float | None = None
    latency: float = 0.0


def dice(seed: int = 1) -> Random:
    return Random(seed)  # noqa: S311


def some(*weights: float) -> list[One]:
    return [One(f"vllm 10.0.0.{index}:8000", weight) for index, weight in enumerate(weights)]


def spread(strategy: str, choices: list[One], turns: int = 6000) -> dict[str, float]:
    """Shares of calls that end at once, each with a key of its own."""
    random = dice(7)
    counts = Counter(
        pick(strategy, choices, random, turn, KEYS[turn % len(KEYS)]).name for turn in range(turns)
    )
    return {choice.name: counts[choice.name] / turns for choice in choices}


def busy(strategy: str, choices: list[One], turns: int = 4000, open_calls: int = 200) -> list[int]:
    """Calls in flight at the end when each lasts for `open_calls` further ones."""
    random = dice(7)
    under_way: list[One] = []
    for turn in range(turns):
        chosen = pick(strategy, choices, random, turn, KEYS[turn % len(KEYS)])
        chosen.in_flight += 1
        under_way.append(chosen)
        if len(under_way) > open_calls:
            under_way.pop(0).in_flight -= 1
    return [choice.in_flight for choice in choices]


def test_the_strategies_are_those_of_the_configuration() -> None:
    assert sorted(STRATEGIES) == sorted(
        ["shuffle", "round_robin", "least_busy", "power_of_two", "prefix_affinity"]
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_routes_get_equal_shares(strategy: str) -> None:
    for share in spread(strategy, some(1, 1, 1, 1)).values():
        assert share == pytest.approx(1 / 4, abs=0.03)


@pytest.mark.parametrize("strategy", ["shuffle", "round_robin", "prefix_affinity"])
@pytest.mark.parametrize("weights", [(1, 2, 5), (10, 1), (0.5, 0.25), (3, 3, 1)])
def test_idle_routes_get_the_shares_of_their_weights(
    strategy: str, weights: tuple[float, ...]
) -> None:
    shares = spread(strategy, some(*weights))
    for share, weight in zip(shares.values(), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), abs=0.03)


@pytest.mark.parametrize("strategy", ["least_busy", "prefix_affinity"])
def test_load_is_shared_by_weight(strategy: str) -> None:
    loads = busy(strategy, some(1, 3))
    assert sum(loads) == 200
    assert loads[0] == pytest.approx(50, abs=15)


def test_two_random_choices_keep_the_load_even() -> None:
    """The fuller of two is avoided: far better than one random choice."""
    loads = busy("power_of_two", some(1, 1, 1, 1))
    assert max(loads) - min(loads) <= 10
    shuffled = busy("shuffle", some(1, 1, 1, 1))
    assert max(shuffled) - min(shuffled) > max(loads) - min(loads)


def test_the_least_busy_is_the_one_with_the_least_for_its_weight() -> None:
    choices = [One("a", 1, 2), One("b", 1, 1), One("c", 4, 8)]
    assert pick("least_busy", choices, dice(), 0).name == "b"
    choices = [One("a", 1, 2), One("b", 1, 1), One("c", 4, 5)]
    assert pick("least_busy", choices, dice(), 0).name == "c"


def test_equally_busy_routes_are_drawn_by_lot() -> None:
    choices = [One("a"), One("b"), One("c", in_flight=1)]
    random = dice(3)
    names = {pick("least_busy", choices, random, 0).name for _ in range(50)}
    assert names == {"a", "b"}


def test_turns_go_round() -> None:
    names = [pick("round_robin", some(1, 1, 1), dice(), turn).name for turn in range(6)]
    assert names[:3] == names[3:]
    assert len(set(names)) == 3


def test_turns_by_weight_are_never_bunched() -> None:
    """A route of weight 1 beside one of 3 gets no two calls in a row, and none is long without."""
    names = [pick("round_robin", some(1, 3), dice(), turn).name for turn in range(400)]
    light = [turn for turn, name in enumerate(names) if name.endswith(".0:8000")]
    gaps = [after - before for before, after in pairwise(light)]
    assert len(light) == pytest.approx(100, abs=2)
    assert min(gaps) >= 2
    assert max(gaps) <= 6


def test_one_prefix_stays_with_one_route() -> None:
    choices = some(1, 1, 1)
    for key in KEYS[:50]:
        names = {pick("prefix_affinity", choices, dice(n), n, key).name for n in range(10)}
        assert len(names) == 1


def test_a_few_calls_at_once_do_not_break_the_affinity() -> None:
    choices = some(1, 1)
    home = pick("prefix_affinity", choices, dice(), 0, b"prompt")
    for _ in range(4):
        assert pick("prefix_affinity", choices, dice(), 0, b"prompt") is home
        home.in_flight += 1


def test_a_route_with_too_many_calls_passes_its_keys_on() -> None:
    choices = some(1, 1, 1)
    home = pick("prefix_affinity", choices, dice(), 0, b"prompt")
    home.in_flight = 40
    others = {pick("prefix_affinity", choices, dice(), 0, key).name for key in KEYS[:200]}
    assert home.name not in others
    assert len(others) == 2
    for choice in choices:
        choice.in_flight = 40
    assert pick("prefix_affinity", choices, dice(), 0, b"prompt") is home


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_when_one_of_n_leaves_only_its_own_keys_move(count: int) -> None:
    """Rendezvous hashing: about 1/n of the keys, and no other."""
    choices = some(*[1.0] * count)
    before = {key: pick("prefix_affinity", choices, dice(), 0, key).name for key in KEYS}
    gone, *rest = choices
    after = {key: pick("prefix_affinity", rest, dice(), 0, key).name for key in KEYS}
    moved = [key for key in KEYS if before[key] != after[key]]
    assert all(before[key] == gone.name for key in moved)
    assert len(moved) / len(KEYS) == pytest.approx(1 / count, abs=0.03)
    shares = Counter(after[key] for key in moved)
    assert len(shares) == count - 1  # all that are left take some


def test_long_names_that_begin_alike_are_told_apart() -> None:
    choices = [One("vllm " + "a" * 70 + str(index)) for index in range(2)]
    names = {pick("prefix_affinity", choices, dice(), 0, key).name for key in KEYS[:50]}
    assert len(names) == 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_only_route_is_taken(strategy: str) -> None:
    choices = [One("a", in_flight=1000)]
    assert pick(strategy, choices, dice(), 0, b"x") is choices[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_random_numbers_give_the_same_choices(strategy: str) -> None:
    def run() -> list[str]:
        random = dice(11)
        return [pick(strategy, some(1, 2, 3), random, turn, KEYS[turn]).name for turn in range(100)]

    assert run() == run()
