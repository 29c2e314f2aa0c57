"""`python -m bench [SECTION ...]`: runs sections and prints their tables.

A section is a module with `run(rounds) -> iterable of Table`; what it measures says its docstring.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Iterable, Mapping
from typing import cast

from bench.table import Table

SECTIONS: Mapping[str, str] = {
    "codec": "bench.codec",
    "transport": "bench.transport",
    "vectors": "bench.vectors",
    "cancel": "bench.cancel",
    "calls": "bench.calls",
    "routing": "bench.routing",
    "idle": "bench.idle",
}
"""By name, in the order in which they run."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="CPU microseconds per operation")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (%(default)s)")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    print(f"Python {platform.python_version()}, {platform.machine()}; medians of", end=" ")
    print(f"{options.rounds} interleaved rounds; us = CPU microseconds per operation")
    for name in options.sections or SECTIONS:
        module = importlib.import_module(SECTIONS[name])
        for table in cast(Iterable[Table], module.run(options.rounds)):
            print("", *table.lines(), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
