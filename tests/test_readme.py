"""Every fenced block of README.md is run, as it stands but for addresses and the program's path.

A block that no test here runs fails the first test.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.process import ROOT, Program
from tests.lib.tetrad import FREE, LISTENS

README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
SAMPLE_WORDS = "welcome to the demonstration"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)]

# What tells a block: its language, and a pattern that no other block has. Each is run by a test.
KNOWN: dict[str, tuple[str, str]] = {
    "make run": ("sh", r"\Amake run\n\Z"),
    "make test": ("sh", r"\Amake test\n\Z"),
    "curl chat": ("sh", r"\Acurl .*/v1/chat/completions"),
    "curl embeddings": ("sh", r"\Acurl .*/v1/embeddings"),
    "curl transcriptions": ("sh", r"\Acurl .*/v1/audio/transcriptions"),
    "curl rerank": ("sh", r"\Acurl .*/v1/rerank"),
    "openai": ("python", r"\Afrom openai import"),
    "commands": ("sh", r"\A\.venv/bin/tetrad chat "),
    "grpc": ("python", r"\Aimport grpc\n"),
    "grpcurl": ("sh", r"\Agrpcurl "),
    "configuration": ("yaml", r"\Amodels:"),
    "check": ("sh", r"\A\.venv/bin/tetrad check "),
    "serve": ("sh", r"\A\.venv/bin/tetrad serve --config "),
    "serve upstream": ("sh", r"\A\.venv/bin/tetrad serve --upstream "),
}


def block(name: str) -> str:
    """The text of a known block."""
    language, pattern = KNOWN[name]
    (found,) = [b for b in BLOCKS if b.language == language and re.search(pattern, b.text)]
    return found.text


def test_every_block_is_one_that_a_test_runs() -> None:
    """And every test's block is there."""
    named = {name: [b for b in BLOCKS if b.text == block(name)] for name in KNOWN}
    assert [b for b in BLOCKS if not any(b in blocks for blocks in named.values())] == []
    here = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in KNOWN if here.count(f'"{name}"') < 2] == []
    assert len(BLOCKS) == README.count("\n```") // 2


# The demo, started by what `make run` does.


@dataclass(frozen=True)
class Demo:
    """The demo on free ports."""

    grpc: str
    rest: str

    def placed(self, text: str) -> str:
        """A block's text with the demo's addresses and this environment's programs."""
        text = text.replace("127.0.0.1:50051", self.grpc).replace("127.0.0.1:8080", self.rest)
        return ours(text)


def ours(text: str) -> str:
    """A block's text with `.venv/bin/` as the folder that these tests run from."""
    return text.replace(".venv/bin/", f"{BIN}/")


def dry(target: str, **variables: str) -> str:
    """The last command that make would run for a target."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    given = [f"{name}={value}" for name, value in variables.items()]
    planned = subprocess.run(
        ["make", "--dry-run", f"PYTHON={sys.executable}", target, *given],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    return planned.stdout.replace("\\\n", " ").strip().splitlines()[-1]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """What `make run` starts once all is set up: its own command line, with free ports."""
    target = block("make run").removeprefix("make ").strip()
    command = dry(target, ARGS=" ".join(FREE))
    assert re.search(r"\.venv/bin/tetrad +demo", command), command
    with Program("sh", "-c", ours(command)) as program:
        listens = program.wait_for(LISTENS, 40)
        yield Demo(listens[1], listens[2].removeprefix("http://"))
        assert program.end() == 0


def run(command: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> str:
    """What a shell prints for a command that must succeed and be silent on standard error."""
    paths = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with Program("sh", "-e", "-c", command, env={**paths, **(env or {})}, cwd=cwd) as program:
        code = program.wait(40)
        assert (code, program.stderr) == (0, []), program.output
        return "\n".join(program.stdout)


def curl(command: str) -> str:
    """What curl prints; where there is no curl, its arguments are read here."""
    if shutil.which("curl"):
        return run(command.replace("curl ", "curl -sS --fail-with-body ", 1))
    words = iter(shlex.split(command.replace("\\\n", " "))[1:])
    url, headers, fields, files, body = "", {}, {}, {}, None
    for word in words:
        match word:
            case "-N":
                continue
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words)
            case "-F":
                name, _, value = next(words).partition("=")
                if value.startswith("@"):
                    files[name] = (Path(value[1:]).name, (ROOT / value[1:]).read_bytes())
                else:
                    fields[name] = value
            case _:
                url = word
    answer = httpx.post(url, headers=headers, content=body, data=fields, files=files, timeout=40)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_make_test_runs_the_tests() -> None:
    target = block("make test").removeprefix("make ").strip()
    command = dry(target, ARGS="--collect-only -q tests/test_house.py")
    assert "tests/test_house.py" in run(ours(command))
    assert "tests/interop" in command  # foreign programs are left out


def test_a_chat_by_curl_is_streamed_to_its_end(demo: Demo) -> None:
    printed = curl(demo.placed(block("curl chat")))
    *events, done = [line for line in printed.splitlines() if line.startswith("data: ")]
    assert done == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    text = "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )
    assert "your work" in text
    assert len(events) > 3


def test_vectors_by_curl_tell_related_texts(demo: Demo) -> None:
    text = block("curl embeddings")
    other = text.replace("a boat at the quay", "the tax return of last year")
    assert other != text
    related, unrelated = (likeness(curl(demo.placed(one))) for one in (text, other))
    assert related > unrelated + 0.1


def likeness(answer: str) -> float:
    """The cosine of the two vectors of an answer."""
    one, two = (item["embedding"] for item in json.loads(answer)["data"])
    length = math.sqrt(sum(a * a for a in one) * sum(b * b for b in two))
    return float(sum(a * b for a, b in zip(one, two, strict=True)) / length)


def test_a_transcript_by_curl_has_the_sample_s_words(demo: Demo) -> None:
    answer = json.loads(curl(demo.placed(block("curl transcriptions"))))
    assert SAMPLE_WORDS in answer["text"]


def test_a_reranking_by_curl_puts_the_fruit_first(demo: Demo) -> None:
    text = block("curl rerank")
    answer = json.loads(curl(demo.placed(text)))
    body = json.loads(re.findall(r"-d '(.*)'", text)[0])
    best = body["documents"][answer["results"][0]["index"]]
    assert best == "ripe apples and pears"


def python(text: str, *roots: str) -> str:
    """What a script prints; warnings are errors in it."""
    with Program(
        "python", "-W", "error", "-c", text, env={"PYTHONPATH": os.pathsep.join(roots)}
    ) as program:
        code = program.wait(40)
        assert (code, program.stderr) == (0, []), program.output
        return program.output


def test_the_openai_sdk_s_script_chats_and_transcribes(demo: Demo) -> None:
    printed = python(demo.placed(block("openai")))
    assert "ELIZA" in printed
    assert SAMPLE_WORDS in printed


def test_the_grpc_script_needs_nothing_but_the_contract(demo: Demo) -> None:
    text = block("grpc")
    imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.M))
    assert imported == {"grpc", "tetrad"}
    printed = python(demo.placed(text), str(ROOT / "gen"))
    assert "ELIZA" in printed


def test_the_commands_answer_one_after_the_other(demo: Demo) -> None:
    text = demo.placed(block("commands"))
    commands = text.strip().splitlines()
    assert [command.split()[1] for command in commands] == ["chat", "embed", "rerank", "transcribe"]
    chat, embed, rerank, transcribe = (
        run(command, {"TETRAD_ADDRESS": demo.grpc}) for command in commands
    )
    assert "your work" in chat
    assert len(json.loads(embed)) > 10
    assert rerank.splitlines()[0].endswith("ripe apples and pears")
    assert SAMPLE_WORDS in transcribe


def test_grpcurl_finds_the_contract_by_reflection(demo: Demo) -> None:
    text = block("grpcurl")
    answer = json.loads(run(demo.placed(text)))
    best = answer["results"][0]
    assert best["index"] == 1
    assert answer["model"] == "wordllama-rerank"


# In front of your servers.

Fakes = dict[str, FakeUpstream]


@pytest_asyncio.fixture
async def servers() -> AsyncIterator[Fakes]:
    """A fake for each provider of the block, with the model that it names, by its URL."""
    async with AsyncExitStack() as stack:
        made: Fakes = {}
        for model in yaml.safe_load(block("configuration"))["models"]:
            (provider,) = model["providers"]
            up = await stack.enter_async_context(FakeUpstream())
            name = provider["model_name"]
            match provider["type"], model["type"]:
                case "vllm", "text-generation":
                    profiles.vllm(up, model=name)
                case "tei", "text-embeddings-inference":
                    profiles.tei(up, model=name)
                case "whisper", "automatic-speech-recognition":
                    profiles.etalab(up, model=name)
                case "tei", "text-classification":
                    profiles.tei(up, kind="reranker", model=name)
                case other:
                    raise AssertionError(f"no fake for {other}")
            made[provider["url"]] = up
        yield made


def placed(text: str, servers: Fakes) -> str:
    """A text with the fakes' addresses in place of the block's."""
    for url, fake in servers.items():
        text = text.replace(url, fake.url)
    return text


async def until_listening(program: Program) -> httpx.AsyncClient:
    listens = await program.line(LISTENS, 40)
    return httpx.AsyncClient(base_url=listens[2], timeout=40)


async def test_the_configuration_is_good_and_serves_its_four_models(
    servers: Fakes, tmp_path: Path
) -> None:
    text = placed(block("configuration"), servers)
    addresses = 'grpc: {address: "127.0.0.1:0"}\nhttp: {address: "127.0.0.1:0"}\n'
    (tmp_path / "tetrad.yaml").write_text(text + addresses)
    async with Program("sh", "-c", ours(block("check")), cwd=tmp_path) as checked:
        assert await checked.exit(30) == 0
        assert checked.stdout == ["tetrad.yaml: good; 4 models, 4 providers"]
    async with Program("sh", "-c", "exec " + ours(block("serve")), cwd=tmp_path) as program:
        async with await until_listening(program) as rest:
            await assert_answers(rest, "guillaumetell-7b", "whisper-large-v3-turbo")
            await assert_answers(rest, "chat", "speech")
            listed = (await rest.get("/v1/models")).json()["data"]
            assert {one["id"] for one in listed if one["ready"]} == {
                model["name"] for model in yaml.safe_load(text)["models"]
            }
        assert await program.stop() == 0


async def assert_answers(rest: httpx.AsyncClient, chat: str, speech: str) -> None:
    """Each of the four operations is answered."""
    hi: Any = [{"role": "user", "content": "hi"}]
    for answer in (
        await rest.post("/v1/chat/completions", json={"model": chat, "messages": hi}),
        await rest.post("/v1/embeddings", json={"model": "embeddings", "input": "quay"}),
        await rest.post("/v1/audio/transcriptions", data={"model": speech}, files={"file": b"x"}),
        await rest.post("/v1/rerank", json={"model": "rerank", "query": "q", "documents": ["a"]}),
    ):
        assert answer.status_code == 200, answer.text


async def test_a_server_is_served_without_a_configuration(servers: Fakes, tmp_path: Path) -> None:
    (url,) = re.findall(r"--upstream (\S+)", block("serve upstream"))
    assert url in servers, "the block's server is the embeddings server of the configuration"
    command = placed(ours(block("serve upstream")), servers).strip() + " " + " ".join(FREE)
    async with Program("sh", "-c", f"exec {command}", cwd=tmp_path) as program:
        async with await until_listening(program) as rest:
            (listed,) = (await rest.get("/v1/models")).json()["data"]
            assert listed["id"] == "intfloat/multilingual-e5-large"
            answer = await rest.post("/v1/embeddings", json={"input": "quay"})
            assert answer.status_code == 200
        assert await program.stop() == 0
