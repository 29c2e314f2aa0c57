"""Every mutant still fits its file and names tests that exist; and the runner tells them apart.

`make mutants` itself runs them: this only finds those that a change has left behind.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.mutants import tree
from tests.mutants.mutant import Misfit, Mutant
from tests.mutants.runner import Runner, State, Verdict, report
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).resolve().parent.parent.parent

NUMBERED = {f"G{number}" for number in range(1, 43)}
RULES = {
    "REQUIRED", "auth", "bulk", "config", "depth", "details", "enums", "guards", "layers",
    "metadata", "nulls", "relay", "remainder", "routing", "start", "streams", "text", "trailers",
    "usage",
}  # fmt: skip


@cache
def functions(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    found = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in found if isinstance(node, kinds))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_its_file_and_names_tests_that_exist(mutant: Mutant) -> None:
    mutant.mutated(ROOT)
    assert mutant.guarantee in NUMBERED | RULES
    assert mutant.why
    assert mutant.tests
    for node in mutant.tests:
        file, _, name = node.partition("::")
        assert name.partition("[")[0] in functions(file), node


def test_the_cases_that_mutants_name_exist() -> None:
    named = {node for mutant in MUTANTS for node in mutant.tests if "[" in node}
    files = sorted({node.partition("::")[0] for node in named})
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert named - set(collected.stdout.splitlines()) == set()


def test_names_are_unique() -> None:
    assert [name for name, n in Counter(mutant.name for mutant in MUTANTS).items() if n > 1] == []


def test_mutants_are_chosen_by_guarantee_or_by_a_part_of_their_name() -> None:
    (first, *_) = MUTANTS
    assert first.chosen([])
    assert first.chosen([first.guarantee])
    assert first.chosen([first.name[1:-1], "nothing"])
    assert not first.chosen(["nothing"])
    assert not first.chosen([first.guarantee + "0"])


PLANTED = {
    "noticed": ("return a + b", "return a - b", "test_sums", State.KILLED),
    "unnoticed": ("return a * b", "return a", "test_products", State.SURVIVED),
    "half noticed": ("return a + b", "return a - b", "test_sums test_products", State.SURVIVED),
    "twice there": ("return", "return 1 +", "test_sums", State.FAULT),
    "gone": ("return a ** b", "return a", "test_sums", State.FAULT),
    "no Python": ("return a + b", "return a +", "test_sums", State.FAULT),
    "breaks the import": ("def add", "x = y\n\n\ndef add", "test_sums", State.FAULT),
    "failed before": ("return a + b", "return a - b", "test_fails", State.FAULT),
    "names no test": ("return a + b", "return a - b", "test_gone", State.FAULT),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one module and its tests, not committed."""
    tmp_path.joinpath("pyproject.toml").write_text(
        "[tool.pytest.ini_options]\npythonpath = '.'\n"
        "asyncio_default_fixture_loop_scope = 'function'\n"
    )
    tmp_path.joinpath("sums.py").write_text(
        "def add(a, b):\n    return a + b\n\n\ndef times(a, b):\n    return a * b\n"
    )
    tmp_path.joinpath("test_sums.py").write_text(
        "import sums\n\n\ndef test_sums():\n    assert sums.add(2, 3) == 5\n\n\n"
        "def test_products():\n    assert sums.times(2, 1) == 2\n"
    )
    tmp_path.joinpath("test_fails.py").write_text("def test_fails():\n    assert False\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def planted(name: str) -> Mutant:
    find, replace, tests, _ = PLANTED[name]
    files = {"test_fails": "test_fails.py", "test_gone": "test_gone.py"}
    nodes = tuple(f"{files.get(test, 'test_sums.py')}::{test}" for test in tests.split())
    return Mutant(name, "G1", "sums.py", find, replace, nodes, "a wrong sum")


@pytest.mark.timeout(120)
def test_only_a_mutant_that_every_named_test_notices_is_killed(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.glob("*.py")}
    verdicts = {
        verdict.mutant.name: verdict.state
        for verdict in Runner(project).run([planted(name) for name in PLANTED])
    }
    assert verdicts == {name: state for name, (*_, state) in PLANTED.items()}
    assert {path: path.read_bytes() for path in project.glob("*.py")} == before


def test_a_survivor_makes_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = planted("noticed"), planted("unnoticed")
    verdicts = {
        "noticed": Verdict(good, State.KILLED, 1.0),
        "unnoticed": Verdict(bad, State.SURVIVED, 1.0, "passes with it: test_products"),
    }
    monkeypatch.setattr(Runner, "run", lambda self, some: (verdicts[one.name] for one in some))
    assert report([good], ROOT) == 0
    assert report([good, bad], ROOT) == 1
    told = capsys.readouterr()
    assert "1 of 1 mutants killed" in told.out
    assert "1 of 2 mutants killed" in told.out
    assert "SURVIVED: unnoticed: passes with it: test_products" in told.err


def test_a_mutant_that_changes_nothing_is_a_fault(project: Path) -> None:
    same = Mutant("same", "G1", "sums.py", "return a + b", "return a + b", ("x::y",), "nothing")
    with pytest.raises(Misfit):
        same.mutated(project)


def test_a_failed_test_is_read_with_the_case_that_failed() -> None:
    found = tree._FAILED.findall(
        "FAILED a/b.py::test_x[a b-[DONE] c] - assert 1 == 2\nERROR a/b.py::test_y\n"
        "FAILED a/b.py::test_z - E: [1]\n"
    )
    assert found == ["a/b.py::test_x[a b-[DONE] c]", "a/b.py::test_y", "a/b.py::test_z"]
