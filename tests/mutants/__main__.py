"""python -m tests.mutants [--list] [GUARANTEE or part of a name ...]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.mutants.runner import report
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="plants faults, runs tests")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("words", nargs="*", metavar="WORD", help="a guarantee, or part of a name")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if mutant.chosen(options.words)]
    if not mutants:
        parser.error("no mutant is called that, nor is any of that guarantee")
    if options.list:
        for mutant in mutants:
            print(f"{mutant.guarantee:9}  {mutant.name}: {mutant.why}")
        return 0
    return report(mutants, ROOT)


if __name__ == "__main__":
    sys.exit(main())
