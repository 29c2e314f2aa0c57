"""Adapters on fake upstreams, for tests: an adapter, a call, a whole stream.

Every transport made here is closed at the end of its block, with all that was under way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.body import Body
from services.call import Call
from services.upstream import Adapter, Endpoint, Timeouts, Transport, build
from tests.fakes.upstream import FakeUpstream
from tests.lib import recordings

KEY = "sk-upstream-5f2c9a"

VIA = "own"
"""The HTTP client of transports and adapters made here; the fixture `via` changes it."""

QUICK = Timeouts(connect=5.0, first_byte=5.0, idle=5.0)


@asynccontextmanager
async def transport() -> AsyncIterator[Transport]:
    """A transport of its own."""
    one = Transport(via=VIA)
    try:
        yield one
    finally:
        await one.aclose()


@asynccontextmanager
async def adapter(
    up: FakeUpstream,
    kind: str = "openai",
    model: str = "",
    *,
    key: str = KEY,
    timeouts: Timeouts = QUICK,
) -> AsyncIterator[Adapter]:
    """An adapter of a kind for a fake upstream."""
    async with transport() as one:
        yield build(
            Endpoint("fake", up.url, kind, model, key, timeouts, transport=VIA),
            one,
        )


def a_call(method: str = "Chat", *, include_usage: bool = True, **headers: str) -> Call:
    """A call without a deadline."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call("req-1", method, "rest", headers=told, include_usage=include_usage)


def chat(**members: Any) -> Body:
    """A ChatRequest."""
    asked = {"model": "caller's", "messages": [{"role": "user", "content": "hi"}]}
    return Body.from_value("ChatRequest", asked | members)


async def all_of(stream: AsyncIterator[list[Body]]) -> list[Any]:
    """The JSON values of a stream to its end."""
    return [body.value() async for batch in stream for body in batch]


async def until_error(stream: AsyncIterator[list[Body]]) -> tuple[list[Any], Exception]:
    """What a stream delivered, and the error that it ended with."""
    delivered: list[Any] = []
    try:
        async for batch in stream:
            delivered += [body.value() for body in batch]
    except Exception as error:
        return delivered, error
    raise AssertionError("the stream ended as a success")


def sse(file: str) -> bytes:
    """The bytes of a recorded stream."""
    return recordings.get(file).bytes
