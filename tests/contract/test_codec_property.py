"""Bodies made from the plans, with unknown and ill-typed members at every level, come back."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services import codec
from tests.lib import oracle
from tests.lib.canonical import assert_same
from tests.lib.made_bodies import TOP, bodies


@pytest.mark.parametrize("name", TOP)
@given(data=st.data())
@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_made_body_comes_back_equal_and_is_the_oracle_s_message(
    name: str, data: st.DataObject
) -> None:
    """G23: in = out, at every level."""
    text = json.dumps(data.draw(bodies(name)), ensure_ascii=data.draw(st.booleans()))
    wire = codec.encode(name, text.encode())
    parsed = codec.message_class(name).FromString(wire)
    built = oracle.build(name, text)
    assert oracle.same(parsed, built.message)
    assert_same(text, codec.decode(name, wire), {"opaque": built.opaque}, name)
