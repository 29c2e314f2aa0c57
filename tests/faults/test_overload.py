"""More calls than there are places: each is served, or refused with a word, and nobody else waits.

Through both faces and a real upstream; what one refusal costs is a ratio of one run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from services.upstream.base import Timeouts
from services.upstream.transport import Transport
from tests.fakes.replies import Delayed, Json
from tests.fakes.upstream import FakeUpstream, Raw, Stall
from tests.lib.gateway import Gateway, gateway
from tests.lib.metric_lines import total

CLIENTS: list[Transport] = []
CHAT = "text-generation"
HI = {"messages": [{"role": "user", "content": "hi"}]}
ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"},
                 "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


@pytest.fixture(autouse=True)
async def client() -> AsyncIterator[None]:
    """What calls over REST."""
    CLIENTS.append(Transport())
    yield
    await CLIENTS.pop().aclose()


def config(up: FakeUpstream, names: tuple[str, ...] = ("m",), **more: Any) -> str:
    provider = {"type": "openai", "url": up.url, **more.pop("provider", {})}
    models = [
        {"name": name, "type": CHAT, "providers": [{**provider, "model_name": name}]}
        for name in names
    ]
    base = {"models": models, "required_types": [], "probes": {"interval": 3600}}
    return json.dumps({**base, **more})


async def over_rest(gate: Gateway, model: str = "m") -> str:
    # A thousand calls at once take httpx's pool half a minute.
    body = json.dumps({**HI, "model": model}).encode()
    headers = {"content-type": "application/json"}
    url = f"{gate.url}/v1/chat/completions"
    async with CLIENTS[0].request("POST", url, headers, body, Timeouts()) as answer:
        text = await answer.read()
    if answer.status == 200:
        return "OK"
    assert answer.status == 503, text
    assert int(answer.headers["retry-after"]) >= 1
    return str(json.loads(text)["error"]["code"])


async def over_grpc(gate: Gateway, model: str = "m") -> str:
    try:
        await gate.call("ChatService", "Chat", {**HI, "model": model})
        return "OK"
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return "overloaded"


@pytest.mark.parametrize("over", [over_rest, over_grpc])
async def test_a_thousand_calls_at_fifty_places_lose_none_silently(over: Any) -> None:
    """G15: those that found room to wait are served in their turn, the others are told."""
    async with FakeUpstream() as up:
        up.on("GET", "/*", Raw(b"{}", "application/json"))
        up.on("POST", "/*", Delayed(Json(ANSWER), 0.01))
        text = config(
            up, provider={"max_concurrency": 50}, limits={"max_queue": 450, "max_in_flight": 1000}
        )
        async with gateway(text) as gate:
            ends = Counter(await asyncio.gather(*(over(gate) for _ in range(1000))))
            assert ends.total() == 1000
            assert ends["OK"] + ends["overloaded"] == 1000
            assert ends["OK"] >= 500
            assert up.connections.peak <= 50
            asked = sum(one.method == "POST" for one in up.requests)
            assert asked == ends["OK"]
            runtime = gate.running.runtime
            assert (runtime.admission.in_flight, runtime.admission.waiting) == (0, 0)
            assert await runtime.in_flight.idle(5)


@pytest.mark.parametrize("over", [over_rest, over_grpc])
async def test_a_hung_model_delays_no_other(over: Any) -> None:
    """G15: also when its calls hold all places of the gateway."""
    async with FakeUpstream() as hung, FakeUpstream() as well:
        hung.on("POST", "/*", Stall("headers"))
        well.on("POST", "/*", Json(ANSWER))
        text = config(hung, ("hung", "other"), limits={"max_in_flight": 20, "max_queue": 0})
        settings = json.loads(text)
        settings["models"][1]["providers"][0]["url"] = well.url
        async with gateway(json.dumps(settings)) as gate:
            alone = [await _timed(over, gate) for _ in range(20)]
            held = [asyncio.create_task(over(gate, "hung")) for _ in range(20)]
            await hung.received(20)
            assert await over(gate, "hung") == "overloaded"
            beside = [await _timed(over, gate) for _ in range(20)]
            assert sorted(beside)[18] < max(10 * sorted(alone)[18], 0.1)
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)


async def _timed(over: Any, gate: Gateway) -> float:
    began = time.perf_counter()
    assert await over(gate, "other") == "OK"
    return time.perf_counter() - began


@asynccontextmanager
async def full(**more: Any) -> AsyncIterator[Gateway]:
    """A gateway whose only two places are taken."""
    async with FakeUpstream() as hung:
        hung.on("GET", "/*", Raw(b"{}", "application/json"))
        hung.on("POST", "/*", Stall("headers"))
        limits = {"max_in_flight": 2, "max_queue": 0}
        async with gateway(config(hung, limits=limits, **more)) as gate:
            held = [asyncio.create_task(over_rest(gate)) for _ in range(2)]
            admission = gate.running.runtime.admission
            await hung.until(lambda: admission.in_flight == 2)
            yield gate
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)


@asynccontextmanager
async def connected(gate: Gateway) -> AsyncIterator[tuple[Any, Any]]:
    """A connection of bare bytes: what was written is answered by `ask`, heads of answers."""
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def ask(data: bytes) -> tuple[str, bytes]:
        writer.write(data)
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            return head, await reader.readexactly(length)

    try:
        yield ask, reader
    finally:
        writer.close()


def post(length: int, *more: str, version: str = "1.1") -> bytes:
    lines = [f"POST /v1/chat/completions HTTP/{version}", "host: x", f"content-length: {length}"]
    lines += ["content-type: application/json", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def test_a_full_gateway_refuses_before_it_has_read_the_call() -> None:
    """G15: also one whose body never comes; what needs no place is still answered, and the
    refusals are counted."""
    async with full() as gate:
        async with connected(gate) as (ask, _):
            head, body = await ask(post(99, "x-request-id: one"))
        assert head.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1\r\n" in head
        assert "x-request-id: one\r\n" in head
        assert json.loads(body)["error"]["code"] == "overloaded"
        assert await over_grpc(gate) == "overloaded"
        assert await over_grpc(gate) == "overloaded"
        await gate.call("ModelService", "ListModels", {})
        page = gate.running.runtime.metrics.page()[1]
        assert total(page, "tetrad_refused_calls_total", face="rest") == 1
        assert total(page, "tetrad_refused_calls_total", face="grpc") == 2


async def test_after_a_refusal_the_connection_goes_on() -> None:
    """Its body is thrown away, whenever it comes; what follows is the next request."""
    async with full() as gate, connected(gate) as (ask, _):
        assert (await ask(post(5)))[0].startswith("HTTP/1.1 503 ")
        models = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
        assert (await ask(b"12345" + models))[0].startswith("HTTP/1.1 200 ")
        assert (await ask(post(3) + b"abc"))[0].startswith("HTTP/1.1 503 ")
        assert (await ask(models))[0].startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "asked", [post(2, version="1.0"), post(2, "connection: close"), post(2, "expect: 100-continue")]
)
async def test_a_refusal_ends_a_connection_that_was_to_end(asked: bytes) -> None:
    async with full() as gate, connected(gate) as (ask, reader):
        head, _ = await ask(asked + b"{}")
        assert head.startswith("HTTP/1.1 503 ")
        assert "connection: close\r\n" in head
        async with asyncio.timeout(10):
            assert await reader.read() == b""


async def test_a_web_page_may_read_its_refusal() -> None:
    async with full(http={"cors": ["http://a.example"], "address": "127.0.0.1:0"}) as gate:
        async with connected(gate) as (ask, _):
            head, _ = await ask(post(2, "origin: http://a.example") + b"{}")
        assert head.startswith("HTTP/1.1 503 ")
        assert "access-control-allow-origin: http://a.example\r\n" in head
