"""Vectors between an upstream and a caller: which form is asked for, and what is made of it."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from services import errors
from services.body import Body
from services.call import Call
from tests.fakes import answers
from tests.fakes.profiles import PROFILES
from tests.fakes.upstream import FakeUpstream, Json, Raw, Received
from tests.lib.adapters import a_call, adapter

PATH = "/v1/embeddings"
NUMBERS = [0.5, -0.25, 3.0]


def request(**members: Any) -> Body:
    return Body.from_value("EmbedRequest", {"model": "m", "input": ["a"], **members})


def call(face: str = "grpc") -> Call:
    one = a_call("Embed")
    one.face = "grpc" if face == "grpc" else "rest"
    return one


def vector(embedding: Any, **members: Any) -> dict[str, Any]:
    item = {"object": "embedding", "index": 0, "embedding": embedding, **members}
    return {"object": "list", "data": [item], "model": "m"}


def forms(upstream: FakeUpstream) -> list[Any]:
    """The encoding_format of every request so far."""
    return [json.loads(one.body).get("encoding_format") for one in upstream.requests]


@pytest.mark.parametrize("kind", ["openai", "vllm", "llamacpp", "tei"])
async def test_base64_is_asked_for_callers_who_get_bytes_anyway(
    upstream: FakeUpstream, kind: str
) -> None:
    """G26: over REST the caller's own form is asked for, since its bytes are passed on."""
    profile = {"vllm": "vllm-embed", "llamacpp": "llamacpp-embedding"}.get(kind, kind)
    name = PROFILES[profile](upstream)
    async with adapter(upstream, kind, {"openai": "text-embedding-3-small"}.get(kind, name)) as one:
        for face, asked in (("grpc", None), ("grpc", "float"), ("rest", None), ("rest", "float")):
            answer = await one.embed(request(encoding_format=asked), call(face))
            (item,) = answer.parsed().data
            assert list(item.embedding.floats.values) == answers.vector("a")
    assert forms(upstream) == ["base64", "base64", None, "float"]


@pytest.mark.parametrize("kind", ["mistral", "albert", "cohere"])
async def test_base64_is_not_asked_for_where_it_is_not_known(
    upstream: FakeUpstream, kind: str
) -> None:
    upstream.on("POST", PATH, Json(vector(NUMBERS)))
    async with adapter(upstream, kind) as one:
        answer = await one.embed(request(), call())
    assert list(answer.parsed().data[0].embedding.floats.values) == NUMBERS
    assert forms(upstream) == [None]


async def test_an_upstream_that_ignores_base64_is_not_asked_for_it_again(
    upstream: FakeUpstream,
) -> None:
    upstream.on("POST", PATH, Json(vector(NUMBERS)))
    async with adapter(upstream) as one:
        for _ in range(3):
            answer = await one.embed(request(), call())
            assert list(answer.parsed().data[0].embedding.floats.values) == NUMBERS
    assert forms(upstream) == ["base64", None, None]


def refusing(said: dict[str, Any]) -> Any:
    async def reply(received: Received, responder: Any) -> None:
        wants = json.loads(received.body).get("encoding_format") == "base64"
        await (Json(said, 400) if wants else Json(vector(NUMBERS)))(received, responder)

    return reply


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "unsupported value", "param": "encoding_format", "type": "x"}},
        {"detail": [{"loc": ["body", "encoding_format"], "msg": "must be float", "type": "x"}]},
        {"message": "base64 is not supported", "code": 400, "type": "Validation"},
    ],
)
async def test_an_upstream_that_refuses_base64_is_not_asked_for_it_again(
    upstream: FakeUpstream, said: dict[str, Any]
) -> None:
    """G27: the caller asked for numbers, and never learns of it."""
    upstream.on("POST", PATH, refusing(said))
    async with adapter(upstream) as one:
        for _ in range(2):
            answer = await one.embed(request(), call())
            assert list(answer.parsed().data[0].embedding.floats.values) == NUMBERS
    assert forms(upstream) == ["base64", None, None]


async def test_a_refusal_for_another_reason_is_the_caller_s(upstream: FakeUpstream) -> None:
    """One attempt is one request: nothing is sent twice because of a bad input."""
    upstream.on("POST", PATH, refusing({"error": {"message": "input is empty", "param": "input"}}))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamInvalidRequest):
            await one.embed(request(), call())
    assert forms(upstream) == ["base64"]


async def test_a_refusal_of_what_the_caller_asked_for_is_the_caller_s(
    upstream: FakeUpstream,
) -> None:
    said = {"error": {"message": "unsupported", "param": "encoding_format"}}
    upstream.on("POST", PATH, refusing(said))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamInvalidRequest):
            await one.embed(request(encoding_format="base64"), call())
    assert forms(upstream) == ["base64"]


@pytest.mark.parametrize("face", ["grpc", "rest"])
@pytest.mark.parametrize(
    "asked",
    [
        {"embed_dtype": "float16"},
        {"output_dtype": "int8"},
        {"endianness": "big"},
        {"encoding_format": "bytes"},
        {"encoding_format": "base64", "embed_dtype": "bfloat16"},
    ],
)
@pytest.mark.parametrize("came", ["AAA=", [1, 2]])
async def test_numbers_of_another_kind_are_passed_on_as_they_are(
    upstream: FakeUpstream, face: str, asked: dict[str, Any], came: Any
) -> None:
    """Only who asked for them by name gets them, and gets them untouched."""
    upstream.on("POST", PATH, Json(vector(came)))
    async with adapter(upstream) as one:
        answer = await one.embed(request(**asked), call(face))
    assert json.loads(upstream.requests[0].body) == request(**asked).value()
    assert json.loads(answer.json()) == vector(came)
    embedding = answer.parsed().data[0].embedding
    if isinstance(came, str):
        assert embedding.packed.data == b64decode(came)
    else:
        assert list(embedding.floats.values) == came


async def test_what_stands_beside_the_vectors_survives_a_change_of_form(
    upstream: FakeUpstream,
) -> None:
    """G23: to the letter, integers past 64 bits included."""
    text = (
        b'{ "object":"list", "data":[ {"n":1.0,"index":0,"embedding":"AAAAPw==","x":'
        b'[18446744073709551616]} ],"y":{"embedding":1e-400},"usage":{"total_tokens":3,"z":1.50}}'
    )

    upstream.on("POST", PATH, Raw(text, "application/json"))
    async with adapter(upstream) as one:
        answer = await one.embed(request(), call("rest"))
        assert answer.json() == text.replace(b'"AAAAPw=="', b"[0.5]")
        over_grpc = (await one.embed(request(), call())).parsed()
    assert json.loads(over_grpc.extra.json)["y"] == {"embedding": 0}
    assert "1e-400" in over_grpc.extra.json
    assert over_grpc.data[0].extra.json == '{"n":1.0,"x":[18446744073709551616]}'
    assert list(over_grpc.data[0].embedding.floats.values) == [0.5]


async def test_a_relayed_answer_is_the_upstream_s_own_bytes(upstream: FakeUpstream) -> None:
    text = b'{"data": [{"embedding": [0.1000, 1e0],\n "index": 0}], "object": "list"}'
    upstream.on("POST", PATH, Raw(text, "application/json"))
    async with adapter(upstream) as one:
        assert (await one.embed(request(), call("rest"))).json() == text
