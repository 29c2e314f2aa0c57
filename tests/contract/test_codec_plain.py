"""Wire is read in two ways, plain wire by compiled code and all other by protobuf: both agree.

Whatever bytes come, `decode` gives what protobuf's parser and `to_json` give, value or fault.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services import codec
from services.codec import compiled, leaves, plain_leaves
from tests.lib import recordings

CHOICE = {"index": 0, "delta": {"role": "assistant", "content": "é" * 200}, "finish_reason": "stop"}
CHUNK = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 1795000000,
    "model": "m",
    "choices": [CHOICE, {"index": 1, "delta": {}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 300, "total_tokens": 305},
    "odd": [1, {"x": None}],
}
REQUEST = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "odd", "odd": 1}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "type": "function"}]},
        {"role": "tool", "tool_call_id": "t", "content": {"neither": "text nor parts"}},
    ],
    "temperature": 0.25,
    "stream": False,
    "seed": 2**62,
    "stop": ["a", "b"],
    "stop_token_ids": [1, 300, 70000],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "chat_template_kwargs": {"enable_thinking": False},
}
VECTORS = {
    "data": [
        {"index": 0, "embedding": [0.5] * 100},
        {"index": 1, "embedding": "AACAPw=="},
        {"index": 2, "embedding": [[1.0]]},
    ]
}

SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=4) | st.just("x" * 130),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=4) | st.just(b"\xff" * 130),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 300),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 20000),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 4),
}
TEXTS = st.sampled_from(
    ["{}", '{"a":[1,{"b":null}]}', "[1]", "7", '"\\ud800"', "[1", "", "null", '{"model":5,"n":1}']
)


@st.composite
def filled(draw: st.DrawFn, kind: Any, depth: int = 4) -> Message:
    """A message with some of its fields set, to anything that their types allow."""
    message = codec.message_class(kind.full_name)()
    if kind.name == "JsonText":
        message.json = draw(TEXTS)  # type: ignore[attr-defined]
        return message
    fields = list(kind.fields)
    for one in draw(st.lists(st.sampled_from(fields), max_size=5)) if fields else ():
        _fill(draw, message, one, depth)
    return message


def _fill(draw: st.DrawFn, message: Any, one: FieldDescriptor, depth: int) -> None:
    inner = one.message_type
    if inner is not None and inner.GetOptions().map_entry:
        key = draw(SCALARS[inner.fields_by_name["key"].type])
        value = inner.fields_by_name["value"]
        if value.message_type is None:
            getattr(message, one.name)[key] = draw(SCALARS[value.type])
        return
    if inner is not None and depth == 0:
        return
    made = draw(filled(inner, depth - 1)) if inner is not None else draw(SCALARS[one.type])
    if one.is_repeated:
        getattr(message, one.name).append(made)
    elif inner is not None:
        getattr(message, one.name).CopyFrom(made)
    else:
        setattr(message, one.name, made)


@st.composite
def changed(draw: st.DrawFn, wire: bytes) -> bytes:
    """The wire as it is, or cut, with another byte in it, or with a part of it twice."""
    what = draw(st.integers(0, 4))
    at = draw(st.integers(0, max(len(wire) - 1, 0)))
    if what == 0:
        return wire[:at]
    if what == 1:
        return wire[:at] + draw(st.binary(min_size=1, max_size=2)) + wire[at + 1 :]
    if what == 2:
        return wire[:at] + draw(st.sampled_from([b"\x80", b"\xff" * 12])) + wire[at:]
    return wire + wire[at:] if what == 3 else wire


def through_protobuf(name: str, wire: bytes, *, asked: bool) -> Any:
    """What the slower way gives: the value's text with its members sorted, or what is wrong."""
    try:
        message = codec.message_class(name).FromString(wire)
        return ordered(codec.to_json(name, message, usage_asked=asked))
    except codec.DecodeError:
        return (codec.Violation("", f"the bytes are not a {name}"),)
    except codec.CodecError as error:
        return error.violations


def ordered(text: bytes) -> str:
    """A text in which 1, 1.0 and true differ, but no order of members does."""
    return json.dumps(json.loads(text), sort_keys=True)


def decoded(name: str, wire: bytes, *, asked: bool) -> Any:
    """What `decode` gives, in the same terms."""
    try:
        return ordered(codec.decode(name, wire, usage_asked=asked))
    except codec.CodecError as error:
        return error.violations


def field(number: int, value: bytes | int) -> bytes:
    """A field: bytes as wire type 2, a number as a varint."""
    if isinstance(value, int):
        return leaves.varint(number << 3) + leaves.varint(value)
    return leaves.length_delimited(leaves.varint(number << 3 | 2), value)


TEXT = field(1, b"hi")
MESSAGE = field(1, b"user") + field(2, TEXT)
ODD_WIRES = {
    "nothing": ("StreamChatResponse", b""),
    "nothing that is needed": ("ChatRequest", b""),
    "an unknown field": ("StreamChatResponse", field(1, b"c") + field(90, b"x")),
    "a field of another wire type": ("StreamChatResponse", field(1, 5)),
    "a group": ("StreamChatResponse", field(1, b"c") + b"\x0b\x0c"),
    "a tag spelled longer": ("StreamChatResponse", b"\x8a\x00\x01c"),
    "a size spelled longer": ("StreamChatResponse", b"\x0a\x81\x00c"),
    "a number spelled longer": ("StreamChatResponse", b"\x18\x85\x80\x00"),
    "a number of ten bytes": ("StreamChatResponse", field(3, -5)),
    "a number of eleven bytes": ("StreamChatResponse", b"\x18" + b"\xff" * 10 + b"\x01"),
    "an int32 past its range": ("Usage", field(1, 2**31)),
    "an int32 past 32 bits": ("Usage", field(1, 2**35 + 7)),
    "a negative int32": ("Usage", field(1, -1)),
    "a bool that is 2": ("ChatRequest", field(1, MESSAGE) + field(11, 2)),
    "a bool of two bytes": ("ChatRequest", field(1, MESSAGE) + field(11, 300)),
    "a string twice": ("StreamChatResponse", field(1, b"one") + field(1, b"two")),
    "a message twice": ("StreamChatResponse", field(6, field(1, 5)) + field(6, field(2, 6))),
    "content twice": ("ChatMessage", field(2, TEXT) + field(2, field(1, b"ho"))),
    "content of two kinds": ("ChatMessage", field(2, TEXT + field(2, b""))),
    "content of no kind": ("ChatMessage", field(2, b"")),
    "content cut at a byte that looks like a size": ("ChatMessage", field(2, b"\x0a\x03hi")),
    "content that ends past its end": ("ChatMessage", field(2, b"\x0a\xc6\x01" + b"x" * 197)),
    "a text with an unknown field": ("FunctionDefinition", field(3, field(2, b"{}"))),
    "a text twice": ("FunctionDefinition", field(3, field(1, b"{}")) + field(3, field(1, b"[]"))),
    "a text that is not JSON": ("FunctionDefinition", field(3, field(1, b"{"))),
    "a text with a lone surrogate": ("FunctionDefinition", field(3, field(1, b'"\\ud800"'))),
    "a text that is empty": ("FunctionDefinition", field(3, field(1, b""))),
    "no text at all": ("FunctionDefinition", field(3, b"")),
    "a text that nests too deeply": ("Tool", field(3, field(1, b"[" * 513 + b"]" * 513))),
    "a text that nests too deeply where it stands": (
        "ChatRequest",
        field(1, MESSAGE) + field(7, field(3, field(1, b"[" * 512 + b"]" * 512))),
    ),
    "not UTF-8": ("StreamChatResponse", field(1, b"\xff")),
    "a surrogate in UTF-8": ("StreamChatResponse", field(1, b"\xed\xa0\x80")),
    "text that is not UTF-8": ("FunctionDefinition", field(3, field(1, b'"\xff"'))),
    "a remainder": ("Usage", field(1, 5) + field(100, field(1, b' { "a" : 1 } '))),
    "a remainder twice": ("Usage", field(100, field(1, b'{"a":1}')) * 2),
    "a remainder with a member that is set": (
        "Usage",
        field(1, 5) + field(100, field(1, b'{"prompt_tokens":6}')),
    ),
    "a remainder with a member that would fit": (
        "Usage",
        field(100, field(1, b'{"prompt_tokens":6}')),
    ),
    "a remainder with a member of another type": (
        "Usage",
        field(100, field(1, b'{"prompt_tokens":"6"}')),
    ),
    "a remainder with a null member": (
        "ChunkChoice",
        field(100, field(1, b'{"finish_reason":7,"logprobs":null}')),
    ),
    "two arms of a union": ("Tool", field(1, field(1, b"f")) + field(2, field(1, b"c"))),
    "an arm of a union twice": ("Tool", field(1, field(1, b"f")) * 2),
    "other beside an arm": ("Tool", field(1, field(1, b"f")) + field(3, field(1, b"1"))),
    "other beside a remainder": (
        "Tool",
        field(100, field(1, b'{"a":1}')) + field(3, field(1, b"1")),
    ),
    "other before a remainder": (
        "Tool",
        field(3, field(1, b"1")) + field(100, field(1, b'{"a":1}')),
    ),
    "two arms of a oneof": ("LiveTranscribeRequest", field(1, b"") + field(2, b"sound")),
    "one arm of a oneof": ("BulkEmbedResponse", field(1, b"i") + field(3, field(2, b"no"))),
    "zero without presence": ("Model", field(1, b"") + field(2, b"")),
    "an empty id": ("BulkEmbedResponse", field(1, b"")),
    "packed numbers": ("ChatRequest", field(1, MESSAGE) + field(57, b"\x05\xac\x02")),
    "packed numbers twice": ("ChatRequest", field(1, MESSAGE) + field(57, b"\x05") * 2),
    "packed numbers, none": ("ChatRequest", field(1, MESSAGE) + field(57, b"")),
    "packed numbers, cut": ("ChatRequest", field(1, MESSAGE) + field(57, b"\x05\xac")),
    "packed numbers, cut before others": (
        "ChatRequest",
        field(1, MESSAGE) + field(57, b"\x05\xac") + field(60, b"x"),
    ),
    "numbers that are not packed": ("ChatRequest", field(1, MESSAGE) + field(57, 5)),
    "numbers of both forms": ("ChatRequest", field(1, MESSAGE) + field(57, b"\x05") + field(57, 5)),
    "a double that is no number": ("ChatRequest", field(1, MESSAGE) + b"\x19" + b"\xff" * 8),
    "a double that is cut": ("ChatRequest", field(1, MESSAGE) + b"\x19\x00\x00"),
    "a vector": ("Vector", field(1, field(1, b"\0\0\x80?"))),
    "a vector with no number": ("Vector", field(1, b"")),
    "a vector with half a number": ("Vector", field(1, field(1, b"\0\0"))),
    "a vector past its end": ("Vector", b"\x0a\x02" + field(1, b"\0\0\x80?")),
    "a vector in two pieces": ("Vector", field(1, field(1, b"\0\0\x80?") * 2)),
    "a vector of two kinds": ("Vector", field(1, field(1, b"\0\0\x80?")) + field(2, b"")),
    "a vector with its type": ("Vector", field(2, field(1, b"\0\0") + field(2, 2))),
    "no vector": ("Vector", b""),
    "a message past the end of the one around it": (
        "StreamChatResponse",
        b"\x2a\x02\x12\x04" + field(1, b"x") + field(9, b"y"),
    ),
    "a string past the end": ("StreamChatResponse", b"\x0a\x05ab"),
    "a tag at the end": ("StreamChatResponse", field(1, b"c") + b"\x12"),
}


@pytest.mark.parametrize(("name", "wire"), ODD_WIRES.values(), ids=ODD_WIRES)
def test_odd_wire_reads_as_protobuf_reads_it(name: str, wire: bytes) -> None:
    for asked in (True, False):
        assert decoded(name, wire, asked=asked) == through_protobuf(name, wire, asked=asked)


@pytest.mark.parametrize("slice_of_names", range(8))
@given(data=st.data())
@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_wire_reads_as_protobuf_reads_it(slice_of_names: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(codec.message_names()[slice_of_names::8]))
    kind = codec.message_class(name).DESCRIPTOR
    wire = data.draw(filled(kind)).SerializeToString()
    if data.draw(st.integers(0, 3)) == 0:
        wire += data.draw(filled(kind)).SerializeToString()
    wire = data.draw(changed(wire))
    asked = data.draw(st.booleans())
    assert decoded(name, wire, asked=asked) == through_protobuf(name, wire, asked=asked)


@pytest.mark.parametrize("direction", ["request", "response", "stream"])
def test_a_recorded_conversation_reads_as_protobuf_reads_it_wherever_it_is_cut(
    direction: str,
) -> None:
    name = {"request": "ChatRequest", "response": "ChatResponse", "stream": "StreamChatResponse"}
    for recording in recordings.all("chat.completions", direction):
        body = recording.bytes
        if direction == "stream":
            body = json.dumps(recording.events()[0]).encode()
        wire = codec.encode(name[direction], body)
        for end in {len(wire), *range(0, len(wire), max(1, len(wire) // 40))}:
            found = decoded(name[direction], wire[:end], asked=True)
            assert found == through_protobuf(name[direction], wire[:end], asked=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("StreamChatResponse", CHUNK), ("ChatRequest", REQUEST), ("EmbedResponse", VECTORS)],
)
def test_what_calls_are_made_of_is_plain(name: str, value: Any) -> None:
    """Else the compiled reader would be there for nothing."""
    wire = codec.encode_value(name, value)
    found = compiled.READ[name](wire, 0, len(wire), False)
    printed = orjson.dumps(found, option=leaves.OPTIONS)
    assert printed == codec.decode(name, wire)
    assert ordered(printed) == through_protobuf(name, wire, asked=False)


def test_a_number_that_never_ends_is_given_up_at_once() -> None:
    wire = b"\x18" + b"\xff" * 1_000_000
    with pytest.raises(plain_leaves.UNREAD):
        compiled.READ["StreamChatResponse"](wire, 0, len(wire), False)
    with pytest.raises(codec.CodecError, match="the bytes are not a StreamChatResponse"):
        codec.decode("StreamChatResponse", wire)


@pytest.mark.parametrize("depth", [1, 40, 60, 95, 120, 5000])
def test_a_message_in_itself_may_nest_as_deep_as_protobuf_allows(depth: int) -> None:
    wire = b""
    for _ in range(depth):
        wire = field(4, wire)
    assert decoded("TokenLogprob", wire, asked=False) == through_protobuf(
        "TokenLogprob", wire, asked=False
    )
