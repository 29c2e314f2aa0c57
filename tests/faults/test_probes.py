"""Servers that die, hang and come back, as processes of their own, behind a running gateway.

What the gateway says of them (/ready, the list of models) follows within one interval of the
probes, and calls go where somebody answers.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.lib.gateway import Gateway, gateway
from tests.lib.ports import free_port
from tests.lib.process import Program

INTERVAL = 1.0
LEEWAY = 1.0
"""Seconds that a busy machine may take beside: to ask the gateway, to schedule what is due."""

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Servers:
    """Fake vLLM servers on fixed ports, and a gateway with one model that all of them serve."""

    gate: Gateway
    programs: dict[int, Program]
    ports: list[int]
    stack: AsyncExitStack

    async def start(self, which: int) -> None:
        """The server takes its port, again."""
        program = Program(
            "python", "-m", "tests.fakes.process",
            "--port", str(self.ports[which]), "--profile", "vllm",
        )  # fmt: skip
        await self.stack.enter_async_context(program)
        await program.line("^ready ")
        self.programs[which] = program

    async def ready(self) -> list[bool]:
        """What the gateway says of each."""
        told = (await self.gate.rest.get("/ready")).json()["models"]["chat"]["providers"]
        return [told[f"vllm 127.0.0.1:{port}"] for port in self.ports]

    async def until(self, *wanted: bool) -> float:
        """Waits until the gateway says so; the seconds that it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while await self.ready() != list(wanted):
            assert loop.time() - began < 20, f"{await self.ready()}, expected {wanted}"
            await asyncio.sleep(0.01)
        return loop.time() - began


@asynccontextmanager
async def serving(count: int, **sections: object) -> AsyncIterator[Servers]:
    """That many servers, all of them up, behind a gateway."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(count)]
        providers = [
            {"type": "vllm", "url": f"http://127.0.0.1:{port}", "model_name": "qwen3-8b"}
            for port in ports
        ]
        model = {
            "name": "chat",
            "type": "text-generation",
            "load_balancing_strategy": "round_robin",
            "providers": providers,
        }
        config = {"probes": {"interval": INTERVAL}, "required_types": [], "models": [model]}
        gate = await stack.enter_async_context(gateway(json.dumps({**config, **sections})))
        servers = Servers(gate, {}, ports, stack)
        await asyncio.gather(*(servers.start(which) for which in range(count)))
        await servers.until(*[True] * count)
        yield servers


async def test_a_server_that_is_killed_is_out_within_one_interval_and_back_within_one() -> None:
    """G20, G39: no restart of ours, and no probe that costs a token."""
    async with serving(3) as servers:
        assert await served(servers, 6) == 6
        for _ in range(2):
            servers.programs[1].send(signal.SIGKILL)
            await servers.programs[1].exit()
            assert await servers.until(True, False, True) < INTERVAL + LEEWAY
            assert await served(servers, 6) == 6
            await servers.start(1)
            assert await servers.until(True, True, True) < INTERVAL + LEEWAY
        assert await served(servers, 6) == 6
        calls = 0
        for program in servers.programs.values():
            asked = [line for line in program.lines if line.startswith("request ")]
            calls += sum("POST /v1/chat/completions" in line for line in asked)
            free = {"/health", "/v1/models", "/metrics", "/v1/chat/completions"}
            assert {line.split()[2] for line in asked} <= free
        assert calls <= 4 * 6  # our calls, and not one of a probe


async def test_a_server_that_hangs_is_out_within_one_interval_and_back_within_one() -> None:
    """G20: stopped, it still takes connections (the kernel does) and answers nothing."""
    async with serving(2) as servers:
        servers.programs[0].send(signal.SIGSTOP)
        try:
            assert await servers.until(False, True) < INTERVAL + LEEWAY
            assert await served(servers, 6) == 6
        finally:
            servers.programs[0].send(signal.SIGCONT)
        assert await servers.until(True, True) < INTERVAL + LEEWAY


async def test_when_all_are_gone_the_model_is_not_ready_and_all_come_back() -> None:
    """G20: also when there was nobody left for a while."""
    async with serving(2) as servers:
        for program in servers.programs.values():
            program.send(signal.SIGTERM)
        for program in servers.programs.values():
            await program.exit()
        await servers.until(False, False)
        refused = await servers.gate.rest.post("/v1/chat/completions", json=CHAT)
        assert refused.status_code == 503
        listed = await servers.gate.call("ModelService", "ListModels", {})
        assert [one["ready"] for one in listed["data"]] == [False]
        for which in range(2):
            await servers.start(which)
        assert await servers.until(True, True) < INTERVAL + LEEWAY
        assert (await servers.gate.rest.get("/v1/models")).json()["data"][0]["ready"] is True
        assert await served(servers, 4) == 4


@pytest.mark.parametrize("type", ["auto", "vllm"])
async def test_a_server_that_was_never_there_comes_in_when_it_starts(type: str) -> None:
    """G20, G37: its kind is found out then, and what its model can take."""
    port = free_port()
    provider = {"type": type, "url": f"http://127.0.0.1:{port}", "model_name": "qwen3-8b"}
    model = {"name": "chat", "type": "text-generation", "providers": [provider]}
    config = {"probes": {"interval": INTERVAL}, "required_types": [], "models": [model]}
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(gateway(json.dumps(config)))
        servers = Servers(gate, {}, [port], stack)

        async def told() -> dict[str, object]:
            found: dict[str, object] = (await gate.rest.get("/v1/models/chat")).json()
            return found

        before = await told()
        assert before["ready"] is False
        assert "max_context_length" not in before
        await servers.start(0)
        await holds(lambda: is_ready(told))
        assert (await told())["max_context_length"] == 40960
        assert await served(servers, 2) == 2


async def is_ready(told: Callable[[], Awaitable[dict[str, object]]]) -> bool:
    model = await told()
    return model["ready"] is True and "max_context_length" in model


async def holds(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again for what nobody announces."""
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("what was waited for did not come true")


async def served(servers: Servers, count: int) -> int:
    """How many of so many calls are answered."""
    answers = [
        await servers.gate.rest.post("/v1/chat/completions", json=CHAT) for _ in range(count)
    ]
    return sum(answer.status_code == 200 for answer in answers)
