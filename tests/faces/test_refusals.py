"""What the gateway refuses by itself: one status on each face, the same words on both (G22)."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import grpc
import pytest

from tests.lib.asked import HI, REQUESTS
from tests.lib.cases import check
from tests.lib.faces import (
    OPERATIONS,
    REQUEST_ID,
    Case,
    Failure,
    File,
    grpc_failure,
    message,
    read_rest,
)
from tests.lib.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

NEEDED = {
    "Chat": "text-generation",
    "StreamChat": "text-generation",
    "Embed": "text-embeddings-inference",
    "Transcribe": "automatic-speech-recognition",
    "StreamTranscribe": "automatic-speech-recognition",
    "Rerank": "text-classification",
}


def refused(name: str, operation: str, request: dict[str, Any], failure: Failure) -> Case:
    """A request that reaches no upstream."""
    sound = File() if OPERATIONS[operation].form else None
    return Case(name, operation, request, None, failure=failure, file=sound)


# What the gateway refuses by itself.


def unknown(operation: str) -> Case:
    failure = Failure(
        "MODEL_NOT_FOUND",
        "NOT_FOUND",
        404,
        "the model `nobody/home` does not exist",
        "not_found_error",
        "model_not_found",
        "model",
    )
    request = {**REQUESTS[operation], "model": "nobody/home"}
    return refused(f"unknown model, {operation}", operation, request, failure)


def of_another_type(operation: str, model: str, type: str) -> Case:
    failure = Failure(
        "NOT_OFFERED",
        "UNIMPLEMENTED",
        501,
        f"the model `{model}` is of type {type}; this operation needs {NEEDED[operation]}",
        "not_supported_error",
        "not_offered",
        "model",
    )
    request = {**REQUESTS[operation], "model": model}
    return refused(f"wrong type, {operation}", operation, request, failure)


def missing(operation: str, member: str, said: str, request: dict[str, Any]) -> Case:
    failure = Failure(
        "INVALID_REQUEST", "INVALID_ARGUMENT", 400, said, param=member, fields=(member,)
    )
    return refused(f"no {member}, {operation}", operation, request, failure)


ABSENT = "required, but absent"
REFUSED = [
    *(unknown(operation) for operation in REQUESTS),
    of_another_type("Chat", "embeddings", "text-embeddings-inference"),
    of_another_type("StreamChat", "rerank", "text-classification"),
    of_another_type("Embed", "chat", "text-generation"),
    of_another_type("Transcribe", "chat", "text-generation"),
    of_another_type("StreamTranscribe", "embeddings", "text-embeddings-inference"),
    of_another_type("Rerank", "speech", "automatic-speech-recognition"),
    missing("Chat", "messages", f"messages: {ABSENT}", {"model": "chat"}),
    missing("StreamChat", "messages", f"messages: {ABSENT}", {"model": "chat"}),
    missing("Embed", "input", f"input: {ABSENT}", {"model": "embeddings"}),
    missing("Rerank", "query", f"query: {ABSENT}", {"model": "rerank", "documents": ["a"]}),
    missing("Rerank", "documents", "documents: required, at least one", {"query": "q"}),
]


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_what_cannot_be_served_reaches_no_upstream(world: World, case: Case) -> None:
    await check(world, case)


@pytest.mark.parametrize("operation", ["Transcribe", "StreamTranscribe"])
async def test_a_transcription_without_a_sound_is_refused(world: World, operation: str) -> None:
    failure = Failure(
        "INVALID_REQUEST",
        "INVALID_ARGUMENT",
        400,
        f"file: {ABSENT}",
        param="file",
        fields=("file",),
    )
    await check(world, Case("no file", operation, {"model": "speech"}, None, failure=failure))


async def test_a_document_that_the_server_cannot_read_is_named(world: World) -> None:
    failure = Failure(
        "INVALID_REQUEST",
        "INVALID_ARGUMENT",
        400,
        "documents[1]: expected a text, or an object with `text`: this model reads nothing else",
        param="documents[1]",
        fields=("documents[1]",),
    )
    request = {"model": "rerank", "query": "q", "documents": ["a", {"image": "b"}]}
    await check(world, Case("no text", "Rerank", request, None, failure=failure))


# What only one face can be sent.


async def rest_failure(world: World, **request: Any) -> dict[str, Any]:
    request.setdefault("headers", {})["x-request-id"] = REQUEST_ID
    request.setdefault("method", "POST")
    answer = await world.relaying.rest.request(**request)
    failure = read_rest(answer).failure
    assert failure is not None
    return dict(failure)


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "the body is not JSON"),
        (b"", "the body is not JSON"),
        (b"[1]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'{"messages": "hi"}', "messages: "),
        (b'{"messages": [], "model": ' + b"[" * 600 + b"]" * 600 + b"}", "nested"),
    ],
    ids=["cut", "empty", "a list", "null", "messages as text", "too deep"],
)
async def test_a_body_that_is_no_request_is_refused_with_400(
    world: World, content: bytes, said: str
) -> None:
    got = await rest_failure(world, url="/v1/chat/completions", content=content, headers=dict(JSON))
    assert got["status"] == 400
    assert said in got["message"]
    assert got["type"] == "invalid_request_error"


async def test_another_media_type_is_refused_with_415(world: World) -> None:
    got = await rest_failure(world, url="/v1/chat/completions", data={"model": "chat"})
    assert (got["status"], got["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/v1/nothing", "/tetrad/v1:chat", "/v1"])
async def test_an_unknown_path_is_404_in_openai_s_shape(world: World, path: str) -> None:
    got = await rest_failure(world, url=path, json={})
    assert (got["status"], got["code"], got["type"]) == (404, "not_found", "not_found_error")


async def test_a_known_path_with_another_verb_is_405_and_names_its_verbs(world: World) -> None:
    answer = await world.relaying.rest.get("/v1/embeddings")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_an_unknown_method_is_unimplemented_with_details(world: World) -> None:
    call = world.relaying.channel.unary_unary("/tetrad.v1.ChatService/Sing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=(("x-request-id", REQUEST_ID),))
    got = grpc_failure(caught.value)
    assert (got["code"], got["reason"]) == ("UNIMPLEMENTED", "METHOD_UNKNOWN")


async def test_bytes_that_are_no_message_are_an_invalid_argument(world: World) -> None:
    call = world.relaying.channel.unary_unary("/tetrad.v1.ChatService/Chat")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff", metadata=(("x-request-id", REQUEST_ID),))
    got = grpc_failure(caught.value)
    assert (got["code"], got["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


async def test_the_caller_s_deadline_strikes_on_both_faces(world: World) -> None:
    """G21, G6: and the upstream's connection is closed with it."""
    released = asyncio.Event()

    async def silent(received: Any, responder: Any) -> None:
        try:
            await responder.until_disconnected()
        finally:
            released.set()

    world.script(silent)
    request = {"model": "scripted-chat", "messages": HI}
    got = await rest_failure(
        world,
        url="/v1/chat/completions",
        json=request,
        headers={"x-request-timeout-ms": "150"},
    )
    assert (got["status"], got["code"], got["again"]) == (504, "deadline_exceeded", False)
    assert re.fullmatch(r"the caller's deadline passed \(deadline: 0\.\d+ s\)", got["message"])
    async with asyncio.timeout(2):
        await released.wait()

    released.clear()
    stub = world.relaying.stub("ChatService", "Chat")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(message("ChatRequest", request), timeout=0.15)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(2):
        await released.wait()
