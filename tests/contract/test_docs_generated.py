"""Pages of docs/ that are made from the code are what it says now, and say all of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.config import ConfigError, parse
from services.error_table import LIMITS_SAY, TABLE, Reason
from tools import docs, docs_config
from tools.docs_advice import ADVICE
from tools.docs_text import blocks

PLACES = docs_config.places()
EXAMPLES = blocks("examples.md")


def test_the_pages_are_what_the_code_says() -> None:
    assert docs.stale() == [], "run `make docs`"


def test_a_page_that_is_behind_the_code_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    assert docs.main(["--check"]) == 1
    assert "docs/errors.md" in capsys.readouterr().err
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0


def test_there_is_an_example_for_every_section_and_none_without_one() -> None:
    assert {place.path or "." for place in PLACES} == set(EXAMPLES)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path or "whole")
def test_every_key_of_a_section_stands_in_its_example(place: docs_config.Place) -> None:
    found = found_at(yaml.safe_load(EXAMPLES[place.path or "."]), place.path)
    assert set(place.model.model_fields) <= found


def found_at(value: Any, path: str) -> set[str]:
    """The keys that stand at a section's path, in any of its entries."""
    for step in filter(None, path.split(".")):
        name = step.removesuffix("[]")
        if isinstance(value, list):
            value = [one[name] for one in value if name in one]
            value = [item for one in value for item in (one if isinstance(one, list) else [one])]
        else:
            value = value[name]
    entries = value if isinstance(value, list) else [value]
    return {key for entry in entries for key in entry}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path or "whole")
def test_every_key_says_what_it_does_and_in_which_unit(place: docs_config.Place) -> None:
    for name, field in place.model.model_fields.items():
        assert docs_config.says(field), f"{place.path}.{name} has no description"
        docs_config.unit(place.model, name)  # KeyError for a number without a unit


LEAST = 'models: [{name: m, type: text-generation, providers: [{url: "http://127.0.0.1:9"}]}]\n'
FAULTS = {
    'workers: "8"': "found text",
    'relay: "true"': "expected true or false",
    "worker: 8": "workers",
    "owned: 8": "known here",
    "metadata: {pass_in: ['${NOBODY}']}": "not set",
}


@pytest.mark.parametrize("line", FAULTS)
def test_what_the_page_calls_a_fault_is_one(line: str) -> None:
    with pytest.raises(ConfigError, match=FAULTS[line]):
        parse(f"required_types: []\n{LEAST}{line}\n", "test.yaml", {})


def test_variables_stand_anywhere_in_a_value_and_times_have_decimals() -> None:
    text = f"{LEAST}required_types: []\nmetadata: {{pass_in: ['${{A}}-${{B:-c}}']}}\n"
    config = parse(text + "timeouts: {total: 1.5}\n", "test.yaml", {"A": "x"})
    assert (config.metadata.pass_in, config.timeouts.total) == (("x-c",), 1.5)


def test_every_reason_and_every_limit_is_on_the_page_of_errors() -> None:
    page = (docs.DOCS / "errors.md").read_text(encoding="utf-8")
    assert set(ADVICE) == set(Reason) == set(TABLE)
    rows = re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
    assert rows == [reason.value for reason in TABLE] * 2  # its codes, then its meaning
    assert all(f"| `{name}` | {says} |" in page for name, says in LIMITS_SAY.items())
