"""Embeddings through both faces, one by one and in bulk."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from tetrad.v1 import embed_service_pb2 as embed_pb2

from services import codec
from tests.fakes import answers
from tests.fakes.upstream import Json, Received, Responder
from tests.lib import canonical, recordings
from tests.lib.cases import check
from tests.lib.faces import Case, Sent, message
from tests.lib.gateway import details
from tests.lib.world import UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATH = "/v1/embeddings"
TEXTS = ["a ship in the harbour", "un bateau à quai", ""]


TEI = str(recordings.get("models/tei-info-embedding-response.json").json()["model_id"])
"""What TEI's answers call its model, whatever the request called it."""


def embed(name: str, model: str, upstream: str, file: str, **members: Any) -> Case:
    """The fake answers with the recording, filled with its vectors of the inputs."""
    request = {"model": model, **members}
    sent = {**request, "model": upstream}
    answered = TEI if file == TEI_FILE else upstream
    answer = answers.embeddings(file, request, answered)
    return Case(name, "Embed", request, Sent(PATH, sent), [answer])


OPENAI = "embeddings/openai-float-response.json"
TEI_FILE = "embeddings/tei-openai-response.json"
VLLM = "embeddings/vllm-response.json"


def native(name: str, *, over_embed: bool = False, **members: Any) -> Case:
    """A request with members that only TEI's own /embed reads."""
    request = {"input": TEXTS, **members}
    vectors = [answers.vector(text, members.get("dimensions", 8)) for text in TEXTS]
    tokens = answers.tokens(TEXTS)
    answer = {
        "object": "list",
        "model": "acme/lab/tei",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    case = Case(
        name,
        "Embed",
        {"model": "acme/lab/tei", **request},
        Sent("/embed", {"inputs": TEXTS, **members}),
        [answer],
    )
    if not over_embed:
        return case
    return Case(
        name,
        "Embed",
        case.request,
        case.sent,
        case.answers,
        rest_path="/embed",
        rest_request={"inputs": TEXTS, **members},
        rest_answer=vectors,
        compare={"vectors": ["/*"]},
    )


def scripted(name: str, **members: Any) -> Case:
    """Whatever the request says goes to the upstream as it is."""
    request = {"model": "scripted-embed", **members}
    answer = {"object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.5, 0.25]}]}
    sent = Sent(PATH, {**request, "model": UPSTREAM_NAME})
    return Case(name, "Embed", request, sent, [answer], reply=Json(answer))


CASES = [
    embed("TEI, one text", "acme/lab/tei", "acme/lab/tei", TEI_FILE, input="a ship"),
    embed("TEI, by an alias with a slash", "acme/e5", "acme/lab/tei", TEI_FILE, input=TEXTS),
    embed(
        "TEI, base64", "embeddings", "acme/lab/tei", TEI_FILE, input=TEXTS, encoding_format="base64"
    ),
    embed("TEI, token ids", "acme/lab/tei", "acme/lab/tei", TEI_FILE, input=[101, 2054, 102]),
    embed("OpenAI, float", "openai-embed", "text-embedding-3-small", OPENAI, input=TEXTS[:2]),
    embed(
        "OpenAI, base64",
        "openai-embed",
        "text-embedding-3-small",
        OPENAI,
        input=TEXTS[:2],
        encoding_format="base64",
        dimensions=4,
        user="u-1",
    ),
    embed("vLLM, lists of token ids", "vllm-embed", "bge-m3", VLLM, input=[[1, 2, 3], [4]]),
    embed("vLLM, base64", "vllm-embed", "bge-m3", VLLM, input=["a"], encoding_format="base64"),
    embed(
        "TEI, texts and ids mixed", "acme/lab/tei", "acme/lab/tei", TEI_FILE, input=["a", [1, 2]]
    ),
    embed("vLLM, one list of ids", "vllm-embed", "bge-m3", VLLM, input=[1, 2, 3], dimensions=4),
    scripted("a chat", messages=[{"role": "user", "content": "hi"}], add_generation_prompt=False),
    scripted(
        "a chat with an image",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
                    {"type": "text", "text": "a ship"},
                ],
            }
        ],
        chat_template_kwargs={"x": 1},
    ),
    scripted("several chats", messages=[[{"role": "user", "content": "a"}]]),
    scripted("parts", input=[{"content": [{"type": "text", "text": "a"}]}], priority=-1),
    native("TEI's options", truncate=True, truncation_direction="Left", normalize=False),
    native("TEI's options at /embed", over_embed=True, truncate=True, prompt_name="query"),
    native("TEI's options, shorter vectors", normalize=True, dimensions=4),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_embeddings_go_alike_through_both_faces(world: World, case: Case) -> None:
    """G27: float and base64 are served, whatever the upstream was asked for."""
    await check(world, case)


async def test_no_model_named_takes_the_default_at_both_faces(world: World) -> None:
    request = {"input": "a ship"}
    rest = await world.relaying.rest.post(PATH, json=request)
    grpc_answer = await world.relaying.call("EmbedService", "Embed", request)
    assert rest.headers["x-tetrad-model"] == "acme/lab/tei"
    canonical.assert_same(rest.content, grpc_answer)


@pytest.mark.parametrize("asked", ["float", "base64"])
async def test_an_upstream_that_ignores_the_format_is_put_right(world: World, asked: str) -> None:
    """G27: bit-exact float32, both ways."""
    values = answers.vector("quay")
    given: Any = answers.packed(values) if asked == "float" else values
    wanted: Any = values if asked == "float" else answers.packed(values)
    answer = {"object": "list", "model": "m", "data": [{"index": 0, "embedding": given}]}
    request = {"model": "scripted-embed", "input": "quay", "encoding_format": asked}
    case = Case(
        asked,
        "Embed",
        request,
        Sent(PATH, {**request, "model": UPSTREAM_NAME}),
        [{**answer, "data": [{"index": 0, "embedding": wanted}]}],
        reply=Json(answer),
    )
    await check(world, case)
    packed = await world.relaying.stub("EmbedService", "Embed")(message("EmbedRequest", request))
    vector = packed.data[0].embedding
    if asked == "base64":
        assert vector.packed.data == base64.b64decode(answers.packed(values))
    else:
        assert list(vector.floats.values) == values


# In bulk.


def item(id: str, **request: Any) -> embed_pb2.BulkEmbedRequest:
    return embed_pb2.BulkEmbedRequest(id=id, request=message("EmbedRequest", request))


async def test_a_bulk_gives_each_item_the_answer_of_the_single_call(world: World) -> None:
    """G28, G29: also items that fail, each with the status of its own call."""
    gate = world.relaying
    texts = [f"text {number}" for number in range(60)]
    inputs: dict[str, Any] = {text: {"model": "embeddings", "input": text} for text in texts}
    inputs["tokens"] = {"model": "vllm-embed", "input": [1, 2, 3], "encoding_format": "base64"}
    inputs["unknown"] = {"model": "nobody", "input": "x"}
    inputs["other type"] = {"model": "vllm", "input": "x"}
    inputs["empty"] = {"model": "embeddings"}
    items = [item(name, **request) for name, request in inputs.items()]
    got = {one.id: one async for one in gate.bidi("EmbedService", "BulkEmbed", items)}
    assert got.keys() == inputs.keys()
    failing = {"unknown", "other type", "empty"}
    used = [0, 0]
    for name, request in inputs.items():
        answer = got[name]
        single = gate.stub("EmbedService", "Embed")(message("EmbedRequest", request))
        if name in failing:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await single
            assert answer.error.code == caught.value.code().value[0]
            assert answer.error.message == caught.value.details()
            info = error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(info) for detail in answer.error.details)
            assert info == details(caught.value)["ErrorInfo"]
        else:
            alone = json.loads(codec.to_json("EmbedResponse", await single))
            shared = json.loads(codec.to_json("EmbedResponse", answer.response))
            for one in (alone, shared):  # a shared request's is told in parts
                used[one is shared] += one.pop("usage")["total_tokens"]
            canonical.assert_same(alone, shared)
    assert used[0] == used[1] > 0
    assert {name for name, one in got.items() if one.HasField("error")} == failing


async def test_items_of_a_bulk_are_answered_as_they_finish(world: World) -> None:
    held: list[tuple[Received, Responder]] = []

    async def first_waits(received: Received, responder: Responder) -> None:
        if received.json()["user"] == "first":
            await world.scripted.until(lambda: len(world.scripted.requests) == 2)
            await world.scripted.requests[1].answered.wait()
        answer = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}
        await Json(answer)(received, responder)
        held.append((received, responder))

    world.script(first_waits)
    world.scripted.forget()
    names = ("first", "second")
    items = [item(name, model="scripted-embed", input="x", user=name) for name in names]
    got = [one.id async for one in world.relaying.bidi("EmbedService", "BulkEmbed", items)]
    assert got == ["second", "first"]


@pytest.mark.parametrize(
    ("ids", "said"), [(["a", "a"], "is still open"), ([""], "required, but absent")]
)
async def test_a_bulk_with_an_id_that_names_no_item_is_ended(
    world: World, ids: list[str], said: str
) -> None:
    async def never(received: Received, responder: Responder) -> None:
        await responder.until_disconnected()

    async def requests() -> AsyncIterator[Any]:
        for id in ids:
            yield item(id, model="scripted-embed", input="x")

    world.script(never)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in world.relaying.bidi("EmbedService", "BulkEmbed", requests()):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in (caught.value.details() or "")
    told = details(caught.value)
    assert told["ErrorInfo"].reason == "INVALID_REQUEST"
    assert [one.field for one in told["BadRequest"].field_violations] == ["id"]


async def test_an_empty_bulk_ends_well(world: World) -> None:
    assert [one async for one in world.relaying.bidi("EmbedService", "BulkEmbed", [])] == []


async def test_a_vector_in_json_equals_the_packed_one(world: World) -> None:
    request = {"model": "openai-embed", "input": "quay"}
    floats = await world.relaying.rest.post(PATH, json=request)
    text = await world.relaying.rest.post(PATH, json={**request, "encoding_format": "base64"})
    numbers = floats.json()["data"][0]["embedding"]
    assert numbers == answers.vector("quay")
    assert json.loads(text.content)["data"][0]["embedding"] == answers.packed(numbers)
