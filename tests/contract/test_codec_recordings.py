"""Every recorded body through the codec: equal when it comes back, and equal to the oracle's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from gateway_http.kinds import kinds_of
from services import codec
from services.body import Body, Document
from services.form import fields_to_json
from tests.lib import oracle, recordings
from tests.lib.canonical import assert_same
from tests.lib.recordings import Recording

# (operation, direction) -> message. A list of bodies, as TEI answers, goes item by item.
MESSAGES = {
    ("chat.completions", "request"): "ChatRequest",
    ("chat.completions", "response"): "ChatResponse",
    ("chat.completions", "stream"): "StreamChatResponse",
    ("embeddings", "request"): "EmbedRequest",
    ("embeddings", "response"): "EmbedResponse",
    ("embed.native", "request"): "EmbedRequest",
    ("embed.native", "response"): "Vector",
    ("embed.sparse", "response"): "Vector",
    ("embed.all", "response"): "Vector",
    ("rerank", "request"): "RerankRequest",
    ("rerank", "response"): "RerankResponse",
    ("rerank.tei", "request"): "RerankRequest",
    ("rerank.tei", "response"): "RerankResult",
    ("audio.transcriptions", "request"): "TranscribeRequest",
    ("audio.transcriptions", "response"): "TranscribeResponse",
    ("audio.transcriptions", "stream"): "StreamTranscribeResponse",
    ("audio.translations", "request"): "TranscribeRequest",
    ("audio.translations", "response"): "TranscribeResponse",
    ("models.list", "response"): "ListModelsResponse",
    ("models.get", "response"): "Model",
}
# Operations that the contract does not have.
FOREIGN = {"error": 15, "info": 2, "score": 2}


class Case(NamedTuple):
    name: str
    message: str
    text: bytes
    compare: dict[str, Any]


def texts(recording: Recording) -> Iterator[bytes]:
    """The JSON texts of a recording."""
    if recording.mode == "sse":
        yield from (line.encode() for line in recording.data() if line != "[DONE]")
    elif recording.mode == "multipart":
        fields = [(part.name, part.text) for part in recording.parts() if part.filename is None]
        yield codec.dumps(fields_to_json(fields, kinds_of("TranscribeRequest")))
    else:
        value = json.loads(recording.bytes)
        if recording.operation == "embed.all":
            value = [vector for tokens in value for vector in tokens]
        if isinstance(value, list):
            yield from (json.dumps(item).encode() for item in value)
        else:
            yield recording.bytes


def cases() -> list[Case]:
    found = []
    for one in recordings.all():
        message = MESSAGES.get((one.operation, one.direction))
        if message is None or one.mode == "text":
            continue
        compare = {
            rule: pointers
            for rule, pointers in one.compare.items()
            if rule in ("opaque", "ordered", "null_values", "lexical", "nulls_required")
        }
        if message == "Vector":
            compare = {"vectors": [""]}
        if one.mode == "sse":
            compare.pop("nulls_required", None)  # of some events only: see test_codec_nulls
        for index, text in enumerate(texts(one)):
            found.append(Case(f"{one.file}-{index}", message, text, compare))
    return found


CASES = cases()


def test_every_recorded_body_is_run_or_known_to_be_foreign() -> None:
    bodies = recordings.all()
    foreign = [one for one in bodies if (one.operation, one.direction) not in MESSAGES]
    counts = {name: sum(one.operation == name for one in foreign) for name in FOREIGN}
    assert counts == FOREIGN
    assert len(foreign) == sum(FOREIGN.values())
    documents = [one for one in bodies if one.mode == "text"]
    run = {case.name.rsplit("-", 1)[0] for case in CASES}
    assert (len(bodies), len(run), len(documents), len(CASES)) == (128, 106, 3, 165)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recorded_body_comes_back_equal(case: Case) -> None:
    """G3, G23: values of open sets and unknown members survive."""
    wire = codec.encode(case.message, case.text, replace_surrogates=True)
    assert_same(case.text, codec.decode(case.message, wire), case.compare, case.message)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_compiled_wire_is_the_message_that_the_oracle_builds(case: Case) -> None:
    wire = codec.encode(case.message, case.text)
    parsed = codec.message_class(case.message).FromString(wire)
    assert oracle.same(parsed, oracle.build(case.message, case.text).message)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_compiled_wire_is_as_compact_as_protobuf_writes_it(case: Case) -> None:
    wire = codec.encode(case.message, case.text)
    parsed = codec.message_class(case.message).FromString(wire)
    assert len(parsed.SerializeToString()) == len(wire)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("read", [codec.loads, codec.loads_exact])
def test_a_parsed_body_gives_the_same_message_as_its_text(
    read: Callable[[bytes], Any], case: Case
) -> None:
    kind = codec.message_class(case.message)
    parsed = kind.FromString(codec.encode_value(case.message, read(case.text)))
    assert oracle.same(parsed, kind.FromString(codec.encode(case.message, case.text)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_second_round_changes_nothing_more(case: Case) -> None:
    once = codec.decode(case.message, codec.encode(case.message, case.text))
    twice = codec.decode(case.message, codec.encode(case.message, once))
    assert_same(once, twice, {"ordered": [""], "opaque": [""]}, case.message)


@pytest.mark.parametrize("one", recordings.all(mode="text"), ids=lambda one: one.file)
def test_a_document_comes_back_as_it_was(one: Recording) -> None:
    media_type, text = one.text_body()
    wire = Body.from_document("TranscribeResponse", Document(media_type, text)).wire()
    assert Body.from_wire("TranscribeResponse", wire).document == Document(media_type, text)
