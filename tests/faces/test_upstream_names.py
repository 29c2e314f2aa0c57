"""Two servers of `--upstream` that have a model of one name."""

from __future__ import annotations

import pytest

from services import app
from services.config import Config
from tests.fakes.upstream import FakeUpstream, Json


def listing(up: FakeUpstream, type: str) -> str:
    up.on("GET", "/v1/models", Json({"object": "list", "data": [{"id": "m", "type": type}]}))
    return up.url


async def started(*urls: str) -> list[int]:
    config = Config.for_upstreams(urls).with_overrides(
        grpc="127.0.0.1:0", http="none", required_types=["none"]
    )
    async with app.gateway(config) as running:
        return [len(model.routes) for model in running.table.models]


async def test_of_one_type_they_share_its_calls() -> None:
    async with FakeUpstream() as one, FakeUpstream() as two:
        urls = listing(one, "text-generation"), listing(two, "text-generation")
        assert await started(*urls) == [2]


async def test_of_two_types_they_refuse_the_start_and_name_the_model() -> None:
    async with FakeUpstream() as one, FakeUpstream() as two:
        urls = listing(one, "text-generation"), listing(two, "text-classification")
        with pytest.raises(app.StartError, match=r"model `m` is of type text-classification"):
            await started(*urls)
