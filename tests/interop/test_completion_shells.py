"""zsh and fish complete with the scripts of `tetrad completion`; bash in tests/program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.terminal import Terminal


def _needs(program: str) -> pytest.MarkDecorator:
    why = f"needs {program}: apt-get install {program}"
    return pytest.mark.skipif(shutil.which(program) is None, reason=why)


pytestmark = pytest.mark.ci

LINES = [
    ("tetrad ser", "tetrad serve "),
    ("tetrad serve --gr", "tetrad serve --grpc "),
    ("tetrad serve --require text-e", "tetrad serve --require text-embeddings-inference "),
    ("tetrad serve --config demo --ht", "tetrad serve --config demo --http "),
    ("tetrad keys ne", "tetrad keys new "),
    ("tetrad codec enc", "tetrad codec encode "),
    ("tetrad codec encode ChatReq", "tetrad codec encode ChatRequest "),
    ("tetrad transcribe speech", "tetrad transcribe speech.wav "),
    ("tetrad completion fi", "tetrad completion fish "),
]
"""What is typed, and what stands there after the Tab key."""


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One with a script for each shell, and a sound file."""
    for shell in ("zsh", "fish"):
        run = subprocess.run(
            [sys.executable, "-m", "services", "completion", shell],
            capture_output=True,
            check=True,
            timeout=30,
        )
        (tmp_path / f"script.{shell}").write_bytes(run.stdout)
    (tmp_path / "speech.wav").touch()
    return tmp_path


@_needs("zsh")
def test_zsh_completes(folder: Path) -> None:
    home = {"HOME": str(folder), "ZDOTDIR": str(folder), "PS1": "> ", "TERM": "dumb"}
    with Terminal("zsh", "-f", "-i", env=home, cwd=folder, columns=200) as shell:
        shell.send(b"autoload -U compinit; compinit -u -D; . ./script.zsh; echo re''ady\n")
        shell.until(rb"ready\r\n")
        for typed, whole in LINES:
            shell.send(f"{typed}\t".encode())
            shell.until(f"{whole}$".encode())
            shell.send(b"\x15")  # Ctrl-U: the line is empty again
        shell.send(b"exit\n")
        assert shell.wait() == 0


@_needs("fish")
def test_fish_completes(folder: Path) -> None:
    ask = 'echo "= "(complete -C "{}" | string split -f1 \\t)'
    asked = "\n".join(ask.format(typed) for typed, _ in LINES)
    run = subprocess.run(
        ["fish", "--no-config", "-c", f"source script.fish\n{asked}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "LANG": "C.UTF-8"},
    )
    assert run.stderr == ""
    offered = [line.removeprefix("= ").strip() for line in run.stdout.splitlines()]
    assert offered == [whole.split()[-1] for _, whole in LINES]


@_needs("fish")
def test_fish_offers_commands_with_their_help_and_no_files(folder: Path) -> None:
    run = subprocess.run(
        ["fish", "--no-config", "-c", 'source script.fish; complete -C "tetrad "'],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
    )
    lines = run.stdout.splitlines()
    assert "serve\tstart the gateway" in lines
    assert not any("speech.wav" in line for line in lines)
