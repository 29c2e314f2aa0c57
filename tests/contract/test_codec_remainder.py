"""The remainder rule: what no typed field holds travels in `extra`, and nothing travels twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.message import Message
from tetrad.v1 import chat_pb2, chat_service_pb2, model_service_pb2, rerank_service_pb2
from tetrad.v1.json_pb2 import JsonText

from services import codec
from services.codec import CodecError
from tests.lib.canonical import assert_same

USER = {"role": "user", "content": "hi"}


def encoded(name: str, text: str | bytes) -> Any:
    """The message that a JSON text becomes."""
    data = text if isinstance(text, bytes) else text.encode()
    return codec.message_class(name).FromString(codec.encode(name, data))


def asked(**members: Any) -> bytes:
    return json.dumps({"messages": [USER], **members}).encode()


def refusal(message: Message) -> list[tuple[str, str]]:
    """The violations of a message that has no JSON."""
    with pytest.raises(CodecError) as caught:
        codec.decode(message.DESCRIPTOR.name, message.SerializeToString())
    return [(each.field, each.description) for each in caught.value.violations]


def shown(message: Message) -> bytes:
    return codec.decode(message.DESCRIPTOR.name, message.SerializeToString())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("temperature", "0.7"),
        ("temperature", True),
        ("max_tokens", 1.0),
        ("max_tokens", 2**31),
        ("max_tokens", -(2**31) - 1),
        ("max_tokens", True),
        ("seed", 2**63),
        ("seed", 2**70),
        ("n", "1"),
        ("stream", "true"),
        ("stream", 1),
        ("model", 5),
        ("user", ["a"]),
        ("logprobs", 5),
        ("stop", 5),
        ("stop", []),
        ("stop", ["a", 5]),
        ("stop", {}),
        ("tools", []),
        ("tools", {}),
        ("tools", "none"),
        ("modalities", []),
        ("modalities", [None]),
        ("metadata", {}),
        ("metadata", {"a": 1}),
        ("metadata", {"a": None}),
        ("metadata", []),
        ("logit_bias", {}),
        ("logit_bias", {"01": 1}),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"+1": 1}),
        ("logit_bias", {str(2**63): 1}),
        ("logit_bias", {"1": 2**53 + 1}),
        ("logit_bias", {"1": False}),
        ("logit_bias", [[1, False]]),
        ("stop_token_ids", []),
        ("stop_token_ids", [1, 2.0]),
        ("stop_token_ids", [2**63]),
        ("response_format", "json_object"),
        ("stream_options", []),
        ("functions", [5]),
        ("audio", "wav"),
    ],
)
def test_a_member_that_does_not_fit_its_field_is_kept_in_extra(member: str, value: Any) -> None:
    text = asked(**{member: value})
    message = encoded("ChatRequest", text)
    assert json.loads(message.extra.json) == {member: value}
    if codec.plan("ChatRequest").field(member).presence:
        assert not message.HasField(member)
    assert_same(text, shown(message), {"opaque": [f"/{member}"]}, "ChatRequest")


@pytest.mark.parametrize(
    "name", ["extra", "other", "@type", "", "json", "$ref", "__proto__", "é\n"]
)
def test_a_member_may_have_any_name(name: str) -> None:
    for value in (None, 0, "", False, {"extra": {"other": [None]}}):
        message = encoded("ChatRequest", asked(**{name: value}))
        assert json.loads(message.extra.json) == {name: value}
        assert json.loads(shown(message))[name] == value


def test_unknown_members_are_kept_at_every_level() -> None:
    """G23."""
    body = {
        "messages": [
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "a", "x": 1}, {"type": "odd", "x": 2}],
                "tool_calls": [{"id": "1", "x": 3, "function": {"name": "f", "x": 4}}],
                "x": 5,
            }
        ],
        "tools": [{"type": "function", "function": {"name": "f", "x": 6}, "x": 7}],
        "tool_choice": {"type": "function", "function": {"name": "f", "x": 8}, "x": 9},
        "stream_options": {"x": 10},
        "web_search_options": {"user_location": {"approximate": {"x": 11}}},
        "x": 12,
    }
    text = json.dumps(body).encode()
    assert json.loads(codec.decode("ChatRequest", codec.encode("ChatRequest", text))) == body


def test_an_ill_typed_answer_is_kept_as_it_came() -> None:
    body = {
        "choices": [
            {
                "index": "0",
                "message": {"content": {"a": 1}, "tool_calls": [{"function": {"arguments": {}}}]},
                "logprobs": 5,
                "finish_reason": 7,
            }
        ],
        "usage": [],
    }
    text = json.dumps(body).encode()
    assert_same(text, codec.decode("ChatResponse", codec.encode("ChatResponse", text)))


def test_members_of_extra_are_printed_after_the_others_byte_for_byte() -> None:
    extra = JsonText(json=' { "b" : 1.50 ,\n"a":[1,  2] , "a" : "\\u00e9" } ')
    message = chat_pb2.ImageUrl(url="u", extra=extra)
    assert shown(message) == b'{"url":"u","b" : 1.50 ,\n"a":[1,  2] , "a" : "\\u00e9"}'
    assert shown(chat_pb2.ImageUrl(extra=extra)).startswith(b'{"b" : 1.50 ,')
    assert shown(chat_pb2.ImageUrl(url="u", extra=JsonText(json=" {\n} "))) == b'{"url":"u"}'


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("", "not a JSON text"),
        ("{", "not a JSON text"),
        ("{}{}", "not a JSON text"),
        ('{"a":NaN}', "not a JSON text"),
        ('{"a":"\\ud800"}', "not a JSON text"),
        ("{'a':1}", "not a JSON text"),
        ("[]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found null"),
        ("true", "expected a JSON object, found a boolean"),
    ],
)
def test_an_extra_that_is_no_object_is_refused_by_its_path(extra: str, said: str) -> None:
    call = chat_pb2.ToolCall(function=chat_pb2.FunctionCall(extra=JsonText(json=extra)))
    message = chat_service_pb2.ChatRequest(messages=[{"role": "user"}, {"tool_calls": [call]}])
    ((path, description),) = refusal(message)
    assert path == "messages[1].tool_calls[0].function.extra"
    assert description.startswith(said)


@pytest.mark.parametrize(
    ("message", "home"),
    [
        (chat_service_pb2.ChatRequest(extra=JsonText(json='{"model": "m"}')), "model"),
        (chat_service_pb2.ChatRequest(extra=JsonText(json='{"m\\u006fdel": "m"}')), "model"),
        (chat_service_pb2.ChatRequest(model="m", extra=JsonText(json='{"model": 5}')), "model"),
        (chat_service_pb2.ChatRequest(model="m", extra=JsonText(json='{"model": null}')), "model"),
        (chat_service_pb2.ChatRequest(extra=JsonText(json='{"stop": "a"}')), "stop"),
        (chat_service_pb2.ChatRequest(extra=JsonText(json='{"tool_choice": 5}')), "tool_choice"),
        (
            chat_service_pb2.ChatRequest(extra=JsonText(json='{"logit_bias": {"1": 1}}')),
            "logit_bias",
        ),
    ],
)
def test_a_member_of_extra_that_has_a_field_is_refused_by_its_name(
    message: chat_service_pb2.ChatRequest, home: str
) -> None:
    message.messages.add(role="user")
    assert refusal(message) == [("extra", f"member '{home}' belongs in the field {home}")]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            chat_pb2.ContentPart(text="a", extra=JsonText(json='{"text": "b"}')),
            "member 'text' belongs in the field text",
        ),
        (
            chat_pb2.ContentPart(text="a", extra=JsonText(json='{"type": "b"}')),
            "member 'type' belongs in the field part",
        ),
        (
            chat_pb2.ImageUrl(data=b"x", extra=JsonText(json='{"url": 5}')),
            "member 'url' belongs in the field data",
        ),
        (
            chat_pb2.InputAudio(raw=b"x", extra=JsonText(json='{"data": 5}')),
            "member 'data' belongs in the field raw",
        ),
        (
            chat_pb2.Tool(custom={"name": "a"}, extra=JsonText(json='{"custom": 1}')),
            "member 'custom' belongs in the field custom",
        ),
    ],
)
def test_extra_cannot_say_again_what_an_arm_or_raw_bytes_say(message: Message, said: str) -> None:
    assert refusal(message) == [("extra", said)]


def test_extra_may_hold_what_another_arm_s_member_would_hold() -> None:
    part = {"type": "text", "text": "a", "image_url": "not an image"}
    text = json.dumps(part).encode()
    message = encoded("ContentPart", text)
    assert message.extra.json == '{"image_url":"not an image"}'
    assert json.loads(shown(message)) == part


@pytest.mark.parametrize(
    "text",
    [
        b'{"messages":[{"role":"user"}],"temperature":1180591620717411303425}',
        b'{"messages":[{"role":"user"}],"temperature":1e400}',
        b'{"messages":[{"role":"user"}],"logit_bias":{"5":1180591620717411303425}}',
        b'{"messages":[{"role":"user"}],"temperature":-9223372036854775809}',
    ],
)
def test_a_number_that_only_a_lossy_reader_would_fit_into_a_double_stays_text(text: bytes) -> None:
    message = encoded("ChatRequest", text)
    assert message.extra.json
    assert shown(message) == text


@pytest.mark.parametrize(
    ("name", "text", "fields"),
    [
        ("ChatRequest", b"{}", ["messages"]),
        ("ChatRequest", b'{"messages":null}', ["messages"]),
        ("ChatRequest", b'{"messages":[]}', ["messages"]),
        ("ChatRequest", b'{"messages":"hi"}', ["messages"]),
        ("ChatRequest", b'{"messages":[{"role":"user"},5]}', ["messages"]),
        ("ChatRequest", b"[]", [""]),
        ("ChatRequest", b"null", [""]),
        ("RerankRequest", b'{"documents":["a"]}', ["query"]),
        ("GetModelRequest", b"{}", ["model"]),
        ("GetModelRequest", b'{"model":5}', ["model"]),
    ],
)
def test_a_required_member_must_be_there_with_its_type(
    name: str, text: bytes, fields: list[str]
) -> None:
    with pytest.raises(CodecError) as caught:
        codec.encode(name, text)
    assert [each.field for each in caught.value.violations] == fields
    assert codec.check(name, json.loads(text)) == caught.value.violations


@pytest.mark.parametrize(
    "message",
    [
        chat_service_pb2.ChatRequest(model="m"),
        chat_service_pb2.ChatRequest(extra=JsonText(json='{"messages": 5}')),
        rerank_service_pb2.RerankRequest(documents=[{"text": "a"}]),
        model_service_pb2.GetModelRequest(),
    ],
)
def test_a_required_field_must_be_set(message: Message) -> None:
    ((_, description),) = refusal(message)
    assert description == "required, but absent"


def test_a_message_without_extra_refuses_what_it_does_not_know() -> None:
    with pytest.raises(CodecError):
        codec.encode("GetModelRequest", b'{"model":"m","x":1}')


def test_a_check_does_not_mind_ill_typed_members_that_are_not_required() -> None:
    assert codec.check("ChatRequest", {"messages": [{"role": 5}], "temperature": "hot"}) == ()


@pytest.mark.parametrize("name", ["Chat", "", "tetrad.v1.Nothing"])
def test_an_unknown_message_is_a_key_error(name: str) -> None:
    for use in (codec.plan, codec.source, codec.message_class):
        with pytest.raises(KeyError):
            use(name)
    with pytest.raises(KeyError):
        codec.encode(name, b"{}")
    with pytest.raises(KeyError):
        codec.decode(name, b"")


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(CodecError, match="the bytes are not a ChatRequest"):
        codec.decode("ChatRequest", b"\xff\xff")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"nul", b'{"a":1,}', b"\xff", b'{"a":NaN}', b"\xef\xbb\xbf{}"]
)
def test_text_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(codec.JsonError):
        codec.encode("ChatResponse", text)
