"""`tetrad check`, `keys`, `codec`, `--help`: commands that need no gateway."""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib import canonical, recordings
from tests.lib.refusing import refusing_port
from tests.lib.tetrad import configuration, done, model, tetrad

CHAT, EMBED = "text-generation", "text-embeddings-inference"
TEI = "thenlper/gte-base"


# check.


async def test_check_says_that_a_good_configuration_is_good(tmp_path: Path) -> None:
    models = [
        model("a", CHAT, "vllm", "http://127.0.0.1:1"),
        model("e5", EMBED, "tei", "http://127.0.0.1:1"),
    ]
    configuration(tmp_path, models)
    told = await done(tetrad("check", cwd=tmp_path))
    assert (told.code, told.stderr) == (0, "")
    assert told.stdout == "tetrad.yaml: good; 2 models, 2 providers"


async def test_check_finds_what_would_refuse_the_start_and_warns_of_what_is_not_used(
    tmp_path: Path,
) -> None:
    config = configuration(
        tmp_path,
        [model("a", CHAT, "vllm", "http://127.0.0.1:1")],
        dependencies={"redis": {"url": "redis://localhost"}},
    )
    told = await done(tetrad("check", "--config", config))
    assert told.code == 1
    warning, fault = told.stderr.splitlines()
    assert re.match(rf"warning: {re.escape(str(config))}:\d+:\d+: dependencies", warning)
    assert "required_types" in fault
    assert EMBED in fault


async def test_check_with_probe_asks_every_provider(upstream: FakeUpstream, tmp_path: Path) -> None:
    named = profiles.vllm(upstream)
    with refusing_port() as port:
        nobody = f"http://127.0.0.1:{port}"
        good = configuration(tmp_path, [model("e5", EMBED, "vllm", upstream.url, named)])
        bad = tmp_path / "bad"
        bad.mkdir()
        faulty = configuration(
            bad,
            [
                model("e5", EMBED, "vllm", upstream.url, "another/model"),
                model("gone", CHAT, "vllm", nobody),
            ],
        )
        well, ill = await asyncio.gather(
            done(tetrad("check", "--probe", "--config", good)),
            done(tetrad("check", "--probe", "--config", faulty)),
        )
    assert (well.code, well.stderr) == (0, "")
    assert well.stdout.splitlines()[0] == f"e5: {upstream.url}: vllm, serves {named}"
    assert ill.code == 1
    assert ill.stderr.splitlines() == [
        f"e5: {upstream.url}: the server (vllm) has no model another/model; "
        f"set model_name to one of: {named}",
        f"gone: {nobody}: the server at {nobody.removeprefix('http://')} cannot be reached: "
        "Connection refused; start it, or correct the provider's url",
    ]


# keys.


async def test_a_new_key_is_shown_once_with_its_hash_for_the_configuration() -> None:
    one, bad = await asyncio.gather(
        done(tetrad("keys", "new", "indexer")), done(tetrad("keys", "new", ""))
    )
    assert (one.code, one.stderr) == (0, "")
    key = re.search(r"(tk-[\w-]{43})$", one.stdout, re.MULTILINE)
    hashed = re.search(r'\{name: indexer, sha256: "([0-9a-f]{64})"\}', one.stdout)
    assert key is not None
    assert hashed is not None
    assert hashlib.sha256(key[1].encode()).hexdigest() == hashed[1]
    assert one.stdout.count(key[1]) == 1
    assert bad.code == 2
    assert bad.stderr.startswith("tetrad: ")


# codec: each needs standard input, which Program does not give.


def codec(action: str, message: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "services", "codec", action, message],
        input=data,
        capture_output=True,
        check=False,
        timeout=30,
    )


def test_the_codec_goes_both_ways_and_loses_nothing() -> None:
    recorded = recordings.get("chat/openai-unknown-members-request.json")
    encoded = codec("encode", "ChatRequest", recorded.bytes)
    assert (encoded.returncode, encoded.stderr) == (0, b"")
    decoded = codec("decode", "ChatRequest", encoded.stdout)
    roundtrip = codec("roundtrip", "ChatRequest", recorded.bytes)
    assert decoded.stdout == roundtrip.stdout
    assert decoded.stdout.endswith(b"\n")
    canonical.assert_same(recorded.bytes, decoded.stdout, recorded.compare, "ChatRequest")


@pytest.mark.parametrize(
    ("action", "message", "data", "code", "said"),
    [
        ("encode", "ChatRequest", b"{", 1, "tetrad: "),
        ("encode", "ChatRequest", b"{}", 1, "tetrad: messages: required, but absent"),
        ("decode", "ChatRequest", b"\xff", 1, "tetrad: the bytes are not a ChatRequest"),
        ("encode", "ChatReqest", b"{}", 2, "did you mean ChatRequest"),
    ],
    ids=["no JSON", "a member missing", "no message", "no such message"],
)
def test_what_the_codec_cannot_take_is_one_line(
    action: str, message: str, data: bytes, code: int, said: str
) -> None:
    run = codec(action, message, data)
    told = run.stderr.decode()
    assert run.returncode == code
    assert said in told
    assert len(told.splitlines()) == 1
    assert run.stdout == b""


def test_the_codec_s_source_is_python() -> None:
    run = codec("source", "ChatRequest")
    assert run.returncode == 0
    compile(run.stdout, "source", "exec")
    assert b"max_completion_tokens" in run.stdout


# help.

COMMANDS: dict[str, list[str]] = {
    "serve": ["--config", "--upstream", "--require", "--grpc", "--http", "--workers", "SIGTERM"],
    "demo": ["--grpc", "--http"],
    "check": ["--config", "--probe"],
    "models": ["--address", "--key", "--json"],
    "chat": ["--address", "--key", "--json", "--model", "--system"],
    "embed": ["--address", "--key", "--json", "--model", "--dimensions"],
    "rerank": ["--address", "--key", "--json", "--model", "--top-n", "query"],
    "transcribe": ["--address", "--key", "--json", "--model", "--translate", "file"],
    "top": ["--url", "--key", "--json", "--once", "--interval"],
    "keys": ["new"],
    "completion": ["bash", "zsh", "fish"],
    "codec": ["encode", "decode", "roundtrip", "source", "MESSAGE"],
}


async def test_every_command_explains_itself() -> None:
    whole, *each = await asyncio.gather(
        done(tetrad("--help")), *(done(tetrad(command, "--help")) for command in COMMANDS)
    )
    assert whole.code == 0
    for (command, words), told in zip(COMMANDS.items(), each, strict=True):
        assert command in whole.stdout
        assert (told.code, told.stderr) == (0, ""), command
        assert [word for word in words if word not in told.stdout] == [], command
        assert f"\n  tetrad {command}" in told.stdout, "no example"


async def test_no_command_and_an_unknown_one_are_bad_usage() -> None:
    none, unknown, version = await asyncio.gather(
        done(tetrad()), done(tetrad("sing")), done(tetrad("--version"))
    )
    assert none.code == unknown.code == 2
    assert "usage: tetrad" in none.stdout
    assert "sing" in unknown.stderr
    assert re.fullmatch(r"tetrad \d[\w.]*", version.stdout)


def test_the_installed_program_is_the_module() -> None:
    program = Path(sys.executable).with_name("tetrad")
    run: Any = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stdout.startswith("tetrad ")
