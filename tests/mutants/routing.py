"""Mutants of routing: strategies, breaker, retry budget."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_BREAKER = "tests/unit/test_breaker.py::"
_HISTORY = _BREAKER + "test_any_history_agrees_with_the_model"
_BUDGET = "tests/unit/test_retry_budget.py::"
_BALANCE = "tests/unit/test_balance.py::"
_SIMULATED = "tests/unit/test_balance_simulation.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "a-breaker-never-opens",
        "G16",
        "services/routing/breaker.py",
        find="            if self._row < self._failures:\n                return\n",
        replace="            return\n",
        tests=(
            _BREAKER + "test_failures_in_a_row_open_it",
            _HISTORY,
        ),
        why="calls go on to a server that fails all of them",
    ),
    Mutant(
        "a-success-leaves-the-row",
        "G16",
        "services/routing/breaker.py",
        find="            self._row = 0\n            if self._until",
        replace="            if self._until",
        tests=(_BREAKER + "test_a_success_clears_the_row",),
        why="rare failures add up until a good server is cut off",
    ),
    Mutant(
        "bad-requests-open-the-breaker",
        "G16",
        "services/routing/breaker.py",
        find="            self._trial_until = None\n\n    def reset",
        replace="            self.failed(ticket)\n\n    def reset",
        tests=(_BREAKER + "test_what_says_nothing_neither_counts_nor_clears",),
        why="one caller's bad prompts cut everybody off",
    ),
    Mutant(
        "beginning-is-succeeding",
        "G17",
        "services/routing/breaker.py",
        find="        return self._period\n\n    def succeeded",
        replace="        self._row = 0\n        return self._period\n\n    def succeeded",
        tests=(
            _BREAKER + "test_failures_in_a_row_open_it",
            _HISTORY,
        ),
        why="a stream that opens hides that they all break off",
    ),
    Mutant(
        "an-open-breaker-lets-calls-through",
        "routing",
        "services/routing/breaker.py",
        find="return self._until is None or self.retry_in == 0",
        replace="return True",
        tests=(
            _BREAKER + "test_failures_in_a_row_open_it",
            _BREAKER + "test_after_the_cooldown_one_call_is_let_through",
        ),
        why="a breaker that does nothing",
    ),
    Mutant(
        "the-last-provider-is-cut-off",
        "routing",
        "services/routing/table.py",
        find="closed or [route for route in self.routes if route.in_flight < LAST_RESORT]",
        replace="closed",
        tests=(
            "tests/unit/test_routing.py"
            "::test_the_last_provider_of_a_model_is_never_cut_off_altogether",
        ),
        why="a model with one provider fails every call for a whole cooldown",
    ),
    Mutant(
        "the-last-resort-has-no-bound",
        "routing",
        "services/routing/table.py",
        find="closed or [route for route in self.routes if route.in_flight < LAST_RESORT]",
        replace="closed or self.routes",
        tests=(
            "tests/unit/test_routing.py"
            "::test_the_last_provider_of_a_model_is_never_cut_off_altogether",
        ),
        why="a breaker that does nothing where there is one provider",
    ),
    Mutant(
        "a-half-open-breaker-lets-all-through",
        "G20",
        "services/routing/breaker.py",
        find="                self._trial_until = now + self._cooldown",
        replace="                self._trial_until = None",
        tests=(
            _BREAKER + "test_after_the_cooldown_one_call_is_let_through",
            _HISTORY,
        ),
        why="a server that comes back meets the whole load at once, and goes",
    ),
    Mutant(
        "a-trial-never-lapses",
        "G20",
        "services/routing/breaker.py",
        find="                self._trial_until = now + self._cooldown",
        replace="                self._trial_until = now + 3600",
        tests=(
            _BREAKER + "test_a_trial_that_lasts_gives_its_place_to_another",
            _HISTORY,
        ),
        why="an hour's stream as a trial keeps a good server out of use",
    ),
    Mutant(
        "a-left-trial-keeps-its-place",
        "G20",
        "services/routing/breaker.py",
        find="        if ticket is None or ticket == self._period:\n"
        "            self._trial_until = None\n",
        replace="        return\n",
        tests=(
            _BREAKER + "test_a_trial_without_a_verdict_frees_its_place",
            _HISTORY,
        ),
        why="a caller who leaves keeps a server out of use",
    ),
    Mutant(
        "a-good-trial-does-not-close",
        "G20",
        "services/routing/breaker.py",
        find="            if self._until is not None:\n                self.reset()\n",
        replace="            self._trial_until = None\n",
        tests=(_BREAKER + "test_a_trial_that_succeeds_closes_it", _HISTORY),
        why="a server that came back gets one call at a time",
    ),
    Mutant(
        "late-failures-count",
        "G20",
        "services/routing/breaker.py",
        find="        if ticket is not None and ticket != self._period:\n            return\n",
        replace="",
        tests=(_BREAKER + "test_late_failures_do_not_prolong_it",),
        why="streams that hung before open the breaker of a server that is back",
    ),
    Mutant(
        "late-successes-close",
        "routing",
        "services/routing/breaker.py",
        find="        if ticket is None or ticket == self._period:\n            self._row = 0\n",
        replace="        if ticket or not ticket:\n            self._row = 0\n",
        tests=(_BREAKER + "test_a_late_success_does_not_close_it",),
        why="the breaker of a dead server closes for each stream that it finishes",
    ),
    Mutant(
        "a-retry-costs-nothing",
        "G19",
        "services/routing/budget.py",
        find="        self._in_hand = max(0.0, self.in_hand - 1.0)\n",
        replace="",
        tests=(
            _BUDGET + "test_a_hundred_retries_are_in_hand_at_the_start",
            _BUDGET + "test_no_history_gets_more_than_reserve_refill_and_share",
            _BUDGET + "test_in_a_long_outage_retries_stay_a_share_of_the_calls",
        ),
        why="an outage doubles the load",
    ),
    Mutant(
        "each-call-earns-a-retry",
        "G19",
        "services/routing/budget.py",
        find="self._in_hand + self.ratio)\n",
        replace="self._in_hand + 1.0)\n",
        tests=(
            _BUDGET + "test_each_call_earns_its_share_of_a_retry",
            _BUDGET + "test_in_a_long_outage_retries_stay_a_share_of_the_calls[200-0.2]",
        ),
        why="the ratio says nothing",
    ),
    Mutant(
        "a-budget-without-a-ceiling",
        "G19",
        "services/routing/budget.py",
        find="min(CEILING, self._in_hand + self.ratio)",
        replace="self._in_hand + self.ratio",
        tests=(_BUDGET + "test_what_was_earned_in_a_good_hour_is_not_all_spent_in_a_bad_minute",),
        why="a day's savings are spent on one outage",
    ),
    Mutant(
        "a-refill-without-end",
        "G19",
        "services/routing/budget.py",
        find="            return min(RESERVE, refilled)",
        replace="            return refilled",
        tests=(_BUDGET + "test_a_quiet_gateway_gets_its_reserve_back_and_no_more",),
        why="a quiet night is spent on one outage",
    ),
    Mutant(
        "no-ratio-still-retries",
        "G19",
        "services/routing/budget.py",
        find="self._in_hand = RESERVE if ratio > 0 else 0.0",
        replace="self._in_hand = RESERVE",
        tests=(_BUDGET + "test_without_a_ratio_nothing_is_ever_retried",),
        why="budget_ratio: 0 does not switch retries off",
    ),
    Mutant(
        "least-busy-counts-only-our-calls",
        "routing",
        "services/routing/balance.py",
        find="if told is not None and told > load:",
        replace="if told is None:",
        tests=(_SIMULATED + "test_a_server_that_others_keep_busy_is_spared",),
        why="two gateways, or other users, overload one server",
    ),
    Mutant(
        "least-busy-takes-the-first-of-equals",
        "routing",
        "services/routing/balance.py",
        find="            if random.random() * equal < 1:\n",
        replace="            if equal < 1:\n",
        tests=(_BALANCE + "test_equally_busy_routes_are_drawn_by_lot",),
        why="on a quiet gateway one server has all the work",
    ),
    Mutant(
        "least-busy-ignores-weights",
        "routing",
        "services/routing/balance.py",
        find="        load = (load + 1) / choice.weight\n",
        replace="        load = load + 1\n",
        tests=(
            _BALANCE + "test_the_least_busy_is_the_one_with_the_least_for_its_weight",
            _SIMULATED + "test_routes_get_the_calls_of_their_weights[least_busy-weights1-0]",
        ),
        why="a small server gets as much as a large one",
    ),
    Mutant(
        "power-of-two-ignores-latency",
        "routing",
        "services/routing/balance.py",
        find="    first, second = one.latency, two.latency\n",
        replace="    first = second = 1.0\n",
        tests=(_SIMULATED + "test_latency_counts_where_loads_are_equal",),
        why="a slow server gets as many calls as a quick one",
    ),
    Mutant(
        "a-latency-is-believed-for-ever",
        "G20",
        "services/routing/balance.py",
        find="    if random.random() < _ANYWAY:\n",
        replace="    if random.random() < 0:\n",
        tests=(_SIMULATED + "test_a_server_that_was_slow_once_gets_its_calls_back",),
        why="a server that was slow once gets no more calls until a restart",
    ),
    Mutant(
        "affinity-without-a-bound",
        "routing",
        "services/routing/balance.py",
        find="            if busy < _FEW or busy < each * choice.weight:\n",
        replace="            if busy >= 0:\n",
        tests=(
            _BALANCE + "test_a_route_with_too_many_calls_passes_its_keys_on",
            _SIMULATED + "test_no_route_bears_more_than_its_bound_under_one_hot_key[weights0]",
        ),
        why="one popular prompt overloads one server while others idle",
    ),
    Mutant(
        "affinity-by-the-number-of-routes",
        "routing",
        "services/routing/balance.py",
        find="mixed = ((point ^ _seed(choice.name)) * ",
        replace="mixed = ((point ^ (_seed(choice.name) + len(choices))) * ",
        tests=(
            _SIMULATED + "test_when_a_route_leaves_only_its_own_keys_move[3]",
            _SIMULATED + "test_when_a_route_joins_it_takes_its_share_and_no_other_key_moves[3]",
        ),
        why="every prefix cache is lost when a server comes or goes",
    ),
    Mutant(
        "round-robin-bunches",
        "routing",
        "services/routing/balance.py",
        find="return _at(choices, turn * _GOLDEN % 1)",
        replace="return _at(choices, turn * 0.001 % 1)",
        tests=(_BALANCE + "test_turns_by_weight_are_never_bunched",),
        why="hundreds of calls in a row go to one server",
    ),
)
