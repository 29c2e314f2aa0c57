"""From a configuration to a table of models: an adapter for each provider, grouped by model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from services.config import Config, Model, Provider
from services.config import Timeouts as ConfiguredTimeouts
from services.routing.table import Route, RoutedModel, Table
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
    down_since: float | None = field(default=None)


def table(config: Config, transport: Transport) -> tuple[Table, list[Watched]]:
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
        )
        for provider in model.providers:
            endpoint = _endpoint(config, model, provider)
            route = Route(
                name=endpoint.name,
                adapter=kinds.build(endpoint, transport),
                priority=provider.priority,
                weight=provider.weight,
                max_concurrency=provider.max_concurrency,
            )
            routed.routes.append(route)
            watched.append(Watched(routed, route, endpoint, provider.type == AUTO))
        models.append(routed)
    return Table(models), watched


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
        route = Route(endpoint.name, kinds.build(endpoint, transport), ready=True)
        routed = RoutedModel(
            name=found.model,
            type=found.type,
            routes=[route],
            owned_by=found.owned_by,
            created=int(time.time()),
        )
        learn(routed, found)
        pairs.append((routed, Watched(routed, route, endpoint, False)))
    return pairs


def learn(model: RoutedModel, found: Found) -> None:
    """Take over what a server says of its model; of several providers the least context counts."""
    if found.max_context_length is not None:
        known = model.max_context_length
        model.max_context_length = min(known or found.max_context_length, found.max_context_length)
    if found.dimension is not None:
        model.dimension = found.dimension


def _endpoint(config: Config, model: Model, provider: Provider) -> base.Endpoint:
    kind = _UNTIL_KNOWN[model.type] if provider.type == AUTO else provider.type
    return base.Endpoint(
        name=base.endpoint_name(kind, provider.url),
        url=provider.url,
        kind=kind,
        model=provider.model_name or model.name,
        key=provider.key,
        timeouts=_timeouts(config.timeouts_of(provider)),
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
