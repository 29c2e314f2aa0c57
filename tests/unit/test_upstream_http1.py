"""Bytes of HTTP/1.1, without a socket: heads that go out, answers that come in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.upstream import http1
from services.upstream.http1 import MAX_HEAD, Malformed, Reader, Unsendable
from tests.lib.adapters import KEY, sse

OK = b"HTTP/1.1 200 OK\r\n"
RECORDED = sse("chat/openai-usage-stream.sse")

CHUNKED = (
    OK
    + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in RECORDED.split(b"\n\n") if part)
    + b"0\r\nx-trailer: told\r\n\r\n"
)
LENGTH = OK + b"content-length: 11\r\n\r\nhello there"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + LENGTH
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\nx-a: 1\r\n\r\nhello there"

Told = tuple[int, dict[str, str], bytes, bool, bool]


def fed(*parts: bytes, bodiless: bool = False, ended: bool = False) -> Reader:
    """A reader that was given these parts."""
    reader = Reader()
    reader.begin(bodiless=bodiless)
    for part in parts:
        reader.feed(part)
    if ended:
        reader.end()
    return reader


def told(reader: Reader) -> Told:
    """All that it says."""
    return reader.status, reader.headers(), reader.take(), reader.complete, reader.keep


@pytest.mark.parametrize("answer", [LENGTH, CONTINUED, UNTIL_CLOSE, CHUNKED])
def test_an_answer_is_the_same_wherever_it_is_split(answer: bytes) -> None:
    whole = told(fed(answer, ended=True))
    assert whole[3]
    for at in range(1, len(answer)):
        assert told(fed(answer[:at], answer[at:], ended=True)) == whole
    assert told(fed(*(bytes([byte]) for byte in answer), ended=True)) == whole


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=20))
def test_an_answer_is_the_same_in_any_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(CHUNKED)]
    parts = [CHUNKED[a:b] for a, b in pairwise(places)]
    assert told(fed(*parts)) == told(fed(CHUNKED))


@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from([b"", OK, OK + b"a: b\r\n"]))
def test_nothing_but_malformed_is_raised_for_rubbish(parts: list[bytes], start: bytes) -> None:
    try:
        reader = fed(start, *parts, ended=True)
    except Malformed:
        return
    assert reader.has_head or not reader.complete


@given(st.data())
def test_an_answer_with_wrong_bytes_raises_nothing_but_malformed(data: st.DataObject) -> None:
    broken = bytearray(CHUNKED)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        told(fed(bytes(broken), ended=True))
    except Malformed:
        return


def test_headers_are_lower_case_and_repeated_ones_are_joined() -> None:
    headers = fed(CHUNKED).headers()
    assert headers["content-type"] == "text/event-stream"
    assert headers["x-a"] == "1, 2"
    assert "x-trailer" not in headers


def test_a_header_may_be_utf_8_or_latin_1() -> None:
    answer = OK + "x-a: é\r\n".encode() + "x-b: é\r\ncontent-length: 0\r\n\r\n".encode("latin-1")
    headers = fed(answer).headers()
    assert (headers["x-a"], headers["x-b"]) == ("é", "é")


def test_a_trailer_does_not_reach_into_the_next_answer() -> None:
    reader = fed(CHUNKED)
    reader.begin()
    reader.feed(LENGTH)
    assert reader.headers() == {"content-length": "11"}
    assert reader.take() == b"hello there"


@pytest.mark.parametrize(
    ("answer", "keep"),
    [
        (LENGTH, True),
        (CHUNKED, True),
        (OK + b"connection: close\r\ncontent-length: 1\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", True),
    ],
)
def test_whether_the_server_goes_on_is_known(answer: bytes, keep: bool) -> None:
    reader = fed(answer)
    assert reader.complete
    assert reader.keep is keep
    assert not reader.surplus


def test_an_answer_to_head_has_no_body_whatever_it_announces() -> None:
    reader = fed(OK + b"content-length: 9\r\n\r\n", bodiless=True)
    assert reader.complete
    assert not reader.keep
    assert reader.take() == b""


@pytest.mark.parametrize(
    "answer", [LENGTH[:-1], CHUNKED[:-1], OK, OK + b"content-length: 1\r\n\r\n", b""]
)
def test_an_end_in_the_middle_completes_nothing(answer: bytes) -> None:
    assert not fed(answer, ended=True).complete


@pytest.mark.parametrize("more", [b"x", LENGTH, b"HTTP/1.1 200 OK\r\n", b"\x00"])
@pytest.mark.parametrize("apart", [False, True])
def test_what_follows_an_answer_is_surplus_and_not_its_body(more: bytes, apart: bool) -> None:
    reader = fed(LENGTH, more) if apart else fed(LENGTH + more)
    assert reader.complete
    assert reader.surplus
    assert reader.take() == b"hello there"


@pytest.mark.parametrize(
    "answer",
    [
        b"hello, this is no HTTP\r\n\r\n",
        b"\x16\x03\x01\x00\x00\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        OK + b"x-a: \x00\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nxx",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nxx",
    ],
)
def test_what_is_no_answer_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed):
        fed(answer)


def test_chunks_win_over_a_length() -> None:
    headers = b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
    assert fed(OK + headers + b"5\r\nhello\r\n0\r\n\r\n").take() == b"hello"


def test_lines_may_end_without_a_carriage_return() -> None:
    assert fed(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi").take() == b"hi"


LINE = b"x-a: " + b"a" * 1000 + b"\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (OK, LINE),
    "one header": (OK + b"x-a: ", b"a" * 1000),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n" + LINE + b"\r\n"),
    "trailers": (OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", LINE),
    "a chunk's extension": (OK + b"transfer-encoding: chunked\r\n\r\n1;", b"a" * 1000),
}


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("at_once", [False, True])
def test_what_has_no_end_is_malformed(what: str, at_once: bool) -> None:
    start, more = ENDLESS[what]
    times = MAX_HEAD // len(more)
    parts = [more * times] * 2 if at_once else [more] * (2 * times)
    with pytest.raises(Malformed):
        fed(start, *parts)


def test_a_large_head_that_comes_with_its_body_is_malformed() -> None:
    with pytest.raises(Malformed):
        fed(OK + LINE * 70 + b"content-length: 1\r\n\r\nx")


def test_a_large_body_that_comes_with_its_head_is_none() -> None:
    size = 3 * MAX_HEAD
    assert len(fed(OK + b"content-length: %d\r\n\r\n" % size + bytes(size)).take()) == size


def test_a_body_in_many_small_chunks_has_no_limit() -> None:
    reader = fed(OK + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(MAX_HEAD // 4):
        reader.feed(b"1\r\nx\r\n")
    assert len(reader.take()) == MAX_HEAD // 4


# --- what goes out -------------------------------------------------------------------------------


def test_a_head_is_the_first_line_the_host_and_the_headers() -> None:
    head = http1.head("POST", b"/a?q=1", b"h:1", {"X-A": "1", "x-b": "\u00e9"})
    assert head.prefix == b"POST /a?q=1 HTTP/1.1\r\nhost: h:1\r\nX-A: 1\r\nx-b: \xe9\r\n"


def test_headers_that_frame_are_the_transport_s_own() -> None:
    told = {"Content-Length": "7", "transfer-encoding": "chunked", "connection": "upgrade"}
    head = http1.head("POST", b"/", b"h", told)
    assert head.prefix == b"POST / HTTP/1.1\r\nhost: h\r\n"
    assert head.length == 7
    assert http1.more_headers(head, told | {"host": "other", "x-a": "1"}) == b"x-a: 1\r\n"


def test_a_host_may_be_named_otherwise() -> None:
    assert http1.head("GET", b"/", b"h", {"host": "o"}).prefix == b"GET / HTTP/1.1\r\nhost: o\r\n"


def test_a_header_that_stands_already_does_not_come_twice() -> None:
    head = http1.head("GET", b"/", b"h", {"X-A": "1", "x-a": "2"})
    assert head.prefix.endswith(b"x-a: 2\r\n")
    assert head.prefix.count(b"x-a") == 1
    assert http1.more_headers(head, {"x-a": "3", "x-b": "4"}) == b"x-b: 4\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", f"{KEY}\r\nb: c"),
        ("x", f"{KEY}\nb: c"),
        ("x", f"{KEY}\0"),
        ("x", f"{KEY}\u20ac"),
        ("x y", KEY),
        ("x:", KEY),
        ("", KEY),
        ("x\r\ny", KEY),
        ("content-length", KEY),
    ],
)
def test_what_http_cannot_hold_is_not_sent_and_not_told(name: str, value: str) -> None:
    with pytest.raises(Unsendable) as raised:
        http1.head("GET", b"/", b"h", {name: value})
    assert KEY not in str(raised.value)


def test_a_method_is_a_word() -> None:
    with pytest.raises(Unsendable):
        http1.head("GET / HTTP/1.1\r\nx:", b"/", b"h", {})
