"""`tetrad demo` as a user starts it: four models, and nothing left over."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tetrad.v1 import transcribe_service_pb2 as pb2

from tests.lib import form
from tests.lib.faces import Case, File, message, over_grpc, over_rest
from tests.lib.process import ROOT
from tests.lib.tetrad import Served, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAMPLE = ROOT / "demo" / "sample.wav"
SPOKEN = {"welcome", "to", "the", "demonstration"}

HARBOUR = "a ship in the harbour"
QUAY = "a boat at the quay"
TAXES = "the form for last year's taxes"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo() -> AsyncIterator[Served]:
    async with serving(command="demo") as served:
        yield served


def run_over(face: str) -> Any:
    return over_rest if face == "REST" else over_grpc


FACES = pytest.mark.parametrize("face", ["REST", "gRPC"])


async def answers(demo: Served, face: str, operation: str, **request: Any) -> list[Any]:
    """The answers of a call, as JSON values."""
    sound = File(SAMPLE.read_bytes(), "sample.wav") if "Transcribe" in operation else None
    case = Case(operation, operation, request, None, file=sound)
    outcome = await run_over(face)(demo.gate, case)
    assert outcome.failure is None
    return [json.loads(one) for one in outcome.answers]


async def test_the_demo_says_what_it_serves_and_how_to_call_it(demo: Served) -> None:
    output = demo.program.output
    for name in ("eliza", "wordllama", "pocketsphinx-en-us", "wordllama-rerank"):
        assert re.search(rf"{name}\s+\(ready\)", output), output
    assert f"--address {demo.gate.address}" in output
    assert f"curl -N {demo.gate.url}/v1/chat/completions" in output


@FACES
async def test_the_chat_answers_to_what_was_said_and_names_itself(demo: Served, face: str) -> None:
    question = [{"role": "user", "content": "Who are you?"}]
    (whole,) = await answers(demo, face, "Chat", messages=question)
    text = whole["choices"][0]["message"]["content"]
    assert "ELIZA" in text
    assert "not a language model" in text
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["total_tokens"] > 0

    said = [{"role": "user", "content": "I feel stuck with my work"}]
    chunks = await answers(demo, face, "StreamChat", messages=said)
    parts = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    assert "your work" in "".join(parts)
    assert sum(map(bool, parts)) > 3


@FACES
async def test_related_texts_have_the_nearest_vectors(demo: Served, face: str) -> None:
    (answer,) = await answers(demo, face, "Embed", input=[HARBOUR, QUAY, TAXES])
    ship, boat, taxes = (one["embedding"] for one in answer["data"])
    assert cosine(ship, boat) > cosine(ship, taxes) + 0.1
    assert cosine(ship, boat) > cosine(boat, taxes) + 0.1


def cosine(one: list[float], two: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, two, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in two))


@FACES
async def test_the_related_document_ranks_first(demo: Served, face: str) -> None:
    documents = ["a broken engine", TAXES, "ripe apples and pears"]
    (answer,) = await answers(demo, face, "Rerank", query="fresh fruit", documents=documents)
    results = answer["results"]
    assert results[0]["index"] == 2
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True)


@FACES
async def test_the_sample_s_words_are_heard(demo: Served, face: str) -> None:
    (answer,) = await answers(demo, face, "Transcribe")
    assert set(answer["text"].lower().split()) >= SPOKEN


async def test_live_speech_is_heard_too(demo: Served) -> None:
    sound = SAMPLE.read_bytes()
    pieces = [sound[at : at + 16384] for at in range(0, len(sound), 16384)]
    requests = [
        pb2.LiveTranscribeRequest(config=message("TranscribeRequest", {})),
        *(pb2.LiveTranscribeRequest(audio=piece) for piece in pieces),
    ]
    got = [one async for one in demo.gate.bidi("TranscribeService", "LiveTranscribe", requests)]
    assert set(got[-1].final.text.lower().split()) >= SPOKEN


async def test_what_is_no_sound_is_refused_with_words(demo: Served) -> None:
    parts = [form.Part("file", b"not a sound", "x.wav", "audio/wav")]
    content_type, body = form.build(parts)
    answer = await demo.gate.rest.post(
        "/v1/audio/transcriptions", content=body, headers={"content-type": content_type}
    )
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


# The end.


def descendants(pid: int) -> Iterator[int]:
    """The processes below one, in whatever group or session."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C", "SIGKILL"])
async def test_no_process_of_the_demo_outlives_it(how: str) -> None:
    """Ctrl-C reaches every process of the terminal's group; the others the gateway alone."""
    async with serving(command="demo") as served:
        pid = served.program.pid

        async def complete() -> bool:
            return len(list(descendants(pid))) >= 2  # the models, and the recogniser's process

        await until(complete)
        below = list(descendants(pid))
        (port,) = set(re.findall(r"tei 127\.0\.0\.1:(\d+)", served.program.output))
        if how == "Ctrl-C":
            os.killpg(pid, signal.SIGINT)
        else:
            served.program.send(signal.Signals[how])
        code = await served.program.exit()
        assert code == (-signal.SIGKILL if how == "SIGKILL" else 0)

        async def gone() -> bool:
            return not any(map(alive, below))

        await until(gone)
        served.program.assert_gone(*served.ports, int(port))
        assert "Traceback" not in served.program.output
