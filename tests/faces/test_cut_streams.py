"""Streams that end badly: never as a success, on either face (G1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.upstream import Cut, Reply, Sse
from tests.lib import recordings
from tests.lib.asked import failed
from tests.lib.cases import check
from tests.lib.faces import Case, Failure, File, Sent
from tests.lib.world import KEY, UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

TRUNCATED = Failure(
    "UPSTREAM_TRUNCATED",
    "UNAVAILABLE",
    None,
    "...",
    "server_error",
    "upstream_truncated",
    again=False,
)
USAGE_STREAM = recordings.get("chat/openai-usage-stream.sse")
BEFORE_FINISH = USAGE_STREAM.bytes.index(b'"finish_reason":"')
WHOLE_EVENTS = USAGE_STREAM.bytes[:BEFORE_FINISH].count(b"\n\n")


def cut(name: str, reply: Reply, events: list[Any]) -> Case:
    """A chat stream that ends too early after these events."""
    case = failed(name, "StreamChat", reply, TRUNCATED)
    request = {**case.request, "stream_options": {"include_usage": True}}
    return Case(
        case.name, case.operation, request, case.sent, events, failure=TRUNCATED, reply=reply
    )


START = USAGE_STREAM.events()[:WHOLE_EVENTS]
DELTAS = recordings.get("transcriptions/openai-deltas-stream.sse")
BEFORE_DONE = DELTAS.bytes.index(b'{"type":"transcript.text.done"')

BAD_ENDS = [
    cut("FIN in an event", Cut(Sse(USAGE_STREAM.bytes), BEFORE_FINISH), START),
    cut(
        "FIN between events",
        Cut(Sse(USAGE_STREAM.bytes), USAGE_STREAM.bytes.index(b"\n\n") + 2),
        START[:1],
    ),
    cut("the end of the chunks", Sse(START, done=False), START),
    cut("[DONE] without a finish", Sse(START), START),
    Case(
        "a transcription without its done event",
        "StreamTranscribe",
        {"model": "scripted-speech"},
        Sent("/v1/audio/transcriptions", {"model": UPSTREAM_NAME, "stream": True}),
        DELTAS.events()[:2],
        failure=TRUNCATED,
        reply=Cut(Sse(DELTAS.bytes), BEFORE_DONE),
        file=File(),
    ),
]


@pytest.mark.parametrize("case", BAD_ENDS, ids=str)
async def test_a_stream_that_was_cut_never_ends_as_a_success(world: World, case: Case) -> None:
    """G1: an error event and no [DONE], or UNAVAILABLE."""
    await check(world, case)


async def test_an_error_in_a_stream_reaches_both_callers_and_no_key_with_it(world: World) -> None:
    said = {"error": {"message": f"{KEY} is bad", "type": "server_error", "code": None}}
    failure = Failure(
        "UPSTREAM_FAILED",
        "INTERNAL",
        None,
        "[redacted] is bad",
        "server_error",
        "upstream_failed",
        again=False,
    )
    case = failed("error event", "StreamChat", Sse([*START, said]), failure)
    request = {**case.request, "stream_options": {"include_usage": True}}
    await check(
        world,
        Case(case.name, "StreamChat", request, case.sent, START, failure=failure, reply=case.reply),
    )
