"""What the gRPC face does with a cancellation, seen from the task that was cancelled."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from services.auth import Keyring
from services.inflight import InFlight
from services.server.bind import Context, Ending, Settings


async def test_a_cancel_goes_on_its_way() -> None:
    """G8: a handler that returns instead makes grpc.aio leak a native array."""
    entered = asyncio.Event()
    nobody = cast(Any, None)  # a cancellation asks nothing of the context
    settings = Settings(Keyring([], open=True), InFlight(), 1024)

    async def handler(context: Context) -> None:
        async with Ending(context, settings):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(handler(nobody))
    async with asyncio.timeout(10):
        await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
