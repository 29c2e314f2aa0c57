"""services/routing/table.py: names to models, models to routes."""

from __future__ import annotations

from random import Random

import pytest

from services import errors
from services.auth import ANONYMOUS, Principal
from services.routing.table import LAST_RESORT, Route, RoutedModel, Table

CHAT, EMBED, RERANK = "text-generation", "text-embeddings-inference", "text-classification"


def dice(seed: int = 1) -> Random:
    return Random(seed)  # noqa: S311


def route(name: str, **more: object) -> Route:
    return Route(name, adapter=object(), ready=True, **more)  # type: ignore[arg-type]


def model(name: str, type: str = CHAT, *routes: Route, **more: object) -> RoutedModel:
    return RoutedModel(name, type, list(routes) or [route("r")], **more)  # type: ignore[arg-type]


def chosen(this: RoutedModel, turns: int = 60) -> set[str]:
    random = dice(5)
    picked = [this.route(random, f"{turn}".encode()) for turn in range(turns)]
    return {one.name for one in picked if one is not None}


TABLE = Table(
    [
        model("zeta", aliases=("chat", "z")),
        model("alpha", default=True),
        model("e5", EMBED, aliases=("embeddings",)),
    ]
)


@pytest.mark.parametrize(
    ("name", "found"),
    [("zeta", "zeta"), ("chat", "zeta"), ("z", "zeta"), ("alpha", "alpha"), ("embeddings", "e5")],
)
def test_a_model_is_found_by_its_name_and_aliases(name: str, found: str) -> None:
    assert TABLE.find(name, ANONYMOUS).name == found


@pytest.mark.parametrize("name", ["", "Zeta", "zeta ", "nothing"])
def test_an_unknown_name_is_not_found(name: str) -> None:
    with pytest.raises(errors.ModelNotFound, match=f"the model `{name}` does not exist"):
        TABLE.find(name, ANONYMOUS)


def test_models_are_listed_by_name() -> None:
    assert [each.name for each in TABLE.models] == ["alpha", "e5", "zeta"]


@pytest.mark.parametrize("allowed", ["zeta", "chat", "z"])
def test_a_key_s_model_may_be_named_by_any_of_its_names(allowed: str) -> None:
    ada = Principal("ada", frozenset({allowed}))
    assert [each.name for each in TABLE.visible(ada)] == ["zeta"]
    for name in ("zeta", "chat", "z"):
        assert TABLE.find(name, ada).name == "zeta"
    with pytest.raises(errors.ModelForbidden, match="this key may not use the model `alpha`"):
        TABLE.find("alpha", ada)
    with pytest.raises(errors.ModelNotFound):
        TABLE.find("nothing", ada)


def test_a_key_without_models_may_use_none() -> None:
    nobody = Principal("nobody", frozenset())
    assert TABLE.visible(nobody) == []
    with pytest.raises(errors.NotOffered, match="no model of type text-generation"):
        TABLE.resolve(CHAT, None, nobody)


def test_the_default_answers_a_request_that_names_none() -> None:
    assert TABLE.resolve(CHAT, None, ANONYMOUS).name == "alpha"
    assert TABLE.resolve(CHAT, "", ANONYMOUS).name == "alpha"


def test_the_only_model_of_a_type_answers_a_request_that_names_none() -> None:
    assert TABLE.resolve(EMBED, None, ANONYMOUS).name == "e5"
    ada = Principal("ada", frozenset({"zeta"}))
    assert TABLE.resolve(CHAT, None, ada).name == "zeta"  # the default is not hers


def test_without_a_default_the_choices_are_told() -> None:
    table = Table([model("b"), model("a"), model("e", EMBED)])
    with pytest.raises(errors.InvalidRequest) as caught:
        table.resolve(CHAT, None, ANONYMOUS)
    assert caught.value.param == "model"
    assert "there are: a, b" in caught.value.message
    (violation,) = caught.value.violations
    assert (violation.field, violation.description) == ("model", "required; one of: a, b")


def test_two_defaults_are_no_default() -> None:
    table = Table([model("a", default=True), model("b", default=True), model("c")])
    with pytest.raises(errors.InvalidRequest):
        table.resolve(CHAT, None, ANONYMOUS)


def test_a_model_of_another_type_does_not_offer_the_operation() -> None:
    with pytest.raises(errors.NotOffered, match="`zeta` is of type text-generation") as caught:
        TABLE.resolve(EMBED, "zeta", ANONYMOUS)
    assert caught.value.grpc_code == "UNIMPLEMENTED"
    with pytest.raises(errors.NotOffered, match="no model of type text-classification"):
        TABLE.resolve(RERANK, None, ANONYMOUS)


# --- routes ------------------------------------------------------------------------------------


def test_the_lowest_priority_goes_first() -> None:
    first, second, third = route("a", priority=0), route("b", priority=0), route("c", priority=1)
    this = model("m", CHAT, third, first, second)
    assert chosen(this) == {"a", "b"}
    first.ready = second.ready = False
    assert chosen(this) == {"c"}


def test_a_full_group_passes_on_to_the_next_priority() -> None:
    first, second = route("a", max_concurrency=1), route("b", priority=1)
    this = model("m", CHAT, first, second)
    first.in_flight = 1
    assert chosen(this) == {"b"}
    first.in_flight = 0
    assert chosen(this) == {"a"}


def test_routes_that_are_not_ready_are_left_out() -> None:
    up, down = route("up", priority=5), route("down")
    down.ready = False
    this = model("m", CHAT, up, down)
    assert chosen(this) == {"up"}
    assert this.ready


def test_while_no_route_is_ready_all_are_tried() -> None:
    """Probes lag behind, and a start must not fail the first calls."""
    this = model("m", CHAT, Route("a", object()), Route("b", object()), Route("c", object(), 1))
    assert not this.ready
    assert chosen(this) == {"a", "b"}


def test_a_full_route_does_not_send_calls_to_a_dead_one() -> None:
    """G15."""
    up, down = route("up", max_concurrency=1), route("down")
    down.ready = False
    this = model("m", CHAT, up, down)
    up.in_flight = 1
    assert this.route(dice()) is None
    up.in_flight = 0
    assert this.route(dice()) is up


def test_routes_at_their_limit_take_nothing() -> None:
    """G15."""
    first, second = route("a", max_concurrency=2), route("b", max_concurrency=1)
    this = model("m", CHAT, first, second)
    first.in_flight, second.in_flight = 2, 1
    assert this.route(dice()) is None
    assert this.slots == 3
    first.in_flight = 1
    assert this.route(dice()) is first
    second.max_concurrency = None
    assert this.slots is None


def test_a_paused_or_broken_route_is_left_out() -> None:
    """G19: Retry-After is obeyed."""
    calm, paused, broken = route("a"), route("b"), route("c")
    paused.paused_until = 100.0
    for _ in range(5):
        broken.breaker.failed(broken.breaker.begin())
    this = model("m", CHAT, calm, paused, broken)
    assert {this.route(dice(n), now=99.0).name for n in range(20)} == {"a"}  # type: ignore[union-attr]
    assert {this.route(dice(n), now=100.0).name for n in range(20)} == {"a", "b"}  # type: ignore[union-attr]


def test_the_last_provider_of_a_model_is_never_cut_off_altogether() -> None:
    """A few calls still go there, the others are refused at once."""
    only = route("a")
    for _ in range(5):
        only.breaker.failed(only.breaker.begin())
    assert not only.breaker.allows()
    this = model("m", CHAT, only)
    only.in_flight = LAST_RESORT - 1
    assert this.route(dice()) is only
    only.in_flight = LAST_RESORT
    with pytest.raises(errors.UpstreamUnavailable, match="no provider of `m` is healthy") as caught:
        this.route(dice())
    assert 1.0 <= (caught.value.wait or 0) <= 10.0
    assert caught.value.retryable_by_client


def test_a_further_attempt_goes_to_a_healthy_provider_not_tried_before() -> None:
    """G18."""
    first, second, third = route("a"), route("b"), route("c")
    third.ready = False
    this = model("m", CHAT, first, second, third)
    assert this.route(dice(), tried=[first]) is second
    with pytest.raises(errors.UpstreamUnavailable):
        this.route(dice(), tried=[first, second])


@pytest.mark.parametrize("strategy", ["round_robin", "shuffle", "least_busy", "power_of_two"])
def test_a_group_is_balanced_by_the_model_s_strategy(strategy: str) -> None:
    this = model("m", CHAT, *[route(name) for name in "abc"], strategy=strategy)
    assert chosen(this) == {"a", "b", "c"}


def test_turns_go_on_from_call_to_call() -> None:
    this = model("m", CHAT, route("a"), route("b"), strategy="round_robin")
    picked = [this.route(dice()) for _ in range(4)]
    assert [one.name for one in picked if one] == ["a", "b", "a", "b"]
