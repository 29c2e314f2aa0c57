"""Calls of a running gateway in the metrics: labels are configured names, whatever callers say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.telemetry.metrics import Metrics
from tests.fakes.upstream import Record
from tests.lib.metric_lines import samples, series, total
from tests.lib.rig import FACES, rig


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_a_flood_of_made_up_model_names_makes_no_new_series(face: Any) -> None:
    metrics = Metrics()

    async def refused(name: str) -> None:
        end = await (await face.start(one, "Chat", members={"model": name})).end()
        assert end.reason == "model_not_found"

    async with rig() as one:
        await refused("made-up-0")
        metrics.call_ended(await one.record())
        before = samples(metrics.page()[1]).keys()
        await asyncio.gather(*(refused(f"made-up-{number}") for number in range(1, 30)))
        await one.record(30)
        for call in one.ended[1:]:
            metrics.call_ended(call)
    _, page = metrics.page()
    assert samples(page).keys() == before
    (labels,) = series(page, "tetrad_calls_total")
    assert labels["gen_ai_request_model"] == labels["endpoint"] == ""
    assert total(page, "tetrad_calls_total", face=face.name) == 30


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
async def test_an_alias_counts_under_the_model_s_own_name(face: Any) -> None:
    metrics = Metrics()
    async with rig() as one:
        one.up.on("POST", "/*", Record("chat/openai-text-response.json"))
        for members in ({"model": "chat"}, {"model": None}):
            assert (await (await face.start(one, "Chat", members=members)).end()).done
        await one.record(2)
    for call in one.ended:
        metrics.call_ended(call)
    _, page = metrics.page()
    (labels,) = series(page, "tetrad_calls_total")
    assert labels["gen_ai_request_model"] == "chat"
    assert total(page, "tetrad_calls_total", error_type="") == 2
    usage = one.ended[0].usage
    name = "gen_ai_client_token_usage_sum"
    assert usage.prompt_tokens
    assert total(page, name, gen_ai_token_type="input") == 2 * usage.prompt_tokens
