"""Makes today's contract the one that later changes are compared with (`make release`).

Refuses a contract that breaks the former baseline, unless --breaking says that this is meant.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tomllib
from pathlib import Path

from tools.guards import BASELINE, DESCRIPTORS, SURFACE, breaking, surface

ROOT = Path(__file__).resolve().parent.parent


def version_of(pyproject: str) -> str:
    project = tomllib.loads((ROOT / pyproject).read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def faults() -> list[str]:
    """What today's contract breaks; a baseline that is not there yet cannot be broken."""
    found: list[str] = []
    if (ROOT / BASELINE / DESCRIPTORS).exists():
        found += breaking(ROOT)
    if (ROOT / BASELINE / SURFACE).exists():
        found += surface(ROOT)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--breaking", action="store_true", help="a breaking change is meant")
    meant: bool = parser.parse_args().breaking
    broken = faults()
    if broken:
        print(*broken, sep="\n")
        if not meant:
            print("nothing released: this breaks clients (make release BREAKING=1 if it is meant)")
            return 1
    (ROOT / BASELINE).mkdir(parents=True, exist_ok=True)
    for name in (DESCRIPTORS, SURFACE):
        shutil.copyfile(ROOT / "gen" / name, ROOT / BASELINE / name)
        print(f"{BASELINE / name} is written")
    gateway, contract = version_of("pyproject.toml"), version_of("proto/packaging/pyproject.toml")
    print(
        f"versions are {gateway} (pyproject.toml) and {contract} (proto/packaging/pyproject.toml).",
        "Left to do: raise both, run `make gen`, write CHANGELOG.md, commit, tag.",
        sep="\n",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
