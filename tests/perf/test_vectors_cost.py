"""What vectors may cost: answers as a part of a codec of lists, a bulk's item as one of a call.

The floors are well below what `make bench ARGS=vectors` prints, so that only a real loss of speed
fails, and no busy machine.
"""

from __future__ import annotations

import pytest

from bench.vectors import BULK, LISTS, OURS, UNARY, Case, cases, measure, measure_bulk

FLOORS = {
    "32 x 1024, numbers to gRPC numbers": 1.3,
    "32 x 1024, numbers to gRPC bytes": 1.2,
    "32 x 1024, numbers to REST base64": 1.2,
    "32 x 1024, base64 to gRPC numbers": 4.0,
    "32 x 1024, base64 to gRPC bytes": 4.0,
    "32 x 1024, base64 to REST numbers": 1.5,
    "100 x 1536, numbers to gRPC numbers": 1.3,
    "100 x 1536, base64 to gRPC numbers": 4.0,
}
ROUNDS = 5


@pytest.mark.parametrize("case", [case for case in cases() if case.name in FLOORS], ids=str)
def test_vectors_are_so_many_times_cheaper_than_lists(case: Case) -> None:
    """G26."""
    found = measure(case, ROUNDS)
    assert found[OURS].times(found[LISTS]) >= FLOORS[case.name]


def test_an_item_of_a_bulk_costs_much_less_than_a_call() -> None:
    """G28: client and gateway together."""
    found = measure_bulk(3)
    assert found[BULK].times(found[UNARY]) >= 1.7


def test_floors_are_those_of_cases() -> None:
    assert FLOORS.keys() <= {case.name for case in cases()}
