"""Which Tetrad this is."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """As it was installed, "0" in a checkout that was not."""
    try:
        return metadata.version("tetrad")
    except metadata.PackageNotFoundError:
        return "0"
