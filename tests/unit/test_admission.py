"""services/routing/admission.py: places, who waits for them, and who is refused at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from services import errors
from services.auth import Principal
from services.call import Call
from services.routing.admission import Admission, Lease
from services.routing.table import LAST_RESORT, Route, RoutedModel

CHAT = "text-generation"


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def route(name: str = "r", most: int | None = 1) -> Route:
    return Route(name, object(), max_concurrency=most, ready=True)


def model(name: str, *routes: Route, **more: Any) -> RoutedModel:
    return RoutedModel(name, CHAT, list(routes) or [route()], **more)


def admission(clock: Callable[[], float] | None = None, **bounds: Any) -> Admission:
    return Admission(random.Random(1), clock or Clock(), **bounds)  # noqa: S311


def a_call(key: str = "ada", seconds: float | None = None) -> Call:
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    return Call("id", "Chat", "rest", deadline=deadline, principal=Principal(key))


async def settle() -> None:
    """Lets everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


def queued(this: Admission, it: RoutedModel, call: Call, **more: Any) -> asyncio.Task[Lease]:
    return asyncio.get_running_loop().create_task(this.lease(it, call, **more))


async def test_a_free_place_is_taken_at_once_and_given_back_once() -> None:
    """G13."""
    this, it = admission(), model("m")
    lease = await this.lease(it, a_call())
    assert (this.in_flight, it.in_flight, it.routes[0].in_flight) == (1, 1, 1)
    lease.end(True)
    lease.end(False)
    assert (this.in_flight, it.in_flight, it.routes[0].in_flight) == (0, 0, 0)


async def test_who_comes_late_waits_for_a_place_and_the_wait_is_noted() -> None:
    clock = Clock()
    this, it, call = admission(clock), model("m"), a_call()
    first = await this.lease(it, a_call())
    second = queued(this, it, call)
    await settle()
    assert (second.done(), this.waiting, this.waiting_for(it)) == (False, 1, 1)
    clock.now += 0.5
    first.end(True)
    assert (await second).route is it.routes[0]
    assert (call.queued, this.waiting, this.waiting_for(it)) == (0.5, 0, 0)


async def test_keys_take_turns_however_many_calls_one_of_them_has() -> None:
    """One key's crowd does not delay another key."""
    this, it = admission(), model("m")
    held = await this.lease(it, a_call())
    order: list[str] = []

    async def one(key: str) -> None:
        lease = await this.lease(it, a_call(key))
        order.append(key)
        await asyncio.sleep(0)
        lease.end(True)

    crowd = [asyncio.create_task(one("crowd")) for _ in range(6)]
    await settle()
    others = [asyncio.create_task(one(key)) for key in ("bob", "eve")]
    await settle()
    held.end(True)
    await asyncio.gather(*crowd, *others)
    assert order == ["crowd", "bob", "eve", *["crowd"] * 5]


async def test_a_full_queue_refuses_at_once() -> None:
    """G15."""
    this, it = admission(max_queue=2), model("m")
    held = await this.lease(it, a_call())
    waiting = [queued(this, it, a_call()) for _ in range(2)]
    await settle()
    with pytest.raises(errors.Overloaded, match="2 calls wait already") as caught:
        await this.lease(it, a_call())
    assert caught.value.metadata["limit"] == "2"
    assert caught.value.retryable_by_client
    held.end(True)
    for task in waiting:
        (await task).end(True)


async def test_it_is_full_once_no_model_has_a_place_or_room_to_wait() -> None:
    """G15: then a call is refused before it is read."""
    this = admission(max_queue=1)
    it, other = model("m"), model("n")
    models = [it, other]
    held = await this.lease(it, a_call())
    waiting = queued(this, it, a_call())
    await settle()
    assert not this.is_full(models)  # the other model has a place
    assert this.is_full([it])
    taken = await this.lease(other, a_call())
    assert this.is_full(models)
    taken.end(True)
    assert not this.is_full(models)
    held.end(True)
    await settle()
    assert not this.is_full([it])  # the one who waited has the place, and may be waited behind
    (await waiting).end(True)


async def test_without_a_bound_it_is_never_full() -> None:
    it = model("m")
    this = admission()
    await this.lease(it, a_call())
    assert not this.is_full([it])


async def test_a_model_s_own_queue_is_bounded_too() -> None:
    this = admission(max_queue=100)
    it, other = model("m", max_queue=0), model("n")
    await this.lease(it, a_call())
    with pytest.raises(errors.Overloaded, match="as many as its max_queue"):
        await this.lease(it, a_call())
    await this.lease(other, a_call())
    waiting = queued(this, other, a_call())
    await settle()
    assert not waiting.done()
    waiting.cancel()


async def test_a_model_has_a_bound_of_its_own() -> None:
    this, it = admission(max_queue=0), model("m", route(most=None), max_in_flight=2)
    await this.lease(it, a_call())
    await this.lease(it, a_call())
    with pytest.raises(errors.Overloaded):
        await this.lease(it, a_call())


@pytest.mark.parametrize("bound", ["route", "model", "gateway"])
async def test_a_bound_of_zero_refuses_all_at_once(bound: str) -> None:
    it = model("m", route(most=0 if bound == "route" else None))
    it.max_in_flight = 0 if bound == "model" else None
    this = admission(max_in_flight=0 if bound == "gateway" else None)
    with pytest.raises(errors.Overloaded, match="no calls at all"):
        await this.lease(it, a_call())


async def test_one_model_s_crowd_leaves_another_its_share() -> None:
    """G15: a hung upstream never delays another model."""
    this = admission(max_in_flight=10, max_queue=0, models=2)
    hung, other = model("hung", route(most=None)), model("other", route(most=None))
    for _ in range(10):
        await this.lease(hung, a_call())
    with pytest.raises(errors.Overloaded):
        await this.lease(hung, a_call())
    for _ in range(5):
        await this.lease(other, a_call())
    with pytest.raises(errors.Overloaded):
        await this.lease(other, a_call())


async def test_a_place_of_the_gateway_goes_to_another_model_that_waits() -> None:
    this = admission(max_in_flight=1, models=3)
    one, two = model("one", route(most=None)), model("two", route(most=None))
    held = await this.lease(one, a_call())
    # Less than a whole call is its share: two gets in beyond the bound, and then waits.
    beyond = await this.lease(two, a_call())
    waiting = queued(this, two, a_call())
    await settle()
    held.end(True)
    await settle()
    assert not waiting.done()
    beyond.end(True)
    await waiting


async def test_a_wait_is_bounded() -> None:
    """G21."""
    this, it = admission(queue=0.02), model("m")
    held = await this.lease(it, a_call())
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await this.lease(it, a_call())
    assert caught.value.which == "queue"
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await this.lease(it, a_call(seconds=0.01))
    assert caught.value.which == "deadline"
    assert (this.waiting, this.waiting_for(it)) == (0, 0)
    held.end(True)
    await this.lease(it, a_call())


async def test_what_cannot_finish_in_time_is_refused_at_once() -> None:
    """Known from how long calls of the model have taken."""
    clock = Clock()
    this, it = admission(clock, queue=100.0), model("m")
    first = await this.lease(it, a_call())
    clock.now += 5
    first.end(True)
    assert it.service_time == 5
    held = await this.lease(it, a_call(seconds=1))
    with pytest.raises(errors.Overloaded, match=r"would wait about 5\.0 s") as caught:
        await this.lease(it, a_call(seconds=9))
    assert caught.value.wait == 5
    patient = queued(this, it, a_call(seconds=11))
    await settle()
    assert not patient.done()
    held.end(True)
    await patient


async def test_who_leaves_while_waiting_holds_nothing() -> None:
    """G5, G13."""
    this, it = admission(), model("m")
    held = await this.lease(it, a_call())
    leaving, staying = queued(this, it, a_call()), queued(this, it, a_call())
    await settle()
    leaving.cancel()
    await settle()
    assert this.waiting_for(it) == 1
    held.end(True)
    (await staying).end(True)
    assert (this.in_flight, it.in_flight) == (0, 0)


async def test_who_leaves_in_the_moment_that_its_place_comes_gives_it_back() -> None:
    """G13."""
    this, it = admission(), model("m")
    held = await this.lease(it, a_call())
    leaving, next_one = queued(this, it, a_call()), queued(this, it, a_call())
    await settle()
    held.end(True)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    (await next_one).end(True)
    assert (this.in_flight, this.waiting) == (0, 0)


async def test_a_further_attempt_waits_for_another_route_and_goes_first() -> None:
    this = admission()
    one, two = route("one"), route("two")
    it = model("m", one, two)
    leases = [await this.lease(it, a_call()) for _ in range(2)]
    by_name = {lease.route.name: lease for lease in leases}
    first = queued(this, it, a_call("bob"))
    await settle()
    again = queued(this, it, a_call(), tried=[one])
    await settle()
    by_name["one"].end(True)
    await settle()
    assert (first.done(), again.done()) == (True, False)
    first.result().end(True)
    by_name["two"].end(True)
    assert (await again).route is two


async def test_who_waits_learns_that_no_provider_is_left() -> None:
    this, it = admission(), model("m", route(most=LAST_RESORT))
    for _ in range(LAST_RESORT):
        await this.lease(it, a_call())
    waiting = queued(this, it, a_call())
    await settle()
    breaker = it.routes[0].breaker
    for _ in range(5):
        breaker.failed(breaker.begin())
    this.wake(it)
    with pytest.raises(errors.UpstreamUnavailable, match="no provider of `m` is healthy"):
        await waiting
    assert (this.in_flight, this.waiting_for(it)) == (LAST_RESORT, 0)


async def test_places_in_use_are_calls_that_run_whatever_happens() -> None:
    """G13: counted through a storm of calls, cancels, failures and refusals."""
    dice = random.Random(7)  # noqa: S311
    this = admission(max_in_flight=8, max_queue=20, queue=0.05, models=2)
    models = [model("a", route("a1", 3), route("a2", 2)), model("b", route("b1", None))]
    live = 0

    async def one(it: RoutedModel) -> None:
        nonlocal live
        try:
            lease = await this.lease(it, a_call(dice.choice("xyz")))
        except errors.TetradError:
            return
        live += 1
        try:
            assert live <= this.in_flight <= 8 + 4  # beyond 8 only as a model's share
            await asyncio.sleep(dice.random() / 1000)
        finally:
            live -= 1
            lease.end(dice.choice([True, None]))

    tasks = []
    for number in range(1500):
        tasks.append(asyncio.create_task(one(dice.choice(models))))
        if number % 3 == 0:
            dice.choice(tasks).cancel()
        if number % 10 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    failed = [t.exception() for t in tasks if not t.cancelled() and t.exception()]
    assert failed == []
    assert (this.in_flight, this.waiting, live) == (0, 0, 0)
    assert all(it.in_flight == 0 and this.waiting_for(it) == 0 for it in models)
    assert all(r.in_flight == 0 for it in models for r in it.routes)


async def test_an_answer_is_as_good_as_a_probe() -> None:
    """G20."""
    this, it = admission(), model("m")
    it.routes[0].ready = False
    (await this.lease(it, a_call())).end(None)
    assert not it.ready
    (await this.lease(it, a_call())).end(True)
    assert it.ready
