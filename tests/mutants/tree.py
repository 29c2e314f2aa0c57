"""A copy of the tree to plant faults in: what git lists, as it stands in the working tree now.

The environment is linked, not copied; the copy's modules win over it by PYTHONPATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LINKED = (".venv", ".venv-gen", "build")
_FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s:]+::[^\s\[]+(?:\[.*?\](?= - |$))?)", re.MULTILINE)
_PLUGIN = "pytest_asyncio.plugin"
"""The only one that tests here need: importing all takes longer than most tests."""

_TIMEOUT = 300.0
"""Seconds for a file's tests; each test has 60 s of its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of pytest ended. `failed` are node ids; `broken` says why nothing was proved.

    `hung`: it was ended, since it had not after its time.
    """

    failed: frozenset[str]
    broken: str = ""
    hung: bool = False

    def struck(self, node: str) -> bool:
        """Whether that test, or a case of it, failed."""
        return any(one == node or one.startswith(f"{node}[") for one in self.failed)


class Tree:
    """One copy, to be used by one thread at a time."""

    def __init__(self, source: Path, root: Path) -> None:
        self.root = root
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=source,
            capture_output=True,
            check=True,
        )
        for name in filter(None, map(os.fsdecode, listing.stdout.split(b"\0"))):
            if (source / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, root / name)
        for name in _LINKED:
            if (source / name).exists():
                (root / name).symlink_to(source / name)

    @contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        """The file with that text, until the block is left."""
        path = self.root / file
        before = path.read_bytes()
        try:
            self._put(path, text.encode())
            yield
        finally:
            self._put(path, before)

    def run(self, tests: tuple[str, ...], seconds: float = _TIMEOUT) -> Outcome:
        """Runs tests by their node ids, for so long at most."""
        given = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_")}
        paths = os.pathsep.join((str(self.root), str(self.root / "gen")))
        plain = {"PYTHONPATH": paths, "COLUMNS": "1000", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        options = ("-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-p", _PLUGIN)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=self.root,
                env=given | plain,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(frozenset(), f"the tests took longer than {seconds:g} s", hung=True)
        if done.returncode not in (0, 1):
            last = [line for line in done.stdout.splitlines() if line.strip()][-3:]
            return Outcome(frozenset(), f"pytest ended with {done.returncode}: {' | '.join(last)}")
        failed = frozenset(_FAILED.findall(done.stdout))
        if done.returncode == 1 and not failed:
            return Outcome(failed, "pytest failed and named no test")
        return Outcome(failed)

    @staticmethod
    def _put(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        # Bytecode is matched by size and second: that of the text before may look right.
        for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            stale.unlink()
