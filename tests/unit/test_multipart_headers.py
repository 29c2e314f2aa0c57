"""services/multipart.py: the headers of parts, and the content type that names the boundary."""

from __future__ import annotations

import time

import pytest

from services.multipart import (
    MultipartError,
    MultipartLimits,
    MultipartReader,
    MultipartWriter,
    PartBegin,
)

CONTENT_TYPE = "multipart/form-data; boundary=tetrad-5b1e"


def read(
    *reads: bytes, content_type: str = CONTENT_TYPE, limits: MultipartLimits | None = None
) -> PartBegin:
    """The beginning of the only part."""
    reader = MultipartReader(content_type, limits)
    events = [event for data in reads for event in reader.feed(data)]
    (begin,) = [event for event in events if isinstance(event, PartBegin)]
    return begin


def begin(head: str) -> PartBegin:
    """The beginning of a part with these header lines."""
    return read(b"--tetrad-5b1e\r\n" + head.encode().replace(b"\n", b"\r\n") + b"\r\n\r\n")


def bytewise(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


@pytest.mark.parametrize(
    ("parameters", "name", "filename"),
    [
        ('name="a"', "a", None),
        ("name=a; filename=b.wav", "a", "b.wav"),
        ('name="a"; filename=""', "a", ""),
        ('NAME="a" ; FileName = "b;c=d.wav";', "a", "b;c=d.wav"),
        ('name="a";filename="un%22deux%0D%0a.wav"', "a", 'un"deux\r\n.wav'),
        ('name="50%"; filename="100%25.wav"', "50%", "100%25.wav"),
        (r'name="a"; filename="un \"deux\" \\ trois.wav"', "a", r'un "deux" \ trois.wav'),
        (r'name="a"; filename="C:\temp\b.wav"', "a", r"C:\temp\b.wav"),
        ('name="a"; filename="naïve 海.wav"', "a", "naïve 海.wav"),
        ("name=\"a\"; filename*=UTF-8''na%C3%AFve%20%e6%b5%b7.wav", "a", "naïve 海.wav"),
        ('name="a"; filename="b"; filename*=utf-8\'en\'c%2fd', "a", "c/d"),
        ('name="a"; filename*=iso-8859-1\'\'na%efve; filename="b"', "a", "naïve"),
        ('name="a"; filename="b"; filename*=koi8-r\'\'c', "a", "b"),
        ('name="a"; filename="b"; filename*=UTF-8\'\'%ff', "a", "b"),
        (r'name="a"; filename="b\"', "a", "b\\"),
        ('name="a"; name="b"', "a", None),
        ('name="x[a][]"', "x[a][]", None),
    ],
)
def test_a_disposition_is_read(parameters: str, name: str, filename: str | None) -> None:
    found = begin(f"Content-Disposition: form-data; {parameters}")
    assert (found.name, found.filename) == (name, filename)


def test_headers_are_read_whatever_their_case() -> None:
    found = begin('CONTENT-disposition:form-data; name="a"\ncontent-TYPE: audio/wav \nX-A: b:c')
    assert found.content_type == "audio/wav"
    assert found.headers == {
        "content-disposition": 'form-data; name="a"',
        "content-type": "audio/wav",
        "x-a": "b:c",
    }


def test_a_folded_header_is_one_line() -> None:
    assert begin('Content-Disposition: form-data;\n\t name="a"').name == "a"


def test_a_name_in_latin_1_is_read() -> None:
    head = 'Content-Disposition: form-data; name="é"'.encode("latin-1")
    assert read(b"--tetrad-5b1e\r\n" + head + b"\r\n\r\n").name == "é"


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ("Content-Type: text/plain", "no Content-Disposition"),
        ("Content-Disposition: form-data", "with a name"),
        ('Content-Disposition: form-data; filename="a"', "with a name"),
        ('Content-Disposition: attachment; name="a"', "not form-data"),
        ('Content-Disposition: form-data; name="a" b', "malformed"),
        ('Content-Disposition: form-data; name="a', "malformed"),
        ('Content-Disposition: form-data; name="', "malformed"),
        ('Content-Disposition: form-data; "a"', "malformed parameters"),
        ('Content-Disposition: form-data; name="a"\nX', "malformed"),
        ('Content-Disposition: form-data; name="a"\nX y: z', "malformed"),
        ('Content-Disposition: form-data; name="a\0"', "malformed"),
        (
            'Content-Disposition: form-data; name="a"\nContent-Transfer-Encoding: base64',
            "transfer encoding 'base64'",
        ),
    ],
)
def test_a_part_that_cannot_be_read_is_an_error(head: str, fault: str) -> None:
    with pytest.raises(MultipartError, match=fault):
        begin(head)


def test_a_part_without_headers_is_an_error() -> None:
    body = b"--tetrad-5b1e\r\n\r\n1\r\n--tetrad-5b1e--"
    for reads in ([body], bytewise(body)):
        with pytest.raises(MultipartError, match="part 1 has no Content-Disposition"):
            read(*reads)


@pytest.mark.parametrize(
    ("content_type", "fault"),
    [
        ("", "not multipart/form-data"),
        ("application/json", "not multipart/form-data"),
        ("multipart/mixed; boundary=a", "not multipart/form-data"),
        ("multipart/form-data", "no boundary"),
        ("multipart/form-data; boundary=", "no boundary"),
        ('multipart/form-data; boundary=""', "no boundary"),
        ("multipart/form-data; boundary", "malformed"),
        ("multipart/form-data; boundary=é", "ASCII"),
        ('multipart/form-data; boundary="a\rb"', "ASCII"),
    ],
)
def test_a_content_type_without_a_boundary_is_an_error(content_type: str, fault: str) -> None:
    with pytest.raises(MultipartError, match=fault):
        MultipartReader(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "Multipart/Form-Data; charset=utf-8; Boundary=tetrad-5b1e",
        'multipart/form-data;boundary="tetrad-5b1e"',
        "multipart/form-data; boundary=tetrad-5b1e ; charset=utf-8;",
    ],
)
def test_a_boundary_is_found_in_the_content_type(content_type: str) -> None:
    body = MultipartWriter("tetrad-5b1e").field("a", "1")
    assert read(body, content_type=content_type).name == "a"


@pytest.mark.parametrize("size", [0, 1])
def test_headers_at_the_limit_are_read_and_larger_ones_refused(size: int) -> None:
    limits = MultipartLimits(header_bytes=200)
    head = b'Content-Disposition: form-data; name="a"\r\nX: '
    head += b"x" * (200 - len(head) - 4 + size) + b"\r\n\r\n"
    body = b"--tetrad-5b1e\r\n" + head + b"\r\n--tetrad-5b1e--"
    for reads in ([body], bytewise(body), [body[:214], body[214:216], body[216:]]):
        if size == 0:
            assert read(*reads, limits=limits).name == "a"
        else:
            with pytest.raises(MultipartError, match="larger than 200 bytes"):
                read(*reads, limits=limits)


def test_headers_that_never_end_are_refused_at_the_default_limit() -> None:
    reader = MultipartReader(CONTENT_TYPE)
    reader.feed(b"--tetrad-5b1e\r\n" + b"x" * 16383)
    with pytest.raises(MultipartError, match="16384 bytes"):
        reader.feed(b"x")


def test_headers_of_many_spaces_cost_linear_time() -> None:
    start = time.process_time()
    with pytest.raises(MultipartError):
        begin(
            "Content-Disposition: form-data" + ";" * 4000 + " " * 4000 + "name" + " " * 7000 + "x"
        )
    begin("Content-Disposition: form-data; name=" + " " * 7000 + "x" + " " * 7000 + "y")
    assert time.process_time() - start < 0.5
