"""Transcription and translation through both faces; LiveTranscribe against the unary call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from tetrad.v1 import transcribe_service_pb2 as pb2

from services import codec
from tests.fakes.upstream import Json, Raw, Received, Responder
from tests.lib import canonical, form, recordings
from tests.lib.cases import check
from tests.lib.faces import Case, File, Sent, message, parts
from tests.lib.gateway import details
from tests.lib.world import UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

SPEACHES, OPENAI, VLLM = "Systran/faster-whisper-small", "whisper-1", "whisper-large-v3"
SOUND = File()


def recorded(file: str) -> Any:
    return recordings.get(f"{file}.json").json()


def text_of(file: str) -> str:
    return recordings.get(f"transcriptions/{file}.json").text_body()[1]


def case(
    name: str,
    model: str,
    upstream: str,
    answer: Any = None,
    *,
    document: tuple[str, str] | None = None,
    task: str = "transcriptions",
    path: str = "",
    sent: dict[str, Any] | None = None,
    **members: Any,
) -> Case:
    request = {"model": model, **members}
    at = path or f"/v1/audio/{task}"
    arrives = {**request, "model": upstream} if upstream else {**request, "model": model}
    return Case(
        name,
        "Transcribe",
        request if task == "transcriptions" else {**request, "task": "translate"},
        Sent(at, {**arrives, **(sent or {})}),
        [] if answer is None else [answer],
        document,
        file=SOUND,
        rest_path=f"/v1/audio/{task}",
        rest_request=request,
    )


def stream(name: str, model: str, upstream: str, events: list[Any], **more: Any) -> Case:
    return Case(
        name,
        "StreamTranscribe",
        {"model": model},
        Sent("/v1/audio/transcriptions", {"model": upstream, "stream": True, **more}),
        events,
        file=SOUND,
    )


TEXT = "text/plain; charset=utf-8"
SRT = "application/x-subrip; charset=utf-8"
QUAY = {"text": "Quay four."}
VLLM_EVENTS = [
    {"type": "transcript.text.delta", "delta": " Quay"},
    {"type": "transcript.text.delta", "delta": " four"},
    {
        "type": "transcript.text.done",
        "text": " Quay four",
        "usage": {"type": "tokens", "input_tokens": 4, "output_tokens": 5, "total_tokens": 9},
    },
]
GRANULAR = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}

CASES = [
    case(
        "OpenAI", "openai-speech", OPENAI, recorded("transcriptions/openai-json-duration-response")
    ),
    case(
        "words and segments",
        "openai-speech",
        OPENAI,
        recorded("transcriptions/openai-verbose-response"),
        **GRANULAR,
        language="fr",
        prompt="Port de pêche",
        temperature=0.2,
    ),
    case(
        "plain text",
        "openai-speech",
        OPENAI,
        document=(TEXT, text_of("openai-text-response")),
        response_format="text",
    ),
    case(
        "SRT",
        "openai-speech",
        OPENAI,
        document=(TEXT, text_of("openai-srt-response")),
        response_format="srt",
    ),
    case(
        "WebVTT",
        "openai-speech",
        OPENAI,
        document=(TEXT, text_of("openai-vtt-response")),
        response_format="vtt",
    ),
    case("speaches, the default", "speech", SPEACHES, QUAY),
    case(
        "speaches, verbose",
        "whisper",
        SPEACHES,
        recorded("transcriptions/speaches-verbose-response"),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    ),
    case("vLLM", "vllm-speech", VLLM, recorded("transcriptions/vllm-json-response")),
    case(
        "vLLM prints JSON for plain text too",
        "vllm-speech",
        VLLM,
        document=(TEXT, recorded("transcriptions/vllm-json-response")["text"]),
        response_format="text",
    ),
    case("etalab's", "etalab", "openai/whisper-large-v3", QUAY),
    case("whisper.cpp", "whispercpp", "", {"text": " Quay four.\n"}, path="/inference"),
    case(
        "whisper.cpp, SRT",
        "whispercpp",
        "",
        document=("application/x-subrip", text_of("openai-srt-response")),
        path="/inference",
        response_format="srt",
    ),
    case(
        "translation by OpenAI",
        "openai-speech",
        OPENAI,
        QUAY,
        task="translations",
        prompt="Harbour",
    ),
    case(
        "a verbose translation",
        "openai-speech",
        OPENAI,
        recorded("translations/openai-verbose-response"),
        task="translations",
        response_format="verbose_json",
    ),
    case(
        "translation by vLLM",
        "vllm-speech",
        VLLM,
        recorded("translations/vllm-response"),
        task="translations",
    ),
    case(
        "translation by speaches",
        "whisper",
        SPEACHES,
        QUAY,
        task="translations",
        sent={"translate": True},
    ),
    case(
        "translation by whisper.cpp",
        "whispercpp",
        "",
        {"text": " Quay four.\n"},
        task="translations",
        path="/inference",
        sent={"translate": True},
    ),
    stream(
        "OpenAI's events",
        "openai-speech",
        OPENAI,
        recordings.get("transcriptions/openai-deltas-stream.sse").events(),
    ),
    stream(
        "speaches' events",
        "whisper",
        SPEACHES,
        recordings.get("transcriptions/speaches-deltas-stream.sse").events(),
    ),
    stream("vLLM's chunks", "vllm-speech", VLLM, VLLM_EVENTS, stream_include_usage=True),
    stream(
        "a server that cannot stream",
        "etalab",
        "openai/whisper-large-v3",
        [{"type": "transcript.text.done", **QUAY}],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_speech_goes_alike_through_both_faces(world: World, case: Case) -> None:
    """G33. The sound arrives byte for byte, with its name and type."""
    await check(world, case)


@pytest.mark.parametrize(("format", "media_type"), [("srt", SRT), ("text", TEXT)])
async def test_a_document_without_a_telling_type_gets_that_of_its_format(
    world: World, format: str, media_type: str
) -> None:
    request = {"model": "scripted-speech", "response_format": format}
    sent = Sent("/v1/audio/transcriptions", {**request, "model": UPSTREAM_NAME})
    await check(
        world,
        Case(
            format,
            "Transcribe",
            request,
            sent,
            document=(media_type, "1\nquay"),
            reply=Raw(b"1\nquay", "application/octet-stream"),
            file=SOUND,
        ),
    )


# Live.


def live(request: dict[str, Any], *pieces: bytes, file: File = SOUND) -> list[Any]:
    """The messages of a live call: the configuration, then audio."""
    config = message("TranscribeRequest", request)
    config.file.filename, config.file.media_type = file.name, file.media_type
    return [
        pb2.LiveTranscribeRequest(config=config),
        *(pb2.LiveTranscribeRequest(audio=piece) for piece in pieces),
    ]


LIVE = [case for case in CASES if case.operation == "Transcribe" and "whisper.cpp" not in case.name]


@pytest.mark.parametrize("case", LIVE, ids=str)
async def test_live_speech_ends_with_the_answer_of_the_unary_call(world: World, case: Case) -> None:
    gate, upstream = world.relaying, world.behind(str(case.request["model"]))
    upstream.forget()
    pieces = [SOUND.data[at : at + 100] for at in range(0, len(SOUND.data), 100)]
    requests = live(dict(case.request), *pieces)
    got = [one async for one in gate.bidi("TranscribeService", "LiveTranscribe", requests)]
    assert [one.WhichOneof("event") for one in got] == ["final"]
    final = got[0].final
    if case.document is not None:
        assert (final.document.media_type, final.document.text) == case.document
    else:
        canonical.assert_same(case.answers[0], codec.to_json("TranscribeResponse", final))
    (request,) = [one for one in upstream.requests if one.method == "POST"]
    assert case.sent is not None
    assert request.path == case.sent.path
    assert form.differences(parts(case.sent.body, SOUND), request.form()) == []


async def test_live_audio_reaches_the_upstream_while_it_is_sent(world: World) -> None:
    """G34: it is never collected first."""
    sizes: list[int] = []
    more = asyncio.Event()

    async def answer(received: Received, responder: Responder) -> None:
        await Json({"text": "Quay four."})(received, responder)

    async def requests() -> AsyncIterator[Any]:
        first, *rest = live({"model": "scripted-speech"}, b"a" * 5000, b"b" * 5000)
        yield first
        yield rest[0]
        await world.scripted.until(
            lambda: bool(world.scripted.requests) and world.scripted.requests[-1].body_size > 5000
        )
        sizes.append(world.scripted.requests[-1].body_size)
        more.set()
        yield rest[1]

    world.script(answer)
    world.scripted.forget()
    got = [
        one.final.text
        async for one in world.relaying.bidi("TranscribeService", "LiveTranscribe", requests())
    ]
    assert got == ["Quay four."]
    assert more.is_set()
    assert 5000 < sizes[0] < 10000
    sound = next(part for part in world.scripted.requests[-1].form() if part.name == "file")
    assert sound.data == b"a" * 5000 + b"b" * 5000


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([pb2.LiveTranscribeRequest(audio=b"a")], "the first message must be `config`"),
        ([], "the first message must be `config`"),
        (live({"model": "scripted-speech"}) * 2, "after `config` only `audio` may follow"),
    ],
    ids=["audio first", "nothing", "two configurations"],
)
async def test_live_messages_in_another_order_are_refused(
    world: World, requests: list[Any], said: str
) -> None:
    world.script(Json({"text": ""}))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in world.relaying.bidi("TranscribeService", "LiveTranscribe", requests):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == said
    assert details(caught.value)["ErrorInfo"].reason == "INVALID_REQUEST"
