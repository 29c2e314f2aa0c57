"""`tetrad models|chat|embed|rerank|transcribe` against a gateway, as text and as JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes import answers, profiles
from tests.fakes.upstream import FakeUpstream, Received
from tests.lib import recordings
from tests.lib.gateway import Gateway, gateway
from tests.lib.process import Program
from tests.lib.refusing import refusing_port
from tests.lib.tetrad import Done, done, model, tetrad

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "tk-command-line"
FAKES = {"vllm": "vllm", "tei": "tei", "whisper": "whisper", "rerank": "tei-reranker"}
QUERY, TEXTS = "fresh fruit", ["a broken engine", "ripe apples and pears"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fakes() -> AsyncIterator[dict[str, FakeUpstream]]:
    async with AsyncExitStack() as stack:
        made = {name: await stack.enter_async_context(FakeUpstream()) for name in FAKES}
        for name, fake in made.items():
            profiles.PROFILES[FAKES[name]](fake)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(fakes: dict[str, FakeUpstream]) -> AsyncIterator[Gateway]:
    """A gateway with a model of each type and a key."""
    models = [
        model("guillaume", "text-generation", "vllm", fakes["vllm"].url, "qwen3-8b", "chat"),
        model("e5", "text-embeddings-inference", "tei", fakes["tei"].url),
        model(
            "whisper",
            "automatic-speech-recognition",
            "whisper",
            fakes["whisper"].url,
            "Systran/faster-whisper-small",
        ),
        model("bge", "text-classification", "tei", fakes["rerank"].url),
    ]
    key = {"name": "cli", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    text = json.dumps({"models": models, "auth": {"keys": [key]}, "probes": {"interval": 3600}})
    async with gateway(text) as one:
        yield one


def command(gate: Gateway, *arguments: str | Path, **env: str | None) -> Program:
    return tetrad(*arguments, "--address", gate.address, "--key", KEY, **env)


async def both(gate: Gateway, *arguments: str | Path) -> tuple[Done, Done]:
    """A command's text and its JSON."""
    runs = done(command(gate, *arguments)), done(command(gate, *arguments, "--json"))
    text, json_run = await asyncio.gather(*runs)
    for one in (text, json_run):
        assert (one.code, one.stderr) == (0, "")
    return text, json_run


def posts(fake: FakeUpstream) -> list[Received]:
    return [one for one in fake.requests if one.method == "POST"]


async def test_models_are_a_table_with_their_types_and_aliases(gate: Gateway) -> None:
    text, told = await both(gate, "models")
    rows = [line.split() for line in text.stdout.splitlines()]
    assert rows[0] == ["MODEL", "TYPE", "READY", "ALIASES", "OWNED", "BY"]
    assert rows[1:] == [
        ["bge", "text-classification", "yes", "-", "-"],
        ["e5", "text-embeddings-inference", "yes", "-", "-"],
        ["guillaume", "text-generation", "yes", "chat", "-"],
        ["whisper", "automatic-speech-recognition", "yes", "-", "-"],
    ]
    assert [one["id"] for one in told.json()["data"]] == [row[0] for row in rows[1:]]


async def test_chat_streams_its_answer(gate: Gateway, fakes: dict[str, FakeUpstream]) -> None:
    fakes["vllm"].forget()
    asked = ("chat", "--system", "Be brief.", "--temperature", "0", "What", "is", "2+2?")
    text, told = await both(gate, *asked)
    events = recordings.get("chat/vllm-reasoning-stream.sse").events()
    spoken = "".join(
        one["choices"][0]["delta"].get("content") or "" for one in events if one["choices"]
    )
    assert text.stdout == spoken
    chunks = [json.loads(line) for line in told.stdout.splitlines()]
    assert [one["object"] for one in chunks] == ["chat.completion.chunk"] * len(chunks)
    for request in fakes["vllm"].requests:
        body = request.json()
        assert body["temperature"] == 0
        assert body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 2+2?"},
        ]


async def test_embed_prints_a_vector_a_line(gate: Gateway) -> None:
    text, told = await both(gate, "embed", *TEXTS)
    wanted = [answers.vector(one) for one in TEXTS]
    lines = [json.loads(line) for line in text.stdout.splitlines()]
    for got, want in zip(lines, wanted, strict=True):
        assert got == pytest.approx(want, rel=1e-6)
    assert [one["index"] for one in told.json()["data"]] == [0, 1]


async def test_rerank_prints_the_best_first(gate: Gateway) -> None:
    text, told = await both(gate, "rerank", QUERY, *TEXTS, "--top-n", "1")
    ((index, score),) = answers.ranking(QUERY, TEXTS, 1)
    assert text.stdout.split(maxsplit=1) == [f"{score:.4f}", TEXTS[index]]
    (result,) = told.json()["results"]
    assert (result["index"], result["relevance_score"]) == (index, pytest.approx(score))


async def test_transcribe_prints_the_text_or_a_document(
    gate: Gateway, fakes: dict[str, FakeUpstream], tmp_path: Path
) -> None:
    sound = tmp_path / "four.wav"
    sound.write_bytes(b"RIFF" + bytes(700_000))
    fakes["whisper"].forget()
    text, told = await both(gate, "transcribe", sound, "--language", "en")
    assert text.stdout == "Quay four."
    assert told.json()["final"]["text"] == "Quay four."
    for request in posts(fakes["whisper"]):
        (file,) = [part for part in request.form() if part.name == "file"]
        assert (file.filename, file.data) == ("four.wav", sound.read_bytes())
        assert request.form_values("language") == ["en"]

    srt, verbose, translated = await asyncio.gather(
        done(command(gate, "transcribe", sound, "--format", "srt")),
        done(command(gate, "transcribe", sound, "--format", "verbose_json")),
        done(command(gate, "transcribe", sound, "--translate")),
    )
    document = recordings.get("transcriptions/openai-srt-response.json").text_body()[1]
    assert srt.stdout == document.rstrip("\n")
    assert verbose.json()["final"]["segments"]
    assert translated.stdout == "Quay four."
    paths = [one.path.rpartition("/")[2] for one in posts(fakes["whisper"])]
    assert sorted(paths) == ["transcriptions"] * 4 + ["translations"]


async def test_a_failed_call_is_one_line_and_exit_code_1(gate: Gateway, tmp_path: Path) -> None:
    with refusing_port() as port:
        unknown, no_key, nobody, no_file, no_time = await asyncio.gather(
            done(command(gate, "chat", "--model", "nobody", "hi")),
            done(tetrad("models", "--address", gate.address)),
            done(tetrad("models", "--address", f"127.0.0.1:{port}", "--timeout", "10")),
            done(command(gate, "transcribe", tmp_path / "no.wav")),
            done(command(gate, "models", "--timeout", "0")),
        )
    assert unknown.code == no_key.code == nobody.code == 1
    assert unknown.stderr.startswith(
        "tetrad: NOT_FOUND (MODEL_NOT_FOUND): the model `nobody` does not exist [req_"
    )
    assert no_key.stderr.startswith("tetrad: UNAUTHENTICATED (UNAUTHENTICATED): no API key")
    assert nobody.stderr.startswith("tetrad: UNAVAILABLE: ")
    assert f"Is a gateway running at 127.0.0.1:{port}? Start one with" in nobody.stderr
    assert no_file.code == no_time.code == 2
    assert "no.wav: no such file or directory" in no_file.stderr
    assert "--timeout needs a number of seconds above 0" in no_time.stderr
    for one in (unknown, no_key, nobody, no_file, no_time):
        assert one.stdout == ""
        assert "Traceback" not in one.stderr


async def test_address_and_key_can_stand_in_the_environment(gate: Gateway) -> None:
    told = await done(tetrad("models", TETRAD_ADDRESS=gate.address, TETRAD_KEY=KEY))
    assert (told.code, "guillaume" in told.stdout) == (0, True)


@pytest.mark.parametrize(
    ("pipe", "printed"),
    [
        ("printf 'one\\n\\ntwo\\n' | {} embed --json", 2),
        ("printf 'a broken engine\\nripe pears\\n' | {} rerank --json 'fresh fruit'", 2),
        ("printf 'Hello' | {} chat --json", 0),
    ],
    ids=["embed", "rerank", "chat"],
)
async def test_what_is_not_given_is_read_from_standard_input(
    gate: Gateway, pipe: str, printed: int
) -> None:
    program = Program(
        "sh",
        "-c",
        pipe.format("$TETRAD"),
        env={"TETRAD": _ourselves(), "TETRAD_ADDRESS": gate.address, "TETRAD_KEY": KEY},
    )
    told = await done(program)
    assert (told.code, told.stderr) == (0, "")
    if printed:
        answer: Any = told.json()
        assert len(answer.get("data") or answer["results"]) == printed


@pytest.mark.parametrize("unbuffered", ["1", None], ids=["line by line", "at the end"])
async def test_a_reader_who_leaves_early_is_no_error(gate: Gateway, unbuffered: str | None) -> None:
    """A broken pipe: after a line of more than a pipe holds, and before the first of a few."""
    many = "embed --dimensions 2000 " + " ".join(f"text{number}" for number in range(30))
    asked = [(many, "head -1"), ("models", "true")]
    programs = [
        Program(
            "bash",
            "-c",
            f"set -o pipefail; $TETRAD {command} | {reader}",
            env={
                "TETRAD": _ourselves(),
                "TETRAD_ADDRESS": gate.address,
                "TETRAD_KEY": KEY,
                "PYTHONUNBUFFERED": unbuffered,
            },
        )
        for command, reader in asked
    ]
    for told, (command, reader) in zip(
        await asyncio.gather(*map(done, programs)), asked, strict=True
    ):
        assert (told.code, told.stderr) == (0, ""), (command[:20], reader)


def _ourselves() -> str:
    return f"{sys.executable} -m services"
