"""What a request to an upstream may cost by our client, as a part of httpx's in the same rounds.

The floors are about half of what `make bench ARGS=transport` prints, so that only a real loss of
speed fails, and no busy machine.
"""

from __future__ import annotations

import pytest

from bench.transport import CASES, HTTPX, OWN, Case, measure

FLOORS = {
    "request, 1 at a time": 12.0,
    "event, as fast as they go, 16 streams": 2.4,
}
ROUNDS = 3


@pytest.mark.parametrize("case", [case for case in CASES if case.name in FLOORS], ids=str)
def test_our_client_is_so_many_times_cheaper_than_httpx(case: Case) -> None:
    found = measure(case, ROUNDS)
    assert found[OWN].times(found[HTTPX]) >= FLOORS[case.name]


def test_floors_are_those_of_cases() -> None:
    assert FLOORS.keys() <= {case.name for case in CASES}
