"""What the five services share: a request to a route, time limits, headers out, accounting.

Whatever a call's end, its usage record is closed once and handed on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

from services.body import Body
from services.call import Call
from services.errors import TetradError
from services.routing.table import Route, Router

Unary = Callable[[Body, Call], Awaitable[Body]]
Stream = Callable[[Body, Call], AsyncIterator[list[Body]]]

_PREFIX = 1024
"""Characters of a prompt's beginning that prefix_affinity keeps together."""


class Dispatch:
    """Takes calls to adapters. `on_end` gets each call when it has ended; `ending` tells whether
    it is the server's end that cancels calls."""

    def __init__(
        self,
        router: Router,
        on_end: Callable[[Call], None],
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.router = router
        self._on_end = on_end
        self._ending = ending

    async def unary(
        self, type: str, request: Body, call: Call, operation: Callable[[Any], Unary]
    ) -> Body:
        """One answer; `operation` takes the adapter's method. Raises errors.TetradError."""
        with self.accounted(call):
            route = self._choose(type, request, call)
            with route.lease():
                async with call.limit(route.adapter.endpoint.timeouts.total, "total"):
                    return await operation(route.adapter)(request, call)

    async def streamed(
        self, type: str, request: Body, call: Call, operation: Callable[[Any], Stream]
    ) -> AsyncGenerator[list[Body], None]:
        """A stream in batches; leaving it closes the upstream's. Raises errors.TetradError.

        Its time limit is the one that the caller has entered around it, see `Call.tighten`.
        """
        with self.accounted(call):
            route = self._choose(type, request, call)
            stream = cast(AsyncGenerator[list[Body], None], operation(route.adapter)(request, call))
            call.tighten(route.adapter.endpoint.timeouts.stream_total, "total")
            with route.lease():
                async with aclosing(stream) as batches:
                    async for batch in batches:
                        yield batch

    @contextmanager
    def accounted(self, call: Call) -> Iterator[None]:
        """Closes the call's record with its outcome: OK, the status's name, or CANCELLED."""
        outcome = "OK"
        try:
            yield
        except TetradError as error:
            outcome = error.grpc_code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if call.expired:
                outcome = "DEADLINE_EXCEEDED"
            else:
                outcome = "UNAVAILABLE" if self._ending() else "CANCELLED"
            raise
        except BaseException:
            outcome = "INTERNAL"
            raise
        finally:
            if call.usage.close(outcome):
                self._on_end(call)

    def _choose(self, type: str, request: Body, call: Call) -> Route:
        """The route for a request; the caller learns of it from the headers."""
        named = request.get("model")
        name = named if isinstance(named, str) else None
        model = self.router.table.resolve(type, name, call.principal)
        key = _prefix(request) if model.strategy == "prefix_affinity" else b""
        route = model.route(self.router.random, key)
        call.model = model.name
        call.out["x-tetrad-model"] = model.name
        call.out["x-tetrad-endpoint"] = route.name
        return route


def _prefix(request: Body) -> bytes:
    value = request.value()
    start = str(value.get("messages") or value.get("input") or value.get("query") or "")[:_PREFIX]
    return hashlib.blake2b(start.encode("utf-8", "replace"), digest_size=16).digest()
