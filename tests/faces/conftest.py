"""One world of upstreams and gateways for all tests of the faces, in one event loop.

Their modules say `pytestmark = pytest.mark.asyncio(loop_scope="package")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.lib.sdk import Sdk
from tests.lib.world import World
from tests.lib.world import world as make


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def world() -> AsyncIterator[World]:
    """See tests/lib/world.py."""
    async with make() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="package", params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Sdk]:
    """The official SDK, sync and async, without retries."""
    one = Sdk(request.param, world.relaying.url)
    yield one
    await one.close()
