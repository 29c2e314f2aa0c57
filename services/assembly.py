"""From a configuration to models with their routes: an adapter for each provider.

A reload builds anew, and `carry_over` then puts what is new into what is old, so that unchanged
providers keep their state: readiness, breaker, calls in flight. In one step, nothing awaited.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.config import Config, Model, Provider
from services.config import Timeouts as ConfiguredTimeouts
from services.routing.breaker import Breaker
from services.routing.table import Route, RoutedModel
from services.upstream import base, kinds
from services.upstream.model_types import Found
from services.upstream.probe import Recognised
from services.upstream.transport import Transport

AUTO = "auto"

# What an unrecognised server is taken for until it answers: each speaks what most servers of the
# type do.
_UNTIL_KNOWN = {
    "text-generation": "openai",
    "text-embeddings-inference": "openai",
    "automatic-speech-recognition": "whisper",
    "text-classification": "tei",
}


@dataclass(slots=True)
class Watched:
    """One provider of one model, as the watch sees it."""

    model: RoutedModel
    route: Route
    endpoint: base.Endpoint
    recognise: bool
    found: Found | None = None


def configured_models(
    config: Config, transport: Transport
) -> tuple[list[RoutedModel], list[Watched]]:
    """The configured models, and their providers for the watch."""
    models, watched = [], []
    for model in config.models:
        routed = RoutedModel(
            name=model.name,
            type=model.type,
            routes=[],
            aliases=model.aliases,
            default=model.default,
            owned_by=model.owned_by,
            strategy=model.load_balancing_strategy,
            created=int(time.time()),
            cost_prompt_tokens=model.cost_prompt_tokens,
            cost_completion_tokens=model.cost_completion_tokens,
            max_in_flight=model.max_in_flight,
            max_queue=model.max_queue,
            own_max_batch=_least(model.max_batch, *(p.max_batch for p in model.providers)),
            max_batch_bytes=_least(
                model.max_batch_bytes, *(p.max_batch_bytes for p in model.providers)
            ),
        )
        for provider in model.providers:
            endpoint = _endpoint(config, model, provider)
            route = Route(
                name=endpoint.name,
                adapter=kinds.build(endpoint, transport),
                priority=provider.priority,
                weight=provider.weight,
                max_concurrency=provider.max_concurrency,
                breaker=_breaker(config),
            )
            routed.routes.append(route)
            watched.append(Watched(routed, route, endpoint, provider.type == AUTO))
        models.append(routed)
    return models, watched


def found_models(
    config: Config, url: str, recognised: Recognised, transport: Transport
) -> list[tuple[RoutedModel, Watched]]:
    """The models that the server at an `--upstream URL` turned out to have."""
    pairs = []
    for found in recognised.models:
        endpoint = base.Endpoint(
            name=base.endpoint_name(recognised.kind, url),
            url=url,
            kind=recognised.kind,
            model=found.model,
            timeouts=_timeouts(config.timeouts),
            pass_out=frozenset(config.metadata.pass_out),
        )
        route = Route(
            endpoint.name, kinds.build(endpoint, transport), ready=True, breaker=_breaker(config)
        )
        routed = RoutedModel(
            name=found.model,
            type=found.type,
            routes=[route],
            owned_by=found.owned_by,
            created=int(time.time()),
        )
        learn(routed, [found])
        pairs.append((routed, Watched(routed, route, endpoint, False, found)))
    return pairs


_MODEL_SETTINGS = (
    "aliases",
    "default",
    "owned_by",
    "strategy",
    "cost_prompt_tokens",
    "cost_completion_tokens",
    "max_in_flight",
    "max_queue",
    "own_max_batch",
    "max_batch_bytes",
)
_ROUTE_SETTINGS = ("name", "adapter", "priority", "weight", "max_concurrency")


def carry_over(
    old: Iterable[Watched], new: list[Watched], transport: Transport, *, breakers: bool
) -> None:
    """Make `new` go on where `old` stands: models of the same name and type, and their routes to
    the same upstream model, stay the objects that calls in flight hold. `breakers`: theirs too,
    since their settings are the same."""
    models: dict[tuple[str, str], RoutedModel] = {}
    known: dict[object, Watched] = {}
    for one in old:
        models[one.model.name, one.model.type] = one.model
        known[_identity(one)] = one
    kept: set[int] = set()
    for one in new:
        before = known.pop(_identity(one), None)
        model = models.get((one.model.name, one.model.type))
        if model is not None and id(model) not in kept:
            kept.add(id(model))
            for name in _MODEL_SETTINGS:
                setattr(model, name, getattr(one.model, name))
            model.routes = one.model.routes
        if before is not None:
            _continue(one, before, transport, breakers=breakers)
        if model is not None:
            one.model = model


def _continue(one: Watched, before: Watched, transport: Transport, *, breakers: bool) -> None:
    """The route of `before` takes the place of the new one in its model."""
    one.found = before.found
    if one.recognise and not before.recognise:  # what it is has been found out already
        name, kind = before.endpoint.name, before.endpoint.kind
        one.endpoint = replace(one.endpoint, name=name, kind=kind)
        one.route.name, one.recognise = name, False
        one.route.adapter = kinds.build(one.endpoint, transport)
    route, new = before.route, one.route
    for name in _ROUTE_SETTINGS:
        setattr(route, name, getattr(new, name))
    if not breakers:
        route.breaker = new.breaker
    routes = one.model.routes
    routes[routes.index(new)] = one.route = route


def _identity(one: Watched) -> tuple[str, str, str, str, str]:
    """What makes a route the same as before: its model, and the upstream model behind it."""
    endpoint = one.endpoint
    return one.model.name, one.model.type, endpoint.url, endpoint.model, endpoint.key


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _breaker(config: Config) -> Breaker:
    return Breaker(config.breaker.failures, config.breaker.cooldown, time.monotonic)


def learn(model: RoutedModel, told: Iterable[Found]) -> None:
    """Take over what a model's providers say of it; the least context and batch count.

    What none of them tells stays as it is: a dimension may have been learnt from an answer.
    """
    told = list(told)
    for name in ("max_context_length", "max_batch", "dimension"):
        known = [value for one in told if (value := getattr(one, name)) is not None]
        if known:
            setattr(model, name, min(known))


def _endpoint(config: Config, model: Model, provider: Provider) -> base.Endpoint:
    kind = _UNTIL_KNOWN[model.type] if provider.type == AUTO else provider.type
    return base.Endpoint(
        name=base.endpoint_name(kind, provider.url),
        url=provider.url,
        kind=kind,
        model=provider.model_name or model.name,
        key=provider.key,
        timeouts=_timeouts(config.timeouts_of(provider)),
        transport=provider.transport,
        pass_out=frozenset(config.metadata.pass_out),
    )


def _timeouts(limits: ConfiguredTimeouts) -> base.Timeouts:
    return base.Timeouts(
        connect=limits.connect,
        first_byte=limits.first_byte,
        idle=limits.idle,
        total=limits.total,
        stream_total=limits.stream_total,
    )
