"""The watch on servers: which answer, how busy they are, what they have; never for tokens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from services import errors, watch
from services.assembly import Watched
from services.routing.table import Route, RoutedModel
from services.upstream import Endpoint, Transport, build, load, probe
from services.upstream.model_types import CHAT, EMBED
from services.watch import Watch
from tests.fakes import profiles
from tests.fakes.replies import Delayed, Json, Raw, Stall
from tests.fakes.routes import EMPTY
from tests.fakes.upstream import FakeUpstream
from tests.lib.adapters import transport

SHORT = 0.2


def provider(
    via: Transport,
    up: FakeUpstream,
    kind: str,
    upstream_model: str = "",
    *,
    model: RoutedModel | None = None,
    auto: bool = False,
    key: str = "",
) -> Watched:
    """One provider of a model (of its own, unless told), as the configuration makes it."""
    endpoint = Endpoint(f"{kind} there", up.url, kind, upstream_model, key)
    route = Route(endpoint.name, build(endpoint, via))
    if model is None:
        model = RoutedModel(upstream_model or "m", CHAT, [])
    model.routes.append(route)
    return Watched(model, route, endpoint, auto)


async def until(holds: Any, within: float = 10.0) -> None:
    """Waits for what nobody announces."""
    for _ in range(int(within / 0.005)):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("what was waited for did not come true")


@asynccontextmanager
async def watching(
    via: Transport, *watched: Watched, interval: float = SHORT
) -> AsyncIterator[Watch]:
    async with Watch(watched, via, interval, Random(1)) as one:  # noqa: S311
        yield one


def asked(up: FakeUpstream) -> Counter[str]:
    return Counter(f"{one.method} {one.path}" for one in up.requests)


# Readiness.


async def test_a_server_that_dies_is_out_and_one_that_comes_back_is_in(
    upstream: FakeUpstream,
) -> None:
    """G20, G39: and not one request asked for anything but health, lists and figures."""
    profiles.vllm(upstream)
    async with transport() as via:
        one = provider(via, upstream, "vllm", "qwen3-8b")
        async with watching(via, one):
            for _ in range(3):
                assert one.route.ready
                await upstream.stop_listening()
                await until(lambda: not one.route.ready)
                await upstream.listen()
                await until(lambda: one.route.ready)
            await until(lambda: asked(upstream)["GET /metrics"] > 0)
    assert set(asked(upstream)) == {"GET /health", "GET /v1/models", "GET /metrics"}


async def test_a_server_that_hangs_is_out(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G20: it takes connections and requests, and answers nothing."""
    monkeypatch.setattr(watch, "LEAST_LIMIT", SHORT / 2)
    profiles.vllm(upstream)
    async with transport() as via:
        one = provider(via, upstream, "vllm", "qwen3-8b")
        async with watching(via, one):
            assert one.route.ready
            upstream.on("GET", "/health", Stall())
            await until(lambda: not one.route.ready, within=10 * SHORT)
            upstream.on("GET", "/health", EMPTY)
            await until(lambda: one.route.ready)


async def test_a_hung_server_is_out_within_one_interval_by_the_arithmetic() -> None:
    """G20: until the next probe, and until that one's time is over."""
    for interval in (1.0, 2.0, 10.0, 60.0):
        async with transport() as via:
            one = Watch([], via, interval)
        assert one._period + one._limit <= interval


async def test_what_a_call_found_dead_the_next_probe_brings_back_with_a_clean_breaker(
    upstream: FakeUpstream,
) -> None:
    """G20."""
    profiles.vllm(upstream)
    async with transport() as via:
        one = provider(via, upstream, "vllm", "qwen3-8b")
        async with watching(via, one):
            for _ in range(5):
                one.route.breaker.failed(one.route.breaker.begin())
            assert not one.route.breaker.allows()
            await upstream.received(len(upstream.requests) + 3)
            assert not one.route.breaker.allows()  # it was ready all the time: no news
            one.route.ready = False
            await until(lambda: one.route.ready)
            assert one.route.breaker.allows()


async def test_providers_of_one_server_share_its_probe(upstream: FakeUpstream) -> None:
    profiles.vllm(upstream)
    async with transport() as via:
        eight = [provider(via, upstream, "vllm", f"m{n}") for n in range(8)]
        other = provider(via, upstream, "vllm", "qwen3-8b", key="another key")
        async with watching(via, *eight, other, interval=3600):
            assert all(one.route.ready for one in (*eight, other))
    assert asked(upstream) == {"GET /health": 2, "GET /v1/models": 2}


async def test_a_dead_server_keeps_no_other_from_being_seen(upstream: FakeUpstream) -> None:
    profiles.vllm(upstream)
    async with FakeUpstream() as silent, transport() as via:
        silent.default = Stall()
        hung = provider(via, silent, "vllm", "a")
        well = provider(via, upstream, "vllm", "qwen3-8b")
        async with watching(via, hung, well, interval=3600):
            assert well.route.ready
            assert not hung.route.ready


async def test_a_watch_outlives_whatever_goes_wrong_in_it(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """G20: or the provider would be out for ever."""
    profiles.vllm(upstream)
    broken = {"alive": False, "learnt": False, "ask": False}

    def breaking(module: Any, name: str) -> None:
        sound = getattr(module, name)

        async def maybe(*given: Any, **named: Any) -> Any:
            if broken[name]:
                raise RuntimeError(f"{name} is broken")
            return await sound(*given, **named)

        monkeypatch.setattr(module, name, maybe)

    breaking(probe, "alive")
    breaking(probe, "learnt")
    breaking(load, "ask")
    async with transport() as via:
        one = provider(via, upstream, "vllm", "qwen3-8b")
        async with watching(via, one):
            assert one.route.ready
            broken["alive"] = True
            await until(lambda: not one.route.ready)
            broken["alive"], broken["learnt"] = False, True
            await until(lambda: one.route.ready)
            broken["ask"] = True
            await until(lambda: "ask is broken" in caplog.text)
            await upstream.received(len(upstream.requests) + 2)
            assert one.route.ready
    for name in broken:
        assert f"{name} is broken" in caplog.text


async def test_probes_of_many_servers_do_not_fall_into_one_instant() -> None:
    """They begin apart, and each keeps a beat of its own."""
    async with transport() as via, FakeUpstream() as up:
        up.default = Json({"data": []})
        many = [provider(via, up, "openai", "m", key=f"k{n}") for n in range(20)]
        loop = asyncio.get_running_loop()
        seen: dict[str, list[float]] = {}
        note = up.arrived

        def arrived(received: Any) -> None:
            key = received.headers["authorization"]
            seen.setdefault(key, []).append(loop.time())
            note(received)

        up.arrived = arrived  # type: ignore[method-assign]
        async with Watch(many, via, 1.0, Random(7)):  # noqa: S311
            await until(lambda: len(seen) == 20 and all(len(s) >= 3 for s in seen.values()))
    second = sorted(times[2] for times in seen.values())  # after the first probe and its list
    assert second[-1] - second[0] > 0.1


async def test_leaving_ends_all_that_was_under_way(upstream: FakeUpstream) -> None:
    upstream.default = Stall()
    before = asyncio.all_tasks()
    async with transport() as via:
        one = provider(via, upstream, "vllm", "a")
        async with watching(via, one, interval=3600):
            await upstream.received()
        await via.settle()
        assert asyncio.all_tasks() - before == set()


# What it is, and what it has.


async def test_a_server_that_is_not_known_is_spoken_to_as_what_it_turns_out_to_be(
    upstream: FakeUpstream,
) -> None:
    """And as something else, if something else comes back in its place."""
    profiles.tei(upstream)
    async with transport() as via:
        one = provider(via, upstream, "openai", "any", auto=True)
        async with watching(via, one):
            assert one.route.ready
            assert one.route.adapter.endpoint.kind == "tei"
            assert one.route.name == f"tei 127.0.0.1:{upstream.port}"
            assert (one.model.max_context_length, one.model.max_batch) == (512, 32)
            adapter = one.route.adapter
            await upstream.stop_listening()
            await until(lambda: not one.route.ready)
            await upstream.listen()
            await until(lambda: one.route.ready)
            assert one.route.adapter is adapter
            await upstream.stop_listening()
            await until(lambda: not one.route.ready)
            async with FakeUpstream(port=upstream.port) as another:
                profiles.vllm(another, model="any", task="embed")
                await until(lambda: one.route.ready)
                assert one.route.adapter.endpoint.kind == "vllm"
                assert one.model.max_context_length == 40960


async def test_what_is_no_model_server_is_out_and_the_log_says_why(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async with transport() as via:
        one = provider(via, upstream, "openai", "any", auto=True)
        async with watching(via, one, interval=3600):
            assert not one.route.ready
    assert "`any` is not ready: the server at" in caplog.text
    assert "is no model server that is known here" in caplog.text


async def test_the_least_of_all_providers_counts_and_follows_a_restart() -> None:
    async with FakeUpstream() as small, FakeUpstream() as large, transport() as via:
        profiles.vllm(small, model="a", max_model_len=1000)
        profiles.vllm(large, model="a", max_model_len=5000)
        model = RoutedModel("a", CHAT, [])
        both = [provider(via, up, "vllm", "a", model=model) for up in (small, large)]
        async with watching(via, *both):
            assert model.max_context_length == 1000
            await small.stop_listening()
            await until(lambda: not both[0].route.ready)
            profiles.vllm(small, model="a", max_model_len=9000)
            await small.listen()
            await until(lambda: both[0].route.ready and model.max_context_length == 5000)


async def test_a_dimension_learnt_from_an_answer_stays(upstream: FakeUpstream) -> None:
    """TEI does not tell it: the first vectors do."""
    profiles.tei(upstream)
    async with transport() as via:
        model = RoutedModel("e5", EMBED, [], dimension=384)
        async with watching(via, provider(via, upstream, "tei", model=model)):
            assert model.dimension == 384
            assert model.max_batch == 32


async def test_learning_that_takes_long_does_not_keep_a_server_out(
    upstream: FakeUpstream,
) -> None:
    profiles.vllm(upstream)
    upstream.on("GET", "/v1/models", Delayed(Json({"data": []}), 30))
    async with transport() as via:
        one = provider(via, upstream, "vllm", "qwen3-8b")
        async with watching(via, one):
            assert one.route.ready


# How busy it is.


def gauges(running: float, waiting: float, model: str = "a") -> Raw:
    label = f'{{engine="0",model_name="{model}"}}'
    text = f"vllm:num_requests_running{label} {running}\n"
    return Raw(f"{text}vllm:num_requests_waiting{label} {waiting}\n".encode(), "text/plain")


async def test_a_load_is_told_to_the_route_and_forgotten_with_the_server(
    upstream: FakeUpstream,
) -> None:
    profiles.vllm(upstream, model="a")
    upstream.on("GET", "/metrics", gauges(3, 2))
    async with transport() as via:
        one = provider(via, upstream, "vllm", "a")
        async with watching(via, one):
            await until(lambda: one.route.upstream_load == 5.0)
            upstream.on("GET", "/metrics", gauges(0, 0))
            await until(lambda: one.route.upstream_load == 0.0)
            await upstream.stop_listening()
            await until(lambda: not one.route.ready)
            assert one.route.upstream_load is None


async def test_a_load_is_asked_for_at_most_once_an_interval(upstream: FakeUpstream) -> None:
    profiles.vllm(upstream, model="a")
    async with transport() as via:
        one = provider(via, upstream, "vllm", "a")
        async with watching(via, one):
            await until(lambda: asked(upstream)["GET /health"] >= 12)
    seen = asked(upstream)
    assert 3 <= seen["GET /metrics"] <= seen["GET /health"] / 2 + 1


async def test_a_load_that_is_not_told_again_goes_stale(upstream: FakeUpstream) -> None:
    profiles.vllm(upstream, model="a")
    upstream.on("GET", "/metrics", gauges(3, 2))
    loop = asyncio.get_running_loop()
    async with transport() as via:
        one = provider(via, upstream, "vllm", "a")
        async with watching(via, one):
            await until(lambda: one.route.upstream_load == 5.0)
            upstream.on("GET", "/metrics", Json({}, 500))
            since = loop.time()
            await until(lambda: one.route.upstream_load is None)
            assert loop.time() - since > SHORT * (watch.STALE_AFTER - 1)
            assert one.route.ready


async def test_a_server_without_metrics_is_seldom_asked_again(upstream: FakeUpstream) -> None:
    profiles.llamacpp(upstream)
    async with transport() as via:
        one = provider(via, upstream, "llamacpp", "../models/m.gguf")
        async with watching(via, one):
            await until(lambda: asked(upstream)["GET /health"] >= 10)
            assert asked(upstream)["GET /metrics"] == 1
            assert one.route.upstream_load is None
            # Started anew, perhaps with --metrics.
            await upstream.stop_listening()
            await until(lambda: not one.route.ready)
            text = b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n"
            upstream.on("GET", "/metrics", Raw(text, "text/plain"))
            await upstream.listen()
            await until(lambda: one.route.upstream_load == 3.0)


async def test_metrics_that_hang_say_nothing_of_health(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LEAST_LIMIT", SHORT / 2)
    profiles.vllm(upstream, model="a")
    upstream.on("GET", "/metrics", Stall())
    async with transport() as via:
        one = provider(via, upstream, "vllm", "a")
        async with watching(via, one):
            await until(lambda: asked(upstream)["GET /metrics"] >= 3)
            assert one.route.ready


async def test_errors_of_a_probe_are_ours_alone() -> None:
    """A watch raises nothing on entering, whatever is there."""
    async with transport() as via, FakeUpstream() as gone:
        await gone.stop_listening()
        one = provider(via, gone, "openai", "m", auto=True)
        async with watching(via, one):
            assert not one.route.ready
        with pytest.raises(errors.UpstreamUnavailable):
            await probe.recognise(via, gone.url)
