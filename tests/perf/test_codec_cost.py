"""What the codec may cost, as a multiple of json_format in the same rounds.

The floors are about half of what `make bench ARGS=codec` prints, so that only a real loss of speed
fails, and no busy machine.
"""

from __future__ import annotations

import pytest

from bench.codec import OURS, THEIRS, Case, cases, measure

FLOORS = {
    "chunk: JSON to wire": 5.0,
    "chunk: wire to JSON": 2.7,
    "ten messages and a tool: JSON to wire": 5.0,
    "ten messages and a tool: wire to JSON": 2.3,
    "32 x 1024, lists: JSON to wire": 10.0,
    "32 x 1024, lists: wire to JSON": 30.0,
    "32 x 1024, base64: JSON to wire": 0.9,
    "32 x 1024, base64: wire to JSON": 1.4,
}
ROUNDS = 7


def test_every_case_has_a_floor() -> None:
    assert {case.name for case in cases()} == FLOORS.keys()


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_codec_is_so_many_times_cheaper_than_json_format(case: Case) -> None:
    found = measure(case, ROUNDS)
    assert found[OURS].times(found[THEIRS]) >= FLOORS[case.name]
