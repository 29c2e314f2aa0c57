"""A parser's commands, options and arguments as data, for the completion scripts.

What a value may be is known from the parser (choices, files) or stands in VALUES.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from services import codec

VALUES: Final = {
    "--require": (
        *("text-generation", "text-embeddings-inference", "automatic-speech-recognition"),
        *("text-classification", "none"),
    ),
    "--format": ("json", "text", "srt", "vtt", "verbose_json"),
    "--by": (
        *("key", "model", "endpoint", "day", "month", "method", "face", "outcome", "source"),
        *("key,model", "day,model", "month,key"),
    ),
}
"""What the parser takes as any text. Others may be given, too."""

MESSAGES: Final = "MESSAGE"
"""The argument that is the name of a message of the contract."""


class Value(NamedTuple):
    """What comes after an option, or as an argument: a file, one of these words, or anything."""

    name: str
    file: bool = False
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option with all its spellings; `value` None for a flag."""

    names: tuple[str, ...]
    says: str
    value: Value | None
    repeats: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command by the words that lead to it, () being the program itself. `children`: name and
    help of the commands under it."""

    path: tuple[str, ...]
    options: tuple[Option, ...]
    arguments: tuple[tuple[Value, bool], ...]
    children: tuple[tuple[str, str], ...]


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Command]:
    """The program and all that is under it, parents first."""
    options, arguments = [], []
    below: argparse._SubParsersAction[argparse.ArgumentParser] | None = None
    for action in parser._actions:  # argparse shows them nowhere else
        if isinstance(action, argparse._SubParsersAction):
            below = action
        elif action.option_strings:
            flag = action.nargs == 0
            repeats = isinstance(action, argparse._AppendAction)
            says = _says(action, parser)
            names = tuple(action.option_strings)
            options.append(Option(names, says, None if flag else _value(action), repeats))
        else:
            arguments.append((_value(action), action.nargs in ("*", "+")))
    helps = {one.dest: one.help or "" for one in below._choices_actions} if below else {}
    yield Command(path, tuple(options), tuple(arguments), tuple(helps.items()))
    for name, child in below.choices.items() if below else ():
        yield from commands(child, (*path, name))


def _says(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    text = (action.help or "") % {"prog": parser.prog, "default": action.default}
    return " ".join(text.split())


def _value(action: argparse.Action) -> Value:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    words = tuple(map(str, action.choices or ()))
    for option in action.option_strings:
        words = words or VALUES.get(option, ())
    if name == MESSAGES:
        words = tuple(codec.message_names())
    return Value(name, "FILE" in name or getattr(action.type, "__name__", "") == "Path", words)
