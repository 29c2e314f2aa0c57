"""services/multipart.py: what browsers, SDKs and curl send, cut at every byte, and what we send."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser, parse_options_header

from services.multipart import (
    End,
    FilePart,
    MultipartError,
    MultipartLimits,
    MultipartReader,
    MultipartWriter,
    PartBegin,
    PartData,
    PartEnd,
)
from tests.lib import form, recordings

BOUNDARY = "tetrad-5b1e"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
RECORDED = recordings.all(mode="multipart")


@dataclass
class Part:
    begin: PartBegin
    data: bytes = b""

    @property
    def plain(self) -> form.Part:
        begin = self.begin
        return form.Part(begin.name, self.data, begin.filename, begin.content_type)


def read(
    *reads: bytes, content_type: str = CONTENT_TYPE, limits: MultipartLimits | None = None
) -> list[Part]:
    """The parts of a whole body; checks that the events come in their order."""
    reader = MultipartReader(content_type, limits)
    parts: list[Part] = []
    is_open = ended = False
    for event in [event for data in reads for event in reader.feed(data)] + reader.close():
        assert not ended
        match event:
            case PartBegin():
                assert not is_open
                is_open = True
                parts.append(Part(event))
            case PartData(data):
                assert is_open
                assert data
                parts[-1].data += data
            case PartEnd():
                assert is_open
                is_open = False
            case End():
                assert not is_open
                ended = True
    assert ended
    return parts


def read_alone(content: bytes) -> bytes:
    """The content of a part that is written by hand and stands alone in its form."""
    head = b'--tetrad-5b1e\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    (part,) = read(head + content + b"\r\n--tetrad-5b1e--\r\n")
    return part.data


def cuts(body: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(ends)]


def bytewise(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def reference(body: bytes, boundary: str = BOUNDARY) -> list[form.Part]:
    """The same body as python-multipart reads it."""
    parts: list[tuple[dict[str, str], bytes]] = []
    name = value = b""

    def begin() -> None:
        parts.append(({}, b""))

    def header_begin() -> None:
        nonlocal name, value
        name = value = b""

    def header_name(data: bytes, start: int, end: int) -> None:
        nonlocal name
        name += data[start:end]

    def header_value(data: bytes, start: int, end: int) -> None:
        nonlocal value
        value += data[start:end]

    def header_end() -> None:
        parts[-1][0][name.decode().lower()] = value.decode()

    def content(data: bytes, start: int, end: int) -> None:
        headers, before = parts[-1]
        parts[-1] = (headers, before + data[start:end])

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_begin": header_begin,
            "on_header_field": header_name,
            "on_header_value": header_value,
            "on_header_end": header_end,
            "on_part_data": content,
        },
    )
    parser.write(body)
    parser.finalize()
    found = []
    for headers, data in parts:
        disposition = headers["content-disposition"].encode().decode("latin-1")
        _, options = parse_options_header(disposition)
        filename = options.get(b"filename")
        found.append(
            form.Part(
                options[b"name"].decode(),
                data,
                None if filename is None else filename.decode(),
                headers.get("content-type"),
            )
        )
    return found


# Contents that are hard on a search for the boundary: parts of it, and the whole of it with
# something behind it that makes it no delimiter.
PIECES = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"--", b"\r\n--", b"\r\n--tetrad", b"\r\n--tetrad-5b1", b"-5b1e"),
        *(b"\r\n--tetrad-5b1e", b"x", b"\r\n--tetrad-5b1e\rx", b"--tetrad-5b1e", b"-", b"\r\n\r\n"),
        *(b"\0", b"\xff"),
    ]
)
DELIMITER = re.compile(rb"(?:\A|\r\n)--tetrad-5b1e(?:--|[ \t]*(?:\r\n|\Z))")
CONTENTS = (st.binary(max_size=40) | st.lists(PIECES, max_size=8).map(b"".join)).filter(
    lambda data: DELIMITER.search(data) is None
)
# What the way that browsers escape can bring back: not a percent sign and not a control character.
NAMES = st.text(
    st.characters(exclude_characters="%", exclude_categories=["Cc", "Cs"])
    | st.sampled_from(['"', "\\", "\r", "\n", ";", "'", "="]),
    min_size=1,
    max_size=12,
)
FIELDS = st.tuples(NAMES, st.text(max_size=20).filter(lambda text: "\r\n--tetrad" not in text))
FILES = st.tuples(NAMES, NAMES, st.just("audio/wav"), CONTENTS)
PLACES = st.lists(st.integers(0, 600), max_size=6)


def written(
    fields: list[tuple[str, str]], files: list[tuple[str, str, str, bytes]]
) -> tuple[bytes, list[form.Part]]:
    writer = MultipartWriter(BOUNDARY)
    body = b"".join(writer.field(name, value) for name, value in fields)
    for name, filename, content_type, data in files:
        body += writer.file_head(name, filename, content_type) + data + writer.file_tail()
    parts = [form.Part(name, value.encode()) for name, value in fields]
    parts += [form.Part(name, data, filename, kind) for name, filename, kind, data in files]
    return body + writer.end(), parts


@settings(deadline=None)
@given(st.lists(FIELDS, max_size=4), st.lists(FILES, max_size=3), PLACES)
def test_what_is_written_is_read_however_it_is_cut(
    fields: list[tuple[str, str]], files: list[tuple[str, str, str, bytes]], places: list[int]
) -> None:
    body, expected = written(fields, files)
    assert [part.plain for part in read(*cuts(body, places))] == expected
    assert [part.plain for part in read(*bytewise(body))] == expected


BODY_PIECES = st.sampled_from(
    [
        *(b"--tetrad-5b1e", b"--tetrad-5b1e\r\n", b"\r\n--tetrad-5b1e\r\n", b"--", b"x", b" "),
        *(b'Content-Disposition: form-data; name="a"', b"X: " + b"x" * 90, b"\r\n\r\n", b"\r\n"),
        *(b'--tetrad-5b1e\r\nContent-Disposition: form-data; name="a"\r\n\r\n', b"\r", b"\n"),
    ]
)


@settings(deadline=None)
@given(st.lists(BODY_PIECES, max_size=12).map(b"".join), PLACES)
def test_a_body_gives_the_same_parts_or_the_same_fault_however_it_is_cut(
    body: bytes, places: list[int]
) -> None:
    limits = MultipartLimits(header_bytes=150, parts=3)

    def outcome(*reads: bytes) -> list[form.Part] | str:
        try:
            return [part.plain for part in read(*reads, limits=limits)]
        except MultipartError as fault:
            return str(fault)

    expected = outcome(body)
    assert outcome(*cuts(body, places)) == expected
    assert outcome(*bytewise(body)) == expected


@settings(deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=4), st.lists(FILES, max_size=3))
def test_what_is_written_is_what_python_multipart_reads(
    fields: list[tuple[str, str]], files: list[tuple[str, str, str, bytes]]
) -> None:
    body, expected = written(fields, files)
    found = reference(body)
    assert [part.data for part in found] == [part.data for part in expected]
    for mine, theirs in zip(expected, found, strict=True):
        names = (mine.name, mine.filename or "")
        # It leaves %22 as it stands, and takes a backslash before the last quote for an escape.
        if not any(set('"\r\n') & set(name) or name.endswith("\\") for name in names):
            assert theirs.name == mine.name
            # Of a path, as one browser of old sent it, it takes the last part.
            assert theirs.filename in (mine.filename, names[1].split("\\")[-1])


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            form.Part,
            st.from_regex(r"[a-z]{1,6}(\[[a-z]{0,3}\])?", fullmatch=True),
            CONTENTS,
            st.none() | st.from_regex(r"[a-zé ;=]{0,8}\.wav", fullmatch=True),
            st.none() | st.just("audio/wav"),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_valid_body_is_read_as_python_multipart_reads_it(parts: list[form.Part]) -> None:
    _, body = form.build(parts, BOUNDARY)
    assert [part.plain for part in read(body)] == reference(body) == parts


@pytest.mark.parametrize("recording", RECORDED, ids=lambda one: one.file)
def test_a_recorded_body_is_the_same_at_every_split_point(
    recording: recordings.Recording,
) -> None:
    content_type, body = recording.multipart(BOUNDARY)
    expected = recording.parts()
    assert reference(body) == expected
    for cut in range(len(body) + 1):
        parts = read(body[:cut], body[cut:], content_type=content_type)
        assert [part.plain for part in parts] == expected
    assert [part.plain for part in read(*bytewise(body))] == expected


@pytest.mark.parametrize("recording", RECORDED, ids=lambda one: one.file)
def test_a_recorded_body_that_ends_early_is_an_error_at_every_byte(
    recording: recordings.Recording,
) -> None:
    content_type, body = recording.multipart(BOUNDARY)
    for cut in range(len(body) - len("\r\n")):
        reader = MultipartReader(content_type)
        reader.feed(body[:cut])
        with pytest.raises(MultipartError):
            reader.close()


def test_the_recordings_are_there() -> None:
    assert len(RECORDED) >= 6


def test_what_is_missing_at_the_end_is_named() -> None:
    body, _ = written([("model", "whisper-1")], [("file", "a.wav", "audio/wav", b"abc")])
    for ending, missing in [
        (body.index(b"model"), "inside the headers of part 1"),
        (body.index(b"whisper"), r"inside part 1 \('model'\): the closing boundary is missing"),
        (body.index(b"abc"), r"inside part 2 \('file'\)"),
        (len(body) - 4, r"inside part 2 \('file'\)"),
        (0, "no boundary"),
    ]:
        reader = MultipartReader(CONTENT_TYPE)
        reader.feed(body[:ending])
        with pytest.raises(MultipartError, match=missing):
            reader.close()


def test_a_preamble_and_an_epilogue_are_ignored() -> None:
    body, expected = written([("a", "1")], [])
    stream = b"This is a form.\r\n--tetrad\r\n" + body + b"The end.\r\n" + body
    assert [part.plain for part in read(stream)] == expected
    assert [part.plain for part in read(*bytewise(stream))] == expected


def test_an_empty_form_has_no_parts() -> None:
    assert read(b"--tetrad-5b1e--") == []


def test_a_boundary_may_be_followed_by_white_space() -> None:
    head = b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--tetrad-5b1e--'
    for padding in (b" \t", b" " * 64):
        body = b"--tetrad-5b1e" + padding + head
        assert [part.data for part in read(*bytewise(body))] == [b"1"]


@pytest.mark.parametrize("end", [b"\r\n\r\n\r\n", b"\r\n\r\n"], ids=["empty", "left out"])
def test_a_part_may_have_no_content(end: bytes) -> None:
    head = b'Content-Disposition: form-data; name="a"'
    body = b"--tetrad-5b1e\r\n" + head + end + b"--tetrad-5b1e--"
    for reads in ([body], bytewise(body)):
        (part,) = read(*reads)
        assert part.plain == form.Part("a", b"")


def test_a_text_that_starts_like_the_boundary_is_content() -> None:
    content = b"--tetrad-5b1e is\r\n--tetrad-5b1ed, and\r\n--tetrad-5b1e -- too"
    assert read_alone(content) == content


def test_padding_that_never_ends_is_content() -> None:
    content = b"\r\n--tetrad-5b1e" + b" " * 5000
    assert read_alone(content) == content


def test_more_parts_than_the_limit_are_refused() -> None:
    body, _ = written([("a", "1")] * 1000, [])
    assert len(read(body)) == 1000
    body, _ = written([("a", "1")] * 1001, [])
    with pytest.raises(MultipartError, match="more than 1000 parts"):
        read(body)


def test_a_reader_that_found_a_fault_is_not_used_again() -> None:
    reader = MultipartReader(CONTENT_TYPE)
    for _ in range(2):
        with pytest.raises(MultipartError, match="no Content-Disposition"):
            reader.feed(b"--tetrad-5b1e\r\n\r\n")
    with pytest.raises(MultipartError, match="no Content-Disposition"):
        reader.close()


def test_content_leaves_the_reader_with_the_read_that_brought_it() -> None:
    """G34: a file streams through; at most the start of a delimiter is held back."""
    writer = MultipartWriter(BOUNDARY)
    reader = MultipartReader(writer.content_type)
    reader.feed(writer.file_head("file", "a.wav", "audio/wav"))
    fed = given_out = 0
    for read_ in [b"x" * 1000, b"\r\n--tetrad-5b1e", b" " * 64, b"\r" * 500, b"\r\n--tet", b"y"]:
        fed += len(read_)
        given_out += sum(len(e.data) for e in reader.feed(read_) if isinstance(e, PartData))
        assert fed - given_out <= len("\r\n--tetrad-5b1e") + 66
    assert given_out == fed


@pytest.mark.parametrize("size", [64 * 1024, 50_000_000], ids=["64 KiB reads", "one read"])
def test_fifty_megabytes_are_parsed_in_less_than_a_second(size: int) -> None:
    block = os.urandom(1_000_000)
    body, _ = written([("model", "m")], [("file", "a.wav", "audio/wav", block * 50)])
    reads = [body[at : at + size] for at in range(0, len(body), size)]
    reader = MultipartReader(CONTENT_TYPE)
    start = time.process_time()
    given_out = 0
    for read_ in reads:
        given_out += sum(len(e.data) for e in reader.feed(read_) if isinstance(e, PartData))
    reader.close()
    assert time.process_time() - start < 1
    assert given_out == 50_000_000 + len("m")


@pytest.mark.parametrize("piece", [b"\r", b"\r\n--", b"\r\n--tetrad-5b1ex", b"\r\n--tetrad-5b1e x"])
def test_content_made_to_be_slow_is_not(piece: bytes) -> None:
    content = piece * (2_000_000 // len(piece))
    start = time.process_time()
    assert read_alone(content) == content
    assert time.process_time() - start < 1


def test_a_form_is_written_as_browsers_write_it() -> None:
    writer = MultipartWriter(BOUNDARY)
    start = "--tetrad-5b1e\r\nContent-Disposition: form-data; "
    assert writer.content_type == CONTENT_TYPE
    field = f'{start}name="languages[]"\r\n\r\nfrançais\r\n'
    assert writer.field("languages[]", "français") == field.encode()
    file = f'{start}name="file"; filename="naïve %22海%22%0D%0A.wav"\r\n'
    file += "Content-Type: audio/wav\r\n\r\n"
    assert writer.file_head("file", 'naïve "海"\r\n.wav', "audio/wav") == file.encode()
    assert writer.file_tail() == b"\r\n"
    assert writer.end() == b"--tetrad-5b1e--\r\n"


@settings(deadline=None)
@given(st.lists(FIELDS, max_size=4), st.lists(FILES, max_size=2))
def test_the_length_is_that_of_the_body(
    fields: list[tuple[str, str]], files: list[tuple[str, str, str, bytes]]
) -> None:
    body, _ = written(fields, files)
    sizes = [FilePart(name, filename, kind, len(data)) for name, filename, kind, data in files]
    assert MultipartWriter(BOUNDARY).length(fields, sizes) == len(body)


@pytest.mark.parametrize("boundary", ["", "a b", "a\r\nb", "é", "a" * 71, 'a"b'])
def test_a_boundary_that_is_none_is_not_written(boundary: str) -> None:
    with pytest.raises(MultipartError, match="boundary"):
        MultipartWriter(boundary)


def test_what_cannot_be_written_is_an_error() -> None:
    writer = MultipartWriter(BOUNDARY)
    with pytest.raises(MultipartError, match="content type"):
        writer.file_head("file", "a.wav", "audio/wav\r\nX-Evil: 1")
    with pytest.raises(MultipartError, match="UTF-8"):
        writer.field("a", "\ud800")
    with pytest.raises(MultipartError, match="UTF-8"):
        writer.file_head("file", "\udcff.wav", "audio/wav")
