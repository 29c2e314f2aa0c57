"""services/call.py: time that is left, and which limit struck."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

import pytest

from services.call import Call
from services.errors import DeadlineExceeded


def call(seconds: float | None = None) -> Call:
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    return Call("req-1", "Chat", "grpc", deadline=deadline)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def struck(work: Awaitable[None]) -> DeadlineExceeded:
    """The error that some work ends with."""
    with pytest.raises(DeadlineExceeded) as caught:
        await work
    return caught.value


async def test_a_call_without_a_deadline_has_no_end() -> None:
    assert call().remaining() is None
    assert not call().expired


async def test_remaining_time_runs_down_to_below_zero() -> None:
    assert call(60).remaining() == pytest.approx(60, abs=0.5)
    late = call(-1)
    remaining = late.remaining()
    assert remaining is not None
    assert remaining < 0
    assert late.expired


@pytest.mark.parametrize(
    ("deadline", "seconds", "which"),
    [
        (None, 0.02, "first_byte"),
        (60, 0.02, "idle"),
        (0.02, 60, "deadline"),
        (0.02, None, "deadline"),
        (-1, None, "deadline"),
        (-1, 60, "deadline"),
        (None, 0, "total"),
    ],
)
async def test_the_error_names_the_limit_that_struck(
    deadline: float | None, seconds: float | None, which: str
) -> None:
    """G21: the client's deadline caps all."""
    with (
        pytest.raises(DeadlineExceeded) as caught,
        call(deadline).limit(seconds, which if which != "deadline" else "total"),
    ):
        await for_ever()
    assert caught.value.which == which
    assert caught.value.metadata["which"] == which
    assert float(caught.value.metadata["seconds"]) >= 0


async def test_a_limit_that_does_not_strike_changes_nothing() -> None:
    with call(60).limit(60, "total"):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="own"), call().limit(60, "total"):
        raise ValueError("own")
    with pytest.raises(TimeoutError), call().limit(60, "total"):
        raise TimeoutError  # somebody else's
    with call().limit(None, "total"):
        await asyncio.sleep(0)


async def test_the_inner_of_two_limits_strikes_first() -> None:
    this = call()
    with (
        pytest.raises(DeadlineExceeded) as caught,
        this.limit(60, "total"),
        this.limit(0.01, "connect"),
    ):
        await for_ever()
    assert caught.value.which == "connect"


async def test_the_outer_of_two_limits_strikes_through_the_inner() -> None:
    this = call()
    with (
        pytest.raises(DeadlineExceeded) as caught,
        this.limit(0.01, "total"),
        this.limit(60, "connect"),
    ):
        await for_ever()
    assert caught.value.which == "total"


async def test_two_limits_at_the_same_deadline_are_one_error() -> None:
    this = call(0.02)
    with (
        pytest.raises(DeadlineExceeded) as caught,
        this.limit(None, "deadline"),
        this.limit(60, "total"),
    ):
        await for_ever()
    assert caught.value.which == "deadline"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancel_from_outside_stays_a_cancel() -> None:
    async def limited() -> None:
        with call(60).limit(60, "total"):
            await for_ever()

    task = asyncio.create_task(limited())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_outermost_limit_can_be_brought_forward() -> None:
    async def work(this: Call) -> None:
        with this.limit(None, "deadline"), this.limit(30, "connect"):
            this.tighten(0.01, "total")
            await for_ever()

    error = await struck(work(call(60)))
    assert error.which == "total"
    assert error.metadata["seconds"] == "0.01"


async def test_a_limit_is_never_put_off() -> None:
    async def work(this: Call) -> None:
        with this.limit(None, "deadline"):
            this.tighten(60, "total")
            this.tighten(None, "total")
            await for_ever()

    assert (await struck(work(call(0.02)))).which == "deadline"


async def test_without_a_limit_there_is_nothing_to_bring_forward() -> None:
    this = call()
    this.tighten(0.0, "total")
    with this.limit(None, "total"):
        pass
    this.tighten(0.0, "total")
    await asyncio.sleep(0)


async def test_a_stream_s_limit_strikes_while_its_consumer_is_at_work() -> None:
    """A write that the client does not take is no excuse."""
    this = call()

    async def stream() -> AsyncGenerator[int, None]:
        this.tighten(0.01, "total")
        yield 1

    async def consume() -> None:
        with this.limit(None, "deadline"):
            async with aclosing(stream()) as numbers:
                async for _ in numbers:
                    assert not this.expired
                    await for_ever()

    assert (await struck(consume())).which == "total"


async def test_within_a_limit_that_struck_a_call_is_expired() -> None:
    this = call()
    seen = []

    async def work() -> None:
        with this.limit(0.01, "total"):
            try:
                await for_ever()
            finally:
                seen.append(this.expired)

    await struck(work())
    assert seen == [True]
    assert not this.expired
