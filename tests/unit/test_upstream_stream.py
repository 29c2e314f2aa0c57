"""The states of upstream streams, sans-IO: success, truncation, errors, usage, deliveries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services import codec, errors
from services.sse import SseEvent, SseReader
from services.upstream.states import TRANSITIONS, Signal, State
from services.upstream.stream import ChatStream, Chunk, Stream, TranscriptStream
from tests.lib import recordings
from tests.lib.recordings import Recording

CHATS = recordings.all("chat.completions", "stream")
SPEECHES = recordings.all("audio.transcriptions", "stream")


def fault(value: Any) -> errors.TetradError:
    return errors.from_error_body(value, endpoint="fake")


class Usage(list[Any]):
    """Every usage that was counted."""

    def __call__(self, usage: Any) -> None:
        if usage is not None:
            self.append(usage)


def chat_stream(
    usage: Usage | None = None, *, usage_asked: bool = True, choices: int = 1
) -> ChatStream:
    counted = Usage() if usage is None else usage
    return ChatStream("fake", fault, counted, usage_asked=usage_asked, choices=choices)


def speech_stream(usage: Usage | None = None) -> TranscriptStream:
    return TranscriptStream("fake", fault, Usage() if usage is None else usage)


def fed(stream: Stream, *items: Any) -> list[Any]:
    """What a stream delivers of items, each an event of its own, in one read."""
    events = [SseEvent(i if isinstance(i, bytes) else json.dumps(i).encode()) for i in items]
    return [value_of(chunk) for chunk in stream.feed(events)]


def run(stream: Stream, data: bytes, size: int | None = None) -> list[Any]:
    """What a stream delivers of bytes, read in pieces of a size, to their end."""
    reader = SseReader()
    delivered = []
    step = size or len(data) or 1
    for start in range(0, len(data), step):
        delivered += stream.feed(reader.feed(data[start : start + step]))
        stream.check()
    delivered += stream.feed(reader.close())
    stream.check()
    delivered += stream.end()
    for chunk in delivered:
        if chunk.template is None:
            assert codec.loads(chunk.data) == chunk.value
    return [value_of(chunk) for chunk in delivered]


def value_of(chunk: Chunk) -> Any:
    """What a chunk parses to, be it known by its bytes alone."""
    return chunk.value if chunk.template is None else codec.loads(chunk.data)


def chunk(index: int = 0, finish: str | None = None, **members: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": "x"}, "finish_reason": finish}
    return {"model": "m", "choices": [choice], **members}


FINISH = chunk(finish="stop")
USAGE = {"model": "m", "choices": [], "usage": {"prompt_tokens": 0, "total_tokens": 0}}
DONE = b"[DONE]"


def test_the_table_says_something_for_every_state_and_signal() -> None:
    final = {State.COMPLETE, State.TRUNCATED, State.FAILED}
    assert set(TRANSITIONS) == set(State) - final
    for row in TRANSITIONS.values():
        assert set(row) == set(Signal)


def test_an_end_is_a_success_only_after_a_finish() -> None:
    for state, row in TRANSITIONS.items():
        expected = State.COMPLETE if state is State.FINISHED else State.TRUNCATED
        assert row[Signal.END] is row[Signal.MARK] is expected
        assert row[Signal.ERROR] is State.FAILED


@pytest.mark.parametrize("recording", CHATS, ids=lambda r: r.file)
@pytest.mark.parametrize("size", [None, 1, 7, 64])
def test_every_recorded_chat_is_delivered_as_it_was_sent(
    recording: Recording, size: int | None
) -> None:
    """G3: nothing of a chunk changes, finish reasons among it; wherever the reads are cut (G24)."""
    stream = chat_stream()
    is_whole = "truncated" not in recording.file and recording.error_event() is None
    if is_whole:
        assert run(stream, recording.bytes, size) == recording.events()
        assert stream.state is State.COMPLETE
    else:
        with pytest.raises(errors.TetradError) as raised:
            run(stream, recording.bytes, size)
        truncated = isinstance(raised.value, errors.UpstreamTruncated)
        assert truncated is (recording.error_event() is None)


@pytest.mark.parametrize("recording", CHATS, ids=lambda r: r.file)
def test_a_chat_cut_at_any_byte_is_a_success_only_if_its_finish_was_whole(
    recording: Recording,
) -> None:
    """G1."""
    data = recording.bytes
    for end in range(len(data)):
        stream = chat_stream()
        try:
            delivered = run(stream, data[:end])
        except errors.TetradError:
            continue
        finishes = [c.get("finish_reason") for d in delivered for c in d["choices"]]
        assert any(finishes), end


def test_done_without_a_finish_is_truncated() -> None:
    """G4."""
    stream = chat_stream()
    fed(stream, chunk(), DONE)
    with pytest.raises(errors.UpstreamTruncated):
        stream.check()


def test_a_missing_done_is_fine_after_a_finish() -> None:
    """G4."""
    stream = chat_stream()
    assert fed(stream, chunk(), FINISH, USAGE) == [chunk(), FINISH, USAGE]
    assert stream.end() == []
    assert stream.state is State.COMPLETE


def test_every_choice_must_finish() -> None:
    """G4."""
    stream = chat_stream()
    fed(stream, chunk(0), chunk(1), chunk(0, "stop"))
    with pytest.raises(errors.UpstreamTruncated):
        stream.end()


def test_choices_may_follow_one_another() -> None:
    stream = chat_stream()
    states = []
    for item in (chunk(0), chunk(0, "stop"), chunk(1), chunk(1, "length"), DONE):
        fed(stream, item)
        states.append(stream.state)
    running, finished = State.RUNNING, State.FINISHED
    assert states == [running, finished, running, finished, State.COMPLETE]


def test_only_usage_is_awaited_once_all_choices_asked_for_have_finished() -> None:
    stream = chat_stream(choices=2)
    fed(stream, chunk(0, "stop"))
    assert not stream.settled
    fed(stream, chunk(1, "stop"))
    assert stream.settled


def test_fewer_choices_than_asked_for_are_a_success_at_the_end() -> None:
    """Some servers ignore `n`."""
    stream = chat_stream(choices=2)
    fed(stream, chunk(0, "stop"))
    assert stream.end() == []


@pytest.mark.parametrize("reason", ["length", "tool_calls", "content_filter", "eos", "error"])
def test_any_finish_reason_finishes(reason: str) -> None:
    """G3."""
    stream = chat_stream()
    assert fed(stream, chunk(finish=reason))[0]["choices"][0]["finish_reason"] == reason
    assert stream.settled


@pytest.mark.parametrize("reason", [None, ""])
def test_an_empty_finish_reason_finishes_nothing(reason: Any) -> None:
    stream = chat_stream()
    fed(stream, chunk(finish=reason))
    assert stream.state is State.RUNNING


def test_content_after_the_finish_of_its_choice_does_not_begin_it_again() -> None:
    stream = chat_stream()
    fed(stream, FINISH, chunk())
    assert stream.state is State.FINISHED


def test_a_choice_without_an_index_is_the_first() -> None:
    stream = chat_stream()
    fed(stream, {"choices": [{"delta": {}}]}, {"choices": [{"finish_reason": "stop"}]}, DONE)
    assert stream.state is State.COMPLETE


def test_a_first_chunk_without_choices_says_nothing() -> None:
    """Azure's."""
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    stream = chat_stream(usage_asked=False)
    assert fed(stream, first) == [first]
    assert stream.state is State.WAITING


def test_usage_is_counted_from_any_chunk_and_zero_is_a_value() -> None:
    """G10."""
    usage = Usage()
    stream = chat_stream(usage)
    fed(stream, chunk(usage={"total_tokens": 3}), FINISH, USAGE, chunk(usage=None))
    assert usage == [{"total_tokens": 3}, USAGE["usage"]]


def test_usage_inside_x_groq_is_counted_once() -> None:
    usage = Usage()
    told = {"total_tokens": 5}
    fed(chat_stream(usage), chunk(x_groq={"usage": told}))
    fed(chat_stream(usage), chunk(usage=told, x_groq={"usage": told}))
    assert usage == [told, told]


def test_a_usage_chunk_that_only_we_asked_for_is_not_delivered() -> None:
    usage = Usage()
    stream = chat_stream(usage, usage_asked=False)
    both = chunk(finish="stop", usage={"total_tokens": 3})
    assert fed(stream, chunk(usage=None), both, USAGE) == [chunk(usage=None), both]
    assert usage[-1] == USAGE["usage"]


def test_what_comes_after_done_is_not_looked_at() -> None:
    stream = chat_stream()
    assert fed(stream, FINISH, DONE, chunk(), b"{nonsense") == [FINISH]
    stream.check()


def test_an_error_after_the_finish_is_an_error() -> None:
    stream = chat_stream()
    assert fed(stream, FINISH, {"error": {"message": "late"}}, DONE) == [FINISH]
    with pytest.raises(errors.UpstreamFailed, match="late"):
        stream.check()


def test_what_came_before_an_error_in_the_same_read_is_delivered() -> None:
    """G18."""
    stream = chat_stream()
    assert fed(stream, chunk(), {"error": "no"}, chunk()) == [chunk()]


def test_a_null_error_is_none() -> None:
    stream = chat_stream()
    fed(stream, chunk(error=None), chunk(finish="stop", error=None), DONE)
    assert stream.state is State.COMPLETE


def test_an_empty_chunk_with_a_model_is_an_ordinary_one() -> None:
    stream = chat_stream()
    empty = {"model": "m", "choices": [{"index": 0, "delta": {"content": ""}}]}
    assert fed(stream, chunk(), empty) == [chunk(), empty]


def test_servers_that_name_no_model_at_all_are_not_taken_for_a_failing_ollama() -> None:
    stream = chat_stream()
    empty = {"model": "", "choices": [{"index": 0, "delta": {"content": ""}}]}
    assert fed(stream, empty, empty) == [empty, empty]


def test_a_lone_surrogate_stays_in_the_bytes() -> None:
    stream = chat_stream()
    text = b'{"choices":[{"delta":{"content":"\\ud83d"},"finish_reason":"stop"}]}'
    (one,) = stream.feed([SseEvent(text)])
    assert one.data == text
    assert one.value["choices"][0]["delta"]["content"] == "\ufffd"


def test_integers_of_any_size_stay_in_the_bytes() -> None:
    text = b'{"choices":[],"seed":18446744073709551617}'
    assert chat_stream().feed([SseEvent(text)])[0].data == text


EXPECTED = {
    "transcriptions/openai-deltas-stream.sse": "Quay four",
    "transcriptions/openai-diarize-stream.sse": "Ready?",
    "transcriptions/speaches-deltas-stream.sse": " Quay four.",
    "transcriptions/vllm-chunk-stream.sse": " Quay four",
}


@pytest.mark.parametrize("recording", SPEECHES, ids=lambda r: r.file)
@pytest.mark.parametrize("size", [None, 1, 50])
def test_every_recorded_transcription_ends_with_its_text(
    recording: Recording, size: int | None
) -> None:
    stream = speech_stream()
    events = run(stream, recording.bytes, size)
    assert events[-1]["type"] == "transcript.text.done"
    assert events[-1]["text"] == EXPECTED[recording.file]
    assert stream.state is State.COMPLETE
    if "vllm" not in recording.file:
        assert events == recording.events()


@pytest.mark.parametrize("recording", SPEECHES, ids=lambda r: r.file)
def test_a_transcription_cut_at_any_byte_is_a_success_only_if_its_text_was_whole(
    recording: Recording,
) -> None:
    """G1."""
    data = recording.bytes
    for end in range(len(data)):
        try:
            events = run(speech_stream(), data[:end])
        except errors.TetradError:
            continue
        assert events[-1]["text"] == EXPECTED[recording.file], end


def test_chunks_of_vllm_become_transcript_events() -> None:
    usage = Usage()
    stream = speech_stream(usage)
    events = run(stream, recordings.get("transcriptions/vllm-chunk-stream.sse").bytes)
    told = {"type": "tokens", "input_tokens": 4, "total_tokens": 9, "output_tokens": 5}
    assert events == [
        {"type": "transcript.text.delta", "delta": " Quay"},
        {"type": "transcript.text.delta", "delta": " four"},
        {"type": "transcript.text.done", "text": " Quay four", "usage": told},
    ]
    assert usage == [told]


def test_the_done_event_ends_a_transcription_without_waiting() -> None:
    stream = speech_stream()
    fed(stream, {"type": "transcript.text.done", "text": ""})
    assert stream.over


def test_done_without_a_done_event_is_truncated() -> None:
    """G1."""
    stream = speech_stream()
    fed(stream, {"type": "transcript.text.delta", "delta": "a"}, DONE)
    with pytest.raises(errors.UpstreamTruncated):
        stream.check()


def test_events_of_mistral_get_openais_names() -> None:
    stream = speech_stream()
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    events = fed(
        stream,
        {"type": "transcription.language", "audio_language": "en"},
        {"type": "transcription.text.delta", "text": "Hi"},
        {"type": "transcription.segment", "text": "Hi", "start": 0.0, "end": 1.0},
        {"type": "transcription.done", "text": "Hi", "usage": usage},
    )
    assert events == [
        {"type": "transcription.language", "audio_language": "en"},
        {"type": "transcript.text.delta", "delta": "Hi"},
        {"type": "transcript.text.segment", "text": "Hi", "start": 0.0, "end": 1.0},
        {
            "type": "transcript.text.done",
            "text": "Hi",
            "usage": {"type": "tokens", "input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        },
    ]
    assert stream.state is State.COMPLETE


def test_an_error_in_a_transcription_is_that_error() -> None:
    stream = speech_stream()
    fed(stream, {"error": {"message": "no sound", "code": 400}})
    with pytest.raises(errors.UpstreamInvalidRequest, match="no sound"):
        stream.check()


def text_chunk(text: str, **members: Any) -> SseEvent:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return SseEvent(codec.dumps({"model": "m", "choices": [choice], **members}))


def test_chunks_that_add_text_alone_are_not_parsed_and_the_finish_is_still_seen() -> None:
    """G1: whatever the short way takes for text, the stream ends as by the long one."""
    stream = chat_stream()
    texts = ["The", " answer", " is", " 42", "."]
    batch = stream.feed([*map(text_chunk, texts), SseEvent(codec.dumps(FINISH))])
    assert [one.text for one in batch if one.template is not None] == texts[1:]
    assert stream.state is State.FINISHED
    (more,) = stream.feed([text_chunk("late")])
    assert more.template is None  # what comes behind a finish goes the long way


def test_an_error_that_looks_like_a_piece_of_text_is_an_error() -> None:
    """G2."""
    stream = chat_stream()
    stream.feed([text_chunk("a"), text_chunk("b")])
    stream.feed([SseEvent(text_chunk("c").data, "error")])
    with pytest.raises(errors.TetradError):
        stream.check()


def test_a_stream_whose_chunks_all_differ_learns_only_so_often() -> None:
    stream = chat_stream()
    learnt = set()
    for number in range(30):
        stream.feed([text_chunk("a", n=number)])
        learnt.add(stream._template)
    assert len(learnt) == 8
