"""docs/providers.md is done: its edits and files are made in a copy, where its test must pass.

A line that the page changes and that is no longer there fails, so the page keeps up with the code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COPIED = ("gen", "services", "gateway_http", "tests/lib", "tests/fakes")
JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info", "swagger-ui")
SERVED = """
import asyncio, json, sys
from tests.fakes.upstream import FakeUpstream, Json
from tests.lib.gateway import gateway

async def main():
    async with FakeUpstream() as upstream:
        upstream.on("POST", "/api/rank", Json({"scores": [0.1, 0.9], "tokens": 3}))
        listed = {"object": "list", "data": [{"id": "lumen-small-v1", "owned_by": "lumen-labs"}]}
        upstream.on("GET", "/v1/models", Json(listed))
        upstream.on("GET", "/*", Json({}, 404))
        told = []
        for kind in ("lumen", "auto"):
            text = sys.argv[1].replace("http://127.0.0.1:9000", upstream.url)
            text = text.replace("type: lumen", f"type: {kind}") + "required_types: []\\n"
            async with gateway(text) as gate:
                asked = {"query": "q", "documents": ["a", "b"]}
                answer = await gate.rest.post("/v1/rerank", json=asked)
                told.append([answer.json(), answer.headers["x-tetrad-endpoint"].split()[0]])
        print(json.dumps(told))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code in which all that the page says is done."""
    folder = tmp_path_factory.mktemp("provider")
    for part in COPIED:
        shutil.copytree(ROOT / part, folder / part, ignore=JUNK)
    (folder / "tests" / "unit").mkdir()
    for path in ("pyproject.toml", "tests/__init__.py", "tests/unit/__init__.py"):
        shutil.copy(ROOT / path, folder / path)
    swagger = Path("gateway_http/docs/swagger-ui/README.md")
    (folder / swagger).parent.mkdir()
    shutil.copy(ROOT / swagger, folder / swagger)
    for language, place, text in BLOCK.findall(PAGE):
        if language == "diff":
            edit(folder / place, text)
        elif language == "python":
            (folder / place).write_text(text, encoding="utf-8")
    return folder


def edit(file: Path, diff: str) -> None:
    """Replaces the lines that a diff takes out, and its context, by those that it puts in."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in "- ")
    new = "".join(line[1:] for line in lines if line[0] in "+ ")
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file.name} has no such place:\n{old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def run(copy: Path, *arguments: str) -> str:
    """What Python prints with the copy's code, and nothing of ours."""
    env = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'gen'}"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_s_test_passes(copy: Path) -> None:
    (test,) = re.findall(r'^make test ARGS="(\S+)"$', PAGE, re.MULTILINE)
    printed = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", test)
    assert re.search(r"^5 passed", printed, re.MULTILINE)


def test_a_gateway_serves_it_by_name_and_recognises_it(copy: Path) -> None:
    (config,) = [text for language, about, text in BLOCK.findall(PAGE) if about == "lumen"]
    by_name, by_itself = json.loads(run(copy, "-c", SERVED, config))
    assert by_name == by_itself
    answer, kind = by_name
    assert kind == "lumen"
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["model"] == "lumen-small-v1"


def test_its_files_are_clean(copy: Path) -> None:
    files = [place for language, place, _ in BLOCK.findall(PAGE) if language == "python"]
    run(copy, "-m", "ruff", "check", *files)
    run(copy, "-m", "ruff", "format", "--check", *files)


def test_the_dialect_s_members_are_those_of_the_page() -> None:
    from services.upstream.openai import Dialect

    (table,) = re.findall(r"^\| `Dialect` .*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    firsts = [line.split("|")[1] for line in table.splitlines()[2:] if line]
    named = {name for first in firsts for name in re.findall(r"`(\w+)", first)}
    assert named == set(Dialect.__dataclass_fields__)
