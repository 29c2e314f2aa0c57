"""Metrics, ledger and records of a running gateway agree to the token, cancels included."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.replies import CloseConnection, Cut, Json, Sse, Stall
from tests.lib.metric_lines import total
from tests.lib.rig import FACES, Rig, rig

ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "abcd"},
                 "finish_reason": "stop"}],
}  # fmt: skip
USED = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
CALLS = 300


def chunk(content: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}


STREAM = Sse([chunk("a"), chunk("b", usage=USED), chunk("", "stop"), chunk("", usage=USED)])
REPLIES = {
    "Chat": [Json({**ANSWER, "usage": USED}), Json(ANSWER), CloseConnection()],
    "StreamChat": [STREAM, Sse([chunk("abcdefgh"), chunk("", "stop")]), Cut(STREAM, 150)],
    "Embed": [Json({"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 5}})],
    "Rerank": [Json({"results": [{"index": 0, "relevance_score": 0.5}]})],
    "Transcribe": [Json({"text": "a", "usage": {"type": "duration", "seconds": 2.5}})],
}
PATHS = {
    "Chat": "/v1/chat/completions",
    "StreamChat": "/v1/chat/completions",
    "Embed": "/v1/embeddings",
    "Rerank": "/v1/rerank",
    "Transcribe": "/v1/audio/transcriptions",
}


async def one_call(one: Rig, dice: random.Random) -> None:
    """A call of any kind over any face; every fifth caller leaves while the upstream works."""
    face, operation = dice.choice(FACES), dice.choice(list(REPLIES))
    leaves = dice.random() < 0.2
    reply = dice.choice(REPLIES[operation])
    ended = len(one.ended)
    asked = len(one.up.requests)
    if leaves:
        reply = Stall("mid", STREAM, 120) if operation == "StreamChat" else Stall("headers")
    one.up.on("POST", PATHS[operation], reply)
    caller = await face.start(one, operation)
    if leaves:
        await one.up.received(asked + 1)
        if operation == "StreamChat":
            await caller.first()
        await caller.leave("cancel")
    else:
        await caller.end()
    await one.record(ended + 1)


@pytest.mark.parametrize("seed", [1, 2])
async def test_metrics_ledger_and_records_agree_to_the_token(tmp_path: Path, seed: int) -> None:
    """G9, G11, G12: over a randomised run with a fifth of the callers leaving."""
    dice = random.Random(seed)  # noqa: S311
    path = tmp_path / "usage.jsonl"
    async with rig(ledger={"url": f"jsonl:{path}"}, breaker={"failures": 10000}) as one:
        for _ in range(CALLS):
            await one_call(one, dice)
        ended = one.ended
        page = (await one.gate.rest.get("/metrics")).content
        calls = list(ended)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(calls) == CALLS
    assert len({line["uuid"] for line in lines}) == CALLS
    left = sum(call.usage.outcome == "CANCELLED" for call in calls)
    assert CALLS * 0.1 < left < CALLS * 0.3
    assert {call.usage.source for call in calls} == {"upstream", "estimated", "none"}
    assert Counter(line["outcome"] for line in lines) == Counter(
        call.usage.outcome for call in calls
    )
    for column in ("prompt_tokens", "completion_tokens", "audio_seconds", "documents"):
        assert _sum(line[column] for line in lines) == _sum(
            getattr(call.usage, column) for call in calls
        )
    for column, kind in (("prompt_tokens", "input"), ("completion_tokens", "output")):
        counted = total(page, "gen_ai_client_token_usage_sum", gen_ai_token_type=kind)
        assert counted == _sum(line[column] for line in lines) > 0
    assert total(page, "tetrad_audio_seconds_total") == _sum(
        line["audio_seconds"] for line in lines
    )
    documents = total(page, "tetrad_rerank_documents_total")
    assert documents == _sum(line["documents"] for line in lines) > 0
    assert total(page, "tetrad_calls_total") == CALLS


def _sum(values: Any) -> float:
    return sum(value or 0 for value in values)


async def test_the_gateway_s_end_writes_what_still_waits(tmp_path: Path) -> None:
    """G9, G36: the last record is that of a call that the drain ended."""
    path = tmp_path / "usage.jsonl"
    async with rig(ledger={"url": f"jsonl:{path}"}, drain={"grace": 0.1}) as one:
        one.up.on("POST", "/*", Stall("headers"))
        caller = await FACES[0].start(one, "Chat")
        await one.up.received(1)
        end = asyncio.create_task(caller.end())
    await end
    (line,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert (line["outcome"], line["model"]) == ("UNAVAILABLE", "chat")
