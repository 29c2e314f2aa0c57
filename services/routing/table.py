"""The table of models: a name or alias leads to a model, a model to one route to an upstream.

Built once per configuration and swapped whole. It is handed adapters and never looks into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from services import errors
from services.auth import Principal
from services.routing.balance import pick


@dataclass(slots=True)
class Route:
    """One provider of a model. `ready` is what the last probe said."""

    name: str
    adapter: Any
    priority: int = 0
    weight: float = 1.0
    max_concurrency: int | None = None
    ready: bool = False
    in_flight: int = 0

    @property
    def is_free(self) -> bool:
        """Whether it may take one more call."""
        return self.max_concurrency is None or self.in_flight < self.max_concurrency

    @contextmanager
    def lease(self) -> Iterator[Route]:
        """Counts one call in flight."""
        self.in_flight += 1
        try:
            yield self
        finally:
            self.in_flight -= 1


@dataclass(slots=True)
class RoutedModel:
    """A model as callers see it, and the routes that lead to it."""

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
    turn: int = field(default=0, repr=False)

    @property
    def ready(self) -> bool:
        """Whether any provider answered its last probe."""
        return any(route.ready for route in self.routes)

    def route(self, random: Random, key: bytes = b"") -> Route:
        """The route for one call.

        Only ready ones, if there are any, low priority first. While none is ready all are tried,
        since probes lag behind. Raises errors.Overloaded if all of them are at their limit.
        """
        known = [route for route in self.routes if route.ready] or self.routes
        free = [route for route in known if route.is_free]
        if not free:
            raise errors.Overloaded(
                f"all providers of `{self.name}` are at their max_concurrency",
                metadata={"model": self.name},
                retry_after=1.0,
            )
        best = min(route.priority for route in free)
        group = [route for route in free if route.priority == best]
        self.turn += 1
        return pick(self.strategy, group, random, self.turn - 1, key)


class Table:
    """All models of a configuration."""

    def __init__(self, models: Iterable[RoutedModel]) -> None:
        self.models = sorted(models, key=lambda model: model.name)
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

    def __init__(self, table: Table, random: Random) -> None:
        self.table = table
        self.random = random
