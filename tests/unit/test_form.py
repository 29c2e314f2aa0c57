"""services/form.py: the fields of the recorded forms and the JSON that they spell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.form import MAX_DEPTH, FormError, Kinds, fields_to_json, json_to_fields
from tests.lib import form, recordings

RECORDED = recordings.all(mode="multipart")

KINDS: Kinds = {
    "chunking_strategy": "object",
    "chunking_strategy[prefix_padding_ms]": "integer",
    "chunking_strategy[silence_duration_ms]": "integer",
    "chunking_strategy[threshold]": "number",
    "include": "strings",
    "keywords": "strings",
    "known_speaker_names": "strings",
    "known_speaker_references": "strings",
    "languages": "strings",
    "prompt": "string",
    "stream": "boolean",
    "temperature": "number",
    "timestamp_granularities": "strings",
    "seed": "integer",
    "top_p": "number",
    "vllm_xargs": "json",
}


def one(text: str, kind: Any) -> Any:
    return fields_to_json([("x", text)], {"x": kind})["x"]


def test_every_member_of_a_transcription_is_read_as_its_type() -> None:
    parts = recordings.get("transcriptions/openai-all-members-request.json").parts()
    fields = [(part.name, part.text) for part in parts if part.filename is None]
    assert fields_to_json(fields, KINDS) == {
        "chunking_strategy": {
            "type": "server_vad",
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
            "threshold": 0.5,
        },
        "include": ["logprobs"],
        "keywords": ["halyard", "sheet"],
        "known_speaker_names": ["pilot"],
        "known_speaker_references": [
            "data:audio/wav;base64,UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQAAAAA="
        ],
        "language": "fr",
        "languages": ["fr", "br"],
        "model": "gpt-4o-transcribe",
        "prompt": "Harbour radio.",
        "response_format": "json",
        "stream": False,
        "temperature": 0.0,
        "timestamp_granularities": ["word", "segment"],
    }


@pytest.mark.parametrize("kinds", [KINDS, {}], ids=["typed", "untyped"])
@pytest.mark.parametrize("recording", RECORDED, ids=lambda one: one.file)
def test_a_recorded_form_comes_back_as_it_was(
    recording: recordings.Recording, kinds: Kinds
) -> None:
    parts = [part for part in recording.parts() if part.filename is None]
    fields = [(part.name, part.text) for part in parts]
    back = json_to_fields(fields_to_json(fields, kinds), kinds)
    assert form.differences(parts, [form.Part(name, text.encode()) for name, text in back]) == []
    assert [name for name, _ in back] == [name for name, _ in fields]
    if not kinds:
        assert back == fields


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("x", "1")], {"x": "1"}),
        ([("x[]", "1")], {"x": ["1"]}),
        ([("x", "1"), ("y", "2"), ("x", "3")], {"x": ["1", "3"], "y": "2"}),
        ([("x", "1"), ("x[]", "2"), ("x", "3")], {"x": ["1", "2", "3"]}),
        ([("x[a]", "1"), ("x[b]", "2")], {"x": {"a": "1", "b": "2"}}),
        ([("x[a][]", "1"), ("x[a][]", "2")], {"x": {"a": ["1", "2"]}}),
        ([("x[a]", "1"), ("x[a]", "2")], {"x": {"a": ["1", "2"]}}),
        ([("x[a][b][c]", "1"), ("x[a][b][d]", "2")], {"x": {"a": {"b": {"c": "1", "d": "2"}}}}),
        (
            [("x[][a]", "1"), ("x[][b]", "2"), ("x[][a]", "3")],
            {"x": [{"a": "1", "b": "2"}, {"a": "3"}]},
        ),
        ([("x[][]", "1"), ("x[][]", "2")], {"x": [["1", "2"]]}),
        ([("x[0]", "1")], {"x": {"0": "1"}}),
        ([("x", ""), ("", "1")], {"x": "", "": "1"}),
        ([("[a]", "1"), ("x[", "2"), ("x[a]y", "3")], {"[a]": "1", "x[": "2", "x[a]y": "3"}),
        ([("x[[a]]", "1"), ("x]", "2")], {"x[[a]]": "1", "x]": "2"}),
        ([], {}),
    ],
)
def test_brackets_and_repetition_make_the_structure(
    fields: list[tuple[str, str]], value: dict[str, Any]
) -> None:
    assert fields_to_json(fields) == value


def test_members_stand_in_the_order_of_their_first_field() -> None:
    value = fields_to_json([("b[y]", "1"), ("a", "2"), ("b[x]", "3")])
    assert json.dumps(value) == '{"b": {"y": "1", "x": "3"}, "a": "2"}'


@pytest.mark.parametrize(
    "names",
    [("x", "x[a]"), ("x[a]", "x"), ("x[]", "x[a]"), ("x[a]", "x[]"), ("x[a][b]", "x[a]")],
)
def test_a_name_that_is_an_object_and_something_else_is_an_error(names: tuple[str, ...]) -> None:
    with pytest.raises(FormError, match="'x' is both an object and something else"):
        fields_to_json([(name, "1") for name in names])


def test_a_name_nested_too_deep_is_an_error() -> None:
    at_the_limit = "x" + "[a]" * (MAX_DEPTH - 1)
    fields_to_json([(at_the_limit, "1"), (at_the_limit[:-3] + "[b]", "1")])
    with pytest.raises(FormError, match="deeper than 64"):
        fields_to_json([(at_the_limit + "[a]", "1")])


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("integer", "42", 42),
        ("integer", "-1", -1),
        ("integer", "9007199254740993", 9007199254740993),
        ("integer", "99999999999999999999999", 99999999999999999999999),
        ("number", "0.0", 0.0),
        ("number", "1", 1),
        ("number", "-2.5e-3", -0.0025),
        ("boolean", "true", True),
        ("boolean", "True", True),
        ("boolean", "1", True),
        ("boolean", "false", False),
        ("boolean", "False", False),
        ("boolean", "0", False),
        ("string", "5", "5"),
        ("strings", "fr", ["fr"]),
        ("object", '{"type": "server_vad"}', {"type": "server_vad"}),
        ("json", '{"a": [1, 2.5, "x"]}', {"a": [1, 2.5, "x"]}),
        ("json", "[9007199254740993]", [9007199254740993]),
        ("json", "5", 5),
        ("json", "null", None),
    ],
)
def test_a_text_becomes_what_its_kind_says(kind: Any, text: str, value: Any) -> None:
    found = one(text, kind)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("integer", text) for text in ["", "x", "5.0", "1e3", "007", " 5", "+5", "٣", "1_000"]),
        ("integer", "9" * 5000),
        *(("number", text) for text in ["", "x", "NaN", "Infinity", "1e400", ".5", "5.", "0x1"]),
        *(("boolean", text) for text in ["", "yes", "TRUE", "2"]),
        *(("object", text) for text in ["auto", "", "5", "[1]", '{"a": 1', '"a"']),
        *(("json", text) for text in ["", "auto", "{", "NaN", "[NaN]", "[1e400]", '"a"']),
        ("json", "[" * 100_000),
    ],
)
def test_a_text_that_does_not_fit_its_kind_stays_a_string(kind: Any, text: str) -> None:
    assert one(text, kind) == text


def test_the_items_of_a_list_have_its_kind() -> None:
    fields = [("n[]", "1"), ("n[]", "x"), ("o[][n]", "1"), ("s", "1"), ("s", "2"), ("b[a][]", "1")]
    kinds: Kinds = {"n": "integer", "o[n]": "number", "s": "strings", "b[a]": "boolean"}
    assert fields_to_json(fields, kinds) == {
        "n": [1, "x"],
        "o": [{"n": 1}],
        "s": ["1", "2"],
        "b": {"a": [True]},
    }


def test_an_object_is_written_as_the_official_sdk_writes_it() -> None:
    value = {
        "model": "whisper-1",
        "temperature": 0.0,
        "stream": True,
        "languages": ["fr", "br"],
        "chunking_strategy": {"type": "server_vad", "threshold": 0.5, "a": [1], "b": None},
        "x": {"a": [{"b": 1e-07}, {"b": False}]},
        "prompt": "",
        "language": None,
        "include": [],
        "metadata": {},
        "seed": 9007199254740993,
    }
    assert json_to_fields(value) == [
        ("model", "whisper-1"),
        ("temperature", "0.0"),
        ("stream", "true"),
        ("languages[]", "fr"),
        ("languages[]", "br"),
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.5"),
        ("chunking_strategy[a][]", "1"),
        ("x[a][][b]", "1e-07"),
        ("x[a][][b]", "false"),
        ("prompt", ""),
        ("seed", "9007199254740993"),
    ]


def test_a_member_that_is_json_is_written_as_json() -> None:
    kinds: Kinds = {"x": "json", "y[z]": "json"}
    value = {"x": {"a": [1, None]}, "y": {"z": ["é"]}}
    assert json_to_fields(value, kinds) == [("x", '{"a": [1, null]}'), ("y[z]", '["\\u00e9"]')]
    assert fields_to_json(json_to_fields(value, kinds), kinds) == value
    quoted = {"x": '"a"'}
    assert fields_to_json(json_to_fields(quoted, kinds), kinds) == quoted


def test_a_deep_value_is_written_without_a_crash() -> None:
    value: Any = "x"
    for _ in range(512):
        value = {"a": [value]}
    ((name, text),) = json_to_fields(value)
    assert name.endswith("[a][]")
    assert text == "x"


KEYS = st.text("abcé_ .", min_size=1, max_size=4)
LEAVES = st.text(max_size=6)
VALUES = st.recursive(
    LEAVES | st.lists(LEAVES, min_size=1, max_size=3),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_an_object_of_texts_survives_the_form(value: dict[str, Any]) -> None:
    back = fields_to_json(json_to_fields(value))
    assert json.dumps(back) == json.dumps(value)


@settings(deadline=None)
@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_numbers_and_booleans_survive_the_form(whole: int, real: float, truth: bool) -> None:
    kinds: Kinds = {"i": "integer", "n": "number", "b": "boolean", "x[n]": "number"}
    value = {"i": whole, "n": real, "b": truth, "x": {"n": [real, whole]}}
    assert fields_to_json(json_to_fields(value), kinds) == value


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab[]", max_size=8), LEAVES), max_size=6))
def test_any_fields_are_read_or_refused_by_name(fields: list[tuple[str, str]]) -> None:
    try:
        value = fields_to_json(fields)
    except FormError:
        return
    assert len(json_to_fields(value)) == len(fields)
