"""The written parts of the pages that are made from the code: files of docs_pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).resolve().parent / "docs_pages"
_PLACE = re.compile(r"@(\w+)@")
_BLOCK = re.compile(r"^```yaml (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def filled(name: str, **values: str) -> str:
    """The text of a file with each @name@ replaced. KeyError for a name without a value."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return _PLACE.sub(lambda place: values[place[1]], text)


def blocks(name: str) -> Mapping[str, str]:
    """The fenced blocks of a file, by the word after their language."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return {block[1]: block[2] for block in _BLOCK.finditer(text)}
