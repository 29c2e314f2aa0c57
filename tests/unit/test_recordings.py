"""The recordings are as their index says, and the tests' own form reader is strict."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.lib import form, recordings
from tests.lib.form import FormError, Part
from tests.lib.recordings import FOLDER, Recording

BY_FILE = pytest.mark.parametrize("recording", recordings.all(), ids=lambda one: one.file)


def test_the_index_lists_every_file_and_nothing_else() -> None:
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    listed = [one.file for one in recordings.all() + recordings.own()]
    assert {*listed, "index.json", "own/index.json"} == files
    for folder, bodies in ((FOLDER, recordings.all()), (FOLDER / "own", recordings.own())):
        assert json.loads((folder / "index.json").read_bytes())["count"] == len(bodies)


@BY_FILE
def test_a_recording_reads_as_its_mode_says(recording: Recording) -> None:
    assert recording.bytes
    match recording.mode:
        case "json":
            recording.json()
        case "text":
            media_type, text = recording.text_body()
            assert media_type.startswith("text/")
            assert text
        case "multipart":
            content_type, body = recording.multipart()
            assert form.parse(content_type, body) == recording.parts()
            assert [part.name for part in recording.parts() if part.filename] == ["file"]
        case "sse":
            assert len(recording.events()) == recording.compare["events"]
            assert ("error" in recording.compare["end"]) == bool(recording.error_event())
        case other:
            raise AssertionError(other)


def test_a_stream_tells_its_events_its_error_and_its_end_apart() -> None:
    broken = recordings.get("chat/vllm-error-then-done-stream.sse")
    assert [event["object"] for event in broken.events()] == ["chat.completion.chunk"] * 2
    assert broken.error_event()["error"]["code"] == 500
    assert broken.data()[-1] == "[DONE]"
    assert recordings.get("chat/openai-usage-stream.sse").error_event() is None


def test_recordings_are_chosen_by_what_they_are() -> None:
    chosen = recordings.all(operation="rerank", direction="response", mode="json")
    assert chosen[0].file == "rerank/cohere-v1-response.json"
    assert {one.operation for one in chosen} == {"rerank"}
    assert len(chosen) < len(recordings.all(operation="rerank"))


def test_an_error_has_its_status_and_the_others_200() -> None:
    assert recordings.get("errors/tei-overloaded.json").http_status == 429
    assert recordings.get("chat/openai-text-response.json").http_status == 200


def test_asking_for_what_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="no recording 'chat/none'"):
        recordings.get("chat/none")
    with pytest.raises(ValueError, match="recorded as json, not as multipart"):
        recordings.get("chat/openai-text-response.json").multipart()


PARTS = [
    Part("model", "é".encode()),
    Part("empty", b""),
    Part('odd "name"', b"\r\n--x\r\n"),
    Part("file", bytes(range(256)) + b"\r\n", "quai é.wav", "audio/wav"),
]


def test_a_form_reads_back_as_it_was_built() -> None:
    assert form.parse(*form.build(PARTS)) == PARTS
    assert form.parse(*form.build([])) == []


def test_a_form_of_a_real_client_is_read() -> None:
    file = ('a"b.wav', b"\x00\r\n", "audio/wav")
    sent = httpx.Request("POST", "http://x", data={"a": ["1", "2"]}, files={"file": file})
    assert form.parse(sent.headers["content-type"], sent.read()) == [
        Part("a", b"1"),
        Part("a", b"2"),
        Part("file", b"\x00\r\n", 'a"b.wav', "audio/wav"),
    ]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"--b\r\n"),
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"preamble\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="a"\r\n'),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\nContent-Disposition: form-data; name="a"\n\n1\n--b--\n',
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Type: a/b\r\n\r\n1\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nnonsense\r\n\r\n1\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: attachment; name="a"\r\n\r\n1\r\n--b--\r\n',
        ),
    ],
)
def test_what_is_not_exactly_a_form_is_an_error(content_type: str, body: bytes) -> None:
    with pytest.raises(FormError):
        form.parse(content_type, body)


AUDIO = Part("file", b"RIFF", "a.wav", "audio/wav")


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ([Part("a[]", b"1"), Part("a[]", b"2")], [Part("a", b"1"), Part("a", b"2")]),
        ([Part("a", b"1"), Part("b", b"2")], [Part("b", b"2"), Part("a", b"1")]),
        ([Part("t", b"0.0")], [Part("t", b"0")]),
        ([Part("s", b"True")], [Part("s", b"true")]),
        ([Part("x", b'{"a": [1, 2]}')], [Part("x", b'{"a":[1,2]}')]),
        ([AUDIO, Part("a", b"1")], [Part("a", b"1"), AUDIO]),
    ],
)
def test_forms_are_equal(expected: list[Part], actual: list[Part]) -> None:
    assert form.differences(expected, actual) == []


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ([Part("a[]", b"1"), Part("a[]", b"2")], [Part("a", b"2"), Part("a", b"1")]),
        ([Part("a", b"1")], []),
        ([], [Part("a", b"1")]),
        ([Part("a", b"1")], [Part("a", b"1"), Part("a", b"1")]),
        ([Part("t", b"0.5")], [Part("t", b"0")]),
        ([Part("s", b"true")], [Part("s", b"1")]),
        ([Part("s", b"x")], [Part("s", b"X")]),
        ([AUDIO], [Part("file", b"RIFX", "a.wav", "audio/wav")]),
        ([AUDIO], [Part("file", b"RIFF", "b.wav", "audio/wav")]),
        ([AUDIO], [Part("file", b"RIFF", "a.wav", "audio/mpeg")]),
        ([AUDIO], [Part("file", b"RIFF")]),
    ],
)
def test_forms_differ(expected: list[Part], actual: list[Part]) -> None:
    assert form.differences(expected, actual) != []
