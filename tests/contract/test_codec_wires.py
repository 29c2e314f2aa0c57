"""Any wire that there is decodes to what protobuf's own parser reads in it, or is refused alike."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tetrad.v1 import chat_pb2, chat_service_pb2, embed_service_pb2, transcribe_service_pb2

from services import codec
from services.codec import CodecError
from tests.lib import oracle
from tests.lib.made_bodies import TOP, bodies

REFUSED = "refused"


def said(text: bytes) -> Any:
    """What a JSON text says, with the text of its numbers; member order left out."""

    def members(pairs: list[tuple[str, Any]]) -> Any:
        return "object", sorted(pairs, key=lambda pair: pair[0])

    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=members)


def expected(name: str, wire: bytes, asked: bool) -> Any:
    """By protobuf's parser and the way over messages."""
    try:
        parsed = codec.message_class(name).FromString(wire)
        return said(codec.to_json(name, parsed, usage_asked=asked))
    except (DecodeError, CodecError):
        return REFUSED


def decoded(name: str, wire: bytes, asked: bool) -> Any:
    try:
        return said(codec.decode(name, wire, usage_asked=asked))
    except CodecError:
        return REFUSED


# --- wires that are changed ----------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(wire: bytes) -> list[bytes]:
    """The top-level fields of a wire that protobuf wrote."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = wire[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(wire):
        begin = at
        kind = varint() & 7
        if kind == 0:
            varint()
        elif kind == 2:
            size = varint()
            at += size
        else:
            at += 8 if kind == 1 else 4
        found.append(wire[begin:at])
    return found


Change = Callable[[bytes, bytes, random.Random], bytes]


def same(wire: bytes, other: bytes, dice: random.Random) -> bytes:
    return wire


def joined(wire: bytes, other: bytes, dice: random.Random) -> bytes:
    """Two messages one after the other are merged."""
    return wire + other


def shuffled(wire: bytes, other: bytes, dice: random.Random) -> bytes:
    """Fields may come in any order."""
    fields = _fields(wire) + _fields(other)[:2]
    dice.shuffle(fields)
    return b"".join(fields)


def padded(wire: bytes, other: bytes, dice: random.Random) -> bytes:
    """An unknown field among the others."""
    fields = _fields(wire)
    number = dice.choice([90, 99, 150, 5000, 2**29 - 1])
    unknown = dice.choice(
        [
            _varint(number << 3) + b"\x05",
            _varint(number << 3 | 2) + b"\x03abc",
            _varint(number << 3 | 1) + bytes(8),
            _varint(number << 3 | 5) + bytes(4),
            _varint(number << 3 | 3) + _varint(number << 3 | 4),
        ]
    )
    fields.insert(dice.randrange(len(fields) + 1), unknown)
    return b"".join(fields)


def cut(wire: bytes, other: bytes, dice: random.Random) -> bytes:
    return wire[: dice.randrange(len(wire) + 1)]


def flipped(wire: bytes, other: bytes, dice: random.Random) -> bytes:
    """One byte is another."""
    if not wire:
        return wire
    at = dice.randrange(len(wire))
    return wire[:at] + bytes([dice.randrange(256)]) + wire[at + 1 :]


def lengthened(wire: bytes, other: bytes, dice: random.Random) -> bytes:
    """A byte more somewhere."""
    at = dice.randrange(len(wire) + 1)
    return wire[:at] + bytes([dice.randrange(256)]) + wire[at:]


CHANGES: list[Change] = [same, joined, shuffled, padded, cut, flipped, lengthened]


@pytest.mark.parametrize("name", TOP)
@given(data=st.data())
@settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_wire_is_read_as_protobuf_reads_it(name: str, data: st.DataObject) -> None:
    texts = [json.dumps(data.draw(bodies(name))) for _ in range(2)]
    one, two = (oracle.build(name, text).message.SerializeToString() for text in texts)
    dice = random.Random(data.draw(st.integers(0, 2**32)))  # noqa: S311
    for change in CHANGES:
        for _ in range(1 if change in (same, joined) else 6):
            wire = change(one, two, dice)
            for asked in (False, True):
                assert decoded(name, wire, asked) == expected(name, wire, asked), (
                    change.__name__,
                    wire,
                )


# --- forms of the wire that our own encoder does not write ---------------------------------------

USER = chat_service_pb2.ChatRequest(messages=[{"role": "user"}]).SerializeToString()


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        # A field of one arm clears that of the other; a message in an arm is merged.
        ("Content", b"\x0a\x01a\x12\x00"),
        ("Content", b"\x12\x00\x0a\x01a"),
        ("ContentPart", b"\x0a\x01a\x12\x03\x0a\x01u"),
        ("ContentPart", b"\x12\x03\x0a\x01u\x12\x03\x12\x01d"),
        ("EmbedInput", b"\x0a\x01a\x0a\x01b"),
        ("StreamTranscribeResponse", b"\x0a\x03\x0a\x01a\x1a\x03\x0a\x01b"),
        # Numbers: longer spellings, negative ones, beyond 32 bits, not packed.
        ("ChatRequest", USER + b"\x68\x81\x00"),
        ("ChatRequest", USER + b"\x68" + b"\xff" * 9 + b"\x01"),
        ("ChatRequest", USER + b"\x68\xff\xff\xff\xff\xff\xff\x01"),
        ("ChatRequest", USER + b"\x70" + b"\xff" * 9 + b"\x01"),
        ("ChatRequest", USER + b"\x70" + b"\xff" * 10 + b"\x01"),
        ("ChatRequest", USER + b"\x58\x02"),
        ("ChatRequest", USER + b"\x58\x80\x80\x01"),
        ("TokenIds", b"\x08\x01\x08\x02"),
        ("TokenIds", b"\x0a\x02\x01\x02\x0a\x01\x03"),
        ("TokenIds", b"\x0a\x00"),
        ("TokenIds", b"\x0a\x0a" + b"\xff" * 9 + b"\x01"),
        # Wire types that do not belong to their fields are unknown fields.
        ("ChatRequest", USER + b"\x12\x01\x0a"),
        ("ChatRequest", USER + b"\x10\x05"),
        ("ChatRequest", USER + b"\x1d\x00\x00\x00\x00"),
        ("ChatRequest", USER + b"\x0b\x0c"),
        ("ChatRequest", USER + b"\x0b"),
        ("ChatRequest", USER + b"\x00\x00"),
        ("ChatRequest", USER + b"\x06"),
        # Strings that are not UTF-8, empty ones, and a text that is there without its string.
        ("ChatRequest", USER + b"\x12\x01\xff"),
        ("ChatRequest", USER + b"\x12\x00"),
        ("ChatRequest", USER + b"\xa2\x06\x00"),
        ("ChatRequest", USER + b"\xa2\x06\x04\x0a\x02{}"),
        ("ChatRequest", USER + b"\xa2\x06\x04\x0a\x02{}\xa2\x06\x04\x0a\x02[]"),
        ("ChatRequest", USER + b"\xa2\x06\x08\x0a\x02[]\x0a\x02{}"),
        ("ChatRequest", USER + b"\xa2\x06\x06\x0a\x02{}\x10\x00"),
        # Maps: entries without key or value, and a key twice.
        ("ChatRequest", USER + b"\x9a\x01\x00"),
        ("ChatRequest", USER + b"\xb2\x01\x03\x0a\x01a"),
        ("ChatRequest", USER + b"\xb2\x01\x06\x0a\x01a\x12\x01b\xb2\x01\x06\x0a\x01a\x12\x01c"),
        # Vectors: in pieces, not packed, cut in a number.
        ("Vector", b"\x0a\x06\x0a\x04\x00\x00\x80\x3f"),
        ("Vector", b"\x0a\x06\x0a\x04\x00\x00\x80\x3f\x0a\x06\x0a\x04\x00\x00\x80\x3f"),
        ("Vector", b"\x0a\x05\x0d\x00\x00\x80\x3f"),
        ("Vector", b"\x0a\x05\x0a\x03\x00\x00\x80"),
        ("Vector", b"\x0a\x00"),
        ("Vector", b"\x12\x00"),
        ("Vector", b"\x12\x04\x10\x01\x0a\x00"),
        ("Vector", b"\x12\x05\x0a\x01a\x10\x02"),
        ("Vector", b"\x1a\x00"),
        ("Vector", b"\x22\x00"),
        ("Vector", b"\x0a\x06\x0a\x04\x00\x00\xc0\x7f"),
        ("Embedding", b""),
        ("Embedding", b"\x1a\x00"),
    ],
)
def test_an_odd_wire_is_read_as_protobuf_reads_it(name: str, wire: bytes) -> None:
    for asked in (False, True):
        assert decoded(name, wire, asked) == expected(name, wire, asked)


@pytest.mark.parametrize("levels", [1, 20, 49, 50, 51, 60, 90, 95, 96, 97, 98, 99, 100, 120, 400])
def test_messages_that_hold_themselves_are_read_as_deep_as_protobuf_does(levels: int) -> None:
    wire = b""
    for _ in range(levels):
        wire = b"\x22" + _varint(len(wire)) + wire
    assert decoded("TokenLogprob", wire, False) == expected("TokenLogprob", wire, False)


def test_every_prefix_of_an_answer_is_read_as_protobuf_reads_it() -> None:
    answer = chat_service_pb2.StreamChatResponse(
        id="c1",
        created=1764000000,
        choices=[
            {
                "index": 0,
                "delta": {"content": {"text": "é" * 100}, "tool_calls": [{"index": 1}]},
                "logprobs": {"content": [{"token": "a", "logprob": -0.5, "bytes": b"a"}]},
                "extra": {"json": '{"x":[1]}'},
            }
        ],
        usage={"prompt_tokens": 300},
        extra={"json": '{"y":{}}'},
    ).SerializeToString()
    for end in range(len(answer) + 1):
        wire = answer[:end]
        assert decoded("StreamChatResponse", wire, False) == expected(
            "StreamChatResponse", wire, False
        )


def test_vectors_of_any_size_are_read_bit_for_bit() -> None:
    for size in (1, 31, 32, 33, 4095, 4096, 40_000):
        numbers = [index / 7 for index in range(size)]
        vector = embed_service_pb2.Vector(floats={"values": numbers})
        wire = vector.SerializeToString()
        assert decoded("Vector", wire, False) == expected("Vector", wire, False)


@pytest.mark.parametrize(
    "message",
    [
        chat_pb2.ImageUrl(data=b"a", media_type="image/png"),
        chat_pb2.ImageUrl(media_type="image/png", url="u"),
        chat_pb2.ImageUrl(data=b"a", url="u"),
        chat_pb2.InputAudio(raw=b"\x00" * 200),
        chat_pb2.FilePart(data=b"", filename="f"),
        chat_pb2.ModerationResult(categories={"a": True}, category_scores={"b": 0.5}),
        chat_pb2.ContentPart(other={"json": "{}"}),
        chat_pb2.ContentPart(text="a", extra={"json": '{"text":1}'}),
        chat_pb2.TokenLogprob(logprob=float("nan")),
        chat_pb2.TokenLogprob(logprob=-0.0),
        transcribe_service_pb2.TranscribeRequest(file={"data": b"a"}, language="fr"),
        transcribe_service_pb2.TranscribeResponse(document={"text": "a"}, text="b"),
        transcribe_service_pb2.TranscriptSegment(id={"number": -1}, start=0.0),
        transcribe_service_pb2.TranscriptSegment(id={"number": 0}),
    ],
)
def test_a_message_is_read_from_its_wire_as_from_itself(message: Any) -> None:
    name = message.DESCRIPTOR.name
    wire = message.SerializeToString()
    assert decoded(name, wire, False) == expected(name, wire, False)
