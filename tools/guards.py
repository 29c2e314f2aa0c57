"""The guards of the contract: buf's lint, buf's breaking rules, the listing of the JSON surface.

Works on a copy of the repository as well (--root), which is how the tests see a guard fail: it
needs proto/, gen/, buf.yaml and build/include there. A missing baseline is a failure, not a pass.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

BUF = Path(sys.executable).parent / "buf"
BASELINE = Path("proto", "baseline")
DESCRIPTORS = "tetrad.binpb"
SURFACE = "json_surface.txt"

Guard = Callable[[Path], list[str]]


def buf(root: Path, *arguments: str) -> list[str]:
    """What buf complains of, one line per fault; none when it is content."""
    done = subprocess.run(
        [BUF, *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return []
    return done.stdout.splitlines() or [f"buf {arguments[0]} ended with {done.returncode}"]


def missing(root: Path, name: str) -> list[str]:
    """One line if this baseline is not there."""
    if (root / BASELINE / name).is_file():
        return []
    return [f"{BASELINE / name} is missing; `make release` writes it"]


def lint(root: Path) -> list[str]:
    """Style and comments of our protos; Google's are excepted in buf.yaml."""
    return buf(root, "lint")


def breaking(root: Path) -> list[str]:
    """What clients generated from the baseline would trip over."""
    against = str(BASELINE / DESCRIPTORS)
    return missing(root, DESCRIPTORS) or buf(root, "breaking", "proto", "--against", against)


def surface(root: Path) -> list[str]:
    """Lines of the baseline's JSON surface that are gone or changed; new lines are welcome."""
    lacking = missing(root, SURFACE)
    if lacking:
        return lacking
    before = (root / BASELINE / SURFACE).read_text(encoding="utf-8").splitlines()
    now = set((root / "gen" / SURFACE).read_text(encoding="utf-8").splitlines())
    return [f"gone from the JSON surface: {line}" for line in before if line not in now]


GUARDS: dict[str, Guard] = {"lint": lint, "breaking": breaking, "surface": surface}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("guards", nargs="*", metavar="GUARD", help=" ".join(GUARDS) + " (all)")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    options = parser.parse_args()
    unknown = set(options.guards) - GUARDS.keys()
    if unknown:
        parser.error(f"unknown guard: {', '.join(sorted(unknown))}")
    failed = False
    for name in options.guards or GUARDS:
        faults = GUARDS[name](options.root)
        failed = failed or bool(faults)
        print(*faults, f"{name}: {'FAILED' if faults else 'ok'}", sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
