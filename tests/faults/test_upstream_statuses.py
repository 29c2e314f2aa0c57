"""Every status of an upstream becomes its error, for every operation, without our key in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services import errors
from services.body import Body
from services.upload import Upload
from services.upstream import Adapter
from tests.fakes.upstream import FakeUpstream, Json, Raw, Record
from tests.lib import recordings
from tests.lib.adapters import KEY, a_call, adapter, all_of, chat

pytestmark = pytest.mark.usefixtures("via")

EMBED = Body.from_value("EmbedRequest", {"input": "a"})
NATIVE = Body.from_value("EmbedRequest", {"input": "a", "truncate": True})
RERANK = Body.from_value("RerankRequest", {"query": "q", "documents": ["a"]})
SOUND = Body.from_value("TranscribeRequest", {}, Upload.of(b"RIFF", "a.wav", "audio/wav"))

OPERATIONS: dict[str, tuple[str, Callable[[Adapter], Awaitable[Any]]]] = {
    "chat": ("openai", lambda one: one.chat(chat(), a_call())),
    "stream_chat": ("vllm", lambda one: all_of(one.stream_chat(chat(), a_call()))),
    "embed": ("llamacpp", lambda one: one.embed(EMBED, a_call())),
    "tei_embed": ("tei", lambda one: one.embed(EMBED, a_call())),
    "tei_native": ("tei", lambda one: one.embed(NATIVE, a_call())),
    "rerank": ("cohere", lambda one: one.rerank(RERANK, a_call())),
    "tei_rerank": ("tei", lambda one: one.rerank(RERANK, a_call())),
    "transcribe": ("whisper", lambda one: one.transcribe(SOUND, a_call())),
    "stream_transcribe": ("openai", lambda one: all_of(one.stream_transcribe(SOUND, a_call()))),
}

STATUSES = [
    301, 307, 400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 418, 422, 424, 429, 498, 499,
    500, 501, 502, 503, 504, 520, 529, 599,
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_status_that_is_no_success_is_the_tables_error(
    upstream: FakeUpstream, operation: str
) -> None:
    kind, run = OPERATIONS[operation]
    async with adapter(upstream, kind) as one:
        for status in STATUSES:
            body = Json({"error": {"message": f"no, {KEY} is wrong"}}, status)
            upstream.on("POST", "/*", body if status >= 400 else Raw(status=status))
            with pytest.raises(errors.TetradError) as raised:
                await run(one)
            error = raised.value
            assert error.reason is errors.reason_of_status(status)
            assert error.reached
            assert error.upstream is not None
            assert error.upstream.endpoint == "fake"
            assert error.upstream.http_status == status
            assert KEY not in f"{error} {error.upstream} {error.openai_error()}"


async def test_a_201_is_a_success(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/*", Record("chat/openai-text-response.json", status=201))
    async with adapter(upstream) as one:
        assert (await one.chat(chat(), a_call())).get("choices")


@pytest.mark.parametrize(
    "recording", [r for r in recordings.all() if r.file.startswith("errors/")], ids=lambda r: r.file
)
async def test_every_recorded_error_reaches_the_caller(
    upstream: FakeUpstream, recording: recordings.Recording
) -> None:
    upstream.on("POST", "/*", Record(recording.file))
    async with adapter(upstream) as one:
        with pytest.raises(errors.TetradError) as raised:
            await one.chat(chat(), a_call())
    expected = errors.from_upstream(recording.http_status, {}, recording.bytes, endpoint="fake")
    assert raised.value.reason is expected.reason
    assert raised.value.openai_error() == expected.openai_error()


async def test_a_wait_that_the_upstream_asks_for_is_kept(upstream: FakeUpstream) -> None:
    upstream.on("POST", "/*", Json({"error": "slow"}, 429, headers={"retry-after-ms": "2500"}))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamRateLimited) as raised:
            await one.chat(chat(), a_call())
    assert raised.value.retry_after == 2.5


async def test_a_page_in_place_of_an_error_is_described(upstream: FakeUpstream) -> None:
    page = b"<html><head><title>502</title></head><body>nginx</body></html>"
    upstream.on("POST", "/*", Raw(page, "text/html", 502))
    async with adapter(upstream) as one:
        with pytest.raises(errors.UpstreamUnavailable) as raised:
            await one.chat(chat(), a_call())
    assert "<" not in raised.value.message


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("tei", "chat"), ("tei", "stream_chat"), ("tei", "transcribe"),
        ("tei", "stream_transcribe"), ("whisper", "chat"), ("whisper", "stream_chat"),
        ("whisper", "embed"), ("whisper", "rerank"),
    ],
)  # fmt: skip
async def test_an_operation_that_a_kind_lacks_is_not_offered(
    upstream: FakeUpstream, kind: str, operation: str
) -> None:
    async with adapter(upstream, kind) as one:
        with pytest.raises(errors.NotOffered, match=f"fake does not offer .* kind {kind}"):
            await getattr(one, operation)(chat(), a_call())
    assert upstream.requests == []


async def test_a_model_of_another_type_is_not_offered(upstream: FakeUpstream) -> None:
    """TEI says so with 424, llama.cpp with 501."""
    refusal = {"error": "model is not a re-ranker model", "error_type": "Backend"}
    upstream.on("POST", "/rerank", Json(refusal, 424))
    async with adapter(upstream, "tei") as one:
        with pytest.raises(errors.NotOffered):
            await one.rerank(RERANK, a_call())
