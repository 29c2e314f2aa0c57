"""One planted fault, as data, and how it is put into a copy of the tree."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


class Misfit(Exception):
    """The mutant does not fit the tree (any more)."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """See the package's docstring. `find` and `replace` are texts of `file`."""

    name: str
    guarantee: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    why: str

    def mutated(self, root: Path) -> str:
        """The text of its file with the fault in it. Raises Misfit."""
        path = root / self.file
        if not path.is_file():
            raise Misfit(f"{self.file} is gone")
        text = path.read_text(encoding="utf-8")
        found = text.count(self.find)
        if found != 1:
            raise Misfit(f"{self.file}: the text to replace occurs {found} times, not once")
        changed = text.replace(self.find, self.replace)
        if changed == text:
            raise Misfit("it changes nothing")
        if path.suffix == ".py":
            try:
                ast.parse(changed)
            except SyntaxError as error:
                raise Misfit(f"{self.file}:{error.lineno}: not Python: {error.msg}") from None
        return changed

    def chosen(self, words: list[str]) -> bool:
        """Whether it is asked for: all are if there are no words."""
        return not words or any(w == self.guarantee or w in self.name for w in words)
