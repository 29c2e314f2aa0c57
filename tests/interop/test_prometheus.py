"""A real Prometheus reads a real gateway under load: metrics, dashboards and alerts of deploy/.

Every query must be valid, and must find figures where the load makes some.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from tests.fakes import profiles
from tests.fakes.upstream import Delayed, FakeUpstream, Json, Record
from tests.lib import queries
from tests.lib.ports import free_port
from tests.lib.process import Program
from tests.lib.queries import ALERT_TESTS, ALERTS, BOARDS, EXAMPLE
from tests.lib.refusing import refusing_port
from tests.lib.tetrad import Served, configuration, done, model, serving, until

_MISSING = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.ci,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(_MISSING), reason="needs Prometheus: apt-get install prometheus"),
]

CHAT, EMBED = "text-generation", "text-embeddings-inference"
SPEECH, RERANK = "automatic-speech-recognition", "text-classification"
HI = [{"role": "user", "content": "hi"}]
KEYS = {"free": {}, "bounded": {"rpm": 1}}
VALUES = {
    "datasource": "prometheus",
    "job": ".*",
    "instance": ".*",
    "model": ".*",
    "operation": ".*",
    "endpoint": ".*",
    "__rate_interval": "10s",
}
PROVOKED = {
    # By what the load does; it is not for long enough that they would fire.
    *("TetradCallsFail", "TetradMostCallsFail", "TetradModelNotReady", "TetradProviderNotReady"),
    *("TetradProviderRefusesKey", "TetradManyRetries", "TetradOverloaded"),
    *("TetradKeysAtTheirLimit", "TetradReloadFailed", "TetradBreakerOpen"),
}

_EVERY = 0.25
"""Seconds between two scrapes."""


@dataclass(frozen=True)
class Scene:
    """A gateway and the Prometheus that reads it."""

    served: Served
    prometheus: httpx.AsyncClient

    async def ask(self, expr: str) -> list[Any]:
        """The series of an expression now; fails if Prometheus does not take it."""
        answer = await self.prometheus.get("/api/v1/query", params={"query": expr})
        told = answer.json()
        assert told["status"] == "success", (expr, told)
        result: list[Any] = told["data"]["result"]
        return result


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _configured(folder: Path, fakes: dict[str, FakeUpstream], named: str, nobody: str) -> Path:
    good = model("chat", CHAT, "vllm", fakes["vllm"].url, "qwen3-8b")
    twice = model("twice", CHAT, "openai", fakes["flaky"].url, named)
    twice["providers"].append({**good["providers"][0], "priority": 1})
    busy = model("busy", RERANK, "tei", fakes["busy"].url)
    busy["max_queue"] = 1
    busy["providers"][0]["max_concurrency"] = 1
    models = [
        good,
        twice,
        busy,
        model("e5", EMBED, "tei", fakes["tei"].url),
        model("speech", SPEECH, "whisper", fakes["whisper"].url, "Systran/faster-whisper-small"),
        model("gone", CHAT, "openai", nobody, "x"),
        model("denied", CHAT, "openai", fakes["denied"].url, "x"),
    ]
    keys = [
        {"name": name, "sha256": _digest(name), "limits": limits} for name, limits in KEYS.items()
    ]
    return configuration(
        folder,
        models,
        auth={"keys": keys},
        probes={"interval": 1},
        breaker={"failures": 3, "cooldown": 3600},
        ledger={"url": f"jsonl:{folder / 'usage.jsonl'}"},
        telemetry={"otlp_endpoint": nobody},
    )


async def _load(served: Served) -> None:
    """Calls of every operation and every outcome, over and over."""
    rest = served.gate.rest
    free, bounded = ({"authorization": f"Bearer {name}"} for name in KEYS)

    async def chat(name: str, headers: dict[str, str] = free, **more: Any) -> None:
        body = {"model": name, "messages": HI, **more}
        await rest.post("/v1/chat/completions", json=body, headers=headers)

    async def rerank() -> None:
        body = {"model": "busy", "query": "q", "documents": ["a", "b"]}
        await rest.post("/v1/rerank", json=body, headers=free)

    async def leave() -> None:
        """The caller goes before the answer comes."""
        body = {"model": "busy", "query": "slow", "documents": ["a", "b"]}
        with suppress(httpx.TimeoutException):
            await rest.post("/v1/rerank", json=body, headers=free, timeout=0.05)

    while True:
        await chat("chat", stream=True)
        for name in ("twice", "twice", "twice", "twice", "gone", "gone", "gone", "denied"):
            await chat(name)
        await chat("nobody")
        await chat("chat", headers=bounded)
        await rest.post("/v1/embeddings", json={"input": ["a", "b"]}, headers=free)
        sound = {"file": ("a.wav", b"RIFF" + bytes(64), "audio/wav")}
        form = {"model": "speech", "response_format": "verbose_json"}
        await rest.post("/v1/audio/transcriptions", files=sound, data=form, headers=free)
        await asyncio.gather(*(rerank() for _ in range(4)))
        await leave()


async def _read_often(prometheus: httpx.AsyncClient, times: int) -> None:
    """Waits for as many scrapes more."""

    async def scraped() -> int:
        answer = await prometheus.get(
            "/api/v1/query", params={"query": 'count_over_time(up{job="tetrad"}[1h])'}
        )
        found = answer.json()["data"]["result"]
        return int(found[0]["value"][1]) if found else 0

    wanted = await scraped() + times

    async def enough() -> bool:
        return await scraped() >= wanted

    await until(enough, within=30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")
    async with AsyncExitStack() as stack:
        fakes = {
            name: await stack.enter_async_context(FakeUpstream())
            for name in ("vllm", "tei", "whisper", "busy", "denied", "flaky")
        }
        profiles.vllm(fakes["vllm"])
        profiles.tei(fakes["tei"])
        profiles.whisper(fakes["whisper"])
        profiles.tei(fakes["busy"], kind="reranker")
        ranked = Json([{"index": 0, "score": 0.9}, {"index": 1, "score": 0.1}])
        fakes["busy"].on("POST", "/rerank", Delayed(ranked, 0.15))
        fakes["denied"].on("*", "/*", Json({"error": {"message": "no such key"}}, 401))
        replies = cycle([Json({}, 503), Record("chat/openai-text-response.json")])
        named = profiles.openai(fakes["flaky"])
        fakes["flaky"].on("POST", "/v1/chat/completions", lambda *given: next(replies)(*given))
        nobody = f"http://127.0.0.1:{stack.enter_context(refusing_port())}"
        config = _configured(folder, fakes, named, nobody)
        served = await stack.enter_async_context(serving("--config", config))
        load = asyncio.create_task(_load(served))
        stack.push_async_callback(_ended, load)
        prometheus = await _prometheus(stack, folder, served)
        await _read_often(prometheus, 3)
        # A reload that is taken, and one that is not.
        text = config.read_text()
        config.write_text(text.replace('"failures": 3', '"failures": 4'))
        await served.program.line("generation 2 of the configuration is in use")
        config.write_text("models: {")
        await _read_often(prometheus, 6)
        assert not load.done(), load.exception()
        yield Scene(served, prometheus)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _prometheus(stack: AsyncExitStack, folder: Path, served: Served) -> httpx.AsyncClient:
    """On the shipped example, but for addresses and intervals."""
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    example["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    example["rule_files"] = [str(ALERTS)]
    target = served.gate.url.removeprefix("http://")
    example["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(example))
    port = free_port()
    program = Program(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        cwd=folder,
    )
    await stack.enter_async_context(program)
    await program.line("Server is ready to receive web requests")
    return await stack.enter_async_context(
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
    )


def _values(path: Path) -> dict[str, str]:
    """What the variables of a dashboard stand for: all of it."""
    return VALUES | {"failed": queries.variables(path)["failed"]["query"]}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
async def test_every_query_of_a_dashboard_finds_figures(scene: Scene, path: Path) -> None:
    empty = []
    for query in queries.of_board(path):
        found = await scene.ask(queries.filled(query.expr, _values(path)))
        if not any(math.isfinite(float(one["value"][1])) for one in found):
            empty.append(query)
    assert empty == []


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
async def test_every_variable_of_a_dashboard_has_values(scene: Scene, path: Path) -> None:
    for name, one in queries.variables(path).items():
        if one["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", one["query"]["query"])
            assert asked is not None
            found = await scene.ask(queries.filled(asked[1], _values(path)))
            assert {series["metric"].get(asked[2]) for series in found} - {None, ""}, name


async def test_prometheus_evaluates_every_alert_without_an_error(scene: Scene) -> None:
    answer = await scene.prometheus.get("/api/v1/rules")
    groups = answer.json()["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert [*rules] == [rule["alert"] for rule in queries.alerts()]
    ill = {name: rule.get("lastError") for name, rule in rules.items() if rule["health"] != "ok"}
    assert ill == {}


async def test_the_alerts_look_at_figures_that_are_there(scene: Scene) -> None:
    """Each condition, asked as a question with 0 or 1 as the answer, has an answer."""
    condition = re.compile(r" (==|!=|>|<) ")
    unanswered, met = [], set()
    for rule in queries.alerts():
        # A series that began within the range has a growth only of late: ask for less of it.
        expr = re.sub(r"\[\d+m\]", "[10s]", rule["expr"])
        if expr.startswith("absent("):
            expr += " or vector(0)"
        answers = await scene.ask(condition.sub(r" \1 bool ", expr))
        if not answers:
            unanswered.append(rule["alert"])
        if any(one["value"][1] == "1" for one in answers):
            met.add(rule["alert"])
    assert unanswered == []
    assert met >= PROVOKED
    assert not met & {"TetradDown", "TetradFilesRunOut", "TetradReloadHangs", "TetradUsageLost"}


async def test_promtool_takes_what_is_shipped(scene: Scene, tmp_path: Path) -> None:
    page = await scene.served.gate.rest.get("/metrics")
    file = tmp_path / "page"
    file.write_bytes(page.content)
    checks = [
        Program("promtool", "check", "config", EXAMPLE, cwd=EXAMPLE.parent),
        Program("promtool", "check", "rules", ALERTS, cwd=ALERTS.parent),
        Program("promtool", "test", "rules", ALERT_TESTS, cwd=ALERTS.parent),
        Program("sh", "-c", 'promtool check metrics < "$1"', "sh", file),
    ]
    for told in await asyncio.gather(*map(done, checks)):
        assert told.code == 0, told.stdout + told.stderr


@pytest.mark.parametrize(
    ("of", "to"),
    [(" > 0.05\n        for: 10m", " > 0.5\n        for: 10m"), ("[15m]) > 2", "[15m]) > 3")],
)
async def test_the_tests_of_the_alerts_notice_a_changed_threshold(
    tmp_path: Path, of: str, to: str
) -> None:
    text = ALERTS.read_text(encoding="utf-8")
    assert of in text
    (tmp_path / ALERTS.name).write_text(text.replace(of, to, 1))
    (tmp_path / ALERT_TESTS.name).write_text(ALERT_TESTS.read_text(encoding="utf-8"))
    told = await done(Program("promtool", "test", "rules", ALERT_TESTS.name, cwd=tmp_path))
    assert told.code == 1
