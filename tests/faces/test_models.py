"""The list of models and single models through both faces."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import grpc
import pytest

from services.config import Limits
from tests.lib import canonical
from tests.lib.gateway import details
from tests.lib.world import MODELS, UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

CAPABILITIES = {
    "text-generation": ["chat", "stream_chat"],
    "text-embeddings-inference": ["embed", "bulk_embed"],
    "automatic-speech-recognition": [
        "transcribe",
        "stream_transcribe",
        "live_transcribe.final_only",
    ],
    "text-classification": ["rerank"],
}


CONTEXT = {
    "vllm": 40960,
    "vllm-embed": 40960,
    "vllm-speech": 40960,
    "vllm-rerank": 40960,
    "cohere": 4096,
    "acme/lab/tei": 512,
    "tei-rerank": 512,
    "llamacpp": 8192,
}
"""What their servers tell, asked without a token spent."""

MAX_BATCH = {"acme/lab/tei": 32, "tei-rerank": 32}


def described(name: str, created: int) -> dict[str, Any]:
    """The model as callers must see it."""
    served = MODELS[name]
    more = served.more or {}
    limits = {"max_batch": MAX_BATCH[name]} if name in MAX_BATCH else {}
    if served.type == "automatic-speech-recognition":
        limits["max_upload_bytes"] = Limits().max_upload_bytes
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": more.get("owned_by", ""),
        "type": served.type,
        **({"aliases": list(served.aliases)} if served.aliases else {}),
        "capabilities": CAPABILITIES[served.type],
        **({"max_context_length": CONTEXT[name]} if name in CONTEXT else {}),
        "costs": {"prompt_tokens": 0.0, "completion_tokens": 0.0},
        "ready": name != "gone",
        **({"limits": limits} if limits else {}),
    }


@pytest.mark.parametrize("gate", ["relaying", "recoding"])
async def test_both_faces_list_the_same_models_by_name(world: World, gate: str) -> None:
    chosen = getattr(world, gate)
    rest = await chosen.rest.get("/v1/models")
    listed = await chosen.call("ModelService", "ListModels", {})
    assert rest.status_code == 200
    created = rest.json()["data"][0]["created"]
    wanted = {"object": "list", "data": [described(name, created) for name in sorted(MODELS)]}
    canonical.assert_same(wanted, rest.content)
    canonical.assert_same(wanted, listed)


@pytest.mark.parametrize("gate", ["relaying", "recoding"])
@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("vllm", "vllm"),
        ("chat", "vllm"),
        ("acme/lab/tei", "acme/lab/tei"),
        ("acme/e5", "acme/lab/tei"),
        ("gone", "gone"),
    ],
)
async def test_both_faces_tell_about_a_model_by_name_or_alias(
    world: World, gate: str, asked: str, name: str
) -> None:
    chosen = getattr(world, gate)
    answer = await chosen.call("ModelService", "GetModel", {"model": asked})
    wanted = described(name, answer["model"]["created"])
    canonical.assert_same({"model": wanted}, answer)
    for path in (asked, quote(asked, safe="")):
        rest = await chosen.rest.get(f"/v1/models/{path}")
        assert rest.headers["x-tetrad-model"] == name
        canonical.assert_same(wanted, rest.content)


async def test_a_model_that_is_not_there_is_404_and_not_found(world: World) -> None:
    rest = await world.relaying.rest.get("/v1/models/nobody/home")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.relaying.call("ModelService", "GetModel", {"model": "nobody/home"})
    said = "the model `nobody/home` does not exist"
    assert rest.status_code == 404
    assert rest.json()["error"] == {
        "message": said,
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == said
    assert details(caught.value)["ErrorInfo"].reason == "MODEL_NOT_FOUND"
    assert UPSTREAM_NAME not in rest.text


async def test_pages_of_models_are_the_same_on_both_faces_and_end(world: World) -> None:
    names: list[str] = []
    token: str | None = ""
    pages = 0
    while token is not None:
        asked = {"page_size": 4, **({"page_token": token} if token else {})}
        rest = await world.relaying.rest.get("/v1/models", params=asked)
        answer = await world.relaying.call("ModelService", "ListModels", asked)
        canonical.assert_same(rest.content, answer)
        names += [model["id"] for model in answer["data"]]
        token = answer.get("next_page_token")
        pages += 1
    assert names == sorted(MODELS)
    assert pages == -(-len(MODELS) // 4)


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"page_token": "not one"}, "page_token"), ({"page_size": -1}, "page_size")],
)
async def test_a_page_that_cannot_be_is_an_invalid_argument(
    world: World, asked: dict[str, Any], field: str
) -> None:
    rest = await world.relaying.rest.get("/v1/models", params=asked)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.relaying.call("ModelService", "ListModels", asked)
    assert (rest.status_code, rest.json()["error"]["param"]) == (400, field)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations = details(caught.value)["BadRequest"].field_violations
    assert [one.field for one in violations] == [field]
    assert rest.json()["error"]["message"] == caught.value.details()
