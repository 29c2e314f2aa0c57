"""What a call costs in the whole gateway, as a multiple of bare servers in the same rounds.

The ceilings are about twice what `make bench ARGS="calls routing idle"` prints, so that only a
real loss of speed or memory fails, and no busy machine.
"""

from __future__ import annotations

import pytest

from bench import calls, idle, routing

CEILINGS = {
    "REST chat, relayed": 22.0,
    "REST chunk, relayed": 8.0,
    "gRPC chat": 4.5,
    "gRPC chunk": 4.0,
}
ROUNDS = 3


def test_calls_cost_a_bounded_multiple_of_bare_servers() -> None:
    cases = [case for case in calls.CASES if case.name in CEILINGS]
    found = calls.measure(cases, ROUNDS)
    ratios = {
        case.name: found[calls.reference_of(case).name].times(found[case.name]) for case in cases
    }
    assert all(ratios[name] <= most for name, most in CEILINGS.items()), ratios
    assert ratios.keys() == CEILINGS.keys()


def test_routing_limits_and_accounts_cost_little_beside_a_call() -> None:
    routed, bare = routing.measure(ROUNDS)
    assert bare.times(routed) <= 70


@pytest.mark.parametrize("face", idle.GOALS)
def test_an_idle_stream_holds_little_memory(face: str) -> None:
    assert idle.measure(face, 300) <= 2.5 * idle.GOALS[face]
