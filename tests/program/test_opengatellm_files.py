"""Complete files of OpenGateLLM's deployments start unchanged, and all four operations answer."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib import form
from tests.lib.faces import File, parts, sse_data
from tests.lib.process import Program
from tests.lib.tetrad import FREE, LISTENS, tetrad

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDER = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Written:
    """A file: its models by operation (chat, embeddings, speech, rerank), the upstreams' names,
    the second chat server's kind, the prices of chat, and the keys that are warned of, by the
    words behind them."""

    name: str
    models: tuple[str, str, str, str]
    aliases: tuple[str, str, str, str]
    upstream: tuple[str, str, str, str]
    costs: tuple[float, float]
    unused: frozenset[str]
    older: frozenset[str] = frozenset()


FILES = [
    Written(
        "opengatellm-0.2.yml",
        ("albert-small", "embeddings-small", "audio-large", "rerank-small"),
        (
            "mistralai/Ministral-8B-Instruct-2410",
            "BAAI/bge-m3",
            "openai/whisper-large-v3",
            "BAAI/bge-reranker-v2-m3",
        ),
        (
            "mistralai/Ministral-8B-Instruct-2410",
            "BAAI/bge-m3",
            "openai/whisper-large-v3",
            "BAAI/bge-reranker-v2-m3",
        ),
        (0.2, 0.3),
        frozenset(
            {
                "dependencies",
                "settings",
                "model_carbon_footprint_zone",
                "model_carbon_footprint_total_params",
                "model_carbon_footprint_active_params",
            }
        ),
    ),
    Written(
        "opengatellm-0.4.yml",
        (
            "mistralai/Ministral-3-8B-Instruct-2512",
            "BAAI/bge-m3",
            "openai/whisper-large-v3",
            "BAAI/bge-reranker-v2-m3",
        ),
        ("openweight-small", "openweight-embedding", "openweight-audio", "openweight-rerank"),
        (
            "mistralai/Ministral-3-8B-Instruct-2512",
            "BAAI/bge-m3",
            "openai/whisper-large-v3",
            "BAAI/bge-reranker-v2-m3",
        ),
        (10, 30),
        frozenset(
            {
                "dependencies",
                "settings",
                "model_hosting_zone",
                "model_total_params",
                "model_active_params",
                "qos_metric",
                "qos_limit",
            }
        ),
    ),
    Written(
        "opengatellm-clients.yml",
        ("albert-small", "embeddings-small", "audio-large", "rerank-small"),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            "BAAI/bge-m3",
            "openai/whisper-large-v3",
            "BAAI/bge-reranker-v2-m3",
        ),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            "BAAI/bge-m3",
            "openai/whisper-large-v3",
            "BAAI/bge-reranker-v2-m3",
        ),
        (1, 3),
        frozenset(
            {
                "general",
                "playground",
                "master_username",
                "master_key",
                "max_token_expiration_days",
                "monitoring",
                "web_search",
                "mcp",
                "databases",
                "default_internet",
                "carbon",
            }
        ),
        frozenset({"id", "clients", "args"}),
    ),
]

TYPES = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)
URLS = ("VLLM_URL", "TEI_URL", "WHISPER_URL", "RERANK_URL", "SECOND_VLLM_URL")
KEYS = {"VLLM_KEY": "sk-vllm-5f0c", "TEI_KEY": "sk-tei-91aa", "WHISPER_KEY": "sk-whisper-27bd"}


@dataclass(frozen=True)
class Started:
    """`tetrad serve --config FILE`, a client of its REST face, and the fakes by their variable."""

    file: Written
    program: Program
    rest: httpx.AsyncClient
    fakes: dict[str, FakeUpstream]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=FILES, ids=lambda one: one.name)
async def started(request: pytest.FixtureRequest) -> AsyncIterator[Started]:
    """The program on one file; only what such a deployment has in its environment is given."""
    file: Written = request.param
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeUpstream()) for name in URLS}
        chat, embed, speech, rerank = file.upstream
        for name in ("VLLM_URL", "SECOND_VLLM_URL"):
            profiles.vllm(fakes[name], model=chat, key=KEYS["VLLM_KEY"])
        profiles.tei(fakes["TEI_URL"], model=embed, key=KEYS["TEI_KEY"])
        profiles.etalab(fakes["WHISPER_URL"], model=speech, key=KEYS["WHISPER_KEY"])
        profiles.tei(fakes["RERANK_URL"], kind="reranker", model=rerank, key=KEYS["TEI_KEY"])
        environ = {name: fake.url for name, fake in fakes.items()} | KEYS
        program = await stack.enter_async_context(
            tetrad("serve", *FREE, "--config", FOLDER / file.name, **environ)
        )
        url = (await program.line(LISTENS, 30))[2]
        rest = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        yield Started(file, program, rest, fakes)


async def ask(started: Started, path: str, body: Any) -> Any:
    """The JSON of a good answer."""
    answer = await started.rest.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(started: Started, operation: int) -> list[str]:
    """The model's name and its alias."""
    return [started.file.models[operation], started.file.aliases[operation]]


async def test_each_key_that_is_not_used_is_told_once(started: Started) -> None:
    warned = [line for line in started.program.stderr if line.startswith("warning: ")]
    told: dict[str, list[str]] = {"not used": [], "older": []}
    for line in warned:
        match = re.search(r"\.yml:\d+:\d+: (\S+): (.*)", line)
        assert match is not None, line
        key = match[1].rpartition(".")[2]
        told["not used" if "not used" in match[2] else "older"].append(key)
    assert sorted(told["not used"]) == sorted(started.file.unused)
    assert sorted(told["older"]) == sorted(started.file.older)


async def test_the_models_are_listed_with_their_types_aliases_and_costs(started: Started) -> None:
    listed = {one["id"]: one for one in (await started.rest.get("/v1/models")).json()["data"]}
    file = started.file
    assert {name: one["type"] for name, one in listed.items()} == dict(
        zip(file.models, TYPES, strict=True)
    )
    assert [listed[name]["aliases"] for name in file.models] == [[one] for one in file.aliases]
    prompt, completion = file.costs
    assert listed[file.models[0]]["costs"] == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
    }


async def test_every_provider_gets_chats_with_its_key_and_its_model(started: Started) -> None:
    both = [started.fakes["VLLM_URL"], started.fakes["SECOND_VLLM_URL"]]
    for fake in both:
        fake.forget()

    def reached() -> list[Any]:
        return [[one for one in fake.requests if one.method == "POST"] for fake in both]

    for _ in range(20):
        for name in names(started, 0):
            body = {"model": name, "messages": [{"role": "user", "content": "Bonjour"}]}
            assert (await ask(started, "/v1/chat/completions", body))["choices"]
        if all(reached()):
            break
    for posts in reached():
        assert posts, "20 rounds never reached one of the two"
        for one in posts:
            assert one.json()["model"] == started.file.upstream[0]
            assert one.headers["authorization"] == f"Bearer {KEYS['VLLM_KEY']}"


async def test_a_chat_is_streamed(started: Started) -> None:
    body = {"model": started.file.models[0], "messages": [{"role": "user", "content": "Bonjour"}]}
    answer = await started.rest.post("/v1/chat/completions", json={**body, "stream": True})
    *chunks, end = sse_data(answer.text)
    assert end == "[DONE]"
    assert json.loads(chunks[0])["choices"]


@pytest.mark.parametrize("by", [0, 1], ids=["name", "alias"])
async def test_embeddings_speech_and_reranking_answer(started: Started, by: int) -> None:
    body: dict[str, Any] = {"model": names(started, 1)[by], "input": ["un bateau", "a ship"]}
    assert len((await ask(started, "/v1/embeddings", body))["data"]) == 2
    body = {"model": names(started, 3)[by], "prompt": "fruit", "input": ["pomme", "moteur"]}
    assert len((await ask(started, "/v1/rerank", body))["data"]) == 2
    body = {"model": names(started, 3)[by], "query": "fruit", "documents": ["pomme", "moteur"]}
    assert len((await ask(started, "/v1/rerank", body))["results"]) == 2
    kind, data = form.build(parts({"model": names(started, 2)[by]}, File()))
    heard = await started.rest.post(
        "/v1/audio/transcriptions", content=data, headers={"content-type": kind}
    )
    assert (heard.status_code, heard.json()["text"]) == (200, "Quay four.")


async def test_the_file_says_more_with_one_line_for_the_mode(
    started: Started, tmp_path: Path
) -> None:
    """The same file with `compat` at its end."""
    text = (FOLDER / started.file.name).read_text(encoding="utf-8")
    path = tmp_path / "with-compat.yml"
    path.write_text(f"{text}\ncompat: {{opengatellm: true}}\n", encoding="utf-8")
    environ = {name: fake.url for name, fake in started.fakes.items()} | KEYS
    async with tetrad("serve", *FREE, "--config", path, **environ) as program:
        url = (await program.line(LISTENS, 30))[2]
        async with httpx.AsyncClient(base_url=url, timeout=30) as rest:
            body = {"model": names(started, 3)[0], "prompt": "fruit", "input": ["pomme"]}
            answer = (await rest.post("/v1/rerank", json=body)).json()
            assert answer.keys() >= {"data", "results", "id", "usage"}
            assert (await rest.post("/v1/rerank", json={})).json().keys() == {"error", "detail"}
