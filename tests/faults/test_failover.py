"""Several upstream servers as processes of their own behind one model, of which some are killed.

Callers of both faces are to notice nothing, unless their stream had begun at the one that died.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from tests.lib.gateway import Gateway, gateway
from tests.lib.ports import free_port
from tests.lib.process import Program

INTERVAL = 1.0
HI = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
CALLERS = 12
"""Callers at the same time on each face."""


@dataclass
class Fleet:
    """Three fake vLLM servers and a gateway. `failed`: what callers got that was no answer."""

    gate: Gateway
    programs: list[Program]
    ports: list[int]
    stack: AsyncExitStack
    served: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    async def start(self, which: int) -> None:
        program = Program(
            "python", "-m", "tests.fakes.process", "--port", str(self.ports[which])
        )  # fmt: skip
        await self.stack.enter_async_context(program)
        await program.line("^ready ")
        self.programs[which : which + 1] = [program]

    def name(self, which: int) -> str:
        return f"vllm 127.0.0.1:{self.ports[which]}"

    async def over_rest(self) -> str:
        answer = await self.gate.rest.post("/v1/chat/completions", json=HI)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-tetrad-endpoint"]

    async def over_grpc(self) -> str:
        stub = self.gate.stub("ChatService", "Chat")
        call = stub(_request("ChatRequest"))
        try:
            await call
            told: Any = dict(await call.trailing_metadata())
            return str(told["x-tetrad-endpoint"])
        finally:
            call.cancel()

    async def streamed_over_rest(self) -> str:
        ask = self.gate.rest.stream("POST", "/v1/chat/completions", json={**HI, "stream": True})
        async with ask as answer:
            assert answer.status_code == 200
            text = (await answer.aread()).decode()
        if "[DONE]" not in text:
            assert "upstream_" in text, text
            raise Begun
        return answer.headers["x-tetrad-endpoint"]

    async def calls(self, over: Any, until: asyncio.Event) -> None:
        """Calls one after the other until told to stop; what fails is noted."""
        while not until.is_set():
            try:
                self.served[await over()] += 1
            except Begun:
                self.served["begun"] += 1
            except (AssertionError, grpc.aio.AioRpcError) as error:
                self.failed.append(f"{over.__name__}: {error}")


class Begun(Exception):
    """A stream broke off after it had begun, and said so."""


def _request(message: str) -> Any:
    from services import codec

    return codec.message_class(message).FromString(codec.encode_value(message, HI))


@asynccontextmanager
async def fleet(**sections: Any) -> AsyncIterator[Fleet]:
    """All three up and ready."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(3)]
        providers = [
            {"type": "vllm", "url": f"http://127.0.0.1:{port}", "model_name": "qwen3-8b"}
            for port in ports
        ]
        model = {"name": "chat", "type": "text-generation", "providers": providers}
        config = {"probes": {"interval": INTERVAL}, "required_types": [], "models": [model]}
        programs: list[Any] = [None, None, None]
        waiting = Fleet(None, programs, ports, stack)  # type: ignore[arg-type]
        await asyncio.gather(*(waiting.start(which) for which in range(3)))
        waiting.gate = await stack.enter_async_context(gateway(json.dumps({**config, **sections})))
        yield waiting


async def test_a_server_killed_under_load_fails_no_call_and_comes_back_within_an_interval() -> None:
    """G18, G20: over both faces; only streams that had begun at it may break, and say so."""
    async with fleet() as one:
        done = asyncio.Event()
        faces = (one.over_rest, one.over_grpc, one.streamed_over_rest)
        load = [
            asyncio.create_task(one.calls(over, done)) for over in faces for _ in range(CALLERS)
        ]
        await _until(lambda: all(one.served[one.name(which)] >= 50 for which in range(3)))
        one.programs[1].send(signal.SIGKILL)
        gone = one.served[one.name(1)]
        await _until(lambda: one.served.total() >= gone + 1500)
        assert one.failed == []
        late = one.served[one.name(1)]
        await _until(lambda: one.served.total() >= gone + 2000)
        assert one.served[one.name(1)] == late
        began = asyncio.get_running_loop().time()
        await one.start(1)
        started = asyncio.get_running_loop().time()
        await _until(lambda: one.served[one.name(1)] > late)
        back = asyncio.get_running_loop().time()
        done.set()
        await asyncio.gather(*load)
        assert one.failed == []
        assert back - started < INTERVAL + 2.0, (began, started, back)
        assert one.served["begun"] <= CALLERS


async def test_with_all_servers_gone_calls_fail_at_once_and_then_work_again() -> None:
    """G20: without a restart of the gateway."""
    async with fleet() as one:
        for program in one.programs:
            program.send(signal.SIGKILL)
        for _ in range(3):
            answer = await one.gate.rest.post("/v1/chat/completions", json=HI)
            assert answer.status_code == 503
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await one.over_grpc()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await one.start(2)
        await _until_served(one)
        assert await one.over_grpc() == one.name(2)


async def test_fifty_bad_requests_open_no_breaker() -> None:
    """G16: over both faces."""
    async with fleet(breaker={"failures": 3}) as one:
        bad = {"model": "chat", "messages": "no list"}
        for _ in range(50):
            answer = await one.gate.rest.post("/v1/chat/completions", json=bad)
            assert answer.status_code == 400, answer.text
        states = await _breakers(one.gate)
        assert states == {"closed": 3.0, "half_open": 0.0, "open": 0.0}
        assert await one.over_rest()


async def _breakers(gate: Gateway) -> dict[str, float]:
    """How many endpoints are in each state, as /metrics tells."""
    page = (await gate.rest.get("/metrics")).text
    states: Counter[str] = Counter()
    for line in page.splitlines():
        if line.startswith("tetrad_endpoint_breaker_state{"):
            state = line.partition('state="')[2].partition('"')[0]
            states[state] += float(line.rpartition(" ")[2])  # type: ignore[assignment]
    return dict(states)


async def _until_served(one: Fleet) -> None:
    for _ in itertools.count():
        answer = await one.gate.rest.post("/v1/chat/completions", json=HI)
        if answer.status_code == 200:
            return
        await asyncio.sleep(0.02)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.01)
            if holds():
                return
