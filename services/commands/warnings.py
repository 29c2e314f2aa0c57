"""What a configuration says that is not used: told once, by `serve` and by `check`."""

from __future__ import annotations

import sys

from services.config import Config


def print_all(config: Config) -> None:
    """One line a warning, on standard error."""
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
