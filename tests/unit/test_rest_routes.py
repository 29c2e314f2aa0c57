"""Paths and verbs of the REST face, and the pages beside the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_http import PageAnswer, RestApp, RestSettings
from gateway_http.routes import Router, operations, snake
from services import codec
from tests.unit.rest_server import (
    CHAT,
    CHAT_ANSWER,
    CHAT_REQUEST,
    CLOSED,
    EMBED,
    MODEL,
    OPEN,
    RERANK,
    TRANSCRIBE,
    Echo,
    Life,
    Unused,
    serving,
)

ALL = {name: Unused() for name in (CHAT, EMBED, TRANSCRIBE, RERANK, MODEL)}

PATHS = {
    "/v1/chat/completions": "POST",
    "/v1/embeddings": "POST",
    "/embed": "POST",
    "/v1/audio/transcriptions": "POST",
    "/v1/audio/translations": "POST",
    "/v1/rerank": "POST",
    "/rerank": "POST",
    "/v2/rerank": "POST",
    "/v1/models": "GET",
    "/v1/models/org/name": "GET",
}


@pytest.mark.parametrize(("path", "verb"), PATHS.items())
def test_every_promised_path_has_its_verb(path: str, verb: str) -> None:
    found = Router(ALL).find(path)
    assert found is not None
    assert list(found[0].verbs) == [verb]


def test_a_model_s_name_in_the_path_may_hold_slashes_and_colons() -> None:
    found = Router(ALL).find("/v1/models/org/name:tag")
    assert found is not None
    assert found[1] == {"model": "org/name:tag"}


@pytest.mark.parametrize("path", ["/v1/models/", "/v1", "/", "/v1/chat/completions/", "/V1/models"])
def test_a_path_that_is_not_promised_has_no_operation(path: str) -> None:
    assert Router(ALL).find(path) is None


def test_every_method_with_a_rest_option_gets_its_routes() -> None:
    options = [m for s in codec.service_plans() for m in s.methods if m.rest is not None]
    promised = sum(len(method.rest.routes) for method in options if method.rest)
    assert len(list(operations(ALL))) == promised > 0


def test_a_service_that_is_not_given_has_no_paths() -> None:
    assert Router({CHAT: Unused()}).find("/v1/embeddings") is None


def test_a_service_without_one_of_its_methods_is_refused_at_the_start() -> None:
    with pytest.raises(AttributeError, match="chat"):
        Router({CHAT: object()})


def test_a_constant_of_a_path_is_typed_by_the_message() -> None:
    found = Router(ALL).find("/v1/audio/translations")
    assert found is not None
    assert found[0].verbs["POST"].constants == {"task": "translate"}


def test_rpc_names_become_snake_case() -> None:
    assert [snake(n) for n in ("Chat", "StreamChat", "GetModel")] == [
        "chat",
        "stream_chat",
        "get_model",
    ]


async def test_an_unknown_path_is_404_with_openai_s_error_object() -> None:
    async with serving(ALL) as rest:
        answer = await rest.client.post("/v1/responses", json={})
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "there is no path /v1/responses",
        "type": "not_found_error",
        "param": None,
        "code": "not_found",
    }
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("verb", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/models/m", "GET, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
    ],
)
async def test_another_verb_is_405_and_the_answer_tells_the_good_ones(
    verb: str, path: str, allow: str
) -> None:
    async with serving(ALL) as rest:
        answer = await rest.client.request(verb, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_head_answers_as_get_without_the_body() -> None:
    models = Echo("ListModelsResponse", b'{"object":"list","data":[]}')
    async with serving({MODEL: models}) as rest:
        head, get = await rest.client.head("/v1/models"), await rest.client.get("/v1/models")
        page = await rest.client.head("/health")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert (page.status_code, page.content) == (200, b"")


async def test_members_come_from_the_path_and_the_query_with_their_types() -> None:
    models = Echo("GetModelResponse", b'{"model":{"id":"a/b"}}')
    async with serving({MODEL: models}) as rest:
        one = await rest.client.get("/v1/models/a/b%3A1")
        assert models.request == {"model": "a/b:1"}
        models._message, models._answer = "ListModelsResponse", b'{"data":[]}'
        many = await rest.client.get("/v1/models?page_size=5&page_token=x%20y&user=me&page_sizes=1")
        assert models.request == {"page_size": 5, "page_token": "x y"}
    assert one.content == b'{"id":"a/b"}'
    assert many.content == b'{"data":[]}'


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("page_size=many", "page_size"),
        ("page_size=1.5", "page_size"),
        ("page_size=1&page_size=2", "page_size"),
        ("page_size=99999999999", None),
        ("page_token=%ff", None),
    ],
)
async def test_a_query_member_that_does_not_fit_is_400(query: str, param: str | None) -> None:
    async with serving(ALL) as rest:
        answer = await rest.client.get(f"/v1/models?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_an_answer_without_the_member_that_is_the_whole_answer_is_502() -> None:
    async with serving({MODEL: Echo("GetModelResponse", b"{}")}) as rest:
        answer = await rest.client.get("/v1/models/m")
    assert answer.status_code == 502


async def test_health_is_always_good_and_needs_no_key() -> None:
    async with serving(ALL, keyring=CLOSED, life=Life(draining=True, is_ready=False)) as rest:
        answer = await rest.client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("life", "status", "told"),
    [
        (Life(), 200, "ready"),
        (Life(is_ready=False), 503, "not ready"),
        (Life(draining=True), 503, "draining"),
    ],
)
async def test_ready_is_503_while_draining_or_without_a_configuration(
    life: Life, status: int, told: str
) -> None:
    """G36, G37."""
    async with serving(ALL, life=life) as rest:
        answer = await rest.client.get("/ready")
    assert answer.status_code == status
    assert answer.json() == {"status": told, "models": {"m": {"ready": life.is_ready}}}


async def test_while_draining_connections_are_closed_after_their_answer() -> None:
    async with serving({CHAT: Echo("ChatResponse", CHAT_ANSWER)}, life=Life(draining=True)) as rest:
        answer = await rest.client.post("/v1/chat/completions", json=CHAT_REQUEST)
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


async def test_a_call_that_the_process_no_longer_takes_is_503() -> None:
    async with serving(ALL, life=Life(refusing=True)) as rest:
        answer = await rest.client.post("/v1/chat/completions", json=CHAT_REQUEST)
        assert rest.life.in_flight == 0
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "draining"


async def test_further_pages_are_served_with_their_media_type() -> None:
    pages = {"/metrics": lambda: PageAnswer("text/plain; version=0.0.4", b"up 1\n")}
    async with serving(ALL, pages=pages) as rest:
        answer = await rest.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4"
    assert answer.content == b"up 1\n"


async def test_a_page_that_fails_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> PageAnswer:
        raise ZeroDivisionError

    async with serving(ALL, pages={"/metrics": broken}) as rest:
        answer = await rest.client.get("/metrics")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [ZeroDivisionError]


async def test_options_tells_the_verbs_and_nothing_of_other_origins_unless_configured() -> None:
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    async with serving(ALL, keyring=CLOSED) as rest:
        answer = await rest.client.options("/v1/embeddings", headers=headers)
        missing = await rest.client.options("/v1/nothing", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "content-length" not in answer.headers
    assert missing.status_code == 404


async def test_a_page_of_a_configured_origin_may_call() -> None:
    chat = Echo("ChatResponse", CHAT_ANSWER)
    origin = {"origin": "https://a.example"}
    asked = {
        **origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with serving(
        {CHAT: chat}, cors=("https://a.example",), pass_out=frozenset({"x-own"}), keyring=CLOSED
    ) as rest:
        path = "/v1/chat/completions"
        before = await rest.client.options(path, headers=asked)
        refused = await rest.client.post(path, json=CHAT_REQUEST, headers=origin)
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == "https://a.example"
    assert before.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert before.headers["access-control-allow-headers"] == "authorization,content-type"
    assert before.headers["vary"] == "origin"
    # Errors too: a page must be able to read why it was refused.
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    exposed = refused.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "x-tetrad-model", "x-own"} <= set(exposed)


async def test_a_page_of_another_origin_may_not_call() -> None:
    async with serving(ALL, cors=("https://a.example",)) as rest:
        answer = await rest.client.get("/health", headers={"origin": "https://b.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "origin"


async def test_a_star_lets_every_origin_call() -> None:
    async with serving(ALL, cors=("*",)) as rest:
        answer = await rest.client.get("/health", headers={"origin": "https://b.example"})
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_new_settings_hold_for_the_requests_to_come() -> None:
    async with serving(ALL) as rest:
        rest.app.configure(RestSettings(keyring=CLOSED, state=rest.life))
        answer = await rest.client.get("/v1/models")
    assert answer.status_code == 401


async def test_websockets_are_refused_and_lifespan_is_accepted() -> None:
    app = RestApp(ALL, RestSettings(keyring=OPEN, state=Life()))
    sent: list[Any] = []
    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, Any]:
        return {"type": next(events)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


async def test_the_reference_is_served() -> None:
    async with serving(ALL, version="1.2.3") as rest:
        answer = await rest.client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.content)["info"]["version"] == "1.2.3"
