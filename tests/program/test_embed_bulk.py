"""`tetrad embed --bulk`: a file of JSON lines through a running gateway, and again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes import answers, profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.gateway import Gateway, gateway
from tests.lib.tetrad import Done, done, model, tetrad

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "tk-bulk"


@dataclass
class Bench:
    gate: Gateway
    fake: FakeUpstream

    async def embed(self, *arguments: str | Path) -> Done:
        self.fake.forget()
        ours = ("--address", self.gate.address, "--key", KEY)
        return await done(tetrad("embed", *arguments, *ours))

    @property
    def asked(self) -> list[Any]:
        """The inputs that reached the upstream in the last run."""
        bodies = [json.loads(one.body) for one in self.fake.requests if one.method == "POST"]
        return [one for body in bodies for one in answers.inputs(body["input"])]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeUpstream())
        profiles.tei(fake)
        key = {"name": "cli", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
        models = [model("e5", "text-embeddings-inference", "tei", fake.url)]
        config = {"models": models, "auth": {"keys": [key]}, "probes": {"interval": 3600}}
        yield Bench(await stack.enter_async_context(gateway(json.dumps(config))), fake)


def lines(text: str) -> dict[str, Any]:
    found = [json.loads(line) for line in text.splitlines()]
    assert len({one["id"] for one in found}) == len(found)
    return {one["id"]: one for one in found}


def file(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


async def test_each_line_is_answered_under_its_id(bench: Bench, tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(200)]
    values = [
        *({"id": f"é{n}", "text": text} for n, text in enumerate(texts)),
        "a bare text",
        {"input": ["two", "texts"]},
        {"id": 7, "input": [1, 2, 3], "truncate": True},
    ]
    ran = await bench.embed("--bulk", file(tmp_path / "in.jsonl", *values))
    assert (ran.code, ran.stderr) == (0, "")
    found = lines(ran.stdout)
    assert len(found) == len(values)
    for n, text in enumerate(texts):
        assert found[f"é{n}"]["embedding"] == pytest.approx(answers.vector(text), rel=1e-6)
    assert found["201"]["embedding"] == pytest.approx(answers.vector("a bare text"), rel=1e-6)
    assert len(found["202"]["embeddings"]) == 2
    assert found["7"]["embedding"] == pytest.approx(answers.vector([1, 2, 3]), rel=1e-6)
    assert len(bench.fake.requests) < 50


async def test_a_second_run_goes_on_where_the_first_one_stopped(
    bench: Bench, tmp_path: Path
) -> None:
    source = file(tmp_path / "in.jsonl", *({"id": str(n), "text": f"t{n}"} for n in range(20)))
    out = tmp_path / "out.jsonl"
    first = [json.dumps({"id": str(n), "embedding": [0.5]}) for n in range(8)]
    failed = json.dumps({"id": "8", "error": {"code": "UNAVAILABLE", "message": "gone"}})
    out.write_text("\n".join([*first, failed, '{"id":"9","embedding":[0.25']))
    ran = await bench.embed("--bulk", source, "--output", out)
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", "")
    assert sorted(bench.asked) == sorted(f"t{n}" for n in range(8, 20))
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(int(one["id"]) for one in written if "embedding" in one) == [*range(20)]
    again = await bench.embed("--bulk", source, "--output", out)
    assert (again.code, bench.asked) == (0, [])
    assert len(out.read_text().splitlines()) == len(written)


async def test_a_line_that_fails_does_not_stop_the_others(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"id":"a","text":"x"}\n\n{"id":"b"\n5\n{"id":"c","model":"none","text":"x"}\n'
    )
    ran = await bench.embed("--bulk", source)
    assert (ran.code, ran.stderr) == (1, "tetrad: 3 of the lines failed")
    found = lines(ran.stdout)
    assert found["a"]["embedding"]
    assert found["c"]["error"]["code"] == "NOT_FOUND"
    assert {found["3"]["error"]["code"], found["4"]["error"]["code"]} == {"INVALID_ARGUMENT"}
    assert found["3"]["error"]["message"].startswith("line 3: ")


async def test_a_file_that_is_not_there_is_said_so(bench: Bench, tmp_path: Path) -> None:
    ran = await bench.embed("--bulk", tmp_path / "none.jsonl")
    assert ran.code == 2
    assert ran.stderr.endswith("none.jsonl: no such file or directory")
