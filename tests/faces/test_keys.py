"""Callers' keys through both faces: who is let in, and to which models."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from services.auth import new_key
from tests.fakes.upstream import Record
from tests.lib.faces import OPERATIONS, Case, Failure, File, over_grpc, over_rest, read_rest
from tests.lib.gateway import Gateway, gateway
from tests.lib.world import MODELS, World, configuration

pytestmark = pytest.mark.asyncio(loop_scope="package")

ALL, FEW = "tk-all-of-them", "tk-a-few"
HI = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "Chat": {"messages": HI, "model": "chat"},
    "StreamChat": {"messages": HI, "model": "chat"},
    "Embed": {"input": "quay", "model": "embeddings"},
    "Transcribe": {"model": "speech"},
    "StreamTranscribe": {"model": "speech"},
    "Rerank": {"query": "q", "documents": ["a", "b"], "model": "rerank"},
}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def locked(world: World) -> AsyncIterator[Gateway]:
    """A gateway in front of the same upstreams that wants keys; FEW may use two models."""
    keys = [
        {"name": "all", "sha256": digest(ALL)},
        {"name": "few", "sha256": digest(FEW), "models": ["vllm", "acme/e5"]},
    ]
    urls = {name: fake.url for name, fake in world.fakes.items()}
    async with gateway(configuration(urls, auth={"keys": keys})) as one:
        yield one


def case(operation: str) -> Case:
    sound = File() if OPERATIONS[operation].form else None
    return Case(operation, operation, REQUESTS[operation], None, file=sound)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def assert_failed(outcome: Any, wanted: Failure, face: str) -> None:
    got = outcome.failure
    assert got is not None
    assert got["message"] == wanted.message
    if face == "gRPC":
        assert (got["code"], got["reason"]) == (wanted.code, wanted.reason)
    else:
        told = (got["status"], got["type"], got["code"], got["param"])
        assert told == (wanted.status, wanted.type, wanted.error_code, wanted.param)


def unauthenticated(message: str) -> Failure:
    return Failure(
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
        401,
        message,
        "authentication_error",
        "invalid_api_key",
    )


UNREADABLE = "the authorization header cannot be read; it must be 'Bearer KEY'"


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "no API key was sent; send it as the header 'authorization: Bearer KEY'"),
        (bearer("tk-unknown"), "the API key is not known to this gateway"),
        ({"authorization": "Basic YTpi"}, UNREADABLE),
        (bearer(digest(ALL)), "the API key is not known to this gateway"),
    ],
    ids=["missing", "wrong", "another scheme", "the hash in place of the key"],
)
async def test_who_has_no_good_key_is_not_let_in(
    locked: Gateway, world: World, operation: str, headers: dict[str, str], said: str
) -> None:
    upstream = world.behind(REQUESTS[operation]["model"])
    upstream.forget()
    for face, run in (("REST", over_rest), ("gRPC", over_grpc)):
        outcome = await run(locked, case(operation), headers)
        assert_failed(outcome, unauthenticated(said), face)
    assert upstream.requests == []


@pytest.mark.parametrize("operation", REQUESTS)
async def test_a_good_key_opens_both_faces(locked: Gateway, operation: str) -> None:
    for run in (over_rest, over_grpc):
        outcome = await run(locked, case(operation), bearer(ALL))
        assert outcome.failure is None
        assert outcome.answers


async def test_the_caller_s_key_never_reaches_the_upstream(locked: Gateway, world: World) -> None:
    world.script(Record("chat/openai-text-response.json"))
    asked = Case("key", "Chat", {"model": "scripted-chat", "messages": HI}, None)
    world.scripted.forget()
    for run in (over_rest, over_grpc):
        assert (await run(locked, asked, bearer(ALL))).failure is None
    assert len(world.scripted.requests) == 2
    assert all(ALL not in str(one.raw_headers) for one in world.scripted.requests)
    assert all(
        one.headers["authorization"].startswith("Bearer sk-up") for one in world.scripted.requests
    )


@pytest.mark.parametrize("operation", ["Transcribe", "StreamTranscribe", "Rerank"])
async def test_a_model_that_the_key_may_not_use_is_forbidden(
    locked: Gateway, operation: str
) -> None:
    model = REQUESTS[operation]["model"]
    wanted = Failure(
        "MODEL_FORBIDDEN",
        "PERMISSION_DENIED",
        403,
        f"this key may not use the model `{model}`",
        "permission_error",
        "model_forbidden",
        "model",
    )
    for face, run in (("REST", over_rest), ("gRPC", over_grpc)):
        assert_failed(await run(locked, case(operation), bearer(FEW)), wanted, face)


@pytest.mark.parametrize("name", ["vllm", "chat"])
async def test_a_key_s_models_hold_under_name_and_alias(locked: Gateway, name: str) -> None:
    asked = Case(name, "Chat", {"model": name, "messages": HI}, None)
    for run in (over_rest, over_grpc):
        assert (await run(locked, asked, bearer(FEW))).failure is None


async def test_a_key_sees_its_models_only(locked: Gateway) -> None:
    metadata = tuple(bearer(FEW).items())
    rest = await locked.rest.get("/v1/models", headers=bearer(FEW))
    grpc_list = await locked.call("ModelService", "ListModels", {}, metadata=metadata)
    for answer in (rest.json(), grpc_list):
        assert [model["id"] for model in answer["data"]] == ["acme/lab/tei", "vllm"]
    everything = await locked.rest.get("/v1/models", headers=bearer(ALL))
    assert len(everything.json()["data"]) == len(MODELS) - 1  # no "gone" here

    denied = await locked.rest.get("/v1/models/rerank", headers=bearer(FEW))
    assert denied.status_code == 403
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await locked.call("ModelService", "GetModel", {"model": "rerank"}, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_listing_models_and_bulks_need_a_key_too(locked: Gateway) -> None:
    assert (await locked.rest.get("/v1/models")).status_code == 401
    for call in (
        locked.call("ModelService", "ListModels", {}),
        anext(locked.bidi("EmbedService", "BulkEmbed", [])),
        anext(locked.bidi("TranscribeService", "LiveTranscribe", [])),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_and_readiness_need_no_key(locked: Gateway) -> None:
    for path in ("/health", "/ready", "/openapi.json"):
        assert (await locked.rest.get(path)).status_code == 200


async def test_a_new_key_and_its_hash_open_the_gateway(world: World) -> None:
    key, hashed = new_key("indexer")
    urls = {"vllm": world.fakes["vllm"].url}
    keys = [{"name": "indexer", "sha256": hashed}]
    text = configuration(urls, auth={"keys": keys}, required_types=[])
    async with gateway(text) as one:
        answer = await one.rest.post(
            "/v1/chat/completions", json=REQUESTS["Chat"], headers=bearer(key)
        )
        assert read_rest(answer).failure is None
