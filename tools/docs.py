"""The pages of docs/ that are made from the code: `make docs` writes them, `--check` compares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tools import docs_config, docs_errors

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGES: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {"configuration.md": docs_config.page, "errors.md": docs_errors.page}
)
"""Name of each page -> what makes its text."""


def stale() -> list[str]:
    """Names of the pages that are not what the code says now."""
    return [name for name, page in PAGES.items() if _text(name) != page()]


def _text(name: str) -> str:
    file = DOCS / name
    return file.read_text(encoding="utf-8") if file.exists() else ""


def main(arguments: list[str]) -> int:
    """Writes the pages; with --check only tells which ones would change. Returns the exit code."""
    old = stale()
    if arguments == ["--check"]:
        for name in old:
            print(f"docs/{name} is not what the code says: run `make docs`", file=sys.stderr)
        return 1 if old else 0
    for name in old:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"docs/{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
