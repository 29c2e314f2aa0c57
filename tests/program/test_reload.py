"""Hot reload of `tetrad serve` with one process: by file, by signal, and what is not taken."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.faces import Case, over_grpc, over_rest, sse_data
from tests.lib.held import CHAT, REQUEST, Held, before
from tests.lib.tetrad import Served, configuration, model, until


async def state(served: Served) -> dict[str, Any]:
    """What /ready says."""
    body: dict[str, Any] = (await served.gate.rest.get("/ready")).json()
    return body


async def generation(served: Served, number: int) -> dict[str, Any]:
    """What /ready says once that generation is in use."""
    found: dict[str, Any] = {}

    async def taken() -> bool:
        found.clear()
        found.update(await state(served))
        return bool(found["generation"] == number)

    await until(taken)
    return found


def models(folder: Path, upstream: FakeUpstream, *names: str, **sections: Any) -> Path:
    """The configuration file with these models, and without those of before."""
    listed = [model(name, CHAT, "vllm", upstream.url, "qwen3-8b") for name in names]
    return configuration(folder, listed, required_types=[], **sections)


async def failure(served: Served, name: str) -> list[Any]:
    """How a call of a model fails on each face; None where it does not."""
    case = Case("one", "Chat", {**REQUEST, "model": name}, None)
    return [(await run(served.gate, case)).failure for run in (over_rest, over_grpc)]


async def test_a_changed_file_is_taken_while_open_streams_finish_on_the_old_one(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """G37: the model that is gone answers to its end, and to nobody new."""
    async with before(upstream, tmp_path) as served:
        assert (await state(served))["generation"] == 1
        held = Held()
        upstream.on("POST", "/v1/chat/completions", held)
        over_grpc_stream = served.gate.stream("ChatService", "StreamChat", REQUEST)
        async with served.gate.rest.stream(
            "POST", "/v1/chat/completions", json={**REQUEST, "stream": True}
        ) as answer:
            lines = answer.aiter_lines()
            assert '"a"' in await anext(lines)
            assert (await anext(over_grpc_stream))["choices"][0]["delta"]["content"] == "a"

            models(tmp_path, upstream, "other")
            now = await generation(served, 2)
            assert [*now["models"]] == ["other"]
            for refused in await failure(served, "chatty"):
                assert "model_not_found" in str(refused) or "NOT_FOUND" in str(refused)

            held.go_on.set()
            events = sse_data("\n".join([line async for line in lines]).strip("\n") + "\n\n")
            assert events[-1] == "[DONE]"
            last = [one async for one in over_grpc_stream]
            assert last[-1]["choices"][0]["finish_reason"] == "stop"
        profiles.vllm(upstream)
        assert await failure(served, "other") == [None, None]
        assert await served.program.stop() == 0


async def test_a_bad_file_keeps_the_old_configuration_and_says_why(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """G37: in the log and on /ready, until a good one comes; SIGHUP reads at once."""
    async with before(upstream, tmp_path) as served:
        file = tmp_path / "tetrad.yaml"
        good = json.loads(file.read_text())
        file.write_text("models: [")
        told = await served.program.line(r"not taken, generation 1 stays: .*bad YAML")
        now = await state(served)
        assert (now["status"], now["generation"], [*now["models"]]) == ("ready", 1, ["chatty"])
        assert "bad YAML" in now["not_taken"][0]
        assert now["not_taken"][0] in told.string.replace("\\n", "\n")
        assert await failure(served, "chatty") == [None, None]

        file.write_text(json.dumps({**good, "workers": 2}))
        served.program.send(signal.SIGHUP)
        await served.program.line(r"workers: a running gateway keeps it; restart to change it")
        assert (await state(served))["generation"] == 1

        file.write_text(json.dumps(good))
        now = await generation(served, 2)
        assert "not_taken" not in now
        assert await served.program.stop() == 0


async def test_a_hang_up_takes_a_file_that_did_not_change(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with before(upstream, tmp_path) as served:
        for number in (2, 3):
            served.program.send(signal.SIGHUP)
            await generation(served, number)
        assert await failure(served, "chatty") == [None, None]
        assert await served.program.stop() == 0


@pytest.mark.timeout(60)
async def test_reloads_under_load_fail_no_call(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with before(upstream, tmp_path) as served:
        over = asyncio.Event()
        failures: list[Any] = []
        calls = 0

        async def load() -> None:
            nonlocal calls
            while not over.is_set():
                failures.extend(one for one in await failure(served, "chatty") if one)
                calls += 2

        async def more(least: int) -> None:
            async def enough() -> bool:
                return calls >= least

            await until(enough)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            for number in range(2, 6):
                await more(calls + 8)
                served.program.send(signal.SIGHUP)
                await generation(served, number)
            over.set()
        assert failures == []
        assert await served.program.stop() == 0
