"""services/assembly.py: what a reload keeps of what runs, and what it changes (G37)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from services.assembly import Watched, carry_over, configured_models
from services.config import Config, parse
from services.routing.table import RoutedModel
from services.upstream.transport import Transport

EMBED, CHAT = "text-embeddings-inference", "text-generation"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    one = Transport()
    yield one
    await one.aclose()


def config(*models: dict[str, Any], **sections: Any) -> Config:
    return parse(json.dumps({"models": models, "required_types": [], **sections}), "t.yaml", {})


def model(name: str, *ports: int, type: str = EMBED, **more: Any) -> dict[str, Any]:
    kind, provider = more.pop("kind", "tei"), more.pop("provider", {})
    providers = [{"type": kind, "url": f"http://127.0.0.1:{port}", **provider} for port in ports]
    return {"name": name, "type": type, "providers": providers, **more}


def reloaded(
    old: list[Watched], new: Config, transport: Transport, *, breakers: bool = True
) -> tuple[dict[str, RoutedModel], list[Watched]]:
    _, watched = configured_models(new, transport)
    carry_over(old, watched, transport, breakers=breakers)
    return {one.model.name: one.model for one in watched}, watched


async def test_unchanged_providers_stay_the_objects_that_calls_hold(transport: Transport) -> None:
    (before,), old = configured_models(config(model("e", 1, 2)), transport)
    kept, gone = before.routes
    kept.in_flight, kept.ready, kept.latency, before.dimension = 3, True, 0.5, 7
    models, watched = reloaded(old, config(model("e", 1, 3)), transport)
    assert models["e"] is before
    assert before.routes[0] is kept
    assert (kept.in_flight, kept.ready, kept.latency, before.dimension) == (3, True, 0.5, 7)
    assert gone not in before.routes
    assert [one.route for one in watched] == before.routes
    assert [one.endpoint.url for one in watched] == ["http://127.0.0.1:1", "http://127.0.0.1:3"]


async def test_settings_are_changed_in_place(transport: Transport) -> None:
    (before,), old = configured_models(config(model("e", 1)), transport)
    (route,) = before.routes
    adapter = route.adapter
    new = model(
        "e",
        1,
        aliases=["x"],
        max_queue=4,
        cost_prompt_tokens=2,
        load_balancing_strategy="shuffle",
        provider={"weight": 5, "priority": 2, "max_concurrency": 9, "timeout": 3},
    )
    models, _ = reloaded(old, config(new), transport)
    assert models["e"] is before
    assert (before.aliases, before.max_queue, before.cost_prompt_tokens) == (("x",), 4, 2)
    assert before.strategy == "shuffle"
    assert before.routes == [route]
    assert (route.weight, route.priority, route.max_concurrency) == (5, 2, 9)
    assert route.adapter is not adapter
    assert route.adapter.endpoint.timeouts.total == 3


async def test_another_key_type_or_upstream_model_is_another_provider(transport: Transport) -> None:
    (before,), old = configured_models(config(model("e", 1)), transport)
    (route,) = before.routes
    for changed in (
        model("e", 1, provider={"key": "k"}),
        model("e", 1, provider={"model_name": "other"}),
        model("f", 1),
        model("e", 1, type=CHAT, kind="openai"),
    ):
        models, _ = reloaded(old, config(changed), transport)
        (found,) = models.values()
        assert route not in found.routes
        assert (found is before) is (changed["name"] == "e" and changed["type"] == EMBED)
        before.routes = [route]


async def test_what_a_server_was_found_to_be_is_not_asked_again(transport: Transport) -> None:
    _, old = configured_models(config(model("e", 1, kind="auto")), transport)
    (one,) = old
    assert one.recognise
    one.endpoint = replace(one.endpoint, kind="vllm", name="vllm 127.0.0.1:1")
    one.recognise = False
    _, (new,) = reloaded(old, config(model("e", 1, kind="auto")), transport)
    assert (new.recognise, new.endpoint.kind) == (False, "vllm")
    assert (new.route.name, new.route.adapter.endpoint.kind) == ("vllm 127.0.0.1:1", "vllm")


@pytest.mark.parametrize("breakers", [True, False])
async def test_breakers_stay_unless_their_settings_changed(
    transport: Transport, breakers: bool
) -> None:
    (before,), old = configured_models(config(model("e", 1)), transport)
    breaker = before.routes[0].breaker
    for _ in range(5):
        breaker.failed(breaker.begin())
    new = config(model("e", 1), breaker={"failures": 5 if breakers else 6})
    reloaded(old, new, transport, breakers=breakers)
    assert (before.routes[0].breaker is breaker) is breakers
    assert before.routes[0].breaker.state == ("open" if breakers else "closed")


async def test_the_same_provider_twice_stays_two(transport: Transport) -> None:
    (before,), old = configured_models(config(model("e", 1, 1)), transport)
    reloaded(old, config(model("e", 1, 1)), transport)
    assert len({id(route) for route in before.routes}) == 2
