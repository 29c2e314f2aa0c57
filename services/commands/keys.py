"""`tetrad keys new NAME`."""

from __future__ import annotations

import argparse
import sys

from services import auth


def new(args: argparse.Namespace) -> int:
    """Print a new key, and the entry for the configuration that holds only its hash."""
    try:
        key, digest = auth.new_key(args.name)
    except ValueError as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return 2
    print(f"key (shown once, kept nowhere): {key}")
    print("for the configuration, under auth.keys:")
    print(f'  - {{name: {args.name}, sha256: "{digest}"}}')
    return 0
