"""What the five services share: a request to its attempts, time limits, headers out, accounting.

Whatever a call's end, its usage record is closed once and handed on.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, cast

from services import estimate
from services.body import Body
from services.call import Call
from services.errors import InvalidRequest, Reason, TetradError, Violation
from services.routing.admission import Admission
from services.routing.attempts import Attempts
from services.routing.budget import RetryBudget
from services.routing.table import RoutedModel, Router

Unary = Callable[[Body, Call], Awaitable[Body]]
Stream = Callable[[Body, Call], AsyncIterator[list[Body]]]
Sink = Callable[[Call], None]
Through = Callable[[RoutedModel], Awaitable[Body] | None]
"""Answers in place of one request to the model; None to send that."""

_JSON_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
}

_PREFIX = 1024
"""Characters of a prompt's beginning that prefix_affinity keeps together."""


class Limiter(Protocol):
    """The limits of callers' keys."""

    async def admit(self, call: Call) -> None:
        """Count a call. Raises errors.RateLimited, having counted nothing."""


class Dispatch:
    """Takes calls to adapters.

    sinks: each gets a call once, when it has ended; they neither wait nor raise. ending: whether
    it is the server's end that cancels calls. attempts: how many one call has in all. began: gets
    a call before its first attempt.
    """

    def __init__(
        self,
        router: Router,
        sinks: Sequence[Sink],
        *,
        ending: Callable[[], bool] = lambda: False,
        admission: Admission | None = None,
        budget: RetryBudget | None = None,
        limiter: Limiter | None = None,
        attempts: int = 2,
        began: Sink | None = None,
    ) -> None:
        self.router = router
        self.admission = admission or Admission(router.random, router.clock)
        self.budget = budget or RetryBudget(0.2, router.clock)
        self.limiter = limiter
        self.attempts = attempts
        self.began = began
        self._sinks = sinks
        self._ending = ending

    async def unary(
        self,
        type: str,
        request: Body,
        call: Call,
        operation: Callable[[Any], Unary],
        through: Through | None = None,
    ) -> Body:
        """One answer; `operation` takes the adapter's method. `through` may answer otherwise than
        by one request, once the call is let in. Raises errors.TetradError."""
        with self.accounted(call, request):
            attempts = await self._begin(type, request, call)
            other = None if through is None else through(attempts.model)
            if other is None:
                answer = await _attempted(attempts, request, call, operation)
            else:
                answer = await other
            call.first_at = time.monotonic()
            call.chunks = 1
            estimate.delivered(call, answer)
            return answer

    async def part(
        self, model: RoutedModel, request: Body, call: Call, operation: Callable[[Any], Unary]
    ) -> Body:
        """The answer to a part of a call, or to several calls' own, on a call that is not
        accounted for. Raises errors.TetradError."""
        attempts = self._attempts(model, request, call)
        return await _attempted(attempts, request, call, operation)

    async def streamed(
        self, type: str, request: Body, call: Call, operation: Callable[[Any], Stream]
    ) -> AsyncGenerator[list[Body], None]:
        """A stream in batches; leaving it closes the upstream's. Raises errors.TetradError.

        Its time limit is the one that the caller has entered around it, see `Call.tighten`. While
        another provider could still take over, what says nothing yet is held back.
        """
        with self.accounted(call, request):
            attempts = await self._begin(type, request, call)
            while True:
                with attempts.at_once() or await attempts.next() as attempt:
                    adapter = attempt.route.adapter
                    stream = cast(
                        AsyncGenerator[list[Body], None], operation(adapter)(request, call)
                    )
                    call.tighten(adapter.endpoint.timeouts.stream_total, "total")
                    held: list[Body] | None = [] if attempts.more else None
                    async with aclosing(stream) as batches:
                        async for batch in batches:
                            if not call.chunks:
                                call.first_at = time.monotonic()
                                attempt.answered()
                            call.chunks += len(batch)
                            if held is not None:
                                held += batch
                                if all(map(estimate.says_nothing, batch)):
                                    continue
                                batch, held = held, None
                            attempt.delivered = True
                            estimate.delivered(call, *batch)
                            yield batch
                    if held:
                        yield held
                    return

    def accounted(self, call: Call, request: Body | None = None) -> Account:
        """A context that closes the call's record with its outcome."""
        return Account(self, call, request)

    def outcome(self, call: Call, error: BaseException) -> str:
        """How a call ended that `error` ended: the status's name, or CANCELLED."""
        if isinstance(error, TetradError):
            call.error = error.reason
            return error.grpc_code
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            if call.expired:
                call.error = Reason.DEADLINE_EXCEEDED
                return "DEADLINE_EXCEEDED"
            return "UNAVAILABLE" if self._ending() else "CANCELLED"
        return "INTERNAL"

    def ended(self, call: Call, outcome: str) -> None:
        """The call has ended; nothing happens if that was told before."""
        if call.usage.close(outcome):
            call.ended_at = time.monotonic()
            for sink in self._sinks:
                sink(call)

    async def _begin(self, type: str, request: Body, call: Call) -> Attempts:
        """The attempts of a request at its model; the caller learns of it from the headers."""
        call.type = type
        name = request.get("model")
        if name is not None and not isinstance(name, str):
            # It decides who answers: the default model must not do so in another one's place.
            problem = f"expected a model's name, found {_JSON_NAMES[name.__class__]}"
            raise InvalidRequest(
                f"model: {problem}", param="model", violations=(Violation("model", problem),)
            )
        model = self.router.table.resolve(type, name, call.principal)
        call.model = model.name
        call.prices = model.cost_prompt_tokens, model.cost_completion_tokens
        call.out["x-tetrad-model"] = model.name
        if self.limiter is not None:
            await self.limiter.admit(call)
        return self._attempts(model, request, call)

    def _attempts(self, model: RoutedModel, request: Body, call: Call) -> Attempts:
        key = _prefix(request) if model.strategy == "prefix_affinity" else b""
        return Attempts(
            self.admission,
            self.budget,
            model,
            call,
            most=self.attempts,
            repeatable=lambda: request.upload is None or request.upload.is_whole,
            key=key,
        )


class Account:
    """See `Dispatch.accounted`; no generator, since each call pays for it."""

    __slots__ = ("_call", "_dispatch", "_request")

    def __init__(self, dispatch: Dispatch, call: Call, request: Body | None) -> None:
        self._dispatch, self._call, self._request = dispatch, call, request

    def __enter__(self) -> None:
        began = self._dispatch.began
        if began is not None:
            began(self._call)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        dispatch, call = self._dispatch, self._call
        outcome = "OK" if error is None else dispatch.outcome(call, error)
        if not call.usage.outcome and self._request is not None:
            estimate.complete(call, self._request, outcome)
        dispatch.ended(call, outcome)


async def _attempted(
    attempts: Attempts, request: Body, call: Call, operation: Callable[[Any], Unary]
) -> Body:
    while True:
        with attempts.at_once() or await attempts.next() as attempt:
            adapter = attempt.route.adapter
            with call.limit(adapter.endpoint.timeouts.total, "total"):
                answer = await operation(adapter)(request, call)
            attempt.answered()
            return answer


def _prefix(request: Body) -> bytes:
    value = request.value()
    start = str(value.get("messages") or value.get("input") or value.get("query") or "")[:_PREFIX]
    return hashlib.blake2b(start.encode("utf-8", "replace"), digest_size=16).digest()
