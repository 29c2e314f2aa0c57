"""docs/lossless.md: every block of it is run, and what it names is there.

A block `json MESSAGE` is a body: it must come back equal, or be refused as the `text refused` block
after it says. `json extra [of PLACE]` and `json FIELD of PLACE` are the text in a field of the
message; `json prints` is what the shell block before it prints.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from services import codec
from tests.contract.test_add_a_field import FIELDS
from tests.lib.canonical import assert_same

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "lossless.md"
FENCE = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILLED = re.compile(r"(\w+)(?: extra=(.*))?")
STEP = re.compile(r"(\w+)(?:\[(\d+)\])?")


class Block(NamedTuple):
    """A fenced block: its language, what else its first line says, its text, its line."""

    language: str
    about: str
    text: str
    line: int


def blocks() -> Iterator[Block]:
    """The blocks of the page in their order."""
    page = PAGE.read_text(encoding="utf-8")
    for match in FENCE.finditer(page):
        yield Block(match[1], match[2], match[3].strip(), page[: match.start()].count("\n") + 1)


def pairs(language: str) -> list[tuple[Block, Block | None]]:
    """The blocks of a language, each with the one after it."""
    found = [*blocks()]
    return [
        (block, after)
        for block, after in zip(found, [*found[1:], None], strict=True)
        if block.language == language
    ]


def is_body(block: Block) -> bool:
    return block.about.partition(" ")[0] in codec.message_names()


BODIES = [(one, after) for one, after in pairs("json") if is_body(one)]
SHELL = pairs("sh")


def through(name: str, text: str, extra: str | None) -> tuple[Any, bytes]:
    """The message that a text is, with an `extra` of the caller's, and what it prints again."""
    message: Any = codec.message_class(name).FromString(codec.encode(name, text.encode()))
    if extra is not None:
        message.extra.json = extra
    return message, codec.decode(name, message.SerializeToString())


def at(message: Any, place: str) -> Any:
    """What stands at a place such as choices[0].delta."""
    for step in place.split("."):
        match = STEP.fullmatch(step)
        assert match is not None
        message = getattr(message, match[1])
        message = message if match[2] is None else message[int(match[2])]
    return message


def named(block: Block) -> str:
    return f"line {block.line}"


@pytest.mark.parametrize(("body", "after"), BODIES, ids=lambda one: one and named(one))
def test_a_body_comes_back_or_is_refused_as_the_page_says(body: Block, after: Block | None) -> None:
    filled = FILLED.fullmatch(body.about)
    assert filled is not None
    name, extra = filled[1], filled[2]
    if after is not None and after.language == "text":
        assert after.about == "refused"
        with pytest.raises(ValueError, match=re.escape(after.text)) as refusal:
            through(name, body.text, extra)
        assert isinstance(refusal.value, codec.CodecError | codec.JsonError)
        assert str(refusal.value) == after.text
        return
    message, printed = through(name, body.text, extra)
    assert_same(body.text, printed, {}, name)
    if after is not None and after.language == "json" and not is_body(after):
        field, _, place = after.about.partition(" of ")
        holder = at(message, place) if place else message
        assert getattr(holder, field).json == after.text


@pytest.mark.parametrize(("block", "after"), SHELL, ids=lambda one: one and named(one))
def test_a_command_runs_as_the_page_says(block: Block, after: Block | None) -> None:
    if after is not None and after.about == "prints":
        program = f"{shlex.quote(sys.executable)} -m services"
        done = _run(["bash", "-ec", block.text.replace(".venv/bin/tetrad", program)])
        assert done.stdout.strip() == after.text
        return
    for line in block.text.splitlines():
        words = shlex.split(line)
        assert words[0] == "make"
        _run(["make", "--dry-run", *words[1:]])


def test_every_file_that_it_names_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:tests|services|proto|gen)/[\w./]*\w/?", page))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_field_that_it_adds_is_the_one_that_is_tested() -> None:
    ((block, _),) = pairs("proto")
    assert block.text in {addition.strip() for _, _, addition in FIELDS}


def test_no_block_is_left_out() -> None:
    run = {one for pair in (*BODIES, *SHELL, *pairs("proto")) for one in pair if one is not None}
    assert run == {*blocks()}
    assert len(BODIES) > 10


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
