"""`tetrad completion`: bash really completes with the script; zsh and fish in tests/interop."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from services import cli
from services.commands import completion, completion_commands
from services.config import ModelType
from services.ledger import totals

EVERY = [*completion_commands.commands(cli._parser())]
ASK = """
reply() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _tetrad
    echo "${COMPREPLY[*]}"
}
"""


@pytest.fixture(scope="module")
def script() -> str:
    """What the program prints for bash."""
    run = subprocess.run(
        [sys.executable, "-m", "services", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert run.stderr == ""
    return run.stdout


def replies(script: str, lines: list[list[str]], cwd: Path | None = None) -> list[list[str]]:
    """What bash offers for the last word of each line."""
    asked = "\n".join(f"reply tetrad {shlex.join(words)}" for words in lines)
    run = subprocess.run(
        ["bash", "--norc", "-uc", f"{script}\n{ASK}\n{asked}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=cwd,
    )
    assert run.stderr == ""
    return [line.split() for line in run.stdout.splitlines()]


def test_bash_completes_every_command_and_every_option(script: str) -> None:
    commands = replies(script, [[*one.path, ""] for one in EVERY if one.children])
    assert commands == [[name for name, _ in one.children] for one in EVERY if one.children]
    options = replies(script, [[*one.path, "-"] for one in EVERY])
    assert options == [[name for o in one.options for name in o.names] for one in EVERY]
    assert len(EVERY) > 12
    assert {"serve", "top", "completion"} <= {*commands[0]}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["ser"], "serve"),
        (["serve", "--gr"], "--grpc"),
        (["serve", "--require", "text-e"], "text-embeddings-inference"),
        (["serve", "--require", "=", "text-e"], "text-embeddings-inference"),
        (["serve", "--require", "="], "text-generation text-embeddings-inference "
         "automatic-speech-recognition text-classification none"),
        (["serve", "--require", "none", "--wo"], "--workers"),
        (["serve", "--require", "=", "none", "--wo"], "--workers"),
        (["serve", "--config", "demo", "--ht"], "--http"),
        (["serve", "--grpc", ""], ""),
        (["keys", "n"], "new"),
        (["keys", "new", ""], ""),
        (["codec", "enc"], "encode"),
        (["codec", "encode", "ChatReq"], "ChatRequest"),
        (["codec", "encode", "ChatRequest", ""], ""),
        (["completion", ""], "bash zsh fish"),
        (["chat", "--model", "m", ""], ""),
        (["chat", "keys", "n"], ""),
        (["transcribe", "--format", "s"], "srt"),
        (["nothing", "--"], "--help --version"),
    ],
)  # fmt: skip
def test_bash_completes_what_can_stand_there(script: str, line: list[str], offered: str) -> None:
    assert replies(script, [line]) == [offered.split()]


def test_bash_completes_files_where_a_file_is_meant(script: str, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").touch()
    (tmp_path / "star*").touch()
    lines = [
        ["transcribe", "spe"],
        ["transcribe", "--language", "en", "spe"],
        ["transcribe", "--language", "=", "en", "spe"],
        ["serve", "--config", "sta"],
        ["embed", "--bulk", "spe"],
        ["chat", "spe"],
    ]
    speech = ["speech.wav"]
    assert replies(script, lines, tmp_path) == [speech, speech, speech, ["star*"], speech, []]


def test_each_shell_s_script_has_every_option_and_its_help() -> None:
    scripts = {shell: completion.script(shell, cli._parser()) for shell in completion.SHELLS}
    options = [option for one in EVERY for option in one.options]
    for option in options:
        for name in option.names:
            assert name in scripts["bash"]
            assert f"{name}[" in scripts["zsh"]
            assert f"-l {name[2:]}" in scripts["fish"] or f"-s {name[1:]}" in scripts["fish"]
    assert "a server; repeatable" in scripts["zsh"]
    assert "'this client\\'s certificate (PEM)'" in scripts["fish"]


def test_words_that_the_parser_does_not_know_are_what_the_program_takes() -> None:
    assert completion_commands.VALUES["--require"] == (*get_args(ModelType), "none")
    groups = [name for name in completion_commands.VALUES["--by"] if "," not in name]
    assert sorted(groups) == sorted(totals.GROUPS)
    spelt = {name for one in EVERY for option in one.options for name in option.names}
    assert completion_commands.VALUES.keys() <= spelt


@pytest.mark.parametrize("line", [["--help"], ["top", "--help"], ["chat", "--help"], ["--version"]])
def test_help_loads_nothing_that_takes_time(line: list[str]) -> None:
    code = (
        "import sys, contextlib\n"
        "from services import cli\n"
        f"with contextlib.suppress(SystemExit): cli.main({line!r})\n"
        "print([name for name in ('grpc', 'pydantic', 'asyncio', 'ssl') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stdout.splitlines()[-1] == "[]"
