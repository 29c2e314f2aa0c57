"""200 MB through a real gateway process: what it costs in memory, whatever way they take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tetrad.v1 import transcribe_service_pb2 as pb2

from tests.fakes.upstream import FakeUpstream, Json, Raw
from tests.lib.tetrad import Served, configuration, model, serving
from tests.lib.uploads import END, FILE_HEAD, FILE_TAIL, PIECE, caller, field

SPEECH = "/v1/audio/transcriptions"
MODEL = field("model", "speech")
SOUND = bytes(range(256)) * (PIECE // 256)
PIECES = 200 * 1024 * 1024 // PIECE
MOST = 16 * 1024 * 1024


def resident(pid: int) -> tuple[int, int]:
    """Bytes of memory of a process: now, and the most since it was last reset."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert now
    assert most
    return int(now[1]) * 1024, int(most[1]) * 1024


def forget_the_most(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def model_first(served: Served, pieces: int) -> None:
    async with caller(served.gate.url) as client:
        await client.begin()
        await client.send(MODEL, FILE_HEAD)
        for _ in range(pieces):
            await client.send(SOUND)
        await client.end(FILE_TAIL, END)
        assert await client.json(60) == (200, {"text": ""})


async def model_last(served: Served, pieces: int) -> None:
    async with caller(served.gate.url) as client:
        await client.begin()
        await client.send(FILE_HEAD)
        for _ in range(pieces):
            await client.send(SOUND)
        await client.end(FILE_TAIL, MODEL, END)
        assert await client.json(60) == (200, {"text": ""})


async def live(served: Served, pieces: int) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield pb2.LiveTranscribeRequest(config=pb2.TranscribeRequest(model="speech"))
        for _ in range(pieces):
            yield pb2.LiveTranscribeRequest(audio=SOUND)

    answers = [a async for a in served.gate.bidi("TranscribeService", "LiveTranscribe", requests())]
    assert [answer.WhichOneof("event") for answer in answers] == ["final"]


@pytest.mark.parametrize("way", [model_first, model_last, live])
async def test_200_mb_of_sound_cost_less_than_16_mb_of_memory(way: Any, tmp_path: Path) -> None:
    """G34: measured as the process's resident memory, at its most, over what a small file left."""
    async with FakeUpstream(keep_bodies=False) as up:
        up.on("GET", "/*", Raw(b"{}", "application/json"))
        up.on("POST", SPEECH, Json({"text": ""}))
        models = [model("speech", "automatic-speech-recognition", "openai", up.url, "m")]
        file = configuration(tmp_path, models, required_types=[])
        async with serving("--config", file) as served:
            await way(served, 64)
            pid = served.program.pid
            forget_the_most(pid)
            before, _ = resident(pid)
            async with asyncio.timeout(60):
                await way(served, PIECES)
            _, most = resident(pid)
        assert up.requests[-1].body_size > PIECES * PIECE
    assert most - before < MOST
