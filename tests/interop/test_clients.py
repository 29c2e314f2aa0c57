"""The programs in clients/, built with their languages' tools, on the cases of tests/conformance.

A client whose toolchain is not installed is left out, and said to be.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conformance.upstream import CASES, Upstream
from tests.fakes.upstream import FakeUpstream
from tests.lib.metric_lines import total
from tests.lib.process import Program
from tests.lib.refusing import refusing_port
from tests.lib.tetrad import Served, done, serving

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "proto" / "tetrad" / "v1" / "service_config.json"
NAMES = [case["name"] for file in CASES for case in json.loads(file.read_text())]

_BUILD = 300.0
_RUN = 60.0


@dataclass(frozen=True)
class Client:
    """How a client is built and run, in its folder; `needs` are programs."""

    language: str
    needs: tuple[str, ...]
    build: tuple[tuple[str | Path, ...], ...]
    hello: tuple[str | Path, ...]
    conformance: tuple[str | Path, ...]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return ROOT / "clients" / self.language

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if shutil.which(name) is None]


CLIENTS = (
    Client(
        "python",
        (),
        (),
        (sys.executable, "hello.py"),
        (sys.executable, "conformance.py"),
        {"PYTHONPATH": str(ROOT / "gen")},
    ),
    Client(
        "go",
        ("go",),
        (("go", "generate", "."), ("go", "build", "-o", "bin/", "./hello", "./conformance")),
        ("bin/hello",),
        ("bin/conformance",),
    ),
    Client(
        "typescript",
        ("node", "npm"),
        (("npm", "ci", "--no-audit", "--no-fund"), ("npm", "run", "build")),
        ("node", "dist/src/hello.js"),
        ("node", "dist/src/conformance.js"),
    ),
)


@dataclass(frozen=True)
class Scene:
    """A gateway, and what stands behind it."""

    served: Served
    upstream: Upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    with refusing_port() as port:
        async with FakeUpstream() as fake:
            upstream = Upstream(fake)
            config = upstream.configure(tmp_path_factory.mktemp("clients"), port)
            async with serving("--config", config) as served:
                yield Scene(served, upstream)


def _those_there() -> Iterator[object]:
    for client in CLIENTS:
        why = f"clients/{client.language} needs {', '.join(client.missing)}"
        left_out = pytest.mark.skipif(bool(client.missing), reason=why)
        yield pytest.param(client, id=client.language, marks=left_out)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=_those_there())
async def client(request: pytest.FixtureRequest) -> Client:
    """One that is built."""
    built: Client = request.param
    for step in built.build:
        told = await done(Program(*step, cwd=built.folder, env=built.env), _BUILD)
        assert told.code == 0, told.stdout + told.stderr
    return built


pytestmark = [pytest.mark.ci, pytest.mark.asyncio(loop_scope="module")]


async def test_the_example_of_its_readme_chats(client: Client, scene: Scene) -> None:
    asked = (scene.served.gate.address, "echo", "ships at quay four")
    told = await done(Program(*client.hello, *asked, cwd=client.folder, env=client.env), _RUN)
    assert (told.code, told.stdout, told.stderr) == (0, "ships at quay four", "")


async def _calls(scene: Scene, model: str) -> float:
    """How many calls of a model the gateway has counted."""
    page = await scene.served.gate.rest.get("/metrics")
    return total(page.content, "tetrad_calls_total", gen_ai_request_model=model)


async def test_every_case_comes_out_as_expected(client: Client, scene: Scene) -> None:
    """G6, G21 among them: who cancels, or whose deadline passes, is gone at the upstream too."""
    upstream = scene.upstream
    upstream.asked.clear()
    upstream.left.clear()
    before = await _calls(scene, "gone")
    arguments = (scene.served.gate.address, CONFIG, *CASES)
    program = Program(*client.conformance, *arguments, cwd=client.folder, env=client.env)
    told = await done(program, _RUN)
    lines = told.stdout.splitlines()
    assert sorted(lines) == sorted(f"ok {name}" for name in NAMES), told.stderr
    assert (told.code, told.stderr) == (0, "")
    # The shipped service config allows four attempts.
    assert (await _calls(scene, "gone") - before, upstream.asked["down"]) == (4, 1)
    await upstream.fake.until(
        lambda: upstream.left["silent"] == 2 and upstream.left["endless"] == 1
    )


async def test_a_case_that_does_not_come_out_fails_the_program(
    client: Client, scene: Scene, tmp_path: Path
) -> None:
    """Each part of an expectation is looked at."""
    good = {case["name"]: case for file in CASES for case in json.loads(file.read_text())}
    unknown = good["an unknown model is NOT_FOUND, with its reason"]
    spoilt = {
        "status": "OK",
        "message": "no",
        "responses": [{}],
        "headers": {"x-request-id": "no"},
        "trailers": {"x-request-id": "no"},
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo"}],
    }
    cases = [
        {**unknown, "name": member, "expect": {**unknown["expect"], member: value}}
        for member, value in spoilt.items()
    ]
    chat = good["a chat is answered"]
    pattern = {"status": "OK", "responses": [{"choices": [{"index": 1}]}]}
    cases.append({**chat, "name": "a number", "expect": pattern})
    file = tmp_path / "spoilt.json"
    file.write_text(json.dumps(cases))
    arguments = (scene.served.gate.address, CONFIG, file)
    told = await done(
        Program(*client.conformance, *arguments, cwd=client.folder, env=client.env), _RUN
    )
    assert told.code == 1
    outcomes = [line.split(":")[0] for line in told.stdout.splitlines()]
    assert outcomes == [f"FAILED {case['name']}" for case in cases]
