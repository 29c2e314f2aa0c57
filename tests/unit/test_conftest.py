"""The rules of the tests hold: a test that hangs fails, and a program left running is told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.process import ROOT

TESTS = """
import asyncio, time
import pytest
from tests.lib.process import Program

pytestmark = pytest.mark.timeout(0.2)

async def test_waiting_for_ever():
    await asyncio.Event().wait()

async def test_blocking_the_loop():
    time.sleep(30)

def test_sleeping():
    time.sleep(30)

@pytest.fixture
async def hanging():
    yield
    await asyncio.Event().wait()

async def test_in_a_fixture(hanging):
    pass

@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_on_another_loop():
    await asyncio.Event().wait()

@pytest.mark.timeout(20)
def test_that_leaves_a_program():
    Program("python", "-c", "print('here'); import time; time.sleep(60)").wait_for("here")

@pytest.mark.timeout(20)
async def test_that_is_quick():
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
"""


@pytest.mark.timeout(120)
def test_a_test_that_hangs_fails_and_what_a_test_leaves_running_is_told(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(file)]
    done = subprocess.run(
        [*command, *settings], cwd=ROOT, capture_output=True, text=True, check=False
    )
    told = set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
    assert told == {
        "test_waiting_for_ever",
        "test_blocking_the_loop",
        "test_sleeping",
        "test_in_a_fixture",
        "test_on_another_loop",
    }, done.stdout
    assert done.stdout.count("took longer than 0.2 s") >= len(told)
    assert "await asyncio.Event().wait()" in done.stdout
    assert "programs that the tests left running" in done.stdout
    assert done.returncode == 1
