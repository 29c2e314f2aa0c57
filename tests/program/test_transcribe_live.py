"""`tetrad transcribe --live`, and LiveTranscribe through a gateway to a server that is live."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from tetrad.v1 import transcribe_service_pb2 as pb2

from tests.fakes.realtime import FakeRealtime, realtime
from tests.lib.process import ROOT
from tests.lib.rig import Rig, rig

SECOND = b"\x01\x02" * 16000
SPEECH = "automatic-speech-recognition"
WORDS = {"vllm": "voxtral-realtime", "openai": "gpt-live-transcribe"}


@asynccontextmanager
async def gateway(words: str = "vllm", **provider: Any) -> AsyncIterator[tuple[Rig, FakeRealtime]]:
    """A gateway whose one model of speech is live."""
    async with realtime(words) as fake:
        where = {"type": words, "url": fake.url, "model_name": WORDS[words], **provider}
        model: Mapping[str, Any] = {
            "name": "speech",
            "type": SPEECH,
            "default": True,
            "providers": [where],
        }
        async with rig(models=[model], required_types=[]) as one:
            yield one, fake


@asynccontextmanager
async def command(one: Rig, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`tetrad transcribe --live`, with pipes; ended at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services", "transcribe", "--live", "--address", one.gate.address, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_command_prints_what_it_hears_while_it_hears_it() -> None:
    async with gateway() as (one, _), command(one) as process:
        assert process.stdin
        assert process.stdout
        async with asyncio.timeout(30):
            for number in range(2):
                process.stdin.write(SECOND)
                await process.stdin.drain()
                assert await process.stdout.readexactly(6) == f" word{number}".encode()
            process.stdin.close()
            assert await process.stdout.read() == b"\n"
            assert await process.wait() == 0


async def test_the_command_ends_when_its_call_fails_though_more_may_be_said() -> None:
    async with gateway() as (one, fake), command(one) as process:
        fake.status, fake.body = 401, b"{}"
        assert process.stderr
        async with asyncio.timeout(30):
            assert b"UPSTREAM_AUTH" in await process.stderr.read()
            assert await process.wait() == 1


async def test_without_a_file_and_not_live_there_is_nothing_to_transcribe() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "transcribe"),
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}"},
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert said == b"tetrad: transcribe needs a file, or --live\n"


@pytest.mark.parametrize("words", WORDS)
async def test_a_live_call_has_deltas_and_exactly_one_final_answer(words: str) -> None:
    """G33: typed, and the model says beforehand that it is live."""
    async with gateway(words) as (one, _):
        listed = (await one.gate.rest.get("/v1/models")).json()["data"]
        assert "live_transcribe.realtime" in listed[0]["capabilities"]
        config = pb2.TranscribeRequest(file=pb2.AudioFile(media_type="audio/pcm; rate=16000"))
        requests = [
            pb2.LiveTranscribeRequest(config=config),
            *[pb2.LiveTranscribeRequest(audio=SECOND)] * 2,
            pb2.LiveTranscribeRequest(audio=SECOND[:100]),
        ]
        bidi = one.gate.bidi("TranscribeService", "LiveTranscribe", requests)
        answers = [answer async for answer in bidi]
        record = await one.record()
    kinds = [answer.WhichOneof("event") for answer in answers]
    assert kinds[-1] == "final"
    assert kinds.count("final") == 1
    deltas = [answer.delta.delta for answer in answers[:-1]]
    assert deltas[0] == " word0"
    assert answers[-1].final.text.split() == "".join(deltas).split()
    assert answers[-1].final.usage.input_tokens == 5
    assert (record.usage.outcome, record.usage.prompt_tokens) == ("OK", 5)


async def test_a_caller_who_cancels_ends_the_session() -> None:
    """G5."""

    async def never_done(fake: FakeRealtime, connection: Any, message: Any) -> None:
        if not message.get("final"):
            await fake.usual(connection, message)

    async with gateway() as (one, fake):
        fake.act = never_done
        call = one.gate.stub("TranscribeService", "LiveTranscribe")()
        config = pb2.TranscribeRequest(file=pb2.AudioFile(media_type="audio/pcm"))
        await call.write(pb2.LiveTranscribeRequest(config=config))
        await call.write(pb2.LiveTranscribeRequest(audio=SECOND))
        assert (await call.read()).delta.delta == " word0"
        call.cancel()
        await asyncio.wait_for(fake.closed.wait(), 5)
        record = await one.record()
        assert record.usage.outcome == "CANCELLED"
        assert record.cancel_delay is not None
        assert record.cancel_delay < 0.1
        await one.at_rest()


async def test_audio_past_the_limit_ends_the_session_with_our_error() -> None:
    """G34."""
    config = pb2.TranscribeRequest(file=pb2.AudioFile(media_type="audio/pcm"))
    requests = [
        pb2.LiveTranscribeRequest(config=config),
        *[pb2.LiveTranscribeRequest(audio=SECOND)] * 3,
    ]
    async with realtime("vllm") as fake:
        where = {"type": "vllm", "url": fake.url, "model_name": "voxtral-realtime"}
        model = {"name": "speech", "type": SPEECH, "default": True, "providers": [where]}
        limits = {"max_upload_bytes": 2 * len(SECOND)}
        async with rig(models=[model], required_types=[], limits=limits) as one:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in one.gate.bidi("TranscribeService", "LiveTranscribe", requests):
                    pass
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await asyncio.wait_for(fake.closed.wait(), 5)
