"""A chat server that is held in the middle of a stream, and a gateway program in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream, Received, Responder, event
from tests.lib.tetrad import Served, configuration, model, serving

CHAT = "text-generation"
HI = [{"role": "user", "content": "hi"}]
REQUEST = {"model": "chatty", "messages": HI}


def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "c", "choices": [choice]}


class Held:
    """A stream that sends one chunk and then waits until it may finish."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.disconnected = 0

    async def __call__(self, received: Received, responder: Responder) -> None:
        await responder.start(200, {"content-type": "text/event-stream"})
        await responder.write(event(chunk("a")))
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.disconnected += 1
            raise
        await responder.write(event(chunk("b", "stop")) + event("[DONE]"))


@asynccontextmanager
async def before(upstream: FakeUpstream, folder: Path, **sections: Any) -> AsyncIterator[Served]:
    """A gateway in front of one chat server."""
    profiles.vllm(upstream)
    config = configuration(
        folder,
        [model("chatty", CHAT, "vllm", upstream.url, "qwen3-8b")],
        required_types=[],
        **sections,
    )
    async with serving("--config", config) as served:
        yield served


async def two_streams(served: Served) -> tuple[asyncio.Task[str], asyncio.Task[Any]]:
    """An open stream on each face, with its first chunk there: what comes of them."""
    begun = [asyncio.Event(), asyncio.Event()]

    async def rest() -> str:
        text = ""
        async with served.gate.rest.stream(
            "POST", "/v1/chat/completions", json={**REQUEST, "stream": True}
        ) as answer:
            async for piece in answer.aiter_text():
                text += piece
                begun[0].set()
        return text

    async def over_rpc() -> Any:
        try:
            async for _ in served.gate.stream("ChatService", "StreamChat", REQUEST):
                begun[1].set()
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the stream ended as a success")

    tasks = asyncio.create_task(rest()), asyncio.create_task(over_rpc())
    for one in begun:
        await one.wait()
    return tasks
