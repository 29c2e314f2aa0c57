"""Every own request through a running gateway: REST that relays, REST that does not, and gRPC.

Covers G3, G23, G33: what an upstream is sent is the caller's body but for the model's name and what
a stream adds; relayed, to the letter.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from services import codec
from tests.fakes.upstream import Sse
from tests.lib import canonical, form, recordings
from tests.lib.form import Part
from tests.lib.lossless import (
    ANSWERS,
    NOT_OFFERED,
    OPERATIONS,
    STRICT,
    TEI,
    UPSTREAM_NAME,
    WAYS,
    Lab,
    Way,
    differences,
    form_members,
    lab,
)
from tests.lib.recordings import Recording

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNK = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
DONE = Sse([{"type": "transcript.text.done", "text": ""}], done=False)
REQUESTS = [
    one for one in recordings.own(direction="request", mode="json") if one.operation in OPERATIONS
]
FORMS = recordings.own(direction="request", mode="multipart")

by_way = pytest.mark.parametrize("way", WAYS, ids=str)


def each(bodies: list[Recording]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", bodies, ids=lambda one: one.file)


async def test_every_own_request_goes_through_both_faces_and_none_is_left_out() -> None:
    left = [one for one in recordings.own(direction="request") if one not in REQUESTS + FORMS]
    assert {one.operation for one in left} <= set(NOT_OFFERED)
    assert (len(REQUESTS), len(FORMS), len(left)) == (41, 11, 1)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="rig")
async def _rig() -> AsyncIterator[Lab]:
    async with lab() as one:
        yield one


# What callers send.


@each(REQUESTS)
@by_way
async def test_a_request_arrives_at_the_upstream_as_it_was_sent(
    rig: Lab, way: Way, one: Recording
) -> None:
    sent = canonical.loads(one.bytes)
    streamed = sent.get("stream") is True
    rig.script(Sse([CHUNK]) if streamed else ANSWERS[one.operation])
    got = await rig.ask(way, OPERATIONS[one.operation], asked(one, way), streamed=streamed)
    assert got.failure is None
    want = sent
    if one.operation not in TEI:
        # In its place, or at the beginning if the caller named none.
        want = {**({} if "model" in sent else {"model": ""}), **sent, "model": UPSTREAM_NAME}
    if streamed:
        want["stream_options"] = {**sent["stream_options"], "include_usage": True}
    received = rig.received().body
    if one.operation == "embeddings" and way.is_grpc and "encoding_format" not in sent:
        # Its callers get numbers as bytes, whichever form the upstream was asked for.
        form = json.loads(received).get("encoding_format")
        assert form in (None, "base64")
        want = {**({"encoding_format": form} if form else {}), **want}
    rules = STRICT if way.exact and one.operation not in TEI else one.compare
    message = OPERATIONS[one.operation].message("request")
    assert differences(want, received, rules, message) == []


def asked(one: Recording, way: Way) -> bytes:
    """The body as it is sent: TEI's name the model beside it, and over gRPC in our words."""
    if one.operation not in TEI:
        return one.bytes
    text = one.bytes.replace(b"{", b'{"model": "%b", ' % TEI[one.operation].encode(), 1)
    if not way.is_grpc:
        return text
    ours = {"inputs": "input", "texts": "documents"}
    return codec.dumps({ours.get(k, k): v for k, v in codec.loads_exact(text).items()})


@each(FORMS)
@by_way
async def test_a_form_arrives_at_the_upstream_part_by_part(
    rig: Lab, way: Way, one: Recording
) -> None:
    streamed = form_members(one).get("stream") is True
    rig.script(DONE if streamed else ANSWERS[one.operation])
    operation = OPERATIONS[one.operation]
    got = await rig.submit(way, operation, one.parts(), streamed=streamed)
    assert got.failure is None
    received = rig.received()
    assert received.path == operation.path
    assert form.differences(list(_sent(one, streamed)), received.form()) == []


def _sent(one: Recording, streamed: bool) -> Iterator[Part]:
    """The parts that the upstream must get: the method tells whether there is a stream."""
    for part in one.parts():
        if part.name != "stream":
            yield Part("model", UPSTREAM_NAME.encode()) if part.name == "model" else part
    if streamed:
        yield Part("stream", b"true")
    if not any(part.name == "model" for part in one.parts()):
        yield Part("model", UPSTREAM_NAME.encode())


@each([one for one in FORMS if form_members(one).get("stream") is None])
async def test_a_form_goes_through_a_live_call_part_by_part(rig: Lab, one: Recording) -> None:
    parts = one.parts()
    sounds = [part for part in parts if part.filename is not None]
    members = form_members(one) | ({"task": "translate"} if "translations" in one.operation else {})
    request: Any = codec.message_class("LiveTranscribeRequest")
    config = request()
    config.config.MergeFromString(codec.encode_value("TranscribeRequest", members))
    for sound in sounds:
        config.config.file.filename = sound.filename
        config.config.file.media_type = sound.content_type
    audio = [sound.data[at : at + 7] for sound in sounds for at in range(0, len(sound.data), 7)]
    rig.script(ANSWERS[one.operation])
    requests = [config, *(request(audio=piece) for piece in audio)]
    answers = [
        answer.WhichOneof("event")
        async for answer in rig.relaying.bidi("TranscribeService", "LiveTranscribe", requests)
    ]
    assert answers == ["final"]
    got, want = rig.received().form(), list(_sent(one, streamed=False))
    if not sounds:  # a live call has always a sound, if an empty one
        (empty,) = (part for part in got if part.filename is not None)
        assert empty.data == b""
        got.remove(empty)
    assert form.differences(want, got) == []


@by_way
@pytest.mark.parametrize("text", ["{}", '{"a": null}', '{"type": "server_vad", "x": [{}]}'])
async def test_an_object_that_a_form_cannot_spell_stays_the_text_that_it_was(
    rig: Lab, way: Way, text: str
) -> None:
    """Others become chunking_strategy[type] and so on, as the official SDK sends them."""
    rig.script(ANSWERS["audio.transcriptions"])
    parts = [Part("chunking_strategy", text.encode()), Part("file", b"s", "a.wav", "audio/wav")]
    got = await rig.submit(way, OPERATIONS["audio.transcriptions"], parts)
    assert got.failure is None
    want = [*parts, Part("model", UPSTREAM_NAME.encode())]
    assert form.differences(want, rig.received().form()) == []


SAID = r"""{"n": 18446744073709551616, "huge": 1e400, "one": 1.0, "yes": true, "no": null, "": "",
 "list": [1, -0.0, "a", false], "deep": {"a": {"b": ["x", 2]}, "empty": {}},
 "vllm_xargs": {"a": [1e400, 9007199254740993], "b": null}}"""
WRITTEN = [
    *(("n", "18446744073709551616"), ("huge", "1e400"), ("one", "1.0"), ("yes", "true")),
    *(("", ""), ("list[]", "1"), ("list[]", "-0.0"), ("list[]", "a"), ("list[]", "false")),
    *(("deep[a][b][]", "x"), ("deep[a][b][]", "2"), ("language", "fr")),
    ("vllm_xargs", '{"a":[1e400,9007199254740993],"b":null}'),
]


async def test_json_that_a_grpc_caller_states_is_written_into_the_form_exactly(rig: Lab) -> None:
    """What forms cannot say, null and an empty object, is left out."""
    operation = OPERATIONS["audio.transcriptions"]
    rig.script(ANSWERS["audio.transcriptions"])
    message: Any = codec.message_class("TranscribeRequest")(language="fr")
    message.file.data, message.file.filename, message.file.media_type = b"s", "a.wav", "audio/wav"
    message.extra.json = SAID
    got = await rig.call(operation, message)
    assert got.failure is None
    want = [Part(name, text.encode()) for name, text in WRITTEN]
    want += [Part("model", UPSTREAM_NAME.encode()), Part("file", b"s", "a.wav", "audio/wav")]
    assert form.differences(want, rig.received().form()) == []


async def test_a_file_that_is_stated_as_json_is_refused_by_name(rig: Lab) -> None:
    rig.script(ANSWERS["audio.transcriptions"])
    message: Any = codec.message_class("TranscribeRequest")()
    message.file.data = b"s"
    message.extra.json = '{"file": "UklGRg=="}'
    got = await rig.call(OPERATIONS["audio.transcriptions"], message)
    assert got.failure is not None
    assert got.failure[0] == "INVALID_ARGUMENT"
    assert got.said is not None
    assert got.said.startswith("file: ")
    assert rig.upstream.requests == []


@each([one for one in REQUESTS if one.operation == "embeddings"])
async def test_a_request_of_a_bulk_arrives_as_it_was_sent(rig: Lab, one: Recording) -> None:
    rig.script(ANSWERS["embeddings"])
    message = codec.message_class("EmbedRequest").FromString(
        codec.encode("EmbedRequest", one.bytes)
    )
    answer = await rig.bulk(message)
    assert json.loads(answer)["data"] == [{"index": 0, "embedding": [0.5]}]
    sent = canonical.loads(one.bytes) | {"model": UPSTREAM_NAME}
    received = canonical.loads(rig.received().body)
    if "encoding_format" not in sent and received.get("encoding_format") == "base64":
        del received["encoding_format"]  # the gateway's own: callers get numbers whatever comes
    assert differences(sent, received, one.compare, "EmbedRequest") == []
