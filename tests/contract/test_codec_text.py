"""Numbers, depth, surrogates, long strings, line ends: what survives, and what is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from google.protobuf.message import Message
from tetrad.v1 import chat_pb2, chat_service_pb2, embed_service_pb2, transcribe_service_pb2
from tetrad.v1.json_pb2 import JsonText

from services import codec, sse
from services.codec import CodecError, JsonError
from tests.lib.canonical import assert_same


def round_trip(name: str, text: bytes, **options: bool) -> bytes:
    return codec.decode(name, codec.encode(name, text, **options))


def refusal(message: Message) -> list[tuple[str, str]]:
    with pytest.raises(CodecError) as caught:
        codec.decode(message.DESCRIPTOR.name, message.SerializeToString())
    return [(each.field, each.description) for each in caught.value.violations]


@pytest.mark.parametrize(
    "number",
    [
        "9007199254740993",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "1" + "0" * 40,
        "123456789012345678901234567890",
        "1e400",
        "-1e400",
        "1E+400",
        "0.10000000000000000000000001",
        "3.141592653589793238462643383279",
        "0.1",
        "1.0",
        "-0.0",
        "0.000031",
    ],
)
def test_a_number_in_free_json_keeps_its_text(number: str) -> None:
    text = b'{"x":{"y":[' + number.encode() + b"]}}"
    printed = round_trip("ChatResponse", text)
    assert_same(text, printed, {"opaque": ["/x"]})
    if number != "0.10000000000000000000000001":  # the nearest double prints as 0.1
        assert_same(text, printed, {"opaque": ["/x"], "lexical": True})


@pytest.mark.parametrize("kind", ["int", "float"])
@pytest.mark.parametrize("number", ["1e5", "1E5", "1.5e-7", "100000000000000000000.0"])
def test_a_number_with_an_exponent_keeps_its_value(kind: str, number: str) -> None:
    text = b'{"id":5,"x":' + number.encode() + b"}"
    value = codec.loads(text) if kind == "int" else codec.loads_exact(text)
    printed = codec.decode("ChatResponse", codec.encode_value("ChatResponse", value))
    assert_same(text, printed, {"opaque": ["/x"]})


@pytest.mark.parametrize(
    ("member", "number"),
    [
        ("created", -1),
        ("created", -(2**63)),
        ("created", 2**63 - 1),
        ("created", 0),
    ],
)
def test_integers_of_64_bits_survive(member: str, number: int) -> None:
    message = chat_service_pb2.ChatResponse(created=number)
    text = json.dumps({member: number}, separators=(",", ":")).encode()
    assert codec.encode("ChatResponse", text) == message.SerializeToString()
    assert round_trip("ChatResponse", text) == text


@pytest.mark.parametrize("number", [-1, -(2**31), 2**31 - 1, 0, 127, 128, 16383, 16384])
def test_integers_of_32_bits_survive(number: int) -> None:
    text = b'{"index":%d}' % number
    assert codec.encode("ChatChoice", text) == chat_pb2.ChatChoice(index=number).SerializeToString()
    assert json.loads(round_trip("ChatChoice", text))["index"] == number


@pytest.mark.parametrize("number", [0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.7, 1e-7, 1e22])
def test_doubles_survive_bit_for_bit(number: float) -> None:
    text = json.dumps({"logprob": number}).encode()
    wire = codec.encode("TokenLogprob", text)
    parsed = chat_pb2.TokenLogprob.FromString(wire)
    assert struct.pack("<d", parsed.logprob) == struct.pack("<d", number)
    again = json.loads(codec.decode("TokenLogprob", wire))["logprob"]
    assert struct.pack("<d", again) == struct.pack("<d", number)


@pytest.mark.parametrize("number", [0, -1, 2**53, -(2**53)])
def test_an_integer_fits_a_double_that_holds_it_exactly(number: int) -> None:
    parsed = chat_pb2.TokenLogprob.FromString(
        codec.encode("TokenLogprob", b'{"logprob":%d}' % number)
    )
    assert parsed == chat_pb2.TokenLogprob(logprob=number)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**64, 2**70])
def test_an_integer_that_a_double_would_change_is_kept_as_text(number: int) -> None:
    parsed = chat_pb2.TokenLogprob.FromString(
        codec.encode("TokenLogprob", b'{"logprob":%d}' % number)
    )
    assert parsed == chat_pb2.TokenLogprob(extra=JsonText(json=f'{{"logprob":{number}}}'))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_lacks_is_refused_by_its_path(number: float) -> None:
    user = [{"role": "user"}]
    for message, path in [
        (chat_service_pb2.ChatRequest(messages=user, temperature=number), "temperature"),
        (chat_service_pb2.ChatRequest(messages=user, logit_bias={7: number}), "logit_bias[7]"),
        (chat_pb2.ModerationResult(category_scores={"a": number}), "category_scores['a']"),
    ]:
        ((where, description),) = refusal(message)
        assert where == path
        assert "has no JSON" in description


@pytest.mark.parametrize("number", [3, -1, 2**31 - 1])
def test_an_unknown_enum_number_is_refused(number: int) -> None:
    """Enums are open in proto3: any number parses."""
    message = transcribe_service_pb2.TranscribeRequest()
    message.task = number  # type: ignore[assignment]
    said = f"unknown value {number}; known are 1 (transcribe), 2 (translate)"
    assert refusal(message) == [("task", said)]


def test_an_enum_stands_in_json_by_its_name_without_the_prefix() -> None:
    message = transcribe_service_pb2.TranscribeRequest(
        task=transcribe_service_pb2.TRANSCRIBE_TASK_TRANSLATE
    )
    text = b'{"task":"translate"}'
    assert codec.decode("TranscribeRequest", message.SerializeToString()) == text
    assert codec.encode("TranscribeRequest", text) == message.SerializeToString()


@pytest.mark.parametrize("value", [b'"summarise"', b"2", b'"TRANSCRIBE_TASK_TRANSLATE"', b'""'])
def test_an_enum_s_unknown_name_is_kept_as_it_came(value: bytes) -> None:
    text = b'{"task":' + value + b"}"
    assert round_trip("TranscribeRequest", text) == text


def nested(depth: int, innermost: bytes = b"") -> bytes:
    """A ChatResponse of that many levels."""
    return b'{"x":' + b"[" * (depth - 1) + innermost + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize("depth", [2, 33, 253, 254, 255, 256, 511, 512])
@pytest.mark.parametrize("innermost", [b"", b"1e400", b'"\\ud83d\\ude00"', b'"[[[{{{"'])
def test_512_levels_survive(depth: int, innermost: bytes) -> None:
    """orjson writes no more than 254 levels, protobuf's own Struct 33."""
    text = nested(depth, innermost)
    assert_same(text, round_trip("ChatResponse", text), {"opaque": ["/x"]})
    assert codec.loads_exact(codec.dumps(codec.loads_exact(text))) == codec.loads_exact(text)


@pytest.mark.parametrize("depth", [513, 1024, 1025, 5000, 100_000])
@pytest.mark.parametrize("innermost", [b"", b"1e400", b'"]]]]"'])
def test_more_than_512_levels_are_refused(depth: int, innermost: bytes) -> None:
    text = nested(depth, innermost)
    for read in (codec.loads, codec.loads_exact, lambda text: codec.encode("ChatResponse", text)):
        with pytest.raises(JsonError, match="nested deeper than 512 levels"):
            read(text)


def test_brackets_in_strings_are_no_levels() -> None:
    text = json.dumps({"x": ["[" * 600, '\\"[' * 300, {"[[" * 300: "\\"}]}).encode()
    assert_same(text, round_trip("ChatResponse", text))


def test_many_values_beside_each_other_are_no_levels() -> None:
    text = json.dumps({"x": [[{}]] * 600}).encode()
    assert_same(text, round_trip("ChatResponse", text))


def test_depth_in_a_text_and_around_it_count_together() -> None:
    user = [{"role": "user"}]
    for depth, fits in [(508, True), (509, False)]:
        parameters = JsonText(json="[" * depth + "]" * depth)
        tool = chat_pb2.Tool(function={"name": "f", "parameters": parameters})
        message = chat_service_pb2.ChatRequest(messages=user, tools=[tool])
        wire = message.SerializeToString()
        if fits:
            assert b"[[[[" in codec.decode("ChatRequest", wire)
        else:
            with pytest.raises(CodecError, match="nested deeper"):
                codec.decode("ChatRequest", wire)


SURROGATES = [
    rb'{"x":"\ud800"}',
    rb'{"x":"\udc00\ud800"}',
    rb'{"\ud800":1}',
    rb'{"id":"\ud83d"}',
    rb'{"x":[{"y":"a\uDFFFb"}]}',
]


@pytest.mark.parametrize("text", SURROGATES)
def test_a_lone_surrogate_in_a_request_is_refused(text: bytes) -> None:
    with pytest.raises(JsonError, match="lone surrogate"):
        codec.encode("ChatResponse", text)
    with pytest.raises(JsonError, match="lone surrogate"):
        codec.loads(text)


@pytest.mark.parametrize("text", SURROGATES)
def test_a_lone_surrogate_in_an_answer_becomes_a_replacement_character(text: bytes) -> None:
    printed = codec.decode(
        "ChatResponse", codec.encode("ChatResponse", text, replace_surrogates=True)
    )
    assert "\ufffd" in printed.decode()
    assert json.loads(printed) == json.loads(
        codec.dumps(codec.loads_exact(text, replace_surrogates=True))
    )


def test_replacing_surrogates_changes_nothing_else() -> None:
    text = rb'{"x":["\ud800","\ud83d\ude00",1e400,18446744073709551616,"\u00e9\n"],"id":"a\udfff"}'
    value = codec.loads_exact(text, replace_surrogates=True)
    assert codec.dumps(value) == (
        '{"x":["\ufffd","\U0001f600",1e400,18446744073709551616,"é\\n"],"id":"a\ufffd"}'.encode()
    )
    assert codec.decode("ChatResponse", codec.encode("ChatResponse", text, replace_surrogates=True))


@pytest.mark.parametrize("depth", [2, 300, 512])
def test_surrogates_are_replaced_at_any_depth(depth: int) -> None:
    printed = round_trip("ChatResponse", nested(depth, rb'"\ud800"'), replace_surrogates=True)
    assert printed == nested(depth, '"\ufffd"'.encode())


LENGTHS = [(size, character) for size in (127, 128, 16383, 16384, 16385) for character in 'aé"']


@pytest.mark.parametrize(("size", "character"), [*LENGTHS, (2**21 - 1, "a"), (2**21, "a")])
def test_strings_of_any_length_survive(size: int, character: str) -> None:
    body = {"id": character * size, "x": character * size}
    text = json.dumps(body).encode()
    wire = codec.encode("ChatResponse", text)
    assert chat_service_pb2.ChatResponse.FromString(wire).id == body["id"]
    assert json.loads(codec.decode("ChatResponse", wire)) == body


@pytest.mark.parametrize(
    "text", ["\x00", "\x1f", "\u2028", "\x7f", "\\", '"', "</script>", "\ufeff"]
)
def test_any_character_survives(text: str) -> None:
    body = {"id": text, "x": text, text: 1}
    for escaped in (True, False):
        given = json.dumps(body, ensure_ascii=escaped).encode()
        assert json.loads(round_trip("ChatResponse", given)) == body


@pytest.mark.parametrize("blank", ["\n", "\r", "\r\n", "\n\n", "\n\r", " \n\t"])
def test_line_ends_in_a_text_do_not_break_an_event(blank: str) -> None:
    message = chat_service_pb2.StreamChatResponse(
        id="1", extra=JsonText(json=f'{{{blank}"x":{blank}[1,{blank}"\\n"]{blank}}}')
    )
    printed = codec.decode("StreamChatResponse", message.SerializeToString())
    (event,) = sse.SseReader().feed(sse.event(printed))
    assert json.loads(event.data) == {"id": "1", "x": [1, "\n"]}
    assert json.loads(printed) == {"id": "1", "x": [1, "\n"]}


USER = [{"role": "user"}]
BAD = JsonText(json="{]")


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (
            chat_service_pb2.ChatRequest(messages=USER, chat_template_kwargs=BAD),
            "chat_template_kwargs",
        ),
        (
            chat_service_pb2.ChatRequest(
                messages=USER,
                tools=[{"function": {"name": "f", "parameters": BAD}}],
            ),
            "tools[0].function.parameters",
        ),
        (
            chat_service_pb2.ChatRequest(messages=[{"content": {"other": BAD}}]),
            "messages[0].content.other",
        ),
        (
            chat_service_pb2.ChatRequest(
                messages=[{"content": {"parts": {"parts": [{"other": BAD}]}}}]
            ),
            "messages[0].content.parts.parts[0].other",
        ),
        (
            chat_service_pb2.ChatRequest(
                messages=USER, tool_choice={"named": {"allowed_tools": {"tools": [BAD]}}}
            ),
            "tool_choice.named.allowed_tools.tools[0]",
        ),
        (embed_service_pb2.EmbedRequest(input={"other": BAD}), "input.other"),
        (chat_service_pb2.ChatRequest(messages=USER, extra=BAD), "extra"),
        (chat_service_pb2.ChatRequest(messages=USER, extra=JsonText()), "extra"),
    ],
)
def test_a_text_that_is_not_json_is_refused_by_its_path(message: Message, path: str) -> None:
    ((where, description),) = refusal(message)
    assert where == path
    assert description.startswith("not a JSON text: ")


def test_every_fault_of_a_message_is_told() -> None:
    message = chat_service_pb2.ChatRequest(temperature=float("nan"), chat_template_kwargs=BAD)
    assert [path for path, _ in refusal(message)] == [
        "messages",
        "temperature",
        "chat_template_kwargs",
    ]


def test_the_source_stands_in_tracebacks() -> None:
    import linecache

    assert "def to_ChatRequest(o):" in codec.source("ChatRequest")
    assert linecache.getline("<codec ChatRequest>", 1) == "def to_ChatRequest(o):\n"


VALUES: list[Any] = [
    None,
    True,
    0,
    -(2**70),
    "é\n\x00",
    [],
    {},
    [[], {}, [1, [2]]],
    {"a": {"": {"b": []}}},
    {"😀": "\u2028"},
]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_printed_reads_back(value: Any) -> None:
    printed = codec.dumps(value)
    assert codec.loads_exact(printed) == json.loads(printed) == value
    assert codec.dumps(codec.loads_exact(printed)) == printed
