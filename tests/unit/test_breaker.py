"""services/routing/breaker.py: its state table, and a machine that walks it against a model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    run_state_machine_as_test,
)
from hypothesis.stateful import rule as step

from services.routing.breaker import Breaker

FAILURES, COOLDOWN = 3, 10.0


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(FAILURES, COOLDOWN, clock)


def state(breaker: Breaker) -> str:
    """As a plain string: it changes between two looks."""
    return breaker.state


def fail(breaker: Breaker, times: int = FAILURES) -> None:
    for _ in range(times):
        breaker.failed(breaker.begin())


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """G16."""
    fail(breaker, FAILURES - 1)
    assert (state(breaker), breaker.allows(), breaker.retry_in) == ("closed", True, 0.0)
    fail(breaker, 1)
    assert (state(breaker), breaker.allows(), breaker.retry_in) == ("open", False, COOLDOWN)


def test_a_success_clears_the_row(breaker: Breaker) -> None:
    """G16."""
    for _ in range(5):
        fail(breaker, FAILURES - 1)
        assert state(breaker) == "closed"
        breaker.succeeded(breaker.begin())


def test_what_says_nothing_neither_counts_nor_clears(breaker: Breaker) -> None:
    """G16: bad requests never open it, nor do they hide that the server fails."""
    for _ in range(100):
        breaker.neither(breaker.begin())
    assert state(breaker) == "closed"
    fail(breaker, FAILURES - 1)
    breaker.neither(breaker.begin())
    fail(breaker, 1)
    assert state(breaker) == "open"


def test_a_call_counts_when_it_ends_and_not_when_it_begins(breaker: Breaker) -> None:
    """G17: streams that have opened say nothing yet."""
    tickets = [breaker.begin() for _ in range(FAILURES)]
    fail(breaker, FAILURES - 1)
    assert state(breaker) == "closed"
    breaker.failed(tickets[0])
    assert state(breaker) == "open"


def test_after_the_cooldown_one_call_is_let_through(breaker: Breaker, clock: Clock) -> None:
    """G20."""
    fail(breaker)
    clock.now += COOLDOWN - 0.001
    assert not breaker.allows()
    assert breaker.retry_in == pytest.approx(0.001)
    clock.now += 0.001
    assert (state(breaker), breaker.allows(), breaker.retry_in) == ("half_open", True, 0.0)
    breaker.begin()
    assert not breaker.allows()
    assert breaker.retry_in == COOLDOWN


def test_a_trial_that_succeeds_closes_it(breaker: Breaker, clock: Clock) -> None:
    """G20."""
    fail(breaker)
    clock.now += COOLDOWN
    breaker.succeeded(breaker.begin())
    assert state(breaker) == "closed"
    fail(breaker, FAILURES - 1)  # the row begins anew
    assert state(breaker) == "closed"


def test_each_trial_that_fails_keeps_it_open_for_another_cooldown(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker)
    for _ in range(3):
        clock.now += COOLDOWN
        ticket = breaker.begin()
        clock.now += 2
        breaker.failed(ticket)
        assert (state(breaker), breaker.retry_in) == ("open", COOLDOWN)


def test_a_trial_without_a_verdict_frees_its_place(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += COOLDOWN
    breaker.neither(breaker.begin())
    assert (state(breaker), breaker.allows()) == ("half_open", True)


def test_a_trial_that_lasts_gives_its_place_to_another(breaker: Breaker, clock: Clock) -> None:
    """G20: a long stream as a trial does not keep the server out of use."""
    fail(breaker)
    clock.now += COOLDOWN
    long = breaker.begin()
    clock.now += COOLDOWN
    assert breaker.allows()
    other = breaker.begin()
    assert not breaker.allows()
    breaker.succeeded(other)
    breaker.failed(long)  # late: of a former period
    fail(breaker, FAILURES - 1)
    assert state(breaker) == "closed"


def test_late_failures_do_not_prolong_it(breaker: Breaker, clock: Clock) -> None:
    """G20: sixty streams that hang while the server comes back do not open it again."""
    late = [breaker.begin() for _ in range(60)]
    fail(breaker)
    for ticket in late[:20]:
        clock.now += 0.1
        breaker.failed(ticket)
    assert breaker.retry_in == pytest.approx(COOLDOWN - 2)
    clock.now += COOLDOWN
    for ticket in late[20:30]:
        breaker.failed(ticket)
    assert breaker.allows()
    trial = breaker.begin()
    for ticket in late[30:40]:
        breaker.failed(ticket)
        breaker.neither(ticket)
    assert (state(breaker), breaker.allows()) == ("half_open", False)  # the trial has its place
    breaker.succeeded(trial)
    for ticket in late[40:]:
        breaker.failed(ticket)
    assert state(breaker) == "closed"


def test_a_late_success_does_not_close_it(breaker: Breaker) -> None:
    """What was begun before it opened says nothing about the server as it is now."""
    late = breaker.begin()
    fail(breaker)
    breaker.succeeded(late)
    assert state(breaker) == "open"


def test_a_call_sent_although_it_is_open_may_close_it(breaker: Breaker) -> None:
    """The last resort while nothing is healthy: it takes no trial's place."""
    fail(breaker)
    forced = breaker.begin()
    breaker.failed(breaker.begin())
    assert breaker.retry_in == COOLDOWN
    breaker.succeeded(forced)
    assert state(breaker) == "closed"


def test_a_probe_that_sees_the_server_come_back_closes_it(breaker: Breaker) -> None:
    """G20."""
    late = [breaker.begin() for _ in range(FAILURES)]
    fail(breaker)
    breaker.reset()
    assert (state(breaker), breaker.allows(), breaker.retry_in) == ("closed", True, 0.0)
    for ticket in late:
        breaker.failed(ticket)
    assert state(breaker) == "closed"


def test_without_a_ticket_a_call_s_end_is_one_of_now(breaker: Breaker, clock: Clock) -> None:
    for _ in range(FAILURES):
        breaker.failed()
    assert state(breaker) == "open"
    clock.now += COOLDOWN
    breaker.begin()
    breaker.neither()
    assert breaker.allows()
    breaker.begin()
    breaker.failed()
    assert state(breaker) == "open"
    breaker.succeeded()
    assert state(breaker) == "closed"


class Walk(RuleBasedStateMachine):
    """Calls begin, end in any order and way, and time passes: against a model in other terms.

    The model keeps the whole history: each opening and closing with its time, and each call with
    the number of those before it.
    """

    calls: Bundle[tuple[int, int]] = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(FAILURES, COOLDOWN, self.clock)
        self.opened: float | None = None
        self.turns = 0
        self.row: list[str] = []
        self.trials: list[float] = []

    def turn(self, opened: float | None) -> None:
        self.turns, self.opened, self.row, self.trials = self.turns + 1, opened, [], []

    @property
    def over(self) -> bool:
        return self.opened is not None and self.clock.now >= self.opened + COOLDOWN

    @step(target=calls)
    def begin(self) -> tuple[int, int]:
        if self.over:
            self.trials = [self.clock.now]
        return self.breaker.begin(), self.turns

    @step(call=consumes(calls))
    def succeed(self, call: tuple[int, int]) -> None:
        ticket, turn = call
        self.breaker.succeeded(ticket)
        if turn == self.turns:
            self.row = []
            if self.opened is not None:
                self.turn(None)

    @step(call=consumes(calls))
    def fail(self, call: tuple[int, int]) -> None:
        ticket, turn = call
        self.breaker.failed(ticket)
        if turn == self.turns and self.opened is None:
            self.row.append("failed")
            if len(self.row) == FAILURES:
                self.turn(self.clock.now)
        elif turn == self.turns and self.over:
            self.turn(self.clock.now)

    @step(call=consumes(calls))
    def say_nothing(self, call: tuple[int, int]) -> None:
        ticket, turn = call
        self.breaker.neither(ticket)
        if turn == self.turns:
            self.trials = []

    @step(seconds=st.sampled_from([0.5, 4.0, COOLDOWN]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.opened is not None)
    @step()
    def probe(self) -> None:
        self.breaker.reset()
        self.turn(None)

    @invariant()
    def agrees(self) -> None:
        if self.opened is None:
            assert (self.breaker.state, self.breaker.allows()) == ("closed", True)
        elif not self.over:
            assert (self.breaker.state, self.breaker.allows()) == ("open", False)
            assert self.breaker.retry_in == self.opened + COOLDOWN - self.clock.now
        else:
            running = any(self.clock.now < begun + COOLDOWN for begun in self.trials)
            assert (self.breaker.state, self.breaker.allows()) == ("half_open", not running)
        assert self.breaker.allows() == (self.breaker.retry_in == 0)

    @invariant()
    def comes_back(self) -> None:
        """Whatever happened: after a cooldown in which nothing happens, a call is let through."""
        now = self.clock.now
        self.clock.now += COOLDOWN
        assert self.breaker.allows()
        self.clock.now = now


def test_any_history_agrees_with_the_model() -> None:
    """G20."""
    run_state_machine_as_test(
        Walk, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )
