"""docs/quickstart.md, done from the top: each block is run, against fakes of its two servers.

The page's addresses are replaced by free ones, and nothing else. A block that is not run fails.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.ports import free_port
from tests.lib.process import ROOT, Program
from tests.lib.tetrad import LISTENS, until

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
"""Its one example is asked for here, where a gateway runs."""


@dataclass
class Reader:
    """Who does what the page says, in a folder, with a gateway that the page had them start."""

    folder: Path
    places: dict[str, str]
    done: list[str] = field(default_factory=list)

    def block(self, language: str, begins: str) -> str:
        """The one block that begins so, with our addresses and programs; it counts as done."""
        text: str
        (text,) = [t for kind, t in BLOCKS if kind == language and t.startswith(begins)]
        self.done.append(text)
        for old, new in self.places.items():
            text = text.replace(old, new)
        return text

    def read(self, name: str) -> str:
        """A file of the folder."""
        return (self.folder / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """A file of the folder, saved."""
        (self.folder / name).write_text(text, encoding="utf-8")

    async def run(self, *command: str, **env: str) -> str:
        """What a program prints that must end well."""
        async with Program(*command, cwd=self.folder, env=env) as program:
            assert await program.exit(40) == 0, program.output
            return "\n".join(program.stdout)

    async def tetrad(self, begins: str, **env: str) -> str:
        """What a command of the page prints."""
        words = shlex.split(self.block("sh", f".venv/bin/tetrad {begins}"))
        return await self.run("python", "-m", "services", *words[1:], **env)

    async def python(self, begins: str) -> str:
        """What a script of the page prints."""
        return await self.run("python", "-c", self.block("python", begins))

    async def curl(self, begins: str, **headers: str) -> httpx.Response:
        """The answer to a call of the page."""
        command = self.block("sh", begins)
        (url,) = re.findall(r"^curl (\S+)", command)
        (body,) = re.findall(r"-d '(.*)'", command)
        headers["content-type"] = "application/json"
        async with httpx.AsyncClient(timeout=40) as client:
            return await client.post(url, content=body, headers=headers)


@pytest_asyncio.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    """A reader with the page's two servers at hand."""
    async with FakeUpstream() as chat, FakeUpstream() as embed:
        profiles.vllm(chat, model="AgentPublic/guillaumetell-7b")
        profiles.tei(embed, model="intfloat/multilingual-e5-large")
        grpc, rest = free_port(), free_port()
        places = {
            "http://127.0.0.1:8000": chat.url,
            "http://127.0.0.1:8001": embed.url,
            "127.0.0.1:50051": f"127.0.0.1:{grpc}",
            "127.0.0.1:8080": f"127.0.0.1:{rest}",
        }
        yield Reader(tmp_path, places)


async def test_the_page_leads_from_nothing_to_calls_over_both_faces(reader: Reader) -> None:
    for target in ("make setup\n", "make run\n"):
        await reader.run(
            "make", "-C", str(ROOT), "--dry-run", reader.block("sh", target).split()[1]
        )
    grpc, rest = list(reader.places.values())[2:]
    reader.write("tetrad.yaml", reader.block("yaml", "models:"))
    checked = await reader.tetrad("check")
    assert "tetrad.yaml: good; 2 models, 2 providers" in checked
    serve = shlex.split(reader.block("sh", ".venv/bin/tetrad serve"))[1:]
    ours = ("--grpc", grpc, "--http", rest)
    async with Program("python", "-m", "services", *serve, *ours, cwd=reader.folder) as gateway:
        await gateway.line(LISTENS, 40)
        answer = (await reader.curl("curl http://127.0.0.1:8080/v1/chat")).json()
        words = answer["choices"][0]["message"]["content"]
        assert words
        vectors = (await reader.curl("curl http://127.0.0.1:8080/v1/emb")).json()["data"]
        assert len(vectors) == 2
        assert await reader.python("from openai import") == words
        env = {"TETRAD_ADDRESS": grpc}
        assert (await reader.tetrad("chat", **env)).strip()
        rows = (await reader.tetrad("embed", **env)).splitlines()
        assert [len(json.loads(row)) for row in rows] == [len(vectors[0]["embedding"])] * 2
        first = json.loads((await reader.python("import grpc")).strip())
        assert first == pytest.approx(vectors[0]["embedding"][:3])
        await the_example_of_the_page_of_errors(rest)
        await a_key_is_made_and_asked_for(reader)
        assert await gateway.stop() == 0
    assert sorted(reader.done) == sorted(text for _, text in BLOCKS)


async def the_example_of_the_page_of_errors(rest: str) -> None:
    """What docs/errors.md shows is what a caller gets."""
    (shown,) = re.findall(r"^```json prints\n(.*?)^```$", ERRORS, re.MULTILINE | re.DOTALL)
    asked = {"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}
    async with httpx.AsyncClient(base_url=f"http://{rest}") as client:
        answer = await client.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 404
    assert answer.json() == json.loads(shown)


async def a_key_is_made_and_asked_for(reader: Reader) -> None:
    """The section on keys: the running gateway takes the key when the file is saved."""
    printed = await reader.tetrad("keys new")
    key = re.findall(r"key .*: (\S+)", printed)[0]
    sha256 = re.findall(r'sha256: "?([0-9a-f]{64})', printed)[0]
    section = reader.block("yaml", "auth:")
    (example,) = re.findall(r"sha256: (\w+)", section)
    reader.write("tetrad.yaml", reader.read("tetrad.yaml") + section.replace(example, sha256))
    call = "curl http://127.0.0.1:8080/v1/chat"

    async def taken() -> bool:
        return (await reader.curl(call)).status_code == 401

    await until(taken, 40)
    answer = await reader.curl(call, authorization=f"Bearer {key}")
    assert answer.status_code == 200, answer.text
    reader.done = list(dict.fromkeys(reader.done))
