"""services/codec/chunks.py: chunks that are known by their bytes are what they would parse to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import codec
from services.sse import SseReader

RECORDINGS = Path(__file__).parent.parent / "recordings" / "chat"
STREAMS = sorted(path.name for path in RECORDINGS.glob("*.sse"))

VALUE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1_700_000_000,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}],
}


def chunk(text: str = "a", **changes: Any) -> bytes:
    value = {**VALUE, **changes}
    (choice,) = VALUE["choices"]
    if "choices" not in changes:
        value["choices"] = [{**choice, "delta": {"content": text}}]
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def template(data: bytes) -> codec.ChunkTemplate | None:
    return codec.chunk_template(data, orjson.loads(data))


def known(data: bytes) -> codec.ChunkTemplate:
    found = template(data)
    assert found is not None
    return found


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_the_text_and_the_wire_are_those_of_the_chunk_parsed(text: str) -> None:
    """G1: whatever the text, nothing is lost by not parsing it."""
    data = chunk(text)
    found = known(chunk("before")).text(data)
    if '"' in text or "\\" in text or any(ord(c) < 0x20 for c in text):
        assert found is None  # written with escapes
    else:
        assert found == text
        assert known(chunk("before")).wire(text) == codec.encode(codec.CHUNK, data)


@pytest.mark.parametrize("length", [1, 100, 127, 128, 16_000, 16_383, 16_384, 70_000])
def test_lengths_of_any_size_are_written(length: int) -> None:
    text = "x" * length
    assert known(chunk()).wire(text) == codec.encode(codec.CHUNK, chunk(text))


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "content"])
def test_reasoning_is_text_too(name: str) -> None:
    def data(text: str) -> bytes:
        choice = {"index": 3, "delta": {"role": None, name: text}, "finish_reason": None}
        return json.dumps({**VALUE, "choices": [choice]}).encode()

    found = known(data("first"))
    assert found.text(data("second")) == "second"
    assert found.wire("second") == codec.encode(codec.CHUNK, data("second"))


@pytest.mark.parametrize("stream", STREAMS)
def test_recorded_streams_are_what_they_parse_to(stream: str) -> None:
    """G1: chunks of real servers, each by the template of the one before."""
    last: codec.ChunkTemplate | None = None
    for event in SseReader().feed((RECORDINGS / stream).read_bytes()):
        try:
            value = codec.loads(event.data)
        except codec.JsonError:
            continue
        text = last.text(event.data) if last is not None else None
        if last is not None and text is not None:
            assert last.wire(text) == codec.encode(codec.CHUNK, event.data)
            delta = value["choices"][0]["delta"]
            assert text in delta.values()
            assert not value["choices"][0].get("finish_reason")
        last = codec.chunk_template(event.data, value) if isinstance(value, dict) else None


def test_some_recorded_chunks_are_known_by_the_one_before() -> None:
    """Else the test above shows nothing."""
    events = SseReader().feed((RECORDINGS / "vllm-reasoning-stream.sse").read_bytes())
    found = [template(e.data) for e in events if e.data.startswith(b"{")]
    pairs = zip(found, events[1:], strict=False)
    assert any(one is not None and one.text(after.data) for one, after in pairs)


@pytest.mark.parametrize(
    "data",
    [
        chunk(choices=[]),
        chunk(choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]),
        chunk(choices=[{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {}}]),
        chunk(choices=[{"index": 0, "delta": {"content": ""}}]),
        chunk(choices=[{"index": 0, "delta": {"content": None}}]),
        chunk(choices=[{"index": 0, "delta": {"content": ["a"]}}]),
        chunk(choices=[{"index": 0, "delta": {"content": "a", "tool_calls": [{"index": 0}]}}]),
        chunk(choices=[{"index": 0, "delta": {"content": "a", "reasoning": "b"}}]),
        chunk(choices=[{"index": 0, "delta": {"refusal": "a"}}]),
        chunk(choices=["a"]),
        chunk(usage={"prompt_tokens": 1}),
        chunk(x_groq={"usage": {"prompt_tokens": 1}}),
        chunk('he said "a"'),
        chunk("a\n"),
    ],
)
def test_a_chunk_that_holds_more_than_its_text_has_no_template(data: bytes) -> None:
    assert template(data) is None


def test_the_hole_is_where_the_text_is_and_not_where_it_looks_so() -> None:
    """A text that stands elsewhere too, or twice in the same object, is not taken for it."""
    ahead = chunk().replace(b'{"id":', b'{"x":{"content":"a"},"id":')
    assert template(ahead) is None
    twice = chunk().replace(b'{"content":"a"}', b'{"content":"a","content":"a"}')
    assert template(twice) is None
    assert template(chunk("@the text@", model="@the text@")) is None


@pytest.mark.parametrize(
    "other",
    [
        chunk("b", id="chatcmpl-2"),
        chunk("b").replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        chunk("b").replace(b'"finish_reason":null', b'"finish_reason":true'),
        chunk("b") + b" ",
        chunk(""),
        chunk("b").replace(b'"content":"b"', b'"content":"b","x":"c"'),
        chunk("\\"),
        chunk("b").replace(b'"b"', b'"\xff"'),
        chunk("b").replace(b'"b"', b'"\xed\xa0\x80"'),
        chunk("b").replace(b'"b"', b'"\x01"'),
        chunk("a")[:-3],
    ],
)
def test_what_differs_in_more_than_its_text_is_not_known(other: bytes) -> None:
    """G2: a finish is never taken for a piece of text; nor is what is no JSON."""
    assert known(chunk()).text(other) is None
