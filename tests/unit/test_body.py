"""services/body.py: one value in two encodings, each made only when asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tetrad.v1 import chat_service_pb2, transcribe_service_pb2

from services import codec, errors
from services.body import Body, Document
from services.upload import CHUNK, Upload

USER = [{"role": "user", "content": "hi"}]
TEXT = b'{ "messages":[{"role":"user","content":"hi"}],\n "x":1e400, "model":"m" }'


async def content(upload: Upload | None) -> bytes:
    assert upload is not None
    return b"".join([piece async for piece in upload.chunks()])


def test_json_stays_the_text_that_it_was() -> None:
    body = Body.from_json("ChatRequest", TEXT)
    assert body.json() is TEXT
    assert body.value()["x"] == float("inf")
    assert body.value() is body.value()
    assert body.json() is TEXT


def test_wire_stays_the_bytes_that_it_was() -> None:
    wire = chat_service_pb2.ChatRequest(messages=[{"role": "user"}]).SerializeToString()
    body = Body.from_wire("ChatRequest", wire)
    assert body.wire() is wire
    assert body.json() == b'{"messages":[{"role":"user"}]}'
    assert body.wire() is wire


def test_each_encoding_is_made_from_the_other() -> None:
    wire = Body.from_json("ChatRequest", TEXT).wire()
    again = Body.from_wire("ChatRequest", wire)
    assert json.loads(again.json()) == json.loads(TEXT)
    value = {"messages": USER, "seed": 2**70}
    body = Body.from_value("ChatRequest", value)
    assert json.loads(body.json()) == value
    assert Body.from_value("ChatRequest", value).wire() == body.wire()
    assert body.value() is value


def test_a_parsed_value_that_is_known_is_not_parsed_again() -> None:
    value = {"messages": USER}
    assert Body.from_json("ChatRequest", TEXT, value).value() is value


def test_members_are_read_from_the_top() -> None:
    body = Body.from_json("ChatRequest", TEXT)
    assert body.get("model") == "m"
    assert body.get("nothing") is None


# --- changed members -----------------------------------------------------------------------------


def test_a_changed_member_leaves_every_other_byte() -> None:
    body = Body.from_json("ChatRequest", TEXT).with_members(model="n")
    assert body.json() == TEXT.replace(b'"m"', b'"n"')
    assert body.value()["model"] == "n"
    assert body.message == "ChatRequest"


def test_several_members_are_set_and_removed() -> None:
    body = Body.from_json("ChatRequest", TEXT)
    changed = body.with_members(model=None, stream=True, stream_options={"include_usage": True})
    expected = {
        "messages": USER,
        "x": float("inf"),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert json.loads(changed.json()) == changed.value() == expected
    assert b"1e400" in changed.json()
    assert body.json() is TEXT  # the first is as it was
    assert body.value()["model"] == "m"


def test_a_member_that_is_so_already_changes_nothing() -> None:
    body = Body.from_json("ChatRequest", TEXT)
    assert body.with_members(model="m", stream=None).json() == TEXT
    one = Body.from_json("ChatRequest", b'{"messages":[{}],"n":1}')
    assert one.with_members(n=True).json() == b'{"messages":[{}],"n":true}'  # 1 is not true


def test_a_changed_body_keeps_its_upload() -> None:
    upload = Upload.of(b"abc")
    body = Body.from_value("TranscribeRequest", {"model": "w"}, upload)
    assert body.with_members(model="x").upload is upload


def test_a_grpc_body_can_be_changed_too() -> None:
    wire = chat_service_pb2.ChatRequest(messages=[{"role": "user"}], model="m").SerializeToString()
    changed = Body.from_wire("ChatRequest", wire).with_members(model="n")
    assert json.loads(changed.json()) == {"messages": [{"role": "user"}], "model": "n"}
    assert chat_service_pb2.ChatRequest.FromString(changed.wire()).model == "n"


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "param"),
    [
        (b"{}", "messages"),
        (b'{"messages":"hi"}', "messages"),
        (b"[]", None),
        (b"null", None),
        (b"5", None),
    ],
)
def test_a_check_names_what_is_missing(text: bytes, param: str | None) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        Body.from_json("ChatRequest", text).check()
    assert caught.value.param == param
    assert caught.value.violations


def test_a_check_is_content_with_what_is_there() -> None:
    Body.from_json("ChatRequest", TEXT).check()
    Body.from_value("EmbedRequest", {}).check()


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":"\\ud800"}', b"[" * 600, b"\xff"])
def test_a_request_that_is_no_json_is_the_caller_s_fault(text: bytes) -> None:
    body = Body.from_json("ChatRequest", text)
    for use in (body.value, body.wire, body.check):
        with pytest.raises(errors.InvalidRequest, match="the body is not JSON"):
            use()


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 600, b"\xff"])
def test_an_answer_that_is_no_json_is_the_upstream_s_fault(text: bytes) -> None:
    """G2."""
    body = Body.from_json("ChatResponse", text)
    for use in (body.value, body.wire):
        with pytest.raises(errors.UpstreamProtocol, match="the upstream's answer cannot be read"):
            use()


def test_an_answer_that_is_no_such_message_is_the_upstream_s_fault() -> None:
    with pytest.raises(errors.UpstreamProtocol):
        Body.from_json("ChatResponse", b"[]").wire()
    with pytest.raises(errors.UpstreamProtocol):
        Body.from_wire("ChatResponse", b"\xff\xff").json()


def test_lone_surrogates_of_an_answer_are_replaced() -> None:
    body = Body.from_json("ChatResponse", b'{"id":"a\\ud800"}')
    assert body.value() == {"id": "a\ufffd"}
    assert chat_service_pb2.ChatResponse.FromString(body.wire()).id == "a\ufffd"
    assert body.json() == b'{"id":"a\\ud800"}'  # a relay passes it on as it came


def test_wire_that_is_no_message_is_refused() -> None:
    body = Body.from_wire("ChatRequest", b"\xff\xff")
    for use in (body.json, body.value, body.parsed):
        with pytest.raises(errors.InvalidRequest, match="the bytes are not a ChatRequest"):
            use()


def test_wire_with_faults_is_refused_by_its_fields() -> None:
    wire = chat_service_pb2.ChatRequest(temperature=float("nan")).SerializeToString()
    with pytest.raises(errors.InvalidRequest) as caught:
        Body.from_wire("ChatRequest", wire).json()
    assert caught.value.param == "messages"
    assert [each.field for each in caught.value.violations] == ["messages", "temperature"]


# --- files and documents -------------------------------------------------------------------------


async def test_a_file_in_the_wire_becomes_the_upload() -> None:
    request = transcribe_service_pb2.TranscribeRequest(
        file={"data": b"\x00" * 600_000, "filename": "a.wav", "media_type": "audio/wav"},
        language="fr",
    )
    body = Body.from_wire("TranscribeRequest", request.SerializeToString())
    upload = body.upload
    assert upload is not None
    assert (upload.filename, upload.media_type, upload.size) == ("a.wav", "audio/wav", 600_000)
    assert upload.again
    pieces = [piece async for piece in upload.chunks()]
    assert [len(piece) for piece in pieces] == [CHUNK, CHUNK, 600_000 - 2 * CHUNK]
    assert await content(upload) == request.file.data
    assert body.json() == b'{"language":"fr"}'
    assert not transcribe_service_pb2.TranscribeRequest.FromString(body.wire()).HasField("file")


def test_without_a_file_there_is_no_upload() -> None:
    wire = transcribe_service_pb2.TranscribeRequest(language="fr").SerializeToString()
    body = Body.from_wire("TranscribeRequest", wire)
    assert body.upload is None
    assert body.wire() is wire


def test_wire_with_a_broken_file_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest):
        Body.from_wire("TranscribeRequest", b"\xff\xff")


async def test_a_stream_of_audio_can_be_read_once() -> None:
    async def pieces() -> Any:
        yield b"a"
        yield b"b"

    upload = Upload.stream(pieces(), "a.wav")
    assert not upload.again
    assert await content(upload) == b"ab"
    assert await content(upload) == b""


async def test_a_spooled_file_can_be_read_again() -> None:
    async def opened() -> Any:
        yield b"ab"

    upload = Upload.spooled(opened, "a.wav", "audio/wav", 2)
    assert upload.again
    assert [await content(upload) for _ in range(2)] == [b"ab", b"ab"]


def test_a_document_stands_in_no_json() -> None:
    document = Document("application/x-subrip", "1\n00:00:00,000 --> 00:00:01,000\nhé\n")
    body = Body.from_document("TranscribeResponse", document)
    again = Body.from_wire("TranscribeResponse", body.wire())
    assert again.document == document
    assert body.json() == again.json() == b""
    assert body.recoded() is body


def test_the_way_over_protobuf_gives_an_equal_body() -> None:
    upload = Upload.of(b"abc")
    body = Body.from_json("TranscribeRequest", b'{"task":"translate","x":[]}', upload=upload)
    again = body.recoded()
    assert json.loads(again.json()) == {"task": "translate", "x": []}
    assert again.upload is upload
    chunk = Body.from_json("StreamChatResponse", b'{"id":"1"}')
    assert chunk.recoded().json() == b'{"id":"1"}'
    assert chunk.recoded(usage_asked=True).json() == b'{"id":"1","usage":null}'


def test_parsing_gives_a_message_of_one_s_own() -> None:
    body = Body.from_json("ChatRequest", TEXT)
    first = body.parsed()
    first.model = "changed"
    assert body.parsed().model == "m"
    assert isinstance(first, codec.message_class("ChatRequest"))
