"""services/sse.py: every framing that upstreams are known to use, cut at every byte."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.sse import DONE, SseError, SseEvent, SseReader, comment, event
from tests.lib import recordings

STREAMS = recordings.all(mode="sse")
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}
DEFAULT_LIMIT = 16 * 1024 * 1024


def read(*reads: bytes, limit: int = DEFAULT_LIMIT) -> list[SseEvent]:
    reader = SseReader(limit)
    events = [event for data in reads for event in reader.feed(data)]
    return events + reader.close()


def data(*reads: bytes) -> list[bytes]:
    return [event.data for event in read(*reads)]


def cuts(stream: bytes, places: list[int]) -> list[bytes]:
    """`stream` cut at those places; a place may come twice (an empty read)."""
    ends = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(ends)]


# What a stream means, written down plainly: lines, then blocks, from the whole text at once.
def specified(stream: bytes) -> list[SseEvent]:
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    blocks: list[list[bytes]] = [[]]
    *lines, unfinished = text.split(b"\n")
    for line in lines:
        if line:
            blocks[-1].append(line)
        else:
            blocks.append([])
    if unfinished.startswith((b"data:", b"error:")):
        blocks[-1].append(unfinished)
    events = []
    for number, block in enumerate(blocks, 1):
        fields: dict[bytes, list[bytes]] = {}
        for line in block:
            name, _, value = line.partition(b":")
            if name != b"id" or b"\0" not in value:
                fields.setdefault(name, []).append(value.removeprefix(b" "))
        last = {name: values[-1].decode("utf-8", "replace") for name, values in fields.items()}
        for field, title in ((b"data", last.get(b"event", "")), (b"error", "error")):
            value = b"\n".join(fields.get(field, []))
            done = number < len(blocks)
            if value.strip() and (done or whole(value)):
                events.append(SseEvent(value, title, last.get(b"id", ""), done))
    return events


def whole(text: bytes) -> bool:
    try:
        return text.strip() == b"[DONE]" or isinstance(json.loads(text.decode()), dict | list)
    except ValueError:
        return False


LINES = st.sampled_from(
    [
        *(b"", b"", b"", b"data: 1", b"data:{}", b"data: [DONE]", b"data:", b"data: ", b"data"),
        *(b"data:  x", b'data: {"a": "\xc3\xa9"}', b"error: {}", b"error:", b": ping", b":", b"x"),
        *(
            b"event: error",
            b"event:",
            b"id: 7",
            b"id: \0",
            b"retry: 3",
            b" data: 1",
            b"\xef\xbb\xbf",
        ),
    ]
)
FRAMED = st.builds(
    lambda mark, lines, rest: mark + b"".join(line + end for line, end in lines) + rest,
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef"]),
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=12)
    | st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\n\n", b"\r\n\r\n"])), max_size=8),
    LINES,
)
ANY_STREAM = FRAMED | st.binary(max_size=60)


@settings(deadline=None)
@given(ANY_STREAM, st.lists(st.integers(0, 120), max_size=8))
@example(b"data: 1\r\ndata: 2\r\n\r\n", [8])
@example(b"\n\r\ndata: 1\n\ndata: 2\n\n", [2])
@example(b"\ndata: 1\nx", [1])
@example(b"\ndata: 1\ndata: x", [1, 9])
@example(b"\nid: 7\ndata: 1\n\n", [7])
@example(b"\nevent: a\ndata: 1\n\n", [10])
@example(b"\nerror: {}\ndata: 1\n\n", [11])
@example(b"\ndata: 1\ndata: 2\n\n", [9])
def test_cutting_a_stream_anywhere_never_changes_its_events(
    stream: bytes, places: list[int]
) -> None:
    """G24. Also the agreement of the fast path with the full rules, and of both with the rules."""
    expected = specified(stream)
    assert read(stream) == expected
    assert read(*cuts(stream, places)) == expected
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == expected


@settings(deadline=None)
@given(ANY_STREAM, ANY_STREAM, st.integers(0, 40))
def test_a_read_that_the_fast_path_takes_leaves_a_clean_reader(
    before: bytes, after: bytes, cut: int
) -> None:
    """G24."""
    burst = b'data: {"a": 1}\n\ndata: [2]\n\n'
    stream = before + burst + after
    reads = [before, burst, after[:cut], after[cut:]]
    assert read(*reads) == specified(stream)


@pytest.mark.parametrize("recording", STREAMS, ids=lambda one: one.file)
@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_a_recorded_stream_is_the_same_at_every_split_point(
    recording: recordings.Recording, line_end: bytes
) -> None:
    """G24."""
    stream = recording.bytes.replace(b"\n", line_end)
    expected = [line.encode() for line in recording.data()]
    assert data(stream) == expected
    for cut in range(len(stream) + 1):
        assert data(stream[:cut], stream[cut:]) == expected
    assert data(*(stream[at : at + 1] for at in range(len(stream)))) == expected


@pytest.mark.parametrize("recording", STREAMS, ids=lambda one: one.file)
def test_a_recorded_stream_that_ends_early_is_a_prefix_of_its_events(
    recording: recordings.Recording,
) -> None:
    """G1: no event is made up, whichever byte is the last."""
    stream = recording.bytes
    expected = [line.encode() for line in recording.data()]
    for cut in range(len(stream)):
        events = read(stream[:cut])
        assert [event.data for event in events] == expected[: len(events)]
        assert all(event.terminated for event in events[:-1])


def test_the_recordings_are_there() -> None:
    assert len(STREAMS) >= 18


def test_several_data_lines_are_one_text() -> None:
    assert data(b'data: {\ndata:  "a": 1\ndata:}\n\n') == [b'{\n "a": 1\n}']


def test_only_one_space_after_the_colon_is_framing() -> None:
    assert data(b"data:x\n\ndata: x\n\ndata:  x\n\n") == [b"x", b"x", b" x"]


def test_a_byte_order_mark_is_skipped_at_the_start_only() -> None:
    mark = b"\xef\xbb\xbf"
    assert data(mark + b"data: 1\n\n", mark + b"data: 2\n\n") == [b"1"]
    assert data(b"\xef", b"\xbb", b"", b"\xbf", b"data: 1\n\n") == [b"1"]
    assert data(mark, b"\n\n", mark + b"data: 2\n\n") == []


def test_a_carriage_return_ends_a_line_without_waiting_for_the_next_read() -> None:
    reader = SseReader()
    assert reader.feed(b"data: 1\r\n\r") == [SseEvent(b"1")]
    assert reader.feed(b"\ndata: 2\n\n") == [SseEvent(b"2")]


def test_comments_are_counted_and_give_no_event() -> None:
    reader = SseReader()
    assert reader.feed(b": OPENROUTER PROCESSING\n\n") == []
    assert reader.comments == 1
    assert reader.feed(b":\n:\n\ndata: 1\n\n: pi") == [SseEvent(b"1")]
    assert reader.comments == 3
    reader.feed(b"ng\n")
    assert reader.comments == 4


def test_a_block_without_data_gives_no_event() -> None:
    assert read(b"id: 1\n\nretry: 5\n\nevent: ping\n\n\n\n") == []


@pytest.mark.parametrize("line", [b"data:", b"data: ", b"data:  ", b"data", b"event: a\ndata:"])
def test_empty_data_is_a_keepalive(line: bytes) -> None:
    assert data(line + b"\n\n", b"data: 1\n\n" + line + b"\n\n", line + b"\n\n") == [b"1"]


def test_names_and_ids_belong_to_their_own_block() -> None:
    assert read(b"event: error\nid: 7\ndata: 1\n\n", b"data: 2\n\n") == [
        SseEvent(b"1", "error", "7"),
        SseEvent(b"2"),
    ]


def test_the_reconnection_time_is_kept() -> None:
    reader = SseReader()
    reader.feed(b"retry: 1500\nretry: soon\n\n")
    assert reader.retry == 1500


def test_an_error_line_is_an_error_event() -> None:
    assert read(b'data: 1\n\nerror: {"code": 500}\n\n') == [
        SseEvent(b"1"),
        SseEvent(b'{"code": 500}', "error"),
    ]


def test_an_error_line_comes_after_the_data_of_its_block() -> None:
    assert read(b"error: {}\ndata: 1\n\n") == [SseEvent(b"1"), SseEvent(b"{}", "error")]


@pytest.mark.parametrize(
    "ending", [b"data: [DONE]", b"data:[DONE]\n", b'data: {"a": [1]}', b'error: {"code": 1}\n']
)
def test_a_whole_event_without_its_blank_line_is_delivered_as_unterminated(ending: bytes) -> None:
    events = read(b"data: 1\n\n" + ending)
    assert [event.terminated for event in events] == [True, False]
    assert events[1].data == ending.partition(b":")[2].strip()


@pytest.mark.parametrize(
    "ending", [b"data: [DON", b'data: {"a": [1]', b'data: {"a": "\xc3', b"data: 12\n", b"data: x\n"]
)
def test_a_truncated_event_is_not_dispatched(ending: bytes) -> None:
    """G1."""
    assert data(b"data: 1\n\n" + ending) == [b"1"]


def test_a_name_that_may_be_cut_short_is_not_taken() -> None:
    assert read(b"data: {}\nevent: err") == [SseEvent(b"{}", terminated=False)]


def test_deep_nesting_at_the_end_is_no_crash() -> None:
    assert data(b"data: " + b"[" * 100_000) == []


def test_an_event_at_the_limit_is_delivered_and_a_larger_one_refused() -> None:
    stream = b"data: " + b"x" * 94 + b"\n\n"
    for reads in ([stream], cuts(stream, [50]), cuts(stream, list(range(len(stream))))):
        # Never the first read, which the fast path does not take.
        assert len(read(b"\n", *reads, limit=100)) == 1
        with pytest.raises(SseError, match="larger than 99 bytes"):
            read(b"\n", *reads, limit=99)


@pytest.mark.parametrize(
    "endless", [b"x", b"data: xx\n", b"data:\n"], ids=["a line", "data lines", "empty data lines"]
)
def test_what_never_ends_is_refused_at_the_limit(endless: bytes) -> None:
    with pytest.raises(SseError):
        read(*[endless] * 1100, limit=1000)


def test_a_long_stream_of_small_events_meets_no_limit() -> None:
    assert len(read(b"data: xxxxxxx\n\n" * 1000, limit=50)) == 1000
    assert len(read(b"data: xxxxxxx\r\n\r\n" * 1000, limit=50)) == 1000


def test_events_before_one_that_is_too_large_are_delivered() -> None:
    reader = SseReader(20)
    assert reader.feed(b"data: 1\n\ndata: " + b"x" * 30) == [SseEvent(b"1")]
    with pytest.raises(SseError):
        reader.feed(b"data: 2\n\n")
    with pytest.raises(SseError):
        reader.close()


def test_a_reader_is_not_used_after_its_end() -> None:
    reader = SseReader()
    reader.feed(b"data: 1\n\n")
    reader.close()
    with pytest.raises(SseError):
        reader.feed(b"data: 1\n\n")
    with pytest.raises(SseError):
        reader.close()


def test_a_long_line_fed_byte_by_byte_costs_linear_time() -> None:
    def cost(size: int) -> float:
        reader = SseReader()
        start = time.process_time()
        for _ in range(size):
            reader.feed(b"x")
        return time.process_time() - start

    small = min(cost(75_000) for _ in range(3))
    large = min(cost(300_000) for _ in range(3))
    assert large < 8 * small  # a new scan or copy per read would make it 16


TEXTS = st.text(max_size=30).filter(lambda text: text.encode().strip())


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.none() | st.sampled_from(["error", "ping"])), max_size=5))
def test_what_is_written_is_read(written: list[tuple[str, str | None]]) -> None:
    stream = b"".join(event(text.encode(), name) for text, name in written)
    assert read(stream) == [
        SseEvent(text.replace("\r\n", "\n").replace("\r", "\n").encode(), name or "")
        for text, name in written
    ]


def test_an_event_is_written_as_lines() -> None:
    assert event(b'{"a": 1}') == b'data: {"a": 1}\n\n'
    assert event(b"{}", "error") == b"event: error\ndata: {}\n\n"
    assert event(b"a\nb\r\nc\rd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"
    assert event(b"[DONE]") == DONE


@pytest.mark.parametrize("blank", [b"", b" ", b"\n"])
def test_an_event_without_data_is_not_written(blank: bytes) -> None:
    with pytest.raises(ValueError, match="keepalive"):
        event(blank)


@pytest.mark.parametrize("name", ["a\nb", "a\r"])
def test_a_name_of_two_lines_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        event(b"{}", name)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_a_comment_is_only_comments(text: str) -> None:
    reader = SseReader()
    assert reader.feed(comment(text)) == []
    assert reader.comments >= 1
    assert reader.feed(b"data: 1\n\n") == [SseEvent(b"1")]


def test_a_comment_is_written_as_servers_do() -> None:
    assert comment() == b":\n\n"
    assert comment("ping") == b": ping\n\n"
    assert comment("a\nb") == b": a\n: b\n\n"
