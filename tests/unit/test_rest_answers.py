"""Whole answers of the REST face: bytes, headers, documents, and errors of every kind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services import errors
from services.body import Body, Document
from services.call import Call
from services.errors import UpstreamFault, Violation
from tests.unit.rest_server import (
    CHAT,
    CHAT_ANSWER,
    CHAT_REQUEST,
    EMBED,
    TRANSCRIBE,
    Echo,
    Unused,
    serving,
)

PATH = "/v1/chat/completions"


class Failing(Unused):
    """A chat service that fails with what the test gives it, after telling its endpoint."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def chat(self, request: Body, call: Call) -> Body:
        """Fails."""
        call.out["x-tetrad-endpoint"] = "vllm 127.0.0.1:8000"
        raise self.error


async def failure(error: BaseException) -> Any:
    """The HTTP answer to a call that fails so."""
    async with serving({CHAT: Failing(error)}) as rest:
        answer = await rest.client.post(PATH, json=CHAT_REQUEST)
        assert rest.life.in_flight == 0
    return answer


async def test_an_answer_is_relayed_byte_for_byte() -> None:
    text = b'{ "id":"c",  "choices":[], "big": 123456789012345678901234567890, "f": 1.0 }'
    async with serving({CHAT: Echo("ChatResponse", text)}) as rest:
        answer = await rest.client.post(PATH, json=CHAT_REQUEST)
    assert answer.status_code == 200
    assert answer.content == text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(text))


async def test_without_relay_an_answer_has_been_through_protobuf_and_says_the_same() -> None:
    text = b'{ "id":"c", "choices": [{"index":0,"message":{"role":"assistant"}}], "new": [1e400] }'
    async with serving({CHAT: Echo("ChatResponse", text)}, relay=False) as rest:
        answer = await rest.client.post(PATH, json=CHAT_REQUEST)
    message = {"role": "assistant", "content": None, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": None, "logprobs": None}
    assert answer.json() == {"id": "c", "choices": [choice], "new": [float("inf")]}
    assert b"[1e400]" in answer.content


async def test_what_the_services_tell_of_a_call_becomes_headers() -> None:
    echo = Echo(
        "ChatResponse",
        CHAT_ANSWER,
        x_tetrad_model="café 100%",
        x_tetrad_endpoint="vllm a:1",
        x_ratelimit_limit_requests="60",
        content_length="1",
    )
    async with serving({CHAT: echo}) as rest:
        answer = await rest.client.post(PATH, json=CHAT_REQUEST, headers={"x-request-id": "r1"})
    assert answer.headers["x-request-id"] == "r1"
    assert answer.headers["x-tetrad-model"] == "caf%C3%A9 100%25"
    assert answer.headers["x-tetrad-endpoint"] == "vllm a:1"
    assert answer.headers["x-ratelimit-limit-requests"] == "60"
    assert answer.content == CHAT_ANSWER


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/vtt", "text/vtt; charset=utf-8"),
        ("application/x-subrip", "application/x-subrip"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
    ],
)
async def test_a_document_keeps_its_media_type(media_type: str, shown: str) -> None:
    """G33."""

    class Speech(Unused):
        async def transcribe(self, request: Body, call: Call) -> Body:
            return Body.from_document("TranscribeResponse", Document(media_type, "Dès 1…\n"))

    for relay in (True, False):
        async with serving({TRANSCRIBE: Speech()}, relay=relay) as rest:
            answer = await rest.client.post(
                "/v1/audio/transcriptions", files={"file": ("a.wav", b"RIFF")}
            )
        assert answer.status_code == 200
        assert answer.headers["content-type"] == shown
        assert answer.content == "Dès 1…\n".encode()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidRequest("no", param="n"), 400, None),
        (errors.ModelForbidden.named("m"), 403, "model_forbidden"),
        (errors.ModelNotFound.named("m"), 404, "model_not_found"),
        (errors.NotOffered("this model does not chat"), 501, "not_offered"),
        (errors.RateLimited("slow down", retry_after=1.5), 429, "rate_limit_exceeded"),
        (errors.Overloaded(retry_after=2), 503, "overloaded"),
        (errors.UpstreamUnavailable("refused"), 503, "upstream_unavailable"),
        (errors.UpstreamTruncated("cut"), 503, "upstream_truncated"),
        (errors.UpstreamProtocol("html"), 502, "upstream_protocol"),
        (errors.DeadlineExceeded("first_byte", seconds=60), 504, "deadline_exceeded"),
    ],
)
async def test_an_error_has_the_status_of_the_table_and_openai_s_body(
    error: errors.TetradError, status: int, code: str | None
) -> None:
    """G22."""
    answer = await failure(error)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-tetrad-endpoint"] == "vllm 127.0.0.1:8000"
    shown = answer.json()["error"]
    assert shown.keys() == {"message", "type", "param", "code"}
    assert (shown["message"], shown["code"], shown["param"]) == (error.message, code, error.param)


async def test_a_time_to_wait_is_told_in_seconds_and_milliseconds() -> None:
    """G19."""
    answer = await failure(errors.RateLimited(retry_after=1.5))
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")


async def test_an_upstream_s_own_error_object_reaches_the_caller() -> None:
    """G22: context_length_exceeded survives, with all members."""
    body = {"error": {"message": "too long", "type": "exceed_context_size_error", "n_ctx": 4096}}
    error = errors.from_upstream(400, {}, json.dumps(body).encode(), endpoint="llamacpp a")
    answer = await failure(error)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["n_ctx"] == 4096
    assert answer.headers["x-should-retry"] == "false"


async def test_a_fault_of_ours_is_logged_with_its_traceback_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await failure(ValueError("secret"))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["code"] == "internal_error"
    (record,) = caplog.records
    assert answer.headers["x-request-id"] in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ValueError


async def test_a_cancellation_that_nobody_asked_for_is_a_fault_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G8."""
    answer = await failure(asyncio.CancelledError())
    assert answer.status_code == 500
    assert len(caplog.records) == 1


async def test_an_answer_that_has_no_json_is_the_upstream_s_fault_and_not_the_caller_s() -> None:
    """G2."""
    for broken in (b'{"id": ', b"[1]", b'{"object": 5, "choices": [{'):
        async with serving({CHAT: Echo("ChatResponse", broken)}, relay=False) as rest:
            answer = await rest.client.post(PATH, json=CHAT_REQUEST)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_protocol"


async def test_an_error_keeps_the_violations_and_fault_that_others_read() -> None:
    error = errors.UpstreamInvalidRequest(
        "no", violations=[Violation("a", "b")], upstream=UpstreamFault("vllm a", 422)
    )
    assert (await failure(error)).status_code == 422


async def test_calls_on_one_connection_do_not_mix() -> None:
    class Slow(Unused):
        async def embed(self, request: Body, call: Call) -> Body:
            text = request.get("input")
            await asyncio.sleep(0.01 if text == "0" else 0)
            return Body.from_value("EmbedResponse", {"id": text})

    async with serving({EMBED: Slow()}) as rest:
        raw = await rest.send("", b"")
        for number in range(3):
            body = json.dumps({"input": str(number)}).encode()
            raw.writer.write(
                b"POST /v1/embeddings HTTP/1.1\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(body) + body
            )
        for number in range(3):
            _, headers = await raw.head()
            body = await raw.reader.readexactly(int(headers["content-length"]))
            assert json.loads(body) == {"id": str(number)}
        await raw.close()
