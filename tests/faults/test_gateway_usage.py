"""Whatever a call's end, its usage record is closed once, with what the upstream told till then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.upstream import CloseConnection, Cut, Json, Raw, Record, Reply, Sse, Stall
from tests.lib.rig import FACES, Rig, rig, until

by_face = pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)


def chunk(text: str | None = None, finish: str | None = None, **members: Any) -> dict[str, Any]:
    """A chat's chunk; without text it has no choices."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "c", "choices": [] if text is None else [choice], **members}


def tokens(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


async def used(one: Rig, face: Any, operation: str, reply: Reply, **members: Any) -> Any:
    """The record of a call that runs to its end."""
    one.up.on("POST", "/*", reply)
    before = len(one.ended)
    await (await face.start(one, operation, members=members)).end()
    record = (await one.record(before + 1)).usage
    await one.at_rest()
    assert len(one.ended) == before + 1
    return record


FIGURES: dict[str, tuple[str, Reply, tuple[Any, ...]]] = {
    "chat": ("Chat", Json({**chunk("a", "stop"), "usage": tokens(3, 4)}), (3, 4, 7, "upstream")),
    "chat, zero": (
        "Chat",
        Json({**chunk("a", "stop"), "usage": tokens(0, 0)}),
        (0, 0, 0, "upstream"),
    ),
    "chat, none": ("Chat", Json(chunk("a", "stop")), (1, 1, 2, "estimated")),
    "chat, null": (
        "Chat",
        Json({**chunk("a", "stop"), "usage": None}),
        (1, 1, 2, "estimated"),
    ),
    "stream, on a chunk of its own": (
        "StreamChat",
        Sse([chunk("a"), chunk("", "stop"), chunk(usage=tokens(5, 6))]),
        (5, 6, 11, "upstream"),
    ),
    "stream, beside the finish": (
        "StreamChat",
        Sse([chunk("a"), chunk("", "stop", usage=tokens(5, 6))], done=False),
        (5, 6, 11, "upstream"),
    ),
    "stream, on every chunk": (
        "StreamChat",
        Sse([chunk("a", usage=tokens(5, 1)), chunk("", "stop", usage=tokens(5, 2))]),
        (5, 2, 7, "upstream"),
    ),
    "stream, zero": (
        "StreamChat",
        Sse([chunk("a"), chunk("", "stop"), chunk(usage=tokens(5, 0))]),
        (5, 0, 5, "upstream"),
    ),
    "stream, none": (
        "StreamChat",
        Sse([chunk("a"), chunk("", "stop")]),
        (1, 1, 2, "estimated"),
    ),
    "embed": (
        "Embed",
        Json(
            {
                "object": "list",
                "model": "m",
                "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}],
                "usage": {"prompt_tokens": 8, "total_tokens": 8},
            }
        ),
        (8, None, 8, "upstream"),
    ),
}


@by_face
async def test_tokens_are_those_that_the_upstream_told_or_else_estimated(face: Any) -> None:
    """G9, G10: from any chunk, the last counts, and zero is a value; else they are estimated."""
    async with rig() as one:
        for what, (operation, reply, expected) in FIGURES.items():
            record = await used(one, face, operation, reply)
            figures = (record.prompt_tokens, record.completion_tokens, record.total_tokens)
            assert (*figures, record.source, record.outcome) == (*expected, "OK"), what


@by_face
async def test_the_usage_is_asked_for_although_the_caller_does_not_see_it(face: Any) -> None:
    """G9."""
    async with rig() as one:
        reply = Sse([chunk("a", "stop"), chunk(usage=tokens(1, 2))])
        record = await used(one, face, "StreamChat", reply)
        assert record.completion_tokens == 2
        assert one.up.requests[0].json()["stream_options"]["include_usage"] is True


@by_face
async def test_audio_and_documents_are_counted(face: Any) -> None:
    """G12."""
    async with rig() as one:
        seconds = {"text": "a", "usage": {"type": "duration", "seconds": 3}}
        record = await used(one, face, "Transcribe", Json(seconds))
        assert (record.audio_seconds, record.source) == (3.0, "upstream")
        zero = {"text": "", "usage": {"type": "duration", "seconds": 0}}
        assert (await used(one, face, "Transcribe", Json(zero))).audio_seconds == 0.0
        record = await used(
            one, face, "StreamTranscribe", Record("transcriptions/openai-deltas-stream.sse")
        )
        assert (record.prompt_tokens, record.total_tokens, record.source) == (14, 18, "upstream")
        text = Raw(b"a", "text/plain")
        record = await used(one, face, "Transcribe", text, response_format="text")
        assert (record.audio_seconds, record.source, record.outcome) == (None, "none", "OK")
        results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        record = await used(one, face, "Rerank", Json({"results": results}))
        assert (record.documents, record.outcome) == (2, "OK")
        record = await used(one, face, "Rerank", CloseConnection())
        assert (record.documents, record.outcome) == (2, "UNAVAILABLE")


BEGUN = Sse([chunk("a", usage=tokens(5, 1)), chunk("b", usage=tokens(5, 2)), chunk("", "stop")])

ENDS: dict[str, tuple[Reply, str]] = {
    "whole": (BEGUN, "OK"),
    "cut": (Cut(BEGUN, 330), "UNAVAILABLE"),
    "reset": (Cut(BEGUN, 330, "rst"), "UNAVAILABLE"),
    "silent": (Stall("mid", BEGUN, 330), "DEADLINE_EXCEEDED"),
    "an error": (
        Sse([chunk("a", usage=tokens(5, 2)), {"error": {"message": "boom", "code": 500}}]),
        "INTERNAL",
    ),
}


@by_face
async def test_a_stream_that_fails_keeps_the_figures_that_came_before(face: Any) -> None:
    """G9: whichever way it ends."""
    async with rig(timeouts={"idle": 0.3}) as one:
        for what, (reply, outcome) in ENDS.items():
            record = await used(one, face, "StreamChat", reply)
            assert (record.outcome, record.source) == (outcome, "upstream"), what
            assert (record.prompt_tokens, record.completion_tokens) == (5, 2), what


@by_face
async def test_a_caller_who_leaves_is_billed_for_what_the_upstream_told(face: Any) -> None:
    """G9."""
    async with rig() as one:
        one.up.on("POST", "/*", Stall("mid", BEGUN, 330))
        caller = await face.start(one, "StreamChat")
        received = await one.up.received()
        await until(lambda: received.sent == 330)
        await caller.first()
        await caller.leave("cancel")
        record = (await one.record()).usage
        assert (record.outcome, record.source) == ("CANCELLED", "upstream")
        assert record.prompt_tokens == 5
        await one.at_rest()
        assert len(one.ended) == 1


@by_face
async def test_a_call_that_is_refused_has_a_record_too(face: Any) -> None:
    """G9: a model that does not exist, and an upstream that says no."""
    async with rig() as one:
        record = await used(one, face, "Chat", Json({}), model="none")
        assert (record.outcome, record.source) == ("NOT_FOUND", "none")
        error = Json({"error": {"message": "no"}}, 400)
        record = await used(one, face, "StreamChat", error)
        assert (record.outcome, record.source) == ("INVALID_ARGUMENT", "none")
