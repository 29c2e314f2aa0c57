"""The OpenAPI document: valid, complete, and true of the bodies that servers and clients write."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from gateway_http.comments import comments
from gateway_http.openapi import document
from services import codec
from services.error_table import TABLE
from tests.lib import recordings
from tests.unit.rest_server import CHAT, EMBED, MODEL, RERANK, TRANSCRIBE, Unused

SERVICES = {name: Unused() for name in (CHAT, EMBED, TRANSCRIBE, RERANK, MODEL)}

BODIES = {
    ("chat.completions", "request"): "ChatRequest",
    ("chat.completions", "response"): "ChatResponse",
    ("chat.completions", "stream"): "StreamChatResponse",
    ("embeddings", "request"): "EmbedRequest",
    ("embeddings", "response"): "EmbedResponse",
    ("rerank", "request"): "RerankRequest",
    ("rerank", "response"): "RerankResponse",
    ("audio.transcriptions", "response"): "TranscribeResponse",
    ("audio.transcriptions", "stream"): "StreamTranscribeResponse",
    ("audio.translations", "response"): "TranscribeResponse",
    ("models.list", "response"): "ListModelsResponse",
    ("models.get", "response"): "Model",
}

# Members whose JSON type is not the declared one: they pass, but the document does not promise it.
ODD = {
    "chat/llamacpp-extras-request.json": ["logit_bias"],
    "chat/mistral-chat-request.json": ["prompt_logprobs"],
}


@cache
def reference() -> Any:
    """The document."""
    return json.loads(document(SERVICES, "1.0"))


def problems(schema: Any, value: Any) -> list[list[Any]]:
    """Paths in the value that a schema of the document does not allow."""
    validator = OAS31Validator({**schema, "components": reference()["components"]})
    return [list(error.absolute_path) for error in validator.iter_errors(value)]


def operation(path: str, verb: str = "post") -> Any:
    """One operation of the document."""
    return reference()["paths"][path][verb]


def test_the_document_is_valid_openapi_3_1() -> None:
    assert reference()["openapi"] == "3.1.0"
    validate(reference())


def test_every_route_of_the_contract_is_in_it() -> None:
    promised = {
        (route.path.replace("=**", ""), route.verb.lower())
        for service in codec.service_plans()
        for method in service.methods
        if method.rest
        for route in method.rest.routes
    }
    shown = {(path, verb) for path, verbs in reference()["paths"].items() for verb in verbs}
    assert promised < shown
    assert shown - promised == {("/health", "get"), ("/ready", "get")}


def test_a_service_that_is_not_served_is_not_in_it() -> None:
    shown = json.loads(document({MODEL: Unused()}, "1.0"))
    assert set(shown["paths"]) == {"/v1/models", "/v1/models/{model}", "/health", "/ready"}
    validate(shown)


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [
        one["operationId"] for verbs in reference()["paths"].values() for one in verbs.values()
    ]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere_and_no_schema_is_unused() -> None:
    text = json.dumps(reference())
    for kind in ("schemas", "responses", "parameters", "headers"):
        for name in reference()["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text


@pytest.mark.parametrize(
    "recorded",
    [r for r in recordings.all() if (r.operation, r.direction) in BODIES and r.mode != "multipart"],
    ids=lambda recorded: recorded.file,
)
def test_it_allows_every_recorded_body(recorded: recordings.Recording) -> None:
    """G23: the document does not promise less than what passes."""
    if recorded.mode == "text":
        return
    schema = {"$ref": f"#/components/schemas/{BODIES[recorded.operation, recorded.direction]}"}
    values = recorded.events() if recorded.mode == "sse" else [recorded.json()]
    odd = ODD.get(recorded.file)
    assert [p for value in values for p in problems(schema, value)] == ([odd] if odd else [])


def test_it_refuses_what_the_gateway_refuses() -> None:
    chat = {"$ref": "#/components/schemas/ChatRequest"}
    assert problems(chat, {}) == [[]]
    assert problems(chat, {"messages": "hello"}) == [["messages"]]
    assert problems(chat, {"messages": []}) == [["messages"]]
    assert problems(chat, {"messages": [{}], "stop": "x", "seed": None}) == []
    assert problems(chat, {"messages": [{}], "stop": ["x"], "n": "1"}) == [["n"]]
    rerank = {"$ref": "#/components/schemas/RerankRequest"}
    assert problems(rerank, {"query": "a", "documents": ["b"]}) == []
    assert [problems(rerank, {"query": empty}) for empty in (None, [], {})] == [[["query"]]] * 3


def test_shapes_of_the_contract_s_json_are_told() -> None:
    schemas = reference()["components"]["schemas"]
    assert schemas["ChatRequest"]["additionalProperties"] is True
    assert schemas["ModelCosts"]["properties"]["prompt_tokens"]["type"] == ["number", "null"]
    assert schemas["TextList"]["type"] == "array"
    image = schemas["ContentPart"]["anyOf"][1]
    assert image["properties"]["type"] == {"type": "string", "const": "image_url"}
    delta = schemas["StreamTranscribeResponse"]["anyOf"][0]
    assert delta["properties"]["type"]["const"] == "transcript.text.delta"
    assert delta["properties"].keys() == {"type", "delta", "logprobs", "segment_id"}
    assert schemas["ChatRequest"]["properties"]["logit_bias"]["propertyNames"]
    assert "data" not in schemas["ImageUrl"]["properties"]
    assert "extra" not in schemas["ChatRequest"]["properties"]


def test_a_form_has_its_file_and_leaves_out_what_the_path_sets() -> None:
    forms = {
        path: operation(path)["requestBody"]["content"]["multipart/form-data"]["schema"]
        for path in ("/v1/audio/transcriptions", "/v1/audio/translations")
    }
    for form in forms.values():
        assert form["properties"]["file"]["format"] == "binary"
    assert "task" in forms["/v1/audio/transcriptions"]["properties"]
    assert "task" not in forms["/v1/audio/translations"]["properties"]


def test_answers_tell_all_their_media_types() -> None:
    assert operation("/v1/chat/completions")["responses"]["200"]["content"].keys() == {
        "application/json",
        "text/event-stream",
    }
    assert operation("/v1/audio/transcriptions")["responses"]["200"]["content"].keys() == {
        "application/json",
        "text/event-stream",
        "text/plain",
        "text/vtt",
    }
    model = operation("/v1/models/{model}", "get")["responses"]["200"]["content"]
    assert model["application/json"]["schema"] == {"$ref": "#/components/schemas/Model"}


def test_members_of_a_get_are_parameters() -> None:
    def own(path: str) -> list[tuple[str, str, bool]]:
        listed = operation(path, "get")["parameters"]
        return [(p["name"], p["in"], p["required"]) for p in listed if "name" in p]

    assert own("/v1/models/{model}") == [("model", "path", True)]
    assert own("/v1/models") == [("page_size", "query", False), ("page_token", "query", False)]


def test_the_forms_of_other_systems_are_told() -> None:
    rerank = operation("/rerank")["requestBody"]["content"]["application/json"]["schema"]
    assert [one.get("title") for one in rerank["anyOf"]] == [
        None,
        "Text Embeddings Inference",
        "OpenGateLLM 0.2",
    ]
    schema = operation("/embed")["requestBody"]["content"]["application/json"]["schema"]
    for recorded in recordings.all("embed.native", "request"):
        assert problems(schema, recorded.json()) == []
    answer = operation("/embed")["responses"]["200"]["content"]["application/json"]["schema"]
    (recorded,) = recordings.all("embed.native", "response")
    assert problems(answer, recorded.json()) == []


def test_every_status_of_the_table_that_a_call_can_end_with_is_told() -> None:
    shown = operation("/v1/chat/completions")["responses"].keys() - {"200"}
    table = {str(int(row.http)) for row in TABLE.values() if row.http is not None}
    assert shown == (table - {"405", "499"}) | {"400", "413", "422"}
    assert "`model_not_found`" in reference()["components"]["responses"]["404"]["description"]


def test_the_contract_s_comments_describe_it() -> None:
    chat = reference()["components"]["schemas"]["ChatRequest"]
    assert chat["description"] == comments()["tetrad.v1.ChatRequest"]
    assert chat["properties"]["temperature"]["description"] == "Sampling temperature."
    assert operation("/v1/rerank")["summary"] == "Order documents by relevance to a query"
    assert operation("/v1/rerank")["description"].startswith("Scores documents")


def test_a_key_is_a_bearer_token_and_may_be_left_out_where_there_are_none() -> None:
    assert reference()["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert reference()["security"] == [{"bearer": []}, {}]
