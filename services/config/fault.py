"""What is wrong with a configuration, and where: one line of text each.

Knows neither YAML nor pydantic. A message never holds a value that may be a secret: `quoted`
is the only way a value gets into one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

Loc = tuple[str | int, ...]
"""Where a value stands: ("models", 0, "name")."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_MAX_QUOTED = 40
_SECRET_NAME = re.compile(r"(sk|tk|pk|rk|hf|gsk|ghp|xoxb)[-_]|[0-9a-f]{32}", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(key|token|bearer|basic)[-_ ]|\S{33}|.*@", re.IGNORECASE)


class Mark(NamedTuple):
    """A position in a file, counted from 1; line 0 is nowhere."""

    line: int
    column: int


NOWHERE = Mark(0, 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, or (as a warning) not used."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [part for part in (place, self.key, self.message) if part]
        return one_line(": ".join(parts) + (f"; {self.hint}" if self.hint else ""))


class ConfigError(Exception):
    """A configuration that cannot be used: every fault found, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.line, fault.column))
        super().__init__("\n".join(map(str, self.faults)))


@dataclass
class Report:
    """Collects the faults and warnings of one file."""

    file: str
    _faults: list[tuple[Loc, Fault]] = field(default_factory=list)
    _warnings: list[Fault] = field(default_factory=list)

    def fault(self, loc: Loc, at: Mark, message: str, hint: str = "", key: str = "") -> None:
        """Add a fault; `key` is the place as the user wrote it, where that differs from `loc`."""
        self._faults.append((loc, self._make(loc, at, message, hint, key)))

    def warn(self, loc: Loc, at: Mark, message: str, hint: str = "", key: str = "") -> None:
        """Add a warning."""
        self._warnings.append(self._make(loc, at, message, hint, key))

    def forget(self, loc: Loc) -> None:
        """Drop the faults below `loc`: it is not used, so nothing in it can be wrong."""
        self._faults = [one for one in self._faults if one[0][: len(loc)] != loc]

    def touches(self, loc: Loc) -> bool:
        """Whether there is a fault at `loc`, above it or below it."""
        return any(one[: len(loc)] == loc[: len(one)] for one, _ in self._faults)

    @property
    def faults(self) -> list[Fault]:
        """Each fault once: what an anchor holds is wrong only where it stands."""
        once: dict[tuple[object, ...], Fault] = {}
        for loc, fault in self._faults:
            where = loc[-1:] if fault.line else loc
            once.setdefault((fault.line, fault.column, where, fault.message), fault)
        return list(once.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings as text, in the order of the file."""
        ordered = sorted(self._warnings, key=lambda fault: (fault.line, fault.column))
        return tuple(map(str, ordered))

    def _make(self, loc: Loc, at: Mark, message: str, hint: str, key: str) -> Fault:
        return Fault(self.file, at.line, at.column, key or key_text(loc), message, hint)


def key_text(loc: Loc) -> str:
    """`models[0].providers[1].url` of ("models", 0, "providers", 1, "url")."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _SECRET_NAME.match(part):
            text = join(text, "'...'")
        else:
            text = join(text, part if _PLAIN_KEY.fullmatch(part) else f"'{part[:_MAX_QUOTED]}'")
    return text


def join(text: str, rest: str) -> str:
    """A place and what follows it: a dot between, except before an index."""
    return f"{text}.{rest}" if text and rest and not rest.startswith("[") else text + rest


def quoted(text: str) -> str:
    """` 'text'` to stand in a message, or nothing where it is long or may be a secret."""
    if len(text) > _MAX_QUOTED or _SECRET_NAME.match(text) or _SECRET_VALUE.match(text):
        return ""
    return f" '{text}'"


def one_line(text: str) -> str:
    """The text with everything that does not print escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
