"""The table of models: a name or alias leads to a model, a model to its routes to upstreams.

Built once per configuration and swapped whole; a route that both have keeps its state. It is
handed adapters and never looks into one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from services import errors
from services.auth import Principal
from services.routing.balance import pick
from services.routing.breaker import Breaker

LAST_RESORT: Final = 5
"""So many calls at once still go to a provider whose breaker is open, if the model has no other:
the last one is never cut off altogether, nor can it hold many calls that are likely to fail."""

_SMOOTHING = 0.2


@dataclass(slots=True, eq=False)
class Route:
    """One provider of a model.

    ready: what the last probe said; a connection that failed takes it back. dimension: of the
    vectors it answered last. upstream_load: calls
    running and waiting there by its own metrics, None if unknown. latency: smoothed seconds to its
    first answer, 0 while unknown. paused_until: time.monotonic() until which it asked for peace.
    """

    name: str
    adapter: Any
    priority: int = 0
    weight: float = 1.0
    max_concurrency: int | None = None
    ready: bool = False
    in_flight: int = 0
    dimension: int | None = None
    upstream_load: float | None = None
    latency: float = 0.0
    paused_until: float = 0.0
    breaker: Breaker = field(default_factory=lambda: Breaker(5, 10.0, time.monotonic))

    @property
    def is_free(self) -> bool:
        """Whether it may take one more call."""
        return self.max_concurrency is None or self.in_flight < self.max_concurrency

    def is_healthy(self, now: float) -> bool:
        """Whether calls are sent there as a matter of course."""
        return self.ready and self.paused_until <= now and self.breaker.allows()

    def answered(self, seconds: float) -> None:
        """Its first answer to a call came after `seconds`."""
        self.latency += (seconds - self.latency) * (_SMOOTHING if self.latency else 1.0)


@dataclass(slots=True, eq=False)
class RoutedModel:
    """A model as callers see it, and the routes that lead to it.

    in_flight: calls at its providers. max_in_flight, max_queue: its own bounds beside the
    gateway's, None for none. max_batch: inputs that its providers take in one request, as they say;
    own_max_batch, max_batch_bytes: as configured. service_time: smoothed seconds that a call takes,
    0 while unknown.
    """

    name: str
    type: str
    routes: list[Route]
    aliases: tuple[str, ...] = ()
    default: bool = False
    owned_by: str = ""
    strategy: str = "least_busy"
    created: int = 0
    cost_prompt_tokens: float = 0.0
    cost_completion_tokens: float = 0.0
    max_context_length: int | None = None
    dimension: int | None = None
    max_batch: int | None = None
    own_max_batch: int | None = None
    max_batch_bytes: int | None = None
    max_in_flight: int | None = None
    max_queue: int | None = None
    in_flight: int = 0
    service_time: float = 0.0
    turn: int = field(default=0, repr=False)

    @property
    def ready(self) -> bool:
        """Whether any provider answered its last probe."""
        return any(route.ready for route in self.routes)

    def route(
        self,
        random: Random,
        key: bytes = b"",
        tried: Collection[Route] = (),
        now: float | None = None,
    ) -> Route | None:
        """The route for one attempt, None if all that could take it are at their limit.

        Healthy ones not `tried` before, low priority first. While none is healthy, a first attempt
        goes to what is left, since probes lag behind and the last resort is never given up.
        Raises errors.UpstreamUnavailable if there is nothing left, or no route is untried.
        """
        if now is None:
            now = time.monotonic()
        left = self.routes
        if tried:
            left = [route for route in left if route not in tried]
        known = [route for route in left if route.is_healthy(now)]
        if not known:
            known = [] if tried else self._last_resort()
        free = [route for route in known if route.is_free]
        if not free:
            if not known:
                raise self._unavailable()
            return None
        if len(free) == 1:
            return free[0]
        best = min(route.priority for route in free)
        group = [route for route in free if route.priority == best]
        self.turn += 1
        return pick(self.strategy, group, random, self.turn - 1, key)

    def _last_resort(self) -> list[Route]:
        """What is tried while nothing is healthy: closed breakers first, then a few calls each."""
        closed = [route for route in self.routes if route.breaker.allows()]
        return closed or [route for route in self.routes if route.in_flight < LAST_RESORT]

    def _unavailable(self) -> errors.UpstreamUnavailable:
        waits = [route.breaker.retry_in for route in self.routes]
        return errors.UpstreamUnavailable(
            f"no provider of `{self.name}` is healthy: all of them failed lately",
            metadata={"model": self.name},
            retry_after=max(1.0, min(waits, default=1.0)),
        )

    def other_dimension(self, adapter: object, dimension: int) -> int | None:
        """What another route's vectors have, if not `dimension`; else `adapter`'s is noted."""
        for route in self.routes:
            if route.adapter is not adapter and route.dimension not in (None, dimension):
                return route.dimension
        for route in self.routes:
            if route.adapter is adapter:
                route.dimension = self.dimension = dimension
        return None

    @property
    def batch_limit(self) -> int | None:
        """Inputs that one request may have, None if nothing says."""
        told = [n for n in (self.max_batch, self.own_max_batch) if n is not None]
        return min(told, default=None)

    @property
    def slots(self) -> int | None:
        """Calls that its providers take at once, None if one has no limit."""
        total = 0
        for route in self.routes:
            if route.max_concurrency is None:
                return None
            total += route.max_concurrency
        return total

    def served(self, seconds: float) -> None:
        """A call held a route for `seconds`."""
        self.service_time += (seconds - self.service_time) * (
            _SMOOTHING if self.service_time else 1.0
        )


class Table:
    """All models of a configuration; `generation` counts configurations taken, from 1."""

    def __init__(self, models: Iterable[RoutedModel], generation: int = 1) -> None:
        self.models = sorted(models, key=lambda model: model.name)
        self.generation = generation
        self._by_name: dict[str, RoutedModel] = {}
        for model in self.models:
            for name in (model.name, *model.aliases):
                self._by_name[name] = model

    def find(self, name: str, principal: Principal) -> RoutedModel:
        """The model of that name or alias.

        Raises errors.ModelNotFound and errors.ModelForbidden.
        """
        model = self._by_name.get(name)
        if model is None:
            raise errors.ModelNotFound.named(name)
        if principal.models is not None and principal.models.isdisjoint(
            (model.name, *model.aliases)
        ):
            raise errors.ModelForbidden.named(name)
        return model

    def prices(self, name: str) -> tuple[float, float] | None:
        """What a million tokens of prompt and of completion cost; None for no such model."""
        model = self._by_name.get(name)
        return None if model is None else (model.cost_prompt_tokens, model.cost_completion_tokens)

    def visible(self, principal: Principal) -> list[RoutedModel]:
        """The models that the caller may use, by name."""
        allowed = principal.models
        if allowed is None:
            return self.models
        return [m for m in self.models if not allowed.isdisjoint((m.name, *m.aliases))]

    def resolve(self, type: str, name: str | None, principal: Principal) -> RoutedModel:
        """The model that answers a request of that type; without a name its default.

        Raises errors.NotOffered if the named model is of another type, and errors.InvalidRequest
        with the choices if none is named and none is the default.
        """
        if name:
            model = self.find(name, principal)
            if model.type != type:
                raise errors.NotOffered(
                    f"the model `{name}` is of type {model.type}; this operation needs {type}",
                    param="model",
                    metadata={"model": name, "type": model.type, "needed": type},
                )
            return model
        fitting = [model for model in self.visible(principal) if model.type == type]
        chosen = [model for model in fitting if model.default] or fitting
        if len(chosen) == 1:
            return chosen[0]
        if not fitting:
            raise errors.NotOffered(f"no model of type {type} is served here", param="model")
        names = ", ".join(model.name for model in fitting)
        raise errors.InvalidRequest(
            f"`model` is missing, and no model of type {type} is the default; there are: {names}",
            param="model",
            violations=(errors.Violation("model", f"required; one of: {names}"),),
        )


class Router:
    """The table in use. A reload puts another one in its place; calls under way keep theirs."""

    def __init__(
        self, table: Table, random: Random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.table = table
        self.random = random
        self.clock = clock
