"""What a failed attempt means: whether another provider is tried, whether the breaker counts it.

One retry layer, with a budget (`budget`): nothing else in the gateway tries again, and clients are
told not to. Pure but for the places it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from services import errors
from services.call import Call
from services.errors import TetradError
from services.routing.admission import Admission, Lease
from services.routing.budget import RetryBudget
from services.routing.table import Route, RoutedModel

LONGEST_PAUSE: Final = 60.0
"""Seconds that a provider's Retry-After keeps calls away from it at most."""

_NO_ANSWER_YET: Final = frozenset({"connect", "first_byte"})
_ITS_LIMITS: Final = frozenset({"connect", "first_byte", "idle", "total", "upstream"})


def is_worth_another(error: TetradError) -> bool:
    """Whether another provider may do better: it could not be reached, is overloaded or on its
    way down (429, 502, 503, 529), did not begin to answer, broke off, or failed after it had said
    200. What failed on the request itself (4xx, 500) would fail there too."""
    if isinstance(error, errors.DeadlineExceeded):
        return error.which in _NO_ANSWER_YET
    if isinstance(error, errors.UpstreamFailed):
        return error.upstream is None or error.upstream.http_status == HTTPStatus.OK
    return isinstance(
        error,
        errors.UpstreamUnavailable
        | errors.UpstreamTruncated
        | errors.UpstreamRateLimited
        | errors.WrongDimension,
    )


def verdict(error: BaseException) -> bool | None:
    """False if the provider's breaker counts it (connection, 5xx, 429, its time limits), None if
    it says nothing about the provider: a 4xx, a caller who left, a fault of ours."""
    if isinstance(error, errors.DeadlineExceeded):
        return False if error.which in _ITS_LIMITS else None
    counted = isinstance(
        error,
        errors.UpstreamUnavailable
        | errors.UpstreamTruncated
        | errors.UpstreamRateLimited
        | errors.UpstreamFailed,
    )
    return False if counted else None


class Attempts:
    """The attempts of one call at the routes of one model.

        while True:
            with attempts.at_once() or await attempts.next() as attempt:
                ... attempt.answered() ...
                return
            # left by an error that another provider may not have; every other one came through

    most: attempts in all. repeatable: asked after a failure, whether the request can be sent again.
    """

    def __init__(
        self,
        admission: Admission,
        budget: RetryBudget,
        model: RoutedModel,
        call: Call,
        *,
        most: int,
        repeatable: Callable[[], bool] = lambda: True,
        key: bytes = b"",
    ) -> None:
        self._admission, self._budget = admission, budget
        self.model, self.call = model, call
        self._most, self._key, self._repeatable = most, key, repeatable
        self._tried: list[Route] = []
        self._failure: TetradError | None = None
        budget.earn()

    @property
    def more(self) -> bool:
        """Whether a further attempt would have somewhere to go, as things are now."""
        if len(self._tried) >= self._most or len(self.model.routes) <= len(self._tried):
            return False
        now = self._admission.clock()
        return any(r not in self._tried and r.is_healthy(now) for r in self.model.routes)

    def at_once(self) -> Attempt | None:
        """The place for the next attempt, if it need not be waited for; else ask `next`."""
        try:
            lease = self._admission.at_once(self.model, self._key, self._tried)
        except TetradError:
            return None
        return None if lease is None else self._begun(lease)

    async def next(self) -> Attempt:
        """The place for the next attempt. Raises what came of the last one if there is none."""
        try:
            lease = await self._admission.lease(self.model, self.call, self._key, self._tried)
        except TetradError:
            if self._failure is None:
                raise
            self._failure.gave_up = True
            raise self._failure from None
        return self._begun(lease)

    def _begun(self, lease: Lease) -> Attempt:
        self._tried.append(lease.route)
        call, name = self.call, lease.route.name
        call.attempts += 1
        call.endpoint = call.out["x-tetrad-endpoint"] = name
        if call.trace:
            call.trace.attempt(call)
        return Attempt(self, lease)

    def _may_go_on(self, error: TetradError, route: Route, *, delivered: bool) -> bool:
        """Whether the failed attempt is followed by another; what is known of the route is kept."""
        now = self._admission.clock()
        if isinstance(error, errors.UpstreamUnavailable) and not error.reached:
            route.ready = False  # the next probe that it answers brings it back
        if error.retry_after is not None and is_worth_another(error):
            route.paused_until = max(
                route.paused_until, now + min(error.retry_after, LONGEST_PAUSE)
            )
        if delivered or not is_worth_another(error) or not self._repeatable():
            return False
        error.gave_up = len(self._tried) > 1
        remaining = self.call.remaining()
        if not self.more or (remaining is not None and remaining <= 0):
            return False
        # A connection that never came about has cost no upstream anything.
        if error.reached and not self._budget.spend():
            error.gave_up = True
            return False
        self._failure = error
        return True


class Attempt:
    """One attempt, as a context: leaving it gives the place back and judges how it went.

    An error after which another provider is tried does not leave the block. `delivered`: whether
    the caller has got anything of the answer: nothing is tried again then.
    """

    __slots__ = ("_attempts", "_lease", "delivered")

    def __init__(self, attempts: Attempts, lease: Lease) -> None:
        self._attempts, self._lease = attempts, lease
        self.delivered = False

    @property
    def route(self) -> Route:
        """Where it goes."""
        return self._lease.route

    def answered(self) -> None:
        """The first of the answer has come."""
        self.route.answered(self._attempts._admission.clock() - self._lease.began)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        call = self._attempts.call
        if call.trace:
            call.trace.attempted(call, self.route, self._lease.began, error)
        if error is None:
            self._lease.end(True)
            return False
        try:
            return isinstance(error, TetradError) and self._attempts._may_go_on(
                error, self.route, delivered=self.delivered
            )
        finally:
            self._lease.end(verdict(error))
