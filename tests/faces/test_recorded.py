"""Every recorded body through both faces: what was sent arrives, what was answered comes back.

Covers G3, G23, G31, G33: nothing is dropped or changed on either way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.upstream import Json, Record, Sse
from tests.lib import form, recordings
from tests.lib.cases import check
from tests.lib.faces import OPERATIONS, Case, Failure, File, Sent, over_grpc
from tests.lib.recordings import Recording
from tests.lib.world import UPSTREAM_NAME, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

HI = [{"role": "user", "content": "hi"}]
ENDPOINT = "openai 127.0.0.1:"

CHAT_ANSWER: dict[str, Any] = {"id": "c", "object": "chat.completion", "choices": []}
CHAT_CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
VECTORS = {"object": "list", "data": [{"index": 0, "embedding": [0.5, -1.0]}], "model": "e"}


def chat_requests() -> Iterator[Case]:
    for one in recordings.all("chat.completions", "request"):
        request = {**one.json(), "model": "scripted-chat"}
        sent = {**request, "model": UPSTREAM_NAME}
        if request.get("stream"):
            sent["stream_options"] = {**request.get("stream_options", {}), "include_usage": True}
            # REST takes `stream` as the choice of the method; gRPC callers may say it too.
            yield Case(
                one.file,
                "StreamChat",
                request,
                Sent("/v1/chat/completions", sent),
                [CHAT_CHUNK],
                reply=Sse([CHAT_CHUNK]),
                compare=_rules(one),
            )
        else:
            yield Case(
                one.file,
                "Chat",
                request,
                Sent("/v1/chat/completions", sent),
                [CHAT_ANSWER],
                reply=Json(CHAT_ANSWER),
                compare=_rules(one),
            )


def embed_requests() -> Iterator[Case]:
    for one in recordings.all("embeddings", "request"):
        request = {**one.json(), "model": "scripted-embed"}
        # The vectors come as they were asked for: the fake answers numbers.
        request.pop("encoding_format", None)
        yield Case(
            one.file,
            "Embed",
            request,
            Sent("/v1/embeddings", {**request, "model": UPSTREAM_NAME}),
            [VECTORS],
            reply=Json(VECTORS),
            compare=_rules(one),
        )


def rerank_requests() -> Iterator[Case]:
    for one in recordings.all("rerank", "request"):
        request = {**one.json(), "model": "scripted-rerank"}
        answer = {"results": [{"index": 0, "relevance_score": 0.5}]}
        yield Case(
            one.file,
            "Rerank",
            request,
            Sent("/v1/rerank", {**request, "model": UPSTREAM_NAME}),
            [_with_documents(answer, request)],
            reply=Json(answer),
            compare=_rules(one),
        )


def _with_documents(answer: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """return_documents is kept by the gateway where the upstream does not know it."""
    if not request.get("return_documents"):
        return answer
    documents = request["documents"]
    told = [{"text": one} if isinstance(one, str) else one for one in documents]
    return {"results": [{**r, "document": told[r["index"]]} for r in answer["results"]]}


def chat_answers() -> Iterator[Case]:
    request = {"model": "scripted-chat", "messages": HI}
    sent = Sent("/v1/chat/completions", {**request, "model": UPSTREAM_NAME})
    for one in recordings.all("chat.completions", "response"):
        yield Case(
            one.file,
            "Chat",
            request,
            sent,
            [one.json()],
            reply=Record(one.file),
            compare=_rules(one),
        )


ERRORS = {
    "chat/openai-truncated-stream.sse": Failure(
        "UPSTREAM_TRUNCATED",
        "UNAVAILABLE",
        None,
        "...ended before its answer was complete",
        "server_error",
        "upstream_truncated",
        again=False,
    ),
    "chat/openrouter-midstream-error-stream.sse": Failure(
        "UPSTREAM_UNAVAILABLE",
        "UNAVAILABLE",
        None,
        "Provider disconnected",
        "server_error",
        502,
        again=False,
        more={"metadata": {"error_type": "provider_unavailable", "provider_code": None}},
    ),
    "chat/vllm-error-then-done-stream.sse": Failure(
        "UPSTREAM_FAILED",
        "INTERNAL",
        None,
        "EngineCore encountered an issue.",
        "InternalServerError",
        500,
        again=False,
    ),
}


def chat_streams(*, usage: bool) -> Iterator[Case]:
    request: dict[str, Any] = {"model": "scripted-chat", "messages": HI}
    sent = {**request, "model": UPSTREAM_NAME, "stream": True}
    sent["stream_options"] = {"include_usage": True}
    if usage:
        request["stream_options"] = {"include_usage": True}
    for one in recordings.all("chat.completions", "stream"):
        events = one.events()
        if not usage:
            events = [event for event in events if event["choices"] or not event.get("usage")]
        yield Case(
            f"{one.file} {'with' if usage else 'without'} usage",
            "StreamChat",
            request,
            Sent("/v1/chat/completions", sent),
            events,
            failure=ERRORS.get(one.file),
            reply=Record(one.file),
            compare={k: v for k, v in _rules(one).items() if usage or k != "nulls_required"},
        )


def other_answers() -> Iterator[Case]:
    documents = ["Rope of hemp", "Steel cable", "Anchor chain", "Knot", "Buoy"]
    asked = {
        "embeddings": ("Embed", "scripted-embed", "/v1/embeddings", {"input": "quay"}),
        "rerank": (
            "Rerank",
            "scripted-rerank",
            "/v1/rerank",
            {"query": "what holds a boat", "documents": documents},
        ),
    }
    for operation, (method, model, path, members) in asked.items():
        for one in recordings.all(operation, "response"):
            request = {**members, "model": model}
            if "base64" in one.file:
                request["encoding_format"] = "base64"
            yield Case(
                one.file,
                method,
                request,
                Sent(path, {**request, "model": UPSTREAM_NAME}),
                [one.json()],
                reply=Record(one.file),
                compare=_rules(one),
            )


def transcripts() -> Iterator[Case]:
    formats = {"text": "text", "srt": "srt", "vtt": "vtt", "verbose": "verbose_json"}
    for operation, task in (("transcriptions", None), ("translations", "translate")):
        path = f"/v1/audio/{operation}"
        for one in recordings.all(f"audio.{operation}", "response"):
            wanted = next((f for word, f in formats.items() if word in one.file), "json")
            request = {"model": "scripted-speech", "response_format": wanted}
            document = one.text_body() if one.mode == "text" else None
            yield Case(
                one.file,
                "Transcribe",
                request if task is None else {**request, "task": task},
                Sent(path, {**request, "model": UPSTREAM_NAME}),
                [] if document else [one.json()],
                document,
                reply=Record(one.file),
                file=File(),
                compare=_rules(one),
                rest_path=path,
                rest_request=request,
            )


def transcript_streams() -> Iterator[Case]:
    request = {"model": "scripted-speech"}
    for one in recordings.all("audio.transcriptions", "stream"):
        events = one.events()
        if "vllm" in one.file:
            told = {"type": "tokens", "input_tokens": 4, "output_tokens": 5, "total_tokens": 9}
            events = [
                {"type": "transcript.text.delta", "delta": " Quay"},
                {"type": "transcript.text.delta", "delta": " four"},
                {"type": "transcript.text.done", "text": " Quay four", "usage": told},
            ]
        yield Case(
            one.file,
            "StreamTranscribe",
            request,
            Sent("/v1/audio/transcriptions", {"model": UPSTREAM_NAME, "stream": True}),
            events,
            reply=Record(one.file),
            file=File(),
        )


def _rules(one: Recording) -> dict[str, Any]:
    return {k: v for k, v in one.compare.items() if k not in ("mode", "events", "end")}


CASES = [
    *chat_requests(),
    *embed_requests(),
    *rerank_requests(),
    *chat_answers(),
    *chat_streams(usage=True),
    *chat_streams(usage=False),
    *other_answers(),
    *transcripts(),
    *transcript_streams(),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_recorded_body_passes_both_faces_unchanged(world: World, case: Case) -> None:
    await check(world, case)


FORMS = recordings.all("audio.transcriptions", "request", "multipart")
FORMS += recordings.all("audio.translations", "request", "multipart")


@pytest.mark.parametrize("recorded", FORMS, ids=lambda one: one.file)
async def test_a_recorded_form_arrives_at_the_upstream_as_it_was_sent(
    world: World, recorded: Recording
) -> None:
    parts = recorded.parts()
    (sound,) = (part for part in parts if part.filename is not None)
    members = [part for part in parts if part.filename is None and part.name != "model"]
    task = "translate" if "translations" in recorded.file else None
    path = recorded.file.rpartition("/")[0]
    streamed = any(part.name == "stream" and part.text.lower() == "true" for part in members)
    case = Case(
        recorded.file,
        "StreamTranscribe" if streamed else "Transcribe",
        {"model": "scripted-speech", **_json(members), **({"task": task} if task else {})},
        None,
        file=File(sound.data, sound.filename or "", sound.content_type or ""),
    )
    done = {"type": "transcript.text.done", "text": "Quay four."}
    whole = {"text": "Quay four.", "segments": [], "words": [{"word": "Quay"}]}
    world.script(Sse([done], done=False) if streamed else Json(whole))

    content_type, body = form.build([*members, form.Part("model", b"scripted-speech"), sound])
    world.scripted.forget()
    answer = await world.relaying.rest.post(
        f"/v1/audio/{path}", content=body, headers={"content-type": content_type}
    )
    assert answer.status_code == 200, answer.text
    outcome = await over_grpc(world.relaying, case)
    assert outcome.failure is None

    wanted = [part for part in members if not (part.name == "stream" and not streamed)]
    wanted += [form.Part("model", UPSTREAM_NAME.encode()), sound]
    for face, request in zip(("REST", "gRPC"), world.scripted.requests, strict=True):
        assert request.path == f"/v1/audio/{path}"
        assert form.differences(wanted, request.form()) == [], face


def _json(parts: list[form.Part]) -> dict[str, Any]:
    """Members of a form as a gRPC caller states them."""
    found: dict[str, Any] = {}
    for part in parts:
        name, bracket, rest = part.name.partition("[")
        if not bracket:
            found[name] = _value(part)
        elif rest == "]":
            found.setdefault(name, []).append(_value(part))
        else:
            found.setdefault(name, {})[rest.removesuffix("]")] = _value(part)
    return found


def _value(part: form.Part) -> Any:
    try:
        return json.loads(part.text.lower() if part.text in ("True", "False") else part.text)
    except ValueError:
        return part.text


async def test_every_recording_that_a_caller_can_meet_has_a_case() -> None:
    told = {"error", "models.get", "models.list", "info", "embed.all", "embed.sparse", "score"}
    told |= {"embed.native", "rerank.tei"}  # other tests have these
    files = {one.file for one in recordings.all() if one.operation not in told}
    cases = {case.name.partition(" ")[0] for case in CASES} | {one.file for one in FORMS}
    assert files == cases
    assert {case.operation for case in CASES} <= OPERATIONS.keys()
