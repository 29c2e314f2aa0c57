"""The canonical form can fail: every rule has bodies that it calls equal and bodies it does not."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from tests.lib import canonical, recordings
from tests.lib.canonical import assert_same, differences, event_differences

Compare = dict[str, Any]

# (what the rule says, expected, actual, compare)
EQUAL: list[tuple[str, str, str, Compare]] = [
    ("a null member equals an absent one", '{"a": null}', "{}", {}),
    ("an absent member equals a null one", "{}", '{"a": null}', {}),
    ("nulls of nested members too", '{"a": [{"b": null, "c": 1}]}', '{"a": [{"c": 1}]}', {}),
    ("member order does not count", '{"a": 1, "b": 2}', '{"b": 2, "a": 1}', {}),
    ("space does not count", '{"a":[1,2]}', '{ "a" : [ 1, 2 ] }', {}),
    ("escapes do not count", '{"a": "\\u00e9\\/"}', '{"a": "é/"}', {}),
    ("the last of two members wins", '{"a": 1, "a": 2}', '{"a": 2}', {}),
    ("a typed 1 is 1.0", '{"a": 1}', '{"a": 1.0}', {}),
    ("a typed 1000 is 1e3", '{"a": 1000}', '{"a": 1e3}', {}),
    ("integers of any size are compared", '{"a": 123456789012345678901}', "", {}),
    ("numbers past the doubles are compared", '{"a": 1e400}', '{"a": 10e399}', {}),
    ("a string stop is a list of one", '{"stop": "x"}', '{"stop": ["x"]}', {}),
    ("a list of one stop is a string", '{"stop": ["x"]}', '{"stop": "x"}', {}),
    ("a string input is a list of one", '{"input": "x"}', '{"input": ["x"]}', {}),
    ("a string inputs is a list of one", '{"inputs": "x"}', '{"inputs": ["x"]}', {}),
    (
        "vectors are float32",
        '{"data": [{"embedding": [0.012345670163631439, 0]}]}',
        '{"data": [{"embedding": [0.01234567, 0.0]}]}',
        {},
    ),
    ("so are named vectors", "[[0.1]]", "[[0.10000000149011612]]", {"vectors": ["/*"]}),
    ("opaque members keep no order", '{"o": {"a": 1, "b": 2}}', '{"o": {"b": 2, "a": 1}}', {}),
    ("an opaque 1e3 may print as 1000.0", '{"o": 1e3}', '{"o": 1000.0}', {"opaque": ["/o"]}),
    (
        "ordered members in their order",
        '{"o": {"b": 1, "a": 2}}',
        '{ "o": {"b": 1, "a": 2}}',
        {"ordered": ["/o"]},
    ),
    (
        "members beside an ordered one are free",
        '{"x": 1, "o": {"b": 1, "a": 2}}',
        '{"o": {"b": 1, "a": 2}, "x": 1}',
        {"ordered": ["/o"]},
    ),
    (
        "a null that is required and there",
        '{"a": {"b": null}}',
        '{"a": {"b": null}}',
        {"nulls_required": ["/a/b"]},
    ),
    (
        "nothing is required where the source has a value",
        '{"a": {"b": 1}}',
        '{"a": {"b": 1}}',
        {"nulls_required": ["/a/b"]},
    ),
    (
        "nor where the source has nothing",
        '{"a": {}}',
        '{"a": {"b": null}}',
        {"nulls_required": ["/a/b"]},
    ),
    ("a null value that is there", '{"a": null}', '{"a": null}', {"null_values": ["/a"]}),
    ("numbers whose text is the same", '{"a": 1.50}', '{"a": 1.50}', {"lexical": True}),
    ("texts beside lexical ones", '{"a": 1.5, "b": 1}', '{"a": 1.50, "b": 1}', {"lexical": ["/b"]}),
    ("odd names", '{"": {"a/b": {"m~n": 1}}}', '{"": {"a/b": {"m~n": 1}}}', {"opaque": ["/"]}),
    ("lone surrogates", '{"a": "\\ud800"}', '{"a": "\\uD800"}', {}),
    ("a body that is a list", "[1, [2]]", "[1.0, [2]]", {}),
    ("a body that is null", "null", "null", {}),
]

UNEQUAL: list[tuple[str, str, str, Compare]] = [
    ("a missing member", '{"a": 1}', "{}", {}),
    ("an unexpected member", "{}", '{"a": 1}', {}),
    ("a null for a value", '{"a": 1}', '{"a": null}', {}),
    ("an empty list is a value", '{"a": []}', "{}", {}),
    ("an empty object is a value", '{"a": {}}', "{}", {}),
    ("an empty string is a value", '{"a": ""}', "{}", {}),
    ("zero is a value", '{"a": 0}', "{}", {}),
    ("false is a value", '{"a": false}', "{}", {}),
    ("an empty list is not null", '{"a": null}', '{"a": []}', {}),
    ("null in a list is a value", '{"a": [null, 1]}', '{"a": [1]}', {}),
    ("true is not 1", '{"a": true}', '{"a": 1}', {}),
    ("false is not 0", '{"a": false}', '{"a": 0}', {}),
    ("a number is not its text", '{"a": 1}', '{"a": "1"}', {}),
    ("an object is not a list", '{"a": {}}', '{"a": []}', {}),
    ("list order counts", '{"a": [1, 2]}', '{"a": [2, 1]}', {}),
    ("a shorter list", '{"a": [1, 2]}', '{"a": [1]}', {}),
    ("a longer list", '{"a": [1]}', '{"a": [1, 2]}', {}),
    ("forms of a letter", '{"a": "\\u00e9"}', '{"a": "e\\u0301"}', {}),
    ("integers past 2^53", '{"a": 9007199254740993}', '{"a": 9007199254740992}', {}),
    ("an integer that became a double", '{"a": 9007199254740993}', '{"a": 9007199254740992.0}', {}),
    (
        "integers past 64 bits",
        '{"a": 123456789012345678901}',
        '{"a": 123456789012345680000}',
        {},
    ),
    ("numbers past the doubles", '{"a": 1e400}', '{"a": 1e401}', {}),
    ("a double with another last digit", '{"a": 0.1}', '{"a": 0.10000000149011612}', {}),
    ("a string stop is not a list of two", '{"stop": "x"}', '{"stop": ["x", "y"]}', {}),
    ("nor of another string", '{"stop": "x"}', '{"stop": ["y"]}', {}),
    ("an empty stop is not absent", '{"stop": []}', "{}", {}),
    ("a token list is not a list of one", '{"input": [1, 2]}', '{"input": [[1, 2]]}', {}),
    ("a number is not a list of one", '{"input": 1}', '{"input": [1]}', {}),
    ("other members are not one or many", '{"query": "x"}', '{"query": ["x"]}', {}),
    ("nor is content", '{"content": "x"}', '{"content": ["x"]}', {}),
    (
        "nor the input of a custom tool call",
        '{"custom": {"input": "x"}}',
        '{"custom": {"input": ["x"]}}',
        {},
    ),
    ("another float32", '{"embedding": [0.1]}', '{"embedding": [0.1000001]}', {}),
    ("a vector of other length", '{"embedding": [0.1, 0.2]}', '{"embedding": [0.1]}', {}),
    ("base64 of a vector is text", '{"embedding": "AAAA"}', '{"embedding": "AAAB"}', {}),
    ("only vectors are float32", "[[0.1]]", "[[0.10000000149011612]]", {}),
    ("an opaque 1 is not 1.0", '{"o": {"a": 1}}', '{"o": {"a": 1.0}}', {"opaque": ["/o"]}),
    ("an opaque 1.0 is not 1", '{"o": {"a": 1.0}}', '{"o": {"a": 1}}', {"opaque": ["/o"]}),
    ("an opaque zero has a sign", '{"o": -0.0}', '{"o": 0.0}', {"opaque": ["/o"]}),
    ("an opaque null is a value", '{"o": {"a": null}}', '{"o": {}}', {"opaque": ["/o"]}),
    ("and does not appear", '{"o": {}}', '{"o": {"a": null}}', {"opaque": ["/o"]}),
    ("nor is the opaque member itself absent", '{"o": null}', "{}", {"opaque": ["/o"]}),
    (
        "an opaque stop is no list of one",
        '{"stop": "x"}',
        '{"stop": ["x"]}',
        {"opaque": ["/stop"]},
    ),
    (
        "an opaque vector is exact",
        '{"embedding": [0.1]}',
        '{"embedding": [0.10000000149011612]}',
        {"opaque": ["/embedding"]},
    ),
    (
        "ordered members in another order",
        '{"o": {"b": 1, "a": 2}}',
        '{"o": {"a": 2, "b": 1}}',
        {"ordered": ["/o"]},
    ),
    (
        "also further down",
        '{"o": [{"p": {"b": 1, "a": 2}}]}',
        '{"o": [{"p": {"a": 2, "b": 1}}]}',
        {"ordered": ["/o"]},
    ),
    (
        "a required null that is absent",
        '{"a": {"b": null}}',
        '{"a": {}}',
        {"nulls_required": ["/a/b"]},
    ),
    (
        "a required null that is something",
        '{"a": {"b": null}}',
        '{"a": {"b": 0}}',
        {"nulls_required": ["/a/b"]},
    ),
    (
        "a required null in any item",
        '{"a": [{"b": 1}, {"b": null}]}',
        '{"a": [{"b": 1}, {}]}',
        {"nulls_required": ["/a/*/b"]},
    ),
    ("a null value that is absent", '{"a": null}', "{}", {"null_values": ["/a"]}),
    ("and one below", '{"a": {"b": null}}', '{"a": {}}', {"null_values": ["/a"]}),
    ("a number whose text changed", '{"a": 1.50}', '{"a": 1.5}', {"lexical": True}),
    ("at a pointer", '{"a": 1e3}', '{"a": 1000}', {"lexical": ["/a"]}),
    ("a body that is null", "null", "{}", {}),
]


@pytest.mark.parametrize(("rule", "expected", "actual", "compare"), EQUAL)
def test_bodies_are_equal(rule: str, expected: str, actual: str, compare: Compare) -> None:
    """G23: what the canonical form forgives."""
    assert differences(expected, actual or expected, compare) == [], rule


@pytest.mark.parametrize(("rule", "expected", "actual", "compare"), UNEQUAL)
def test_bodies_differ(rule: str, expected: str, actual: str, compare: Compare) -> None:
    """G23: what it does not."""
    assert differences(expected, actual, compare) != [], rule


def test_a_difference_names_its_pointer_and_both_values() -> None:
    found = differences('{"a": [{"b/c": 1}]}', '{"a": [{"b/c": 2}]}')
    assert found == ["/a/0/b~1c: expected 1, got 2 (another number)"]
    assert differences("1", "2") == ["(root): expected 1, got 2 (another number)"]


def test_every_difference_is_told_in_the_order_of_the_body() -> None:
    found = differences('{"a": 1, "b": {"c": 1}, "d": [1]}', '{"b": {"c": 2}, "d": [1, 2], "e": 0}')
    assert [line.split(":")[0] for line in found] == ["/a", "/e", "/b/c", "/d"]


def test_a_long_value_is_told_shortened() -> None:
    (found,) = differences(json.dumps({"a": "x" * 5000}), '{"a": 1}')
    assert len(found) < 250
    assert "5002 characters" in found


def test_the_message_says_where_its_input_stands() -> None:
    one, many = '{"id": "1", "request": {"input": "x"}}', '{"id": "1", "request": {"input": ["x"]}}'
    assert differences(one, many, message="BulkEmbedRequest") == []
    assert differences(one, many, message="EmbedRequest") != []


def test_parsed_values_are_taken_too() -> None:
    assert differences({"a": [1, None]}, '{"a": [1, null]}') == []
    assert differences({"a": "1"}, {"a": 1}) != []


def test_a_rule_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="opaqe"):
        differences("{}", "{}", {"opaqe": ["/a"]})
    with pytest.raises(ValueError, match="not a JSON pointer"):
        differences("{}", "{}", {"opaque": ["a"]})


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', '{"a": -Infinity}', "{", ""])
def test_what_is_not_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own or ours
        differences("{}", text)


def test_bodies_of_five_hundred_levels_are_compared() -> None:
    deep = '{"a":[' * 250 + "1" + "]}" * 250
    assert differences(deep, deep) == []
    (found,) = differences(deep, deep.replace("1", "2"))
    assert found.startswith("/a/0/a/0")


def test_float32_numbers_past_its_range_are_infinite() -> None:
    assert differences('{"embedding": [1e39]}', '{"embedding": [2e39]}') == []
    assert differences('{"embedding": [1e39]}', '{"embedding": [-1e39]}') != []
    huge = "1" + "0" * 400
    assert differences(f'{{"embedding": [{huge}]}}', '{"embedding": [1e39]}') == []


def test_every_float32_equals_its_double_image_and_its_short_form() -> None:
    for bits in (0x3DCCCCCD, 0x00000001, 0x7F7FFFFF, 0xBF800001):
        (value,) = struct.unpack("<f", struct.pack("<I", bits))
        assert differences(f'{{"embedding": [{value!r}]}}', f'{{"embedding": [{value:.9g}]}}') == []


def test_events_are_compared_one_by_one() -> None:
    recording = recordings.get("chat/openai-usage-stream.sse")
    events = recording.events()
    assert event_differences(events, [*events], recording.compare) == []
    without = [{**event} for event in events]
    del without[1]["usage"]
    assert event_differences(events, without, recording.compare) == [
        "event 1 /usage: null is required, got nothing"
    ]
    assert event_differences(events, events[:-1])[0].startswith("event 4: expected {")
    assert event_differences(events[:-1], events)[0].startswith("event 4: expected nothing")


def test_assert_same_tells_the_first_differences() -> None:
    assert_same('{"a": 1}', '{"a": 1.0}')
    one, other = json.dumps(list(range(50))), json.dumps(list(range(1, 51)))
    with pytest.raises(AssertionError, match="EmbedRequest differ:\n/0: ") as raised:
        assert_same(one, other, message="EmbedRequest")
    assert "and 30 more" in str(raised.value)


@pytest.mark.parametrize(
    "recording", recordings.all(mode="json"), ids=lambda recording: recording.file
)
def test_a_recorded_body_equals_itself_and_not_its_damaged_self(
    recording: recordings.Recording,
) -> None:
    body = recording.bytes
    assert differences(body, body, recording.compare) == []
    compact = json.dumps(recording.json(), separators=(",", ":"))
    assert differences(body, compact, recording.compare) == []
    damaged = canonical.loads(body)
    _damage(damaged)
    assert differences(body, damaged, recording.compare) != []


def _damage(value: Any) -> None:
    """Takes the last member that is not null out of an object, or the last item of a list."""
    if isinstance(value, list):
        value.pop()
    else:
        name = [name for name, inner in value.items() if inner is not None][-1]
        del value[name]
