"""ELIZA's rules, and the values that it makes for schemas: pure, the same for the same words."""

from __future__ import annotations

from typing import Any

import pytest

from demo import eliza
from demo.eliza import INTRODUCTION, Turn, answers, mirror, pieces
from demo.eliza_phrases import OTHERWISE, PHRASES
from demo.eliza_rules import TOPICS
from demo.schemas import Hints, SchemaError, example


def user(text: str) -> Turn:
    return Turn("user", text)


def told(*lines: str, seed: int = 0) -> str:
    """The answer to the last line, without the introduction; lines take turns."""
    turns = [Turn(("user", "assistant")[i % 2], line) for i, line in enumerate(lines)]
    return answers(turns, seed)[0].removeprefix(f"{INTRODUCTION}\n\n")


def test_the_first_answer_says_what_it_is() -> None:
    first = answers([user("Hello")])[0]
    assert first.split("\n")[0] == INTRODUCTION
    assert "not a language model" in INTRODUCTION


def test_later_answers_do_not_say_it_again() -> None:
    later = answers([user("Hello"), Turn("assistant", "Hello."), user("I am sad")])[0]
    assert INTRODUCTION not in later


@pytest.mark.parametrize(
    ("said", "mirrored"),
    [
        ("my dog saw me", "your dog saw you"),
        ("I am tired of your rules", "you are tired of my rules"),
        ("you are like my mother", "I am like your mother"),
        ("I was there with you", "you were there with me"),
        ("what you said to yourself", "what I said to myself"),
        ("you hate me", "I hate you"),
        ("mine, not yours", "yours not mine"),
    ],
)
def test_words_come_back_from_the_other_side(said: str, mirrored: str) -> None:
    assert mirror(said) == mirrored


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("I feel stuck with my work", "your work"),
        ("I can't trust you", "trust me"),
        ("I want a new bicycle", "bicycle"),
        ("I think that you're like my father", "father"),
        ("I\u2019m so very tired", "tired"),
        ("hello, I feel lonely", "lonely"),
    ],
)
def test_an_answer_takes_up_what_was_said(said: str, part: str) -> None:
    assert any(part in one for one in answers([user(said)], count=6))


def test_topics_come_before_ways_of_saying_things() -> None:
    assert "cook" in " ".join(answers([user("I like dinner with cake")], count=3))


def test_a_feeling_counts_more_than_a_greeting() -> None:
    assert "sad" in told("Good morning! I have been feeling sad.", seed=1)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("What is 6 times 7?", "That makes 42."),
        ("10 / 4", "That makes 2.5."),
        ("what is 2+2", "That makes 4."),
        ("1 / 0", "By nothing one cannot divide"),
        ("count to 5", "1 2 3 4 5"),
        ("please count from 3 to 6", "3 4 5 6"),
        ("count to 999999", "That is too far for me"),
        ("Say hello, world!", "hello, world!"),
        ('please repeat after me: "one\ntwo"', "one\ntwo"),
    ],
)
def test_what_can_be_worked_out_is(said: str, answer: str) -> None:
    assert told(said).startswith(answer)


@pytest.mark.parametrize("said", ["2024-01-05 was fine", "I work 24/7", "10-20 people came"])
def test_not_every_pair_of_numbers_is_a_sum(said: str) -> None:
    assert not told(said).startswith("That makes")


def test_it_steps_back_when_somebody_needs_help() -> None:
    assert "emergency number" in told("Sometimes I want to die, and I love music")


def test_it_remembers_a_name_and_what_was_spoken_of() -> None:
    assert "Anna" in told("my name is anna", "Pleased to meet you.", "hello again")
    earlier = ["my garden is wild", "What does that mean to you?", "hmm, the blue one"]
    assert any("your garden" in told(*earlier, seed=seed) for seed in range(20))


def test_the_same_words_get_the_same_answer() -> None:
    turns = [user("I feel stuck")]
    assert answers(turns, 3) == answers(list(turns), 3)


def test_another_seed_may_get_another_answer() -> None:
    assert len({told("I feel stuck", seed=seed) for seed in range(30)}) > 1


def test_several_answers_differ() -> None:
    assert len(set(answers([user("I feel stuck")], count=3))) == 3


def test_more_answers_than_a_rule_has_are_given_all_the_same() -> None:
    assert len(answers([user("who are you?")], count=50)) == 50


def test_it_does_not_repeat_itself_while_it_has_something_else_to_say() -> None:
    lines = ["I feel stuck"]
    for _ in range(4):
        lines += [told(*lines), "I feel stuck"]
    assert len(set(lines[1::2])) == 4


def test_a_tool_s_answer_is_passed_on() -> None:
    turns = [user("weather?"), Turn("assistant", ""), Turn("tool", "22 degrees")]
    assert answers(turns)[0] == "The tool says: 22 degrees"


def test_silence_is_an_answer_and_a_picture_is_not_looked_at() -> None:
    assert "on your mind" in told("  ") or "behind it" in told("  ")
    assert "only read text" in answers([Turn("user", "", other=True)])[0]
    both = answers([Turn("user", "I love my cat", other=True)])[0]
    assert both.endswith("only read text.)")


@pytest.mark.parametrize(
    "odd", ["{0} {raw} {name} {x}", "\u00e9\u4e2d\U0001f600", "\n" * 50, "a, " * 5000]
)
def test_odd_text_is_answered(odd: str) -> None:
    assert told(odd)


def test_without_a_word_of_the_user_there_is_an_answer() -> None:
    assert answers([Turn("system", "Be kind.")])[0]


def test_every_rule_has_an_answer_for_what_it_matches() -> None:
    for rule in (*TOPICS, *PHRASES):
        groups = rule.pattern.groups
        free = [one for one in rule.answers if not any(f"{{{n}}}" in one for n in range(3))]
        assert groups or free, rule.pattern.pattern
    assert OTHERWISE


@pytest.mark.parametrize("text", ["one", " two  words\n\nand more ", "", "   ", "a\tb"])
def test_pieces_make_up_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert len(pieces(text)) == max(eliza.count_words(text), 1 if text else 0)


# Values for schemas.

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit"],
}


def test_a_tool_s_arguments_use_what_was_said() -> None:
    hints = Hints.of("What is the weather in Paris for the next 3 days?")
    assert example(CITY, hints) == {"city": "Paris", "unit": "celsius", "days": 3}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "maximum": -5}, -5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, 1),
        ({"type": "integer", "multipleOf": 10, "minimum": 11}, 20),
        ({"type": "integer", "minimum": 9007199254740993}, 9007199254740993),
        ({"type": "number", "minimum": 0.25, "maximum": 0.75}, 0.75),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "boolean"]}, True),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"enum": [None, 2]}, None),
        ({"enum": [None, 2], "type": "integer"}, 2),
        ({"enum": [True, 1], "type": "integer"}, 1),
        ({"type": "string", "format": "date"}, "2001-02-03"),
        ({"type": "string", "minLength": 9}, "example.."),
        ({"type": "string", "maxLength": 3}, "exa"),
        ({"type": "string", "pattern": "^[A-Z]$"}, "A"),
        ({"type": "string", "pattern": "^[0-9]{5}$"}, "12345"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 0}, []),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False}, [1, 2]),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"oneOf": [{"not": {}}, {"const": 4}]}, 4),
        ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]}, 3),
        ({"properties": {"a": {"const": 1}}}, {"a": 1}),
        ({"type": "object", "required": ["b"]}, {"b": "example"}),
        ({}, "example"),
        (True, "example"),
        (None, "example"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"const": 8}}}, 8),
    ],
)
def test_a_value_fits_its_schema(schema: Any, value: Any) -> None:
    made = example(schema)
    assert made == value
    assert type(made) is type(value)


TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}


def test_a_schema_that_holds_itself_comes_to_an_end() -> None:
    made = example(TREE)
    depth = 0
    while "next" in made:
        made, depth = made["next"], depth + 1
    assert made == {"value": 1}
    assert 0 < depth < 100


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "widget"},
        {"type": "string", "pattern": "^zz{40}$"},
        {"type": "string", "pattern": "("},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 3, "uniqueItems": True},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "multipleOf": 0},
        {"type": "number", "minimum": 1e308, "multipleOf": 1e-300},
        {"type": "integer", "minimum": "three"},
        {"enum": []},
        {"anyOf": [{"type": "widget"}]},
        {"not": {"type": "string"}},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"allOf": 5},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {
            "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 2}},
            "$ref": "#/$defs/a",
        },
        "string",
        False,
    ],
)
def test_where_no_value_is_found_none_is_made_up(schema: Any) -> None:
    with pytest.raises(SchemaError):
        example(schema)
