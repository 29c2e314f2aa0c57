"""services/codec/splice.py: one top-level member changed, every other byte as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.codec.splice import with_member


def changed(text: str, name: str = "model", value: Any = "new") -> str:
    return with_member(text.encode(), json.loads(text), name, value).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"model":"old"}', '{"model":"new"}'),
        ('{ "model" :\n"old" , "x":1}', '{ "model" :\n"new" , "x":1}'),
        ('{"x":1.50,"model":"a\\"b","y":[ 1 ]}', '{"x":1.50,"model":"new","y":[ 1 ]}'),
        ('{"x":"model","model":5}', '{"x":"model","model":"new"}'),
        ('{"x":{"model":"in"},"model":"old"}', '{"x":{"model":"in"},"model":"new"}'),
        ('{"x":["model","model"],"model":"o"}', '{"x":["model","model"],"model":"new"}'),
        ('{"x":"\\"model\\": 1","model":"o"}', '{"x":"\\"model\\": 1","model":"new"}'),
        ('{"x":"\\\\","model":"o"}', '{"x":"\\\\","model":"new"}'),
        ('{"x":"{[\\"","model":"o"}', '{"x":"{[\\"","model":"new"}'),
        ('{"mod\\u0065l":"old","x":"model"}', '{"mod\\u0065l":"new","x":"model"}'),
        ('{"x":"\\u00e9","model":"old"}', '{"x":"\\u00e9","model":"new"}'),
        ('{"model":null}', '{"model":"new"}'),
        ('{"model":-1.5e3,"y":1e400}', '{"model":"new","y":1e400}'),
        ('{"model":true}', '{"model":"new"}'),
        ('{"models":"x","model":"old","model_":1}', '{"models":"x","model":"new","model_":1}'),
        ("{}", '{"model":"new"}'),
        (" {\n}", ' {"model":"new"\n}'),
        ('{"x":1}', '{"model":"new","x":1}'),
        ('{"x":"model"}', '{"model":"new","x":"model"}'),
        ('{"x":{"model":1}}', '{"model":"new","x":{"model":1}}'),
    ],
)
def test_a_member_is_set_in_its_place(text: str, expected: str) -> None:
    assert changed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"model":"a","x":1.50,"model":"b"}', '{"model":"new","x":1.50}'),
        ('{"model":{"a":1},"x":18446744073709551616}', '{"model":"new","x":18446744073709551616}'),
        ('{"model":["a"]}', '{"model":"new"}'),
        ('{"mod\\u0065l":1,"model":2,"x":1e400}', '{"model":"new","x":1e400}'),
    ],
)
def test_what_cannot_be_replaced_in_place_is_printed_anew_without_loss(
    text: str, expected: str
) -> None:
    assert changed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"x":1.50}', '{"x":1.50}'),
        ('{"model":"a"}', "{}"),
        ('{"model":"a","x":1.50}', '{"x":1.50}'),
        ('{"x":1e400,"model":{"model":1},"y":{"model":2}}', '{"x":1e400,"y":{"model":2}}'),
        ('{"model":"a","model":"b","x":12345678901234567890123}', '{"x":12345678901234567890123}'),
    ],
)
def test_none_removes_the_member(text: str, expected: str) -> None:
    assert changed(text, value=None) == expected


@pytest.mark.parametrize("value", ["é\n", 0, False, 2**70, 0.5, {"include_usage": True}, [None]])
def test_any_value_can_be_set(value: Any) -> None:
    for text in ("{}", '{"model":"a","x":1}'):
        assert json.loads(changed(text, value=value)) == {**json.loads(text), "model": value}


NAMES = st.sampled_from(["model", "stream", "a", "", 'mo"del', "model\\", "é"])
VALUES = st.recursive(
    st.none()
    | st.integers(-9, 2**70)
    | st.booleans()
    | st.sampled_from(["model", '"model"', "\\", "{["]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3),
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.sampled_from(["model", "stream", "x"]),
    st.none() | st.text(max_size=3) | st.booleans() | st.just({"a": 1}),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_only_that_member_changes(
    body: dict[str, Any], name: str, value: Any, escaped: bool, indent: Any
) -> None:
    text = json.dumps(body, ensure_ascii=escaped, indent=indent)
    expected = {k: v for k, v in body.items() if k != name or value is not None}
    if value is not None:
        expected[name] = value
    assert json.loads(changed(text, name, value)) == expected
