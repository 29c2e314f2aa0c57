"""Callers that hang up, and the server's end: work is cancelled at once, nothing is left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway_http import GatewayProtocol
from services.body import Body
from services.call import Call
from tests.unit.rest_server import (
    CHAT,
    CHAT_REQUEST,
    TRANSCRIBE,
    RawAnswer,
    Unused,
    serving,
    until,
)

PATH = "/v1/chat/completions"
AT_ONCE = 0.1

# Under plain uvicorn the face watches by itself.
PROTOCOLS = pytest.mark.parametrize("protocol", [GatewayProtocol, HttpToolsProtocol])
HANG_UPS = pytest.mark.parametrize("how", ["close", "reset"])


class Watched(Unused):
    """A chat service that waits for ever, and notes when it is cancelled."""

    def __init__(self, chunks: int = 0) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended_at = 0.0
        self.ended_by: BaseException | None = None
        self._chunks = chunks

    async def chat(self, request: Body, call: Call) -> Body:
        """Waits."""
        await self._wait()
        raise AssertionError

    async def stream_chat(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        """Some chunks, then waits."""
        for number in range(self._chunks):
            yield [Body.from_value("StreamChatResponse", {"id": str(number)})]
        await self._wait()
        yield []

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            self.ended_by = error
            self.ended_at = time.monotonic()
            self.ended.set()
            raise


def hang_up(raw: RawAnswer, how: str) -> float:
    """End the connection; returns when."""
    if how == "reset":
        raw.reset()
    else:
        raw.writer.close()
    return time.monotonic()


@PROTOCOLS
@HANG_UPS
@pytest.mark.parametrize(("stream", "chunks"), [(False, 0), (True, 0), (True, 2)])
async def test_a_caller_that_hangs_up_has_its_work_cancelled_at_once(
    protocol: type[HttpToolsProtocol],
    how: str,
    stream: bool,
    chunks: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G5, G6: unary, before the first chunk and amid a stream; nothing is logged as a fault."""
    took = []
    for _ in range(3):  # the quickest counts: others may have the machine for a moment
        service = Watched(chunks)
        async with serving({CHAT: service}, protocol=protocol) as rest:
            raw = await rest.post(PATH, json.dumps({**CHAT_REQUEST, "stream": stream}).encode())
            if chunks:
                await raw.head()
                await raw.chunk()
            await service.begun.wait()
            before = hang_up(raw, how)
            async with asyncio.timeout(2):
                await service.ended.wait()
            await until(lambda: not rest.life.in_flight)
        assert isinstance(service.ended_by, asyncio.CancelledError)
        took.append(service.ended_at - before)
    assert min(took) < AT_ONCE
    assert caplog.records == []


@PROTOCOLS
async def test_a_caller_that_hangs_up_after_a_long_body_is_noticed(
    protocol: type[HttpToolsProtocol],
) -> None:
    """The server stops to read while much is waiting; a hang-up must be seen all the same."""
    service = Watched()
    body = json.dumps({**CHAT_REQUEST, "padding": "x" * 1_000_000}).encode()
    async with serving({CHAT: service}, protocol=protocol) as rest:
        raw = await rest.post(PATH, body)
        await service.begun.wait()
        raw.reset()
        async with asyncio.timeout(2):
            await service.ended.wait()


@PROTOCOLS
async def test_a_caller_that_hangs_up_amid_its_body_leaves_nothing(
    protocol: type[HttpToolsProtocol], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving({CHAT: Unused()}, protocol=protocol) as rest:
        raw = await rest.post(PATH, b"{", "content-length: 100")
        await until(lambda: rest.life.in_flight)
        raw.reset()
        await until(lambda: not rest.life.in_flight)
    assert caplog.records == []


async def test_a_caller_that_hangs_up_amid_its_upload_leaves_no_file() -> None:
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\nhost: t\n"
        "content-type: multipart/form-data; boundary=b\ncontent-length: 9000000\n"
    )
    part = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    async with serving({TRANSCRIBE: Unused()}) as rest:
        raw = await rest.send(head, part + b"x" * 3_000_000)
        await until(lambda: rest.life.in_flight)
        raw.reset()
        await until(lambda: not rest.life.in_flight)


async def test_with_requests_in_a_row_on_one_connection_the_running_one_is_cancelled() -> None:
    service = Watched()
    body = json.dumps(CHAT_REQUEST).encode()
    async with serving({CHAT: service}) as rest:
        raw = await rest.post(PATH, body)
        await service.begun.wait()
        raw.writer.write(
            f"POST {PATH} HTTP/1.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await asyncio.sleep(0.02)
        raw.reset()
        async with asyncio.timeout(2):
            await service.ended.wait()
        await until(lambda: not rest.life.in_flight)


@PROTOCOLS
async def test_many_callers_that_hang_up_leave_no_task_behind(
    protocol: type[HttpToolsProtocol],
) -> None:
    """G7."""
    async with serving({CHAT: Watched(1)}, protocol=protocol) as rest:
        before = len(asyncio.all_tasks())
        for round_ in range(100):
            raw = await rest.post(
                PATH, json.dumps({**CHAT_REQUEST, "stream": bool(round_ % 2)}).encode()
            )
            await until(lambda: rest.life.in_flight)
            raw.reset()
        await until(lambda: not rest.life.in_flight)
        await until(lambda: len(asyncio.all_tasks()) <= before)


@PROTOCOLS
async def test_good_calls_leave_no_task_behind(protocol: type[HttpToolsProtocol]) -> None:
    class Good(Unused):
        async def chat(self, request: Body, call: Call) -> Body:
            await asyncio.sleep(0)
            return Body.from_value("ChatResponse", {"id": "a"})

        async def stream_chat(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
            await asyncio.sleep(0)
            yield [Body.from_value("StreamChatResponse", {"id": "a"})]

    async with serving({CHAT: Good()}, protocol=protocol) as rest:
        await rest.client.get("/health")
        before = len(asyncio.all_tasks())
        for round_ in range(20):
            answer = await rest.client.post(PATH, json={**CHAT_REQUEST, "stream": bool(round_ % 2)})
            assert answer.status_code == 200
        await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_service_that_cleans_up_after_a_hang_up_may_wait_for_it() -> None:
    cleaned = asyncio.Event()

    class Careful(Unused):
        async def stream_chat(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
            try:
                yield [Body.from_value("StreamChatResponse", {"id": "a"})]
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                cleaned.set()

    async with serving({CHAT: Careful()}) as rest:
        raw = await rest.post(PATH, json.dumps({**CHAT_REQUEST, "stream": True}).encode())
        await raw.head()
        raw.reset()
        await until(lambda: not rest.life.in_flight)
        assert cleaned.is_set()


@pytest.mark.parametrize(("stream", "chunks"), [(False, 0), (True, 0), (True, 1)])
async def test_a_call_that_the_server_s_end_cuts_off_is_told_so(stream: bool, chunks: int) -> None:
    """G36: what is not done when the grace is over ends as 503, or as an error event."""
    service = Watched(chunks)
    answered: Any = None

    async with serving({CHAT: service}) as rest:
        raw = await rest.post(PATH, json.dumps({**CHAT_REQUEST, "stream": stream}).encode())
        await service.begun.wait()
        rest.server.config.timeout_graceful_shutdown = 0
        rest.server.leaving.set()
        status, headers = await raw.head()
        if stream and chunks:
            assert status == 200
            assert await raw.chunk() == b'data: {"id":"0"}\n\n'
            answered = json.loads((await raw.chunk()).removeprefix(b"data: "))
            assert await raw.chunk() == b""
        else:
            assert status == 503
            answered = json.loads(await raw.reader.readexactly(int(headers["content-length"])))
        await raw.close()
        await until(lambda: not rest.life.in_flight)
    assert isinstance(service.ended_by, asyncio.CancelledError)
    assert answered["error"]["code"] == "draining"
