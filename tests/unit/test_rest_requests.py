"""What the REST face takes and refuses, and what it tells the services of a call."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from services.body import Body
from services.call import Call
from tests.unit.rest_server import (
    CHAT,
    CHAT_ANSWER,
    CHAT_REQUEST,
    CLOSED,
    KEY,
    Echo,
    Rest,
    Unused,
    serving,
)

PATH = "/v1/chat/completions"
BODY = json.dumps(CHAT_REQUEST).encode()


def chat() -> Echo:
    """A chat service that answers unary calls."""
    return Echo("ChatResponse", CHAT_ANSWER)


async def post(rest: Rest, body: bytes, **headers: str) -> Any:
    """POST a chat request; names of headers with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await rest.client.post(
        PATH, content=body, headers={"content-type": "application/json", **named}
    )


async def test_the_service_gets_the_caller_s_bytes() -> None:
    echo, body = (
        chat(),
        b' { "messages" : [ {"role":"user","content":"\xc3\xa9"} ], "seed" : 1e2 } ',
    )
    async with serving({CHAT: echo}) as rest:
        assert (await post(rest, body)).status_code == 200
    assert echo.requests[0].json() == body
    assert echo.requests[0].message == "ChatRequest"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json; charset="UTF-8"',
        "APPLICATION/JSON",
        "application/vnd.api+json",
    ],
)
async def test_json_may_be_announced_in_several_ways(content_type: str) -> None:
    async with serving({CHAT: chat()}) as rest:
        assert (await post(rest, BODY, content_type=content_type)).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/json",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "",
    ],
)
async def test_a_body_that_is_not_announced_as_json_is_415(content_type: str) -> None:
    async with serving({CHAT: Unused()}) as rest:
        answer = await post(rest, BODY, content_type=content_type)
    error = answer.json()["error"]
    assert answer.status_code == 415
    assert error["code"] == "unsupported_media_type"
    assert "JSON" in error["message"] or "application/json" in error["message"]


async def test_a_body_without_a_content_type_is_415_and_told_so() -> None:
    async with serving({CHAT: Unused()}) as rest:
        raw = await rest.send(f"POST {PATH} HTTP/1.1\nhost: t\ncontent-length: 2\n", b"{}")
        status, headers = await raw.head()
        body = await raw.reader.readexactly(int(headers["content-length"]))
        await raw.close()
    assert status == 415
    assert "it has none" in json.loads(body)["error"]["message"]


async def test_a_compressed_body_is_415() -> None:
    async with serving({CHAT: Unused()}) as rest:
        assert (await post(rest, BODY, content_encoding="gzip")).status_code == 415
        good = serving({CHAT: chat()})
        async with good as other:
            assert (await post(other, BODY, content_encoding="identity")).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"", None, "not JSON"),
        (b"{", None, "not JSON"),
        (b'{"messages": [}', None, "not JSON"),
        (b"\xff{}", None, "not JSON"),
        (b"[]", None, "JSON object"),
        (b'"text"', None, "JSON object"),
        (b"null", None, "JSON object"),
        (b"{}", "messages", "required"),
        (b'{"messages": []}', "messages", "an empty one"),
        (b'{"messages": "hello"}', "messages", "list"),
        (b'{"messages": null}', "messages", "required"),
        (b'{"messages": ' + b"[" * 600 + b"]" * 600 + b"}", None, "deeper"),
        (b'{"messages": [{}], "stream": "true"}', "stream", "true or false"),
        (b'{"messages": [{}], "stream": 1}', "stream", "true or false"),
    ],
)
async def test_a_body_that_cannot_be_taken_is_400_and_names_the_member(
    body: bytes, param: str | None, said: str
) -> None:
    async with serving({CHAT: Unused()}) as rest:
        answer = await post(rest, body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert said in error["message"]
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("relay", [True, False])
async def test_odd_values_are_left_to_the_upstream_to_judge(relay: bool) -> None:
    """G23."""
    echo = chat()
    odd = {**CHAT_REQUEST, "temperature": "hot", "new_member": {"a": [None, 2**70]}, "stop": []}
    async with serving({CHAT: echo}, relay=relay) as rest:
        assert (await post(rest, json.dumps(odd).encode())).status_code == 200
    assert json.loads(echo.requests[0].json()) == odd


async def test_without_relay_a_request_has_been_through_protobuf() -> None:
    echo = chat()
    async with serving({CHAT: echo}, relay=False) as rest:
        await post(rest, b'{"stop": "x",  "messages": [{"role": "user", "content": "a"}]}')
    assert echo.requests[0].json() != b'{"stop": "x",  "messages": [{"role": "user"}]}'
    assert echo.request == {"messages": [{"role": "user", "content": "a"}], "stop": ["x"]}


async def test_a_length_over_the_limit_is_413_before_the_body_is_read() -> None:
    """G34: what is announced as too large is not waited for."""
    async with serving({CHAT: Unused()}, max_request_bytes=1000) as rest:
        raw = await rest.post(PATH, b"", "content-length: 1001")
        status, headers = await raw.head()
        error = json.loads(await raw.reader.readexactly(int(headers["content-length"])))["error"]
        await raw.close()
        assert rest.life.in_flight == 0
    assert status == 413
    assert error["code"] == "request_too_large"
    assert "1000 bytes" in error["message"]


async def test_a_client_that_asks_before_it_sends_is_refused_without_sending() -> None:
    async with serving({CHAT: Unused()}, max_request_bytes=1000) as rest:
        raw = await rest.post(PATH, b"", "content-length: 1001", "expect: 100-continue")
        status, headers = await raw.head()
        assert headers["connection"] == "close"
        await raw.close()
    assert status == 413


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    async with serving({CHAT: chat()}) as rest:
        raw = await rest.post(PATH, b"", f"content-length: {len(BODY)}", "expect: 100-continue")
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.writer.write(BODY)
        status, _ = await raw.head()
        await raw.close()
    assert status == 200


async def test_a_body_of_unknown_length_is_counted() -> None:
    async def pieces(total: int) -> Any:
        yield BODY[:-1] + b" " * (total - len(BODY))
        yield b"}"

    async with serving({CHAT: chat()}, max_request_bytes=1000) as rest:
        json_type = {"content-type": "application/json"}
        good = await rest.client.post(PATH, content=pieces(1000), headers=json_type)
        large = await rest.client.post(PATH, content=pieces(1001), headers=json_type)
    assert (good.status_code, large.status_code) == (200, 413)


async def test_a_body_that_arrives_in_pieces_is_joined() -> None:
    echo = chat()
    async with serving({CHAT: echo}) as rest:
        raw = await rest.post(PATH, BODY[:7], f"content-length: {len(BODY)}")
        for byte in BODY[7:]:
            await asyncio.sleep(0)
            raw.writer.write(bytes([byte]))
            await raw.writer.drain()
        status, _ = await raw.head()
        await raw.close()
    assert status == 200
    assert echo.requests[0].json() == BODY


async def test_a_body_that_stops_arriving_is_given_up() -> None:
    async with serving({CHAT: Unused()}, stall=0.05) as rest:
        raw = await rest.post(PATH, b"{", "content-length: 100")
        status, _ = await raw.head()
        await raw.close()
        assert rest.life.in_flight == 0
    assert status == 504


async def test_a_connection_is_used_again_after_an_answer_and_after_an_error() -> None:
    async with serving({CHAT: chat()}) as rest:
        raw = await rest.post(PATH, b"{}")
        request = f"POST {PATH} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: "
        for expected in (400, 200, 200):
            status, headers = await raw.head()
            assert status == expected
            await raw.reader.readexactly(int(headers["content-length"]))
            raw.writer.write(f"{request}{len(BODY)}\r\n\r\n".encode() + BODY)
        await raw.close()


@pytest.mark.parametrize("given", ["a", "trace-1 b/c=?", "x" * 128])
async def test_a_caller_s_request_id_is_kept(given: str) -> None:
    echo = chat()
    async with serving({CHAT: echo}) as rest:
        answer = await post(rest, BODY, x_request_id=given)
        failed = await post(rest, b"{}", x_request_id=given)
    assert answer.headers["x-request-id"] == failed.headers["x-request-id"] == given
    assert echo.calls[0].id == echo.calls[0].headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "caf\xe9", "tab\there"])
async def test_an_id_that_is_none_is_replaced(given: str) -> None:
    echo = chat()
    async with serving({CHAT: echo}) as rest:
        raw = await rest.post(PATH, BODY, f"x-request-id: {given}")
        _, headers = await raw.head()
        await raw.close()
    assert headers["x-request-id"].startswith("req_")
    assert echo.calls[-1].id.startswith("req_")


async def test_only_the_known_and_configured_headers_go_on_to_the_upstream() -> None:
    """G40."""
    echo = chat()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(
        {CHAT: echo}, pass_in=frozenset({"x-team", "authorization", "host"})
    ) as rest:
        await post(
            rest,
            BODY,
            traceparent=trace,
            tracestate="a=1",
            baggage="b=2",
            x_team="ml",
            x_other="no",
            cookie="c",
            authorization="Bearer k",
        )
    headers = dict(echo.calls[0].headers)
    assert headers.pop("x-request-id").startswith("req_")
    assert headers == {
        "traceparent": trace,
        "tracestate": "a=1",
        "baggage": "b=2",
        "x-team": "ml",
    }


async def test_a_header_that_comes_twice_is_joined() -> None:
    echo = chat()
    async with serving({CHAT: echo}) as rest:
        raw = await rest.post(PATH, BODY, "baggage: a=1", "baggage: b=2")
        await raw.head()
        await raw.close()
    assert echo.calls[0].headers["baggage"] == "a=1, b=2"


async def test_a_call_says_what_it_is() -> None:
    echo = chat()
    async with serving({CHAT: echo}, keyring=CLOSED) as rest:
        answer = await post(rest, BODY, authorization=f"Bearer {KEY}")
    assert answer.status_code == 200
    call = echo.calls[0]
    assert (call.method, call.face, call.principal.name, call.deadline) == (
        "Chat",
        "rest",
        "ada",
        None,
    )


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic abc", "Bearer"])
async def test_without_a_good_key_a_call_is_401_before_its_body_is_read(given: str | None) -> None:
    headers = ["content-length: 5"] + ([f"authorization: {given}"] if given else [])
    async with serving({CHAT: Unused()}, keyring=CLOSED) as rest:
        raw = await rest.post(PATH, b"", *headers)
        status, answered = await raw.head()
        error = json.loads(await raw.reader.readexactly(int(answered["content-length"])))["error"]
        await raw.close()
        assert rest.life.entered == 0
    assert status == 401
    assert answered["www-authenticate"] == "Bearer"
    assert error["code"] == "invalid_api_key"


async def test_a_caller_s_timeout_becomes_the_deadline_of_the_call() -> None:
    """G21: the caller's deadline caps all; 504 tells that it was the caller's."""

    class Slow(Unused):
        async def chat(self, request: Body, call: Call) -> Body:
            remaining = call.remaining()
            assert remaining is not None
            assert 0 < remaining < 0.051
            await asyncio.Event().wait()
            raise AssertionError

    async with serving({CHAT: Slow()}) as rest:
        begin = time.monotonic()
        answer = await post(rest, BODY, x_request_timeout_ms="50")
        took = time.monotonic() - begin
        assert rest.life.in_flight == 0
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert "deadline" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert took < 2


async def test_a_caller_s_timeout_covers_the_time_in_which_the_body_arrives() -> None:
    async with serving({CHAT: Unused()}) as rest:
        raw = await rest.post(PATH, b"{", "content-length: 100", "x-request-timeout-ms: 50")
        status, _ = await raw.head()
        await raw.close()
    assert status == 504


async def test_the_server_s_timeout_holds_where_the_caller_names_none() -> None:
    class Slow(Unused):
        async def chat(self, request: Body, call: Call) -> Body:
            await asyncio.Event().wait()
            raise AssertionError

    async with serving({CHAT: Slow()}, timeout=0.05) as rest:
        assert (await post(rest, BODY)).status_code == 504


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "1e3", "", "9" * 20])
async def test_a_timeout_that_is_no_number_of_milliseconds_is_400(given: str) -> None:
    async with serving({CHAT: Unused()}) as rest:
        answer = await post(rest, BODY, x_request_timeout_ms=given)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-request-timeout-ms"
