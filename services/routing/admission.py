"""Who may begin: bounds on calls at providers and on calls that wait, for the gateway and a model.

A place is a lease. Whoever waits is served in turn by key, so that no key's crowd delays another
key, and a model's crowd never takes another model's share. Knows nothing of upstreams.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from services import errors
from services.call import Call
from services.routing.table import Route, RoutedModel

_LEAST_WAIT: Final = 1.0
"""Seconds that a refused caller is told to wait at least."""


class Lease:
    """A place at a route, given back once, with `end` and how the attempt went."""

    __slots__ = ("_admission", "_ended", "_ticket", "began", "model", "route")

    def __init__(self, admission: Admission, model: RoutedModel, route: Route) -> None:
        self._admission = admission
        self.model, self.route = model, route
        self.began = admission.clock()
        self._ended = False
        admission.in_flight += 1
        model.in_flight += 1
        route.in_flight += 1
        self._ticket = route.breaker.begin()

    def end(self, verdict: bool | None) -> None:
        """Give it back. verdict: True for a success, False for a failure of the provider, None
        for what says nothing about it."""
        if self._ended:
            return
        self._ended = True
        admission, model, route = self._admission, self.model, self.route
        admission.in_flight -= 1
        model.in_flight -= 1
        route.in_flight -= 1
        if verdict is True:
            route.breaker.succeeded(self._ticket)
            route.ready = True  # an answer is as good as a probe's
            model.served(admission.clock() - self.began)
        elif verdict is False:
            route.breaker.failed(self._ticket)
        else:
            route.breaker.neither(self._ticket)
        admission.wake(model)


@dataclass(slots=True, eq=False)
class _Waiter:
    name: str
    place: asyncio.Future[Lease]
    key: bytes
    tried: Collection[Route]


@dataclass(slots=True, eq=False)
class _Queue:
    """Who waits for a model: one line for each key, served in turn, after those who try again."""

    again: deque[_Waiter] = field(default_factory=deque)
    lines: OrderedDict[str, deque[_Waiter]] = field(default_factory=OrderedDict)
    length: int = 0

    def add(self, waiter: _Waiter) -> None:
        """At the end of its line."""
        line = self.again if waiter.tried else self.lines.setdefault(waiter.name, deque())
        line.append(waiter)
        self.length += 1

    def next_line(self) -> deque[_Waiter] | None:
        """The line whose turn it is; the turn goes on to the next one."""
        if not self.lines:
            return None
        name, line = self.lines.popitem(last=False)
        self.lines[name] = line
        return line

    def undo_turn(self) -> None:
        """The line whose turn it was could not be served: it stays its turn."""
        self.lines.move_to_end(next(reversed(self.lines)), last=False)

    def remove(self, waiter: _Waiter) -> None:
        """It has its place, or gave up."""
        line = self.again if waiter.tried else self.lines.get(waiter.name)
        if line is None or waiter not in line:
            return
        line.remove(waiter)
        self.length -= 1
        if not line and line is not self.again:
            del self.lines[waiter.name]


class Admission:
    """The gateway's places. None for a bound is no bound, 0 allows none.

    max_in_flight: calls at providers at the same time; a model that holds less than its equal
    share of them is still let in when they are taken. max_queue: calls that wait. queue: seconds
    that one waits at most. models: how many models share.
    """

    def __init__(
        self,
        random: Random,
        clock: Callable[[], float],
        *,
        max_in_flight: int | None = None,
        max_queue: int | None = None,
        queue: float = 10.0,
        models: int = 1,
    ) -> None:
        self.random, self.clock = random, clock
        self.in_flight = 0
        self.waiting = 0
        self._queues: OrderedDict[RoutedModel, _Queue] = OrderedDict()
        self.configure(max_in_flight, max_queue, queue, models)

    def configure(
        self, max_in_flight: int | None, max_queue: int | None, queue: float, models: int
    ) -> None:
        """Take other bounds, for the calls to come."""
        self._max_in_flight, self._max_queue, self._seconds = max_in_flight, max_queue, queue
        self._share = 0.0 if max_in_flight is None else max_in_flight / max(1, models)

    def waiting_for(self, model: RoutedModel) -> int:
        """How many calls wait for a model."""
        queue = self._queues.get(model)
        return queue.length if queue else 0

    def is_full(self, models: Iterable[RoutedModel]) -> bool:
        """Whether a call of any of these models would find neither a place nor room to wait, so
        that it can be refused before it is read."""
        if self._max_queue is None or self.waiting < self._max_queue:
            return False
        return not any(self._takes(model) for model in models)

    def _takes(self, model: RoutedModel) -> bool:
        free = self._has_room(model) and any(route.is_free for route in model.routes)
        return free and not self.waiting_for(model)

    def at_once(
        self, model: RoutedModel, key: bytes = b"", tried: Collection[Route] = ()
    ) -> Lease | None:
        """As `lease`, but None where there is a wait. Raises errors.UpstreamUnavailable."""
        if self._queues and (queue := self._queues.get(model)) is not None and queue.length:
            return None
        return self._try(model, key, tried)

    async def lease(
        self, model: RoutedModel, call: Call, key: bytes = b"", tried: Collection[Route] = ()
    ) -> Lease:
        """A place at a route that is not among `tried`, at once or when one becomes free.

        Raises errors.Overloaded (no room to wait, or the wait would be too long),
        errors.DeadlineExceeded ("queue", "deadline"), and errors.UpstreamUnavailable.
        """
        place = self.at_once(model, key, tried)
        if place is not None:
            return place
        self._refuse_what_is_hopeless(model, call)
        return await self._wait(model, call, _Waiter(call.principal.name, _future(), key, tried))

    def wake(self, model: RoutedModel) -> None:
        """A place may be free: hand it to who waits, for this model first, then for others."""
        if not self._queues:
            return
        if model in self._queues:
            self._serve(model)
        if self._max_in_flight is not None:
            for other in list(self._queues):
                if self.in_flight >= self._max_in_flight:
                    break
                if other is not model:
                    self._serve(other)

    def _serve(self, model: RoutedModel) -> None:
        queue = self._queues[model]
        for waiter in tuple(queue.again):
            self._hand(model, queue, waiter)
        while (line := queue.next_line()) is not None:
            if not self._hand(model, queue, line[0]):
                queue.undo_turn()
                return

    def _hand(self, model: RoutedModel, queue: _Queue, waiter: _Waiter) -> bool:
        """Give a waiter its place, or the error that there will be none; False: not yet."""
        if not waiter.place.done():  # else it has given up, and is not yet gone from the queue
            try:
                place = self._try(model, waiter.key, waiter.tried)
            except errors.TetradError as error:
                waiter.place.set_exception(error)
            else:
                if place is None:
                    return False
                waiter.place.set_result(place)
        queue.remove(waiter)
        return True

    def _try(self, model: RoutedModel, key: bytes, tried: Collection[Route]) -> Lease | None:
        if not self._has_room(model):
            return None
        route = model.route(self.random, key, tried, self.clock())
        return None if route is None else Lease(self, model, route)

    def _has_room(self, model: RoutedModel) -> bool:
        own = model.max_in_flight
        if own is not None and model.in_flight >= own:
            return False
        most = self._max_in_flight
        return most is None or self.in_flight < most or model.in_flight < self._share

    def _refuse_what_is_hopeless(self, model: RoutedModel, call: Call) -> None:
        ahead = self.waiting_for(model)
        wait = self._estimate(model, ahead)
        figures = {"model": model.name, "waiting": str(ahead), "in_flight": str(model.in_flight)}
        if self._slots(model) == 0:
            why = f"`{model.name}` is allowed no calls at all"
        elif self._max_queue is not None and self.waiting >= self._max_queue:
            why = f"{self.waiting} calls wait already, as many as limits.max_queue allows"
            figures["limit"] = str(self._max_queue)
        elif model.max_queue is not None and ahead >= model.max_queue:
            why = f"{ahead} calls wait for `{model.name}` already, as many as its max_queue allows"
            figures["limit"] = str(model.max_queue)
        elif wait > self._seconds or _is_late(call, wait + model.service_time):
            why = (
                f"`{model.name}` is busy: the call would wait about {wait:.1f} s, longer than it "
                "has time"
            )
        else:
            return
        raise errors.Overloaded(why, metadata=figures, retry_after=max(_LEAST_WAIT, wait))

    def _slots(self, model: RoutedModel) -> int | None:
        bounds = [
            b for b in (model.slots, model.max_in_flight, self._max_in_flight) if b is not None
        ]
        return min(bounds, default=None)

    def _estimate(self, model: RoutedModel, ahead: int) -> float:
        """Seconds until a call's turn comes that has `ahead` others before it."""
        slots = self._slots(model)
        return model.service_time * (ahead + 1) / slots if slots else 0.0

    async def _wait(self, model: RoutedModel, call: Call, waiter: _Waiter) -> Lease:
        queue = self._queues.setdefault(model, _Queue())
        queue.add(waiter)
        self.waiting += 1
        began = self.clock()
        try:
            with call.limit(self._seconds, "queue"):
                return await waiter.place
        except BaseException:
            place = waiter.place
            if place.done() and not place.cancelled() and place.exception() is None:
                place.result().end(None)  # it came in the moment of the cancellation
            raise
        finally:
            self.waiting -= 1
            call.queued += self.clock() - began
            queue.remove(waiter)
            if not queue.length and self._queues.get(model) is queue:
                del self._queues[model]


def _is_late(call: Call, seconds: float) -> bool:
    remaining = call.remaining()
    return remaining is not None and seconds > remaining


def _future() -> asyncio.Future[Lease]:
    return asyncio.get_running_loop().create_future()
