"""services/codec/jsontext.py: JSON read fast or exactly, and written without loss."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.codec import jsontext
from services.codec.jsontext import (
    ExactFloat,
    JsonError,
    NeedExact,
    check_depth,
    dumps,
    dumps_exact,
    loads,
    loads_exact,
    raw,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=4), below, max_size=4)
    ),
)
quick = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@quick
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_is_read_exactly_is_what_python_reads(value: Any, escaped: bool, indent: Any) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    for given_text in (text, text.encode()):
        assert loads_exact(given_text) == value
    assert json.loads(dumps(loads_exact(text))) == value


@quick
@given(VALUES)
def test_the_exact_printer_keeps_every_number_s_text(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert dumps_exact(loads_exact(text)).decode() == text


@quick
@given(VALUES)
def test_a_raw_text_is_refused_or_right(value: Any) -> None:
    text = json.dumps(value).encode()
    try:
        printed = raw(loads(text))
    except NeedExact:
        printed = dumps_exact(loads_exact(text))
    assert json.loads(printed) == value


@pytest.mark.parametrize(
    "text", ["1e400", "0.10000000000000000000001", "18446744073709551616", "-1E+2", "1.10"]
)
def test_the_exact_reader_keeps_a_number_s_text(text: str) -> None:
    value = loads_exact(text)
    assert dumps_exact(value).decode() == text
    assert dumps([value]).decode() == f"[{text}]"


def test_an_exact_float_is_a_float() -> None:
    value = loads_exact("0.5")
    assert isinstance(value, ExactFloat)
    assert value == 0.5
    assert math.isinf(loads_exact("1e400"))


@pytest.mark.parametrize(
    "text",
    ["18446744073709551616", "1e300", "0.1234567890123456", "-9223372036854775809", '["a",1e22]'],
)
def test_what_a_fast_reader_may_have_changed_is_not_printed(text: str) -> None:
    with pytest.raises(NeedExact):
        raw(loads(text))


@pytest.mark.parametrize("text", ["9007199254740993", "0.5", "-1", '["a",1.25]'])
def test_what_a_fast_reader_cannot_have_changed_is_printed_at_once(text: str) -> None:
    assert raw(loads(text)).decode() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        "{'a':1}",
        '{"a":1,}',
        "01",
        "1.",
        ".5",
        "+1",
        "nul",
        "NaN",
        "[Infinity]",
        '{"a":-Infinity}',
        '"\n"',
        '"\t"',
        '"\\x41"',
        '"\\u12"',
        "1 2",
        "{}{}",
        "[" * 600,
        "\ufeff{}",
        "1" * 5000,
    ],
)
def test_what_is_not_json_is_refused(text: str) -> None:
    for read in (loads, loads_exact):
        for given_text in (text, text.encode()):
            with pytest.raises(JsonError):
                read(given_text)


@pytest.mark.parametrize("data", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b'{"a":"\xf8"}'])
def test_what_is_not_utf8_is_refused_with_its_place(data: bytes) -> None:
    for read in (loads, loads_exact):
        with pytest.raises(JsonError, match="not UTF-8 at byte"):
            read(data)


def test_an_error_tells_line_and_column() -> None:
    with pytest.raises(JsonError, match=r"Expecting value at line 2 column 7"):
        loads(b'{"a":1,\n "b": }')


def test_a_digit_too_many_is_an_error_of_ours() -> None:
    """Python refuses to convert integers of more than 4300 digits."""
    with pytest.raises(JsonError, match="digits"):
        loads_exact("[" + "9" * 5000 + "]")


@pytest.mark.parametrize("levels", [0, 1, 512])
def test_depth_within_the_limit_is_no_error(levels: int) -> None:
    check_depth(b"[" * levels + b"]" * levels)
    check_depth(b'{"a":' * levels + b"1" + b"}" * levels)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 513,
        b"[]" * 600 + b"[" * 513,
        b'"' + b"]" * 600 + b'"' + b"[" * 513,
        b'"\\"' + b"]" * 600 + b'"' + b"{" * 513,
    ],
)
def test_depth_past_the_limit_is_an_error(text: bytes) -> None:
    with pytest.raises(JsonError, match=f"nested deeper than {jsontext.MAX_DEPTH} levels"):
        check_depth(text)


@pytest.mark.parametrize(
    "text", [b"[]" * 2000, b'["' + b"[" * 600 + b'"]', b'["\\\\","' + b"{" * 600 + b'"]']
)
def test_brackets_beside_each_other_or_in_strings_are_no_depth(text: bytes) -> None:
    check_depth(text)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff":0}', '["\\udc00\\ud800"]', '"\\uD83Dx"'])
def test_a_lone_surrogate_is_refused_or_replaced(text: str) -> None:
    for read in (loads, loads_exact):
        with pytest.raises(JsonError, match="lone surrogate"):
            read(text)
        assert "\ufffd" in dumps(read(text, replace_surrogates=True)).decode()


def test_a_pair_of_surrogates_is_a_character() -> None:
    for text in ('"\\ud83d\\ude00"', '["\\uD83D\\uDE00","\\\\ud800"]'):
        assert loads(text) == loads_exact(text) == json.loads(text)


def test_names_that_become_equal_keep_the_last_value() -> None:
    text = '{"\\ud800":1,"\\udfff":2}'
    assert loads_exact(text, replace_surrogates=True) == {"\ufffd": 2}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_exact_printer_refuses_what_json_lacks(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps_exact([value])


def test_printing_is_compact_and_utf8() -> None:
    value = {"a": [1, "é\n"], "b": {}, "c": [], "d": None}
    expected = '{"a":[1,"é\\n"],"b":{},"c":[],"d":null}'.encode()
    assert dumps(value) == dumps_exact(value) == expected
