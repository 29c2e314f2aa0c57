"""TEI's and OpenGateLLM's JSON on our paths."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services import errors
from services.body import Body
from services.call import Call
from tests.lib import recordings
from tests.unit.rest_server import EMBED, RERANK, Echo, Unused, serving

RANKED = json.dumps(
    {
        "id": "r1",
        "model": "bge",
        "results": [
            {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.1},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
).encode()

RERANK_PATHS = pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])


async def rerank(service: Any, body: Any, path: str = "/rerank") -> Any:
    """The answer to a request."""
    async with serving({RERANK: service}) as rest:
        return await rest.client.post(path, json=body)


@RERANK_PATHS
async def test_a_request_of_ours_is_relayed(path: str) -> None:
    echo = Echo("RerankResponse", RANKED)
    answer = await rerank(echo, {"query": "q", "documents": ["a", "b"], "new": 1}, path)
    assert answer.content == RANKED
    assert echo.request == {"query": "q", "documents": ["a", "b"], "new": 1}


@RERANK_PATHS
async def test_texts_get_tei_s_bare_list(path: str) -> None:
    """G31."""
    echo = Echo("RerankResponse", RANKED)
    answer = await rerank(echo, {"query": "q", "texts": ["a", "b"], "truncate": True}, path)
    assert answer.json() == [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]
    assert echo.request == {"query": "q", "documents": ["a", "b"], "truncate": True}


async def test_tei_s_texts_come_back_by_their_index_when_asked_for() -> None:
    echo = Echo("RerankResponse", RANKED)
    answer = await rerank(echo, {"query": "q", "texts": ["a", "b"], "return_text": True})
    assert answer.json() == [
        {"index": 1, "score": 0.9, "text": "b"},
        {"index": 0, "score": 0.1, "text": "a"},
    ]
    assert "return_text" not in echo.request


async def test_tei_s_recorded_request_and_answer_keep_their_form() -> None:
    """G31."""
    (request,) = recordings.all("rerank.tei", "request")
    (answer,) = recordings.all("rerank.tei", "response")
    results = [{"index": each["index"], "relevance_score": each["score"]} for each in answer.json()]
    echo = Echo("RerankResponse", json.dumps({"results": results}).encode())
    shown = (await rerank(echo, request.json())).json()
    assert [(each["index"], each["score"]) for each in shown] == [
        (each["index"], each["score"]) for each in answer.json()
    ]
    assert echo.request["documents"] == request.json()["texts"]


@RERANK_PATHS
async def test_prompt_and_input_get_opengatellm_s_shape(path: str) -> None:
    """G31."""
    echo = Echo("RerankResponse", RANKED)
    answer = await rerank(echo, {"prompt": "q", "input": ["a", "b"], "model": "m"}, path)
    assert answer.json() == {
        "object": "list",
        "id": "r1",
        "model": "bge",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "data": [
            {"object": "rerank", "score": 0.9, "index": 1},
            {"object": "rerank", "score": 0.1, "index": 0},
        ],
    }
    assert echo.request == {"query": "q", "documents": ["a", "b"], "model": "m"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"texts": ["a"]}, "query"),
        ({"query": "q", "texts": "a"}, "texts"),
        ({"query": "q", "texts": []}, "texts"),
        ({"query": "q", "texts": ["a", 5]}, "texts[1]"),
        ({"query": "q", "texts": ["a"], "documents": ["a"]}, "texts"),
        ({"query": "q", "texts": ["a"], "return_text": "yes"}, "return_text"),
        ({"query": "q", "texts": None}, "texts"),
        ({"prompt": None, "input": ["a"]}, "prompt"),
        ({"prompt": "q", "input": "a"}, "input"),
        ({"prompt": "q", "input": []}, "input"),
        ({"prompt": "q", "input": ["a"], "query": "q"}, "prompt"),
        ({"prompt": "q", "input": ["a"], "documents": ["a"]}, "input"),
        ({"documents": ["a"]}, "query"),
        ({"query": 5, "input": ["a"], "texts": 5}, "texts"),
    ],
)
async def test_an_error_names_the_caller_s_own_members(body: Any, param: str) -> None:
    answer = await rerank(Unused(), body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "q", "texts": ["a"]}, "texts[0].text"),
        ({"prompt": "q", "input": ["a"]}, "input[0].text"),
        ({"query": "q", "documents": ["a"]}, "documents[0].text"),
    ],
)
async def test_an_error_of_the_services_names_the_caller_s_own_members(
    body: Any, param: str
) -> None:
    class Refusing(Unused):
        async def rerank(self, request: Body, call: Call) -> Body:
            raise errors.InvalidRequest("documents[0].text: too long", param="documents[0].text")

    error = (await rerank(Refusing(), body)).json()["error"]
    assert (error["param"], error["message"]) == (param, f"{param}: too long")


async def test_an_answer_without_results_is_the_upstream_s_fault() -> None:
    for broken in (b"{}", b'{"results": [1]}', b"[]", b"nonsense"):
        answer = await rerank(Echo("RerankResponse", broken), {"query": "q", "texts": ["a"]})
        assert answer.status_code == 502


VECTORS = b'{"object":"list","data":[{"index":1,"embedding":[3,4.5]},{"index":0,"embedding":[1]}]}'


async def embed(service: Any, body: Any) -> Any:
    """The answer to a request of TEI's."""
    async with serving({EMBED: service}) as rest:
        return await rest.client.post("/embed", json=body)


@pytest.mark.parametrize("inputs", ["a", ["a", "b"], [[1, 2]], ["a", [1, 2]]])
async def test_inputs_get_tei_s_bare_list_of_vectors_in_the_order_of_the_inputs(
    inputs: Any,
) -> None:
    """G32, for vectors."""
    echo = Echo("EmbedResponse", VECTORS)
    answer = await embed(echo, {"inputs": inputs, "normalize": False, "truncate": True})
    assert answer.json() == [[1], [3, 4.5]]
    assert echo.request == {
        "input": inputs,
        "normalize": False,
        "truncate": True,
        "encoding_format": "float",
    }


async def test_vectors_that_are_packed_come_out_as_numbers() -> None:
    packed = Body.from_value(
        "EmbedResponse", {"data": [{"index": 0, "embedding": [0.25, -1.5]}]}
    ).wire()

    class Packed(Unused):
        async def embed(self, request: Body, call: Call) -> Body:
            return Body.from_wire("EmbedResponse", packed)

    assert (await embed(Packed(), {"inputs": "a"})).json() == [[0.25, -1.5]]


@pytest.mark.parametrize("recorded", recordings.all("embed.native", "request"), ids=str)
async def test_tei_s_recorded_requests_are_taken(recorded: recordings.Recording) -> None:
    echo = Echo("EmbedResponse", VECTORS)
    assert (await embed(echo, recorded.json())).status_code == 200
    assert echo.request["input"] == recorded.json()["inputs"]


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "inputs"), ({"inputs": 5}, "inputs"), ({"inputs": "a", "input": "b"}, "inputs")],
)
async def test_an_error_of_embed_names_tei_s_members(body: Any, param: str) -> None:
    answer = await embed(Unused(), body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_a_body_that_is_no_object_is_400_on_a_path_of_another_s_json() -> None:
    async with serving({RERANK: Unused(), EMBED: Unused()}) as rest:
        for path in ("/embed", "/rerank"):
            for body in (b"[]", b'"a"', b"null", b"{"):
                answer = await rest.client.post(
                    path, content=body, headers={"content-type": "application/json"}
                )
                assert answer.status_code == 400


@pytest.mark.parametrize(
    "broken",
    [
        b"{}",
        b'{"data":[{"index":0,"embedding":"AAA="}]}',
        b'{"data":[{"index":1,"embedding":[1]}]}',
        b'{"data":[{"index":null,"embedding":[1]}]}',
        b'{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}',
    ],
)
async def test_vectors_that_do_not_fit_the_inputs_are_the_upstream_s_fault(broken: bytes) -> None:
    answer = await embed(Echo("EmbedResponse", broken), {"inputs": "a"})
    assert answer.status_code == 502
