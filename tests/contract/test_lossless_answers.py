"""Every own answer through a running gateway: REST that relays, REST that does not, and gRPC.

Covers G3, G10, G23, G24, G33: what a caller gets is the upstream's answer, in streams event by
event, however they are framed and cut; relayed, to the letter.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio

from services import codec
from services.upstream import recognise
from tests.fakes.upstream import FakeUpstream, Record, Sse
from tests.lib import canonical, recordings
from tests.lib.adapters import transport
from tests.lib.form import Part
from tests.lib.lossless import (
    GRPC,
    NOT_OFFERED,
    OPERATIONS,
    RECODING,
    RECOGNISED,
    REST,
    TEI,
    WAYS,
    Got,
    Lab,
    Way,
    differences,
    free,
    lab,
    mended,
    sse_events,
)
from tests.lib.recordings import Recording

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE = Part("file", b"RIFF\r\n--no-boundary\r\n\0", "quay.wav", "audio/wav")
ASKED: Mapping[str, dict[str, Any]] = {
    "chat.completions": {"messages": [{"role": "user", "content": "hi"}]},
    "embeddings": {"input": ["a", "b"]},
    "rerank": {"query": "q", "documents": ["a", "b", "c", "d"]},
    "audio.transcriptions": {},
    "audio.translations": {},
}

by_way = pytest.mark.parametrize("way", WAYS, ids=str)


def each(bodies: list[Recording]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", bodies, ids=lambda one: one.file)


OFFERED = [one for one in recordings.own(direction="response") if one.operation in OPERATIONS]
RESPONSES = [one for one in OFFERED if one.mode == "json" and one.operation not in TEI]
NATIVE = [one for one in OFFERED if one.operation in TEI]
DOCUMENTS = [one for one in OFFERED if one.mode == "text"]
KNOWN = [one for one in recordings.own() if one.operation in RECOGNISED]
STREAMS = recordings.own(direction="stream")


async def test_every_own_answer_goes_through_both_faces_and_none_is_left_out() -> None:
    """Errors have tests of their own."""
    answers = recordings.own(direction="response")
    left = [one for one in answers if one not in OFFERED + KNOWN and one.operation != "error"]
    assert {one.operation for one in left} <= set(NOT_OFFERED)
    assert (len(RESPONSES), len(NATIVE), len(DOCUMENTS)) == (43, 2, 3)
    assert (len(OFFERED), len(KNOWN), len(left)) == (48, 5, 3)
    assert len(STREAMS) == 35


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="rig")
async def _rig() -> AsyncIterator[Lab]:
    async with lab() as one:
        yield one


async def answered(rig: Lab, way: Way, one: Recording, *, asked_usage: bool = True) -> Got:
    """The recorded answer, asked for in the plainest way that yields it as it is."""
    operation = OPERATIONS[one.operation]
    streamed = one.direction == "stream"
    members = {**ASKED[one.operation], **one.asks}
    if operation.is_form:
        fields = {**members, **({"stream": "true"} if streamed else {})}
        parts = [*(Part(name, str(value).encode()) for name, value in fields.items()), FILE]
        return await rig.submit(way, operation, parts, streamed=streamed)
    if streamed:
        members["stream"] = True
        if asked_usage:
            members["stream_options"] = {
                "include_usage": True,
                **one.asks.get("stream_options", {}),
            }
    return await rig.ask(way, operation, codec.dumps(members), streamed=streamed)


@each(RESPONSES)
@by_way
async def test_an_answer_comes_back_to_the_caller_as_it_was(
    rig: Lab, way: Way, one: Recording
) -> None:
    rig.script(Record(one.file))
    got = await answered(rig, way, one)
    assert got.failure is None
    (text,) = got.texts
    want = one.bytes if one.delivers is None else codec.dumps(one.delivers)
    if way.exact and one.delivers is None:
        assert text == want.strip()
    parsed = canonical.loads(want) if way.exact else mended(want)
    message = OPERATIONS[one.operation].message("response")
    assert differences(parsed, text, one.compare, message) == []


@each([one for one in RESPONSES if one.operation == "embeddings"])
async def test_an_answer_in_a_bulk_comes_back_as_it_was(rig: Lab, one: Recording) -> None:
    rig.script(Record(one.file))
    request = codec.encode_value("EmbedRequest", {**ASKED["embeddings"], **one.asks})
    text = await rig.bulk(codec.message_class("EmbedRequest").FromString(request))
    want = mended(one.bytes if one.delivers is None else codec.dumps(one.delivers))
    assert differences(want, text, one.compare, "EmbedResponse") == []


@each(DOCUMENTS)
@by_way
async def test_a_document_comes_back_to_the_caller_as_it_was(
    rig: Lab, way: Way, one: Recording
) -> None:
    rig.script(Record(one.file))
    got = await answered(rig, way, one)
    assert got.failure is None
    assert got.document == one.text_body()


@each(NATIVE)
@by_way
async def test_a_native_answer_of_tei_keeps_its_numbers(rig: Lab, way: Way, one: Recording) -> None:
    rig.script(Record(one.file))
    is_rerank = one.operation == "rerank.tei"
    asked = {"query": "", "texts": ["", "b", "c", "d"]} if is_rerank else {"inputs": ["", "a", "b"]}
    more = {"model": TEI[one.operation], "return_text" if is_rerank else "normalize": True}
    body = codec.dumps(asked | more)
    if way.is_grpc:
        body = body.replace(b'"texts"', b'"documents"').replace(b'"inputs"', b'"input"')
    got = await rig.ask(way, OPERATIONS[one.operation], body)
    assert got.failure is None
    want = canonical.loads(one.bytes)
    (text,) = got.texts
    if not way.is_grpc:
        assert differences(want, text, {} if is_rerank else {"vectors": [""]}) == []
        return
    name = "results" if is_rerank else "data"
    rows = want
    if is_rerank:
        rows = [
            {"index": r["index"], "relevance_score": r["score"], "document": {"text": r["text"]}}
            for r in want
        ]
    else:
        rows = [
            {"object": "embedding", "index": place, "embedding": row}
            for place, row in enumerate(want)
        ]
    assert differences(rows, canonical.loads(text)[name], {}) == []


# Streams, event by event, however they are framed and cut.

FRAMINGS: Mapping[str, tuple[Callable[[str], str], int | None]] = {
    "one event a read": (lambda text: text, None),
    "CRLF, three bytes a read": (lambda text: text.replace("\n", "\r\n"), 3),
    "BOM and CR, seven bytes a read": (lambda text: "\ufeff" + text.replace("\n", "\r"), 7),
    "no space, all in one read": (lambda text: re.sub("(?m)^data: (?! )", "data:", text), 1 << 20),
}


# Without relay the same reader reads them: one framing is enough.
CUT = [(way, name) for way in (REST, GRPC) for name in FRAMINGS]


@each(STREAMS)
@pytest.mark.parametrize(("way", "framing"), [*CUT, (RECODING, "one event a read")], ids=str)
async def test_a_stream_comes_back_event_by_event_however_it_is_framed_and_cut(
    rig: Lab, way: Way, framing: str, one: Recording
) -> None:
    reframe, chunking = FRAMINGS[framing]
    rig.script(Sse(reframe(one.bytes.decode()).encode(), chunking=chunking))
    got = await answered(rig, way, one)
    _same_events(one, way, got, _events(one))


@each([one for one in STREAMS if one.operation == "chat.completions" and not one.asks])
@by_way
async def test_a_stream_lacks_nothing_but_the_usage_chunk_that_nobody_asked_for(
    rig: Lab, way: Way, one: Recording
) -> None:
    rig.script(Record(one.file))
    got = await answered(rig, way, one, asked_usage=False)
    wanted = []
    for event in _events(one):
        value = canonical.loads(event)
        if value.get("choices") != [] or value.get("usage") is None:
            wanted.append(event)
    _same_events(one, way, got, wanted)


def _events(one: Recording) -> list[bytes]:
    """The events that a caller must get, and as many as the index says."""
    found = [data for data in sse_events(one.bytes) if data != b"[DONE]"]
    assert len(found) == one.compare["events"]
    return found if one.delivers is None else [codec.dumps(event) for event in one.delivers]


def _same_events(one: Recording, way: Way, got: Got, wanted: list[bytes]) -> None:
    assert got.failure is None
    assert got.done == (one.operation == "chat.completions" and way is not GRPC)
    if way.exact and one.delivers is None:
        assert got.texts == wanted
    assert len(got.texts) == len(wanted)
    message = OPERATIONS[one.operation].message("stream")
    found = []
    for place, (want, text) in enumerate(zip(wanted, got.texts, strict=True)):
        parsed = canonical.loads(want) if way.exact else mended(want)
        places = free(message, want)
        rules = {"opaque": places, "ordered": places}
        found += [f"{place} {line}" for line in differences(parsed, text, rules, message)]
    assert found == []


# What is not passed on.


@each([one for one in KNOWN if one.operation != "models.get"])
async def test_what_a_server_tells_of_itself_is_recognised(one: Recording) -> None:
    path = "/info" if one.operation == "info" else "/v1/models"
    async with FakeUpstream() as server, transport() as wire:
        server.on("GET", path, Record(one.file))
        recognised = await recognise(wire, server.url)
    assert recognised.kind == KINDS[one.file][0]
    assert [found.model for found in recognised.models] == KINDS[one.file][1]


KINDS: Mapping[str, tuple[str, list[str]]] = {
    "own/models/openrouter-list-response.json": ("openai", ["acme/sonar:free", "acme/embed-1"]),
    "own/models/llamacpp-router-response.json": ("llamacpp", ["ggml-org/qwen3-8b"]),
    "own/models/tei-info-classifier-response.json": ("tei", ["sentiment"]),
    "own/models/tei-info-sparse-response.json": ("tei", ["acme/splade"]),
}
