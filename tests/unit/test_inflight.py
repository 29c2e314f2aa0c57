"""services/inflight.py: counts, limits, drains."""

from __future__ import annotations

import asyncio

import pytest

from services import errors
from services.inflight import InFlight


def test_calls_are_counted_however_they_end() -> None:
    """G13."""
    calls = InFlight()

    def call(error: BaseException | None) -> None:
        with calls, calls:
            assert calls.count == 2
            if error:
                raise error

    call(None)
    for error in (ValueError(), asyncio.CancelledError(), GeneratorExit()):
        with pytest.raises(type(error)):
            call(error)
    assert calls.count == 0


def test_at_the_limit_a_call_is_refused_and_costs_nothing() -> None:
    """G14, G15."""
    calls = InFlight(2)
    with calls, calls:
        with pytest.raises(errors.Overloaded) as caught:
            calls.__enter__()
        assert caught.value.grpc_code == "RESOURCE_EXHAUSTED"
        assert caught.value.wait == 1.0
        assert caught.value.metadata == {"limit": "2"}
        assert calls.count == 2
    with calls:
        assert calls.count == 1


def test_zero_allows_none() -> None:
    with pytest.raises(errors.Overloaded):
        InFlight(0).__enter__()


def test_a_drain_lets_nothing_more_in() -> None:
    """G36."""
    calls = InFlight()
    with calls:
        calls.drain()
        with pytest.raises(errors.Draining):
            calls.__enter__()
        assert calls.count == 1
    assert calls.draining
    assert calls.count == 0


async def test_idle_waits_for_the_last_call() -> None:
    calls = InFlight()
    assert await calls.idle()
    calls.__enter__()
    calls.__enter__()
    waiting = asyncio.create_task(calls.idle())
    calls.__exit__(None, None, None)
    assert not await calls.idle(0.01)
    assert not waiting.done()
    calls.__exit__(None, None, None)
    assert await waiting
    assert await calls.idle(0.01)


async def test_ending_all_cancels_those_in_work_and_tells_them_why() -> None:
    """G36."""
    calls = InFlight()
    told: list[bool] = []

    async def call() -> None:
        with calls:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append(calls.ending)
                raise

    async def left_before() -> None:
        with calls:
            pass
        await asyncio.sleep(0)

    tasks = [asyncio.create_task(call()) for _ in range(3)]
    other = asyncio.create_task(left_before())
    await asyncio.sleep(0)
    assert calls.count == 3
    assert not calls.ending
    calls.end_all()
    assert await calls.idle(1)
    await other
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
    assert told == [True] * 3
    with pytest.raises(errors.Draining):
        calls.__enter__()
