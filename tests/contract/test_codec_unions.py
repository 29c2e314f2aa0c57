"""Unions told apart by type or by tag, raw bytes beside URLs, and when an absent field is null."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf.message import Message
from tetrad.v1 import (
    chat_pb2,
    chat_service_pb2,
    embed_service_pb2,
    rerank_service_pb2,
    transcribe_service_pb2,
)
from tetrad.v1.json_pb2 import JsonText

from services import codec
from services.codec import CodecError
from tests.lib.canonical import assert_same


def encoded(name: str, value: Any) -> Any:
    return codec.message_class(name).FromString(codec.encode(name, json.dumps(value).encode()))


def shown(message: Message, **options: bool) -> Any:
    name = message.DESCRIPTOR.name
    return json.loads(codec.decode(name, message.SerializeToString(), **options))


def refusal(message: Message) -> list[tuple[str, str]]:
    with pytest.raises(CodecError) as caught:
        codec.decode(message.DESCRIPTOR.name, message.SerializeToString())
    return [(each.field, each.description) for each in caught.value.violations]


UNTAGGED: list[tuple[str, Any, str]] = [
    ("Content", "", "text"),
    ("Content", "hi", "text"),
    ("Content", [], "parts"),
    ("Content", [{"type": "text", "text": "a"}], "parts"),
    ("Content", ["bare", 5, None, {"type": "text", "text": None}], "parts"),
    ("Content", {"a": 1}, "other"),
    ("Content", 5, "other"),
    ("ToolChoice", "auto", "mode"),
    ("ToolChoice", {}, "named"),
    ("ToolChoice", {"type": "function", "function": {"name": "f"}}, "named"),
    ("ToolChoice", ["a"], "other"),
    ("EmbedInput", "a", "text"),
    ("EmbedInput", [], "texts"),
    ("EmbedInput", ["a", ""], "texts"),
    ("EmbedInput", [1, 2], "tokens"),
    ("EmbedInput", [[1], [], [2, 3]], "token_lists"),
    ("EmbedInput", ["a", [1]], "other"),
    ("EmbedInput", [1, 2.0], "other"),
    ("EmbedInput", [True], "other"),
    ("EmbedInput", [2**63], "other"),
    ("EmbedInput", {"prompt_string": "a"}, "other"),
    ("RerankDocument", "a", "text"),
    ("RerankDocument", {"text": "a", "title": "b"}, "object"),
    ("RerankDocument", ["a"], "other"),
    ("SegmentId", 0, "number"),
    ("SegmentId", -1, "number"),
    ("SegmentId", "seg_1", "name"),
    ("SegmentId", 2**31, "other"),
    ("SegmentId", 1.0, "other"),
    ("SegmentId", True, "other"),
    ("Voice", "alloy", "name"),
    ("Voice", {"id": "v"}, "custom"),
    ("ChunkingStrategy", "auto", "mode"),
    ("ChunkingStrategy", {"type": "server_vad"}, "voice_activity"),
]


@pytest.mark.parametrize(("name", "value", "arm"), UNTAGGED)
def test_a_bare_union_is_told_by_its_type(name: str, value: Any, arm: str) -> None:
    message = encoded(name, value)
    (oneof,) = message.DESCRIPTOR.oneofs
    assert message.WhichOneof(oneof.name) == arm
    assert_same(json.dumps(value), json.dumps(shown(message)), {"null_values": [""]})


ADJACENT: list[tuple[str, Any, str]] = [
    ("ContentPart", {"type": "text", "text": ""}, "text"),
    ("ContentPart", {"text": "a", "type": "text", "x": None}, "text"),
    ("ContentPart", {"type": "image_url", "image_url": {}}, "image_url"),
    ("ContentPart", {"type": "image_url", "image_url": {"url": 5}}, "image_url"),
    ("ContentPart", {"type": "image_url", "image_url": "bare"}, "other"),
    ("ContentPart", {"type": "image_url"}, "other"),
    ("ContentPart", {"type": "image_url", "image_url": None}, "other"),
    ("ContentPart", {"type": "text", "text": 5}, "other"),
    ("ContentPart", {"type": "type"}, "other"),
    ("ContentPart", {"type": "extra", "extra": {}}, "other"),
    ("ContentPart", {"type": "thinking", "thinking": "a"}, "other"),
    ("ContentPart", {"type": "prompt_cache_breakpoint", "prompt_cache_breakpoint": {}}, "other"),
    ("ContentPart", {"type": ["text"], "text": "a"}, "other"),
    ("ContentPart", {"text": "a"}, "other"),
    ("ContentPart", {}, "other"),
    ("ContentPart", "bare", "other"),
    ("ContentPart", None, "other"),
    (
        "ContentPart",
        {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "x": 1}},
        "text",
    ),
    ("ContentPart", {"type": "text", "text": "a", "prompt_cache_breakpoint": 5}, "text"),
    ("Tool", {"type": "function", "function": {"name": "f", "parameters": {}}}, "function"),
    ("Tool", {"type": "custom", "custom": {"name": "f"}, "function": {"name": "g"}}, "custom"),
    ("Tool", {"type": "web_search"}, "other"),
    ("Annotation", {"type": "url_citation", "url_citation": {"start_index": 0}}, "url_citation"),
    ("Annotation", {"type": "document_citation", "document_citation": {}}, "other"),
]


@pytest.mark.parametrize(("name", "value", "arm"), ADJACENT)
def test_a_tagged_union_is_told_by_the_member_that_its_tag_names(
    name: str, value: Any, arm: str
) -> None:
    message = encoded(name, value)
    assert message.WhichOneof(message.DESCRIPTOR.oneofs[0].name) == arm
    assert_same(json.dumps(value), json.dumps(shown(message)), {"null_values": [""]})


INTERNAL: list[tuple[str, Any, str]] = [
    ("StreamTranscribeResponse", {"type": "transcript.text.delta", "delta": "a"}, "delta"),
    ("StreamTranscribeResponse", {"delta": "a", "type": "transcript.text.delta"}, "delta"),
    ("StreamTranscribeResponse", {"type": "transcript.text.delta"}, "delta"),
    ("StreamTranscribeResponse", {"type": "transcript.text.delta", "delta": 5, "x": 1}, "delta"),
    (
        "StreamTranscribeResponse",
        {"type": "transcript.text.segment", "id": "s", "start": 0},
        "segment",
    ),
    (
        "StreamTranscribeResponse",
        {"type": "transcript.text.done", "text": "a", "usage": {}},
        "done",
    ),
    ("StreamTranscribeResponse", {"type": "transcript.text.done", "logprobs": []}, "done"),
    ("StreamTranscribeResponse", {"type": "delta", "delta": "a"}, "other"),
    ("StreamTranscribeResponse", {"type": None, "delta": "a"}, "other"),
    ("StreamTranscribeResponse", {"type": ["transcript.text.delta"]}, "other"),
    ("StreamTranscribeResponse", {"delta": "a"}, "other"),
    ("StreamTranscribeResponse", {}, "other"),
    ("StreamTranscribeResponse", ["a"], "other"),
    ("StreamTranscribeResponse", "a", "other"),
    ("ModerationFinding", {"type": "moderation_results", "results": [{}]}, "moderation_results"),
    ("ModerationFinding", {"type": "error", "code": "c", "x": []}, "error"),
    ("ModerationFinding", {"type": "other"}, "other"),
]


@pytest.mark.parametrize(("name", "value", "arm"), INTERNAL)
def test_a_union_with_its_tag_inside_is_told_by_it(name: str, value: Any, arm: str) -> None:
    message = encoded(name, value)
    (oneof,) = message.DESCRIPTOR.oneofs
    assert message.WhichOneof(oneof.name) == arm
    assert_same(json.dumps(value), json.dumps(shown(message)), {"null_values": [""]})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            chat_pb2.ContentPart(),
            "nothing set: one of text, image_url, input_audio, file, refusal, "
            "video_url, audio_url is needed",
        ),
        (
            chat_pb2.Tool(extra=JsonText(json="{}")),
            "nothing set: one of function, custom is needed",
        ),
        (
            transcribe_service_pb2.StreamTranscribeResponse(),
            "nothing set: one of delta, segment, done is needed",
        ),
        (
            chat_pb2.ContentPart(other=JsonText(json="{}"), extra=JsonText(json="{}")),
            "`other` is the whole value: nothing can be set beside it",
        ),
    ],
)
def test_a_tagged_union_needs_exactly_one_arm(message: Message, said: str) -> None:
    assert refusal(message) == [("", said)]


@pytest.mark.parametrize(
    "message",
    [
        chat_pb2.Content(),
        chat_pb2.ToolChoice(),
        embed_service_pb2.EmbedInput(),
        rerank_service_pb2.RerankQuery(),
        embed_service_pb2.Vector(),
    ],
)
def test_a_bare_union_without_an_arm_is_null(message: Message) -> None:
    assert shown(message) is None


def test_empty_messages_are_empty_objects() -> None:
    for name in codec.message_names():
        plan = codec.plan(name)
        nulls = {one.member for one in plan.members if one.null_when.name == "ABSENT"}
        if plan.union or plan.flat or any(one.required for one in plan.fields):
            continue
        assert json.loads(codec.decode(name, b"")) == dict.fromkeys(nulls), name
        if plan.remainder:
            assert codec.encode(name, b"{}") == b""


# --- raw bytes ---------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


@pytest.mark.parametrize(
    ("message", "member", "expected"),
    [
        (chat_pb2.ImageUrl(data=PNG, media_type="image/png"), "url", "data:image/png;base64,"),
        (chat_pb2.ImageUrl(data=PNG), "url", "data:application/octet-stream;base64,"),
        (
            chat_pb2.ImageUrl(data=PNG, media_type=""),
            "url",
            "data:application/octet-stream;base64,",
        ),
        (chat_pb2.MediaUrl(data=PNG, media_type="video/mp4"), "url", "data:video/mp4;base64,"),
        (
            chat_pb2.FilePart(data=PNG, media_type="application/pdf", filename="a.pdf"),
            "file_data",
            "data:application/pdf;base64,",
        ),
        (chat_pb2.InputAudio(raw=PNG, format="wav"), "data", ""),
        (chat_pb2.InputAudio(raw=b""), "data", ""),
    ],
)
def test_raw_bytes_are_printed_as_the_json_member_that_upstreams_read(
    message: Any, member: str, expected: str
) -> None:
    data = message.data if "media_type" in message.DESCRIPTOR.fields_by_name else message.raw
    printed = shown(message)
    assert printed[member] == expected + base64.b64encode(data).decode()
    assert "media_type" not in printed
    assert "raw" not in printed


@pytest.mark.parametrize(
    ("message", "path", "twin"),
    [
        (chat_pb2.ImageUrl(data=PNG, url="https://x"), "data", "url"),
        (chat_pb2.ImageUrl(data=b"", url=""), "data", "url"),
        (chat_pb2.MediaUrl(data=PNG, url="https://x"), "data", "url"),
        (chat_pb2.FilePart(data=PNG, file_data="data:,"), "data", "file_data"),
        (chat_pb2.InputAudio(raw=PNG, data="AAAA"), "raw", "data"),
    ],
)
def test_raw_bytes_beside_their_json_form_are_refused(
    message: Message, path: str, twin: str
) -> None:
    assert refusal(message) == [(path, f"set beside {twin}: give one of the two")]


def test_a_data_url_stays_the_string_that_it_was() -> None:
    value = {"url": "data:image/png;base64,iVBORw0KGgo", "data": "x", "media_type": 5}
    message = encoded("ImageUrl", value)
    assert message.url == value["url"]
    assert not message.data
    assert shown(message) == value


# --- null --------------------------------------------------------------------------------------


def test_nulls_are_printed_where_openai_prints_them() -> None:
    choice = {"index": 0, "message": {"role": "assistant"}}
    assert shown(encoded("ChatResponse", {"choices": [choice]})) == {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "refusal": None},
                "finish_reason": None,
                "logprobs": None,
            }
        ]
    }
    chunk = {"index": 0, "delta": {}}
    assert shown(encoded("StreamChatResponse", {"choices": [chunk]})) == {
        "choices": [{"index": 0, "delta": {}, "finish_reason": None, "logprobs": None}]
    }
    token = {"token": "a", "logprob": -1.5}
    assert shown(encoded("ChoiceLogprobs", {"content": [token]})) == {
        "content": [{"token": "a", "logprob": -1.5, "bytes": None}],
        "refusal": None,
    }


def test_a_null_of_a_typed_member_is_its_absence() -> None:
    nulls = dict.fromkeys(one.member for one in codec.plan("ChatRequest").members)
    value = {**nulls, "messages": [{"role": "user", "content": None, "name": None}]}
    message = encoded("ChatRequest", value)
    assert message == chat_service_pb2.ChatRequest(messages=[{"role": "user"}])
    assert shown(message) == {"messages": [{"role": "user"}]}


def test_a_null_of_an_unknown_member_is_kept() -> None:
    value = {"x": None, "usage": {"x": None}, "choices": [{"delta": {"x": None}}]}
    printed = shown(encoded("StreamChatResponse", value))
    assert printed["x"] is None
    assert printed["usage"] == {"x": None}
    assert printed["choices"][0]["delta"] == {"x": None}
    assert "x" in printed["choices"][0]["delta"]


def test_an_absent_usage_is_null_only_where_usage_was_asked_for() -> None:
    chunk = chat_service_pb2.StreamChatResponse(id="1")
    assert shown(chunk) == {"id": "1"}
    assert shown(chunk, usage_asked=True) == {"id": "1", "usage": None}
    chunk.usage.SetInParent()
    assert shown(chunk, usage_asked=True) == {"id": "1", "usage": {}}
    odd = encoded("StreamChatResponse", {"id": "1", "usage": 5})
    assert shown(odd, usage_asked=True) == {"id": "1", "usage": 5}
    answer = chat_service_pb2.ChatResponse(id="1")
    assert shown(answer, usage_asked=True) == {"id": "1"}


def test_a_value_in_extra_takes_the_place_of_the_null() -> None:
    for value in (5, [], "a", False):
        printed = codec.decode(
            "ChatChoice", codec.encode("ChatChoice", json.dumps({"logprobs": value}).encode())
        )
        pairs = json.loads(printed, object_pairs_hook=list)
        assert [name for name, _ in pairs].count("logprobs") == 1
        assert json.loads(printed)["logprobs"] == value


def test_bytes_of_a_token_may_be_empty_absent_or_no_bytes() -> None:
    for value in ([], [0, 255], [256], [-1], ["a"], [1.0], "AA=="):
        printed = shown(encoded("TokenLogprob", {"bytes": value}))
        assert printed["bytes"] == value
    assert encoded("TokenLogprob", {"bytes": [0, 255]}).bytes == b"\x00\xff"
    assert encoded("TokenLogprob", {"bytes": []}).HasField("bytes")
    assert encoded("TokenLogprob", {"bytes": [256]}).extra.json == '{"bytes":[256]}'


# --- maps --------------------------------------------------------------------------------------


def test_maps_hold_scalars_and_messages() -> None:
    value = {
        "categories": {"a": True, "": False},
        "category_scores": {"a": 0.25, "é\n": 1},
        "category_applied_input_types": {"a": ["text"], "b": []},
    }
    message = encoded("ModerationResult", value)
    assert dict(message.categories) == {"a": True, "": False}
    assert list(message.category_applied_input_types["a"].values) == ["text"]
    assert "b" in message.category_applied_input_types
    assert shown(message) == value


def test_a_map_is_kept_whole_in_extra_if_one_value_does_not_fit() -> None:
    for value in ({"a": ["x"], "b": "text"}, {"a": [1]}, {"a": None}):
        message = encoded("ModerationResult", {"category_applied_input_types": value})
        assert not message.category_applied_input_types
        assert shown(message) == {"category_applied_input_types": value}


def test_integer_keys_are_strings_in_json() -> None:
    value = {"50256": -100, "0": 0.5, "-1": 1, str(-(2**63)): 2, str(2**63 - 1): 3}
    message = encoded("ChatRequest", {"messages": [{}], "logit_bias": value})
    assert dict(message.logit_bias) == {int(key): bias for key, bias in value.items()}
    assert shown(message)["logit_bias"] == value
