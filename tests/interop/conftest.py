"""A gateway as a program on TCP, in front of a fake of each type, for foreign clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.tetrad import Served, serving

KINDS = ("vllm", "tei", "whisper", "tei-reranker")


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def served() -> AsyncIterator[Served]:
    """Its models have their upstreams' names; each is the only one of its type."""
    async with AsyncExitStack() as stack:
        flags: list[str] = []
        for kind in KINDS:
            fake = await stack.enter_async_context(FakeUpstream())
            profiles.PROFILES[kind](fake)
            flags += ["--upstream", fake.url]
        yield await stack.enter_async_context(serving(*flags))
