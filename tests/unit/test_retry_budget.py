"""services/routing/budget.py: retries never multiply."""

from __future__ import annotations

from itertools import takewhile
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.budget import CEILING, REFILL, RESERVE, RetryBudget


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spent(budget: RetryBudget, most: int = 5000) -> int:
    """Retries that it allows at once."""
    return sum(1 for _ in takewhile(lambda _: budget.spend(), range(most)))


def test_a_hundred_retries_are_in_hand_at_the_start() -> None:
    assert spent(RetryBudget(0.2, Clock())) == 100


def test_each_call_earns_its_share_of_a_retry() -> None:
    """G19."""
    budget = RetryBudget(0.2, Clock())
    spent(budget)
    for _ in range(50):
        budget.earn()
    assert spent(budget) == 10


def test_a_quiet_gateway_gets_its_reserve_back_and_no_more() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    spent(budget)
    clock.now += 2.5
    assert spent(budget) == 25
    clock.now += 3600
    assert spent(budget) == 100


def test_what_was_earned_in_a_good_hour_is_not_all_spent_in_a_bad_minute() -> None:
    """G19."""
    budget = RetryBudget(1.0, Clock())
    for _ in range(100_000):
        budget.earn()
    assert spent(budget) == 1000


def test_time_takes_nothing_from_what_was_earned() -> None:
    clock = Clock()
    budget = RetryBudget(1.0, clock)
    for _ in range(400):
        budget.earn()
    clock.now += 60
    assert spent(budget) == 500


def test_without_a_ratio_nothing_is_ever_retried() -> None:
    """G19."""
    clock = Clock()
    budget = RetryBudget(0, clock)
    for _ in range(1000):
        budget.earn()
        clock.now += 1
        assert not budget.spend()


def test_a_refused_retry_costs_nothing() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    spent(budget)
    for _ in range(10):
        clock.now += 0.05
        budget.spend()  # half a retry is none
    assert budget.in_hand == pytest.approx(0, abs=1e-6)
    clock.now += 0.05
    assert not budget.spend()
    clock.now += 0.05
    assert budget.spend()


@pytest.mark.parametrize("ratio", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("rate", [5, 200, 2000])
def test_in_a_long_outage_retries_stay_a_share_of_the_calls(ratio: float, rate: int) -> None:
    """G19: every call fails and asks for a second attempt, for ten minutes."""
    clock, dice = Clock(), Random(3)  # noqa: S311
    budget = RetryBudget(ratio, clock)
    calls = retries = 0
    begun = clock.now
    while calls < min(600 * rate, 100_000):
        clock.now += dice.expovariate(rate)
        calls += 1
        budget.earn()
        retries += budget.spend()
    allowed = ratio * calls + RESERVE + REFILL * (clock.now - begun)
    assert retries <= allowed + 1e-6
    assert retries >= min(calls, allowed) * 0.98 - 1  # nor is it stingy


@given(
    st.floats(0, 1),
    st.lists(st.one_of(st.just("earn"), st.integers(1, 150), st.floats(0, 100)), max_size=200),
)
def test_no_history_gets_more_than_reserve_refill_and_share(
    ratio: float, history: list[str | int | float]
) -> None:
    """G19: calls earn, a whole number of retries is asked for, or seconds pass."""
    clock = Clock()
    budget = RetryBudget(ratio, clock)
    calls = retries = 0
    for event in history:
        if event == "earn":
            budget.earn()
            calls += 1
        elif isinstance(event, int):
            retries += sum(budget.spend() for _ in range(event))
        elif isinstance(event, float):
            clock.now += event
        bound = RESERVE + REFILL * (clock.now - 1000.0) + ratio * calls if ratio else 0
        assert retries <= bound + 1e-6
        assert 0 <= budget.in_hand <= CEILING
