"""Runs mutants two at a time and says of each whether its tests noticed."""

from __future__ import annotations

import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutants.mutant import Misfit, Mutant
from tests.mutants.tree import Outcome, Tree

AT_ONCE = 2

HUNG = 75.0
"""Seconds after which tests that pass without the mutant count as failed with it."""


class State(StrEnum):
    """What became of a mutant; all but KILLED fail the run."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one mutant; `seconds` of its own run."""

    mutant: Mutant
    state: State
    seconds: float = 0.0
    detail: str = ""


class Runner:
    """Holds the copies of the tree while `run` is at work."""

    def __init__(self, source: Path, told: Callable[[str], None] = lambda line: None) -> None:
        self._source = source
        self._told = told
        self._trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()

    def run(self, mutants: Sequence[Mutant]) -> Iterator[Verdict]:
        """The verdicts as they come. The tests are run without any mutant first."""
        with tempfile.TemporaryDirectory(prefix="tetrad-mutants-") as folder:
            for number in range(AT_ONCE):
                root = Path(folder, str(number))
                root.mkdir()
                self._trees.put(Tree(self._source, root))
            with ThreadPoolExecutor(AT_ONCE) as pool:
                files: dict[str, dict[str, None]] = {}
                for node in (node for mutant in mutants for node in mutant.tests):
                    files.setdefault(node.partition("::")[0], {})[node] = None
                unspoilt: dict[str, Outcome] = {}
                for file, outcome in zip(
                    files, pool.map(self._plain, map(tuple, files.values())), strict=True
                ):
                    unspoilt[file] = outcome
                    self._told(f"{len(unspoilt):3}/{len(files)}  unspoilt  {file}")
                work = [pool.submit(self._judge, mutant, unspoilt) for mutant in mutants]
                try:
                    for done in as_completed(work):
                        yield done.result()
                finally:
                    for one in work:
                        one.cancel()

    @contextmanager
    def _tree(self) -> Iterator[Tree]:
        tree = self._trees.get()
        try:
            yield tree
        finally:
            self._trees.put(tree)

    def _plain(self, tests: tuple[str, ...]) -> Outcome:
        with self._tree() as tree:
            return tree.run(tests)

    def _judge(self, mutant: Mutant, unspoilt: dict[str, Outcome]) -> Verdict:
        for node in mutant.tests:
            before = unspoilt[node.partition("::")[0]]
            if before.broken:
                return Verdict(mutant, State.FAULT, 0.0, f"without the mutant: {before.broken}")
            if before.struck(node):
                return Verdict(mutant, State.FAULT, 0.0, f"fails without the mutant: {node}")
        begun = time.monotonic()
        with self._tree() as tree:
            try:
                with tree.changed(mutant.file, mutant.mutated(tree.root)):
                    outcome = tree.run(mutant.tests, HUNG)
            except Misfit as misfit:
                return Verdict(mutant, State.FAULT, 0.0, f"does not apply: {misfit}")
        seconds = time.monotonic() - begun
        if outcome.hung:  # what waits for the mechanism that is gone waits for ever
            return Verdict(mutant, State.KILLED, seconds)
        if outcome.broken:
            return Verdict(mutant, State.FAULT, seconds, outcome.broken)
        passed = [node for node in mutant.tests if not outcome.struck(node)]
        if passed:
            return Verdict(mutant, State.SURVIVED, seconds, f"passes with it: {', '.join(passed)}")
        return Verdict(mutant, State.KILLED, seconds)


def _print(line: str) -> None:
    print(line, flush=True)


def report(mutants: Sequence[Mutant], source: Path) -> int:
    """Runs the mutants and prints a line for each as it is done; the exit code."""
    begun = time.monotonic()
    print(f"{len(mutants)} mutants; first their tests without them ...", flush=True)
    width = max(len(mutant.name) for mutant in mutants)
    bad: list[Verdict] = []
    for number, verdict in enumerate(Runner(source, _print).run(mutants), 1):
        mutant = verdict.mutant
        print(
            f"{number:3}/{len(mutants)}  {verdict.state:8}  {verdict.seconds:5.1f} s"
            f"  {mutant.guarantee:9}  {mutant.name:{width}}  {mutant.why}",
            flush=True,
        )
        if verdict.state is not State.KILLED:
            bad.append(verdict)
            print(f"         {mutant.file}: {verdict.detail}", flush=True)
    seconds = time.monotonic() - begun
    print(f"{len(mutants) - len(bad)} of {len(mutants)} mutants killed in {seconds:.0f} s")
    for verdict in bad:
        print(f"{verdict.state}: {verdict.mutant.name}: {verdict.detail}", file=sys.stderr)
    return 1 if bad else 0
