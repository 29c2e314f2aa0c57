"""Runs the suites with foreign clients and servers (`make test-interop`); says what is left out.

With `ci` as argument only tests marked `ci` run: those whose foreign programs .ci/run installs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = "tests/interop"
WHY = "each needs programs or servers that .ci/run does not install"


def left_out(only: str) -> list[str]:
    """The tests that `-m only` does not run."""
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", SUITE, "-m", f"not {only}", "--collect-only", "-q"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in listing.stdout.splitlines() if line.startswith(SUITE)]


def main() -> int:
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    if not Path(SUITE).is_dir():
        print(f"no interop tests yet: there is no {SUITE}/")
        return 0
    skipped = left_out(only) if only else []
    if skipped:
        print(f"left out with ONLY={only} ({WHY}):", *skipped, sep="\n  ", flush=True)
    marks = ["-m", only] if only else []
    code = pytest.main([SUITE, *marks, "-rs"])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        print(f"no interop tests yet{f' that are marked {only}' if only else ''}")
        return 0
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
