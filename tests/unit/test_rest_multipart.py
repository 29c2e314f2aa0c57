"""Forms with a file: members typed by the message, the file as an upload, limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway_http import GatewayProtocol
from gateway_http.kinds import kinds_of
from gateway_http.spool import Spool
from services import errors
from services.body import Body
from services.call import Call
from tests.lib import form, recordings
from tests.lib.form import Part
from tests.lib.uploads import END, FILE_HEAD, FILE_TAIL, PIECE, caller, field
from tests.unit.rest_server import TRANSCRIBE, Rest, Unused, serving, until

PATH = "/v1/audio/transcriptions"
FILE = Part("file", b"RIFF\x00\xff", "a.wav", "audio/wav")


class Speech(Unused):
    """Reads the upload as often as told, and keeps what came."""

    def __init__(self, reads: int = 1) -> None:
        self.requests: list[Body] = []
        self.files: list[bytes] = []
        self._reads = reads

    async def transcribe(self, request: Body, call: Call) -> Body:
        """The text is how long the file was."""
        self.requests.append(request)
        for _ in range(self._reads if request.upload else 0):
            assert request.upload
            self.files.append(b"".join([piece async for piece in request.upload.chunks()]))
        return Body.from_value("TranscribeResponse", {"text": str(len(self.files[0]))})

    async def stream_transcribe(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        """The same, at once."""
        await self.transcribe(request, call)
        yield [Body.from_value("StreamTranscribeResponse", {"type": "transcript.text.done"})]

    @property
    def members(self) -> Any:
        """The last request."""
        return self.requests[-1].value()


async def send(rest: Rest, *parts: Part, path: str = PATH) -> Any:
    """POST a form."""
    content_type, body = form.build(parts)
    return await rest.client.post(path, content=body, headers={"content-type": content_type})


async def test_a_form_becomes_members_and_an_upload() -> None:
    """G33."""
    service = Speech()
    async with serving({TRANSCRIBE: service}) as rest:
        answer = await send(
            rest,
            Part("model", b"whisper"),
            Part("language", "français".encode()),
            Part("temperature", b"0.0"),
            Part("stream", b"False"),
            Part("timestamp_granularities[]", b"word"),
            Part("timestamp_granularities[]", b"segment"),
            Part("include", b"logprobs"),
            Part("chunking_strategy[type]", b"server_vad"),
            Part("chunking_strategy[threshold]", b"0.5"),
            Part("chunking_strategy[prefix_padding_ms]", b"300"),
            FILE,
        )
    assert answer.status_code == 200
    assert answer.json() == {"text": "6"}
    assert service.members == {
        "model": "whisper",
        "language": "français",
        "temperature": 0.0,
        "stream": False,
        "timestamp_granularities": ["word", "segment"],
        "include": ["logprobs"],
        "chunking_strategy": {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300},
    }
    upload = service.requests[0].upload
    assert upload
    assert (upload.filename, upload.media_type, upload.size) == ("a.wav", "audio/wav", 6)
    assert service.files == [FILE.data]


@pytest.mark.parametrize(
    ("parts", "members"),
    [
        ([Part("chunking_strategy", b"auto")], {"chunking_strategy": "auto"}),
        (
            [Part("chunking_strategy", b'{"type":"server_vad"}')],
            {"chunking_strategy": {"type": "server_vad"}},
        ),
        ([Part("temperature", b"warm")], {"temperature": "warm"}),
        ([Part("language", b"1")], {"language": "1"}),
        ([Part("hotwords", b"a, b")], {"hotwords": "a, b"}),
        ([Part("vllm_xargs", b'{"a":1}')], {"vllm_xargs": '{"a":1}'}),
        ([Part("new[a][]", b"x")], {"new": {"a": ["x"]}}),
        ([Part("languages", b"fr"), Part("languages", b"en")], {"languages": ["fr", "en"]}),
        ([Part("prompt", b"")], {"prompt": ""}),
    ],
)
async def test_texts_take_the_type_of_their_member_and_none_is_lost(
    parts: list[Part], members: dict[str, Any]
) -> None:
    """G23."""
    service = Speech()
    async with serving({TRANSCRIBE: service}) as rest:
        assert (await send(rest, *parts, FILE)).status_code == 200
    assert service.members == members


async def test_fields_may_come_after_the_file() -> None:
    service = Speech()
    async with serving({TRANSCRIBE: service}) as rest:
        assert (await send(rest, FILE, Part("model", b"m"))).status_code == 200
    assert service.members == {"model": "m"}


async def test_the_path_sets_the_task_whatever_the_form_says() -> None:
    service = Speech()
    async with serving({TRANSCRIBE: service}) as rest:
        await send(rest, Part("task", b"transcribe"), FILE, path="/v1/audio/translations")
    assert service.members == {"task": "translate"}


async def test_without_relay_members_have_been_through_protobuf_and_the_file_stays() -> None:
    service = Speech()
    async with serving({TRANSCRIBE: service}, relay=False) as rest:
        await send(rest, Part("temperature", b"1"), Part("x", b"y"), FILE)
    assert service.requests[0].json() == b'{"temperature":1.0,"x":"y"}'
    assert service.files == [FILE.data]


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
async def test_a_file_of_any_size_can_be_read_again(size: int) -> None:
    """Another attempt, at another provider, sends the same file."""
    service = Speech(reads=2)
    data = bytes(range(256)) * (size // 256 + 1)
    async with serving({TRANSCRIBE: service}) as rest:
        answer = await send(rest, Part("file", data[:size], "a.wav", "audio/wav"))
    assert answer.status_code == 200
    assert service.files == [data[:size]] * 2
    assert service.requests[0].upload
    assert service.requests[0].upload.again


async def test_a_file_without_a_name_is_the_file_all_the_same() -> None:
    service = Speech()
    async with serving({TRANSCRIBE: service}) as rest:
        assert (await send(rest, Part("file", b"RIFF"))).status_code == 200
    assert service.files == [b"RIFF"]


@pytest.mark.parametrize(
    "recorded",
    recordings.all(mode="multipart"),
    ids=lambda recorded: recorded.file,
)
async def test_recorded_forms_are_taken_with_all_their_members(
    recorded: recordings.Recording,
) -> None:
    """G23, G33."""
    service = Speech()
    content_type, body = recorded.multipart()
    async with serving({TRANSCRIBE: service}) as rest:
        answer = await rest.client.post(PATH, content=body, headers={"content-type": content_type})
    parts = recorded.parts()
    assert answer.status_code == 200
    assert service.files == [part.data for part in parts if part.filename is not None]
    wanted = {part.plain_name.partition("[")[0] for part in parts if part.filename is None}
    assert service.members.keys() == wanted


@pytest.mark.parametrize(
    ("parts", "param", "said"),
    [
        ([FILE, FILE], "file", "two parts"),
        ([FILE, Part("voice", b"x", "v.wav", "audio/wav")], "voice", "send it as `file`"),
        ([Part("a", b"1"), Part("a[b]", b"2"), FILE], None, "both an object"),
        ([Part("prompt", b"\xff"), FILE], "prompt", "UTF-8"),
        ([Part("stream", b"maybe"), FILE], "stream", "true or false"),
    ],
)
async def test_a_form_that_cannot_be_taken_is_400(
    parts: list[Part], param: str | None, said: str
) -> None:
    async with serving({TRANSCRIBE: Unused()}) as rest:
        answer = await send(rest, *parts)
        assert rest.life.in_flight == 0
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param
    assert said in error["message"]


@pytest.mark.parametrize("cut", [0, 10, 60, 100])
async def test_a_form_that_is_cut_short_is_400(cut: int) -> None:
    content_type, body = form.build([Part("model", b"m"), FILE])
    async with serving({TRANSCRIBE: Unused()}) as rest:
        answer = await rest.client.post(
            PATH, content=body[:cut], headers={"content-type": content_type}
        )
    assert answer.status_code == 400
    assert "the form cannot be read" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/json", 415), ("multipart/form-data", 400), ("multipart/mixed; boundary=a", 415)],
)
async def test_what_is_not_announced_as_a_form_is_refused(content_type: str, status: int) -> None:
    async with serving({TRANSCRIBE: Unused()}) as rest:
        answer = await rest.client.post(PATH, content=b"{}", headers={"content-type": content_type})
    assert answer.status_code == status
    assert "multipart/form-data" in answer.text or "boundary" in answer.text


class Reader(Unused):
    """Reads the upload to its end, and tells how that went."""

    def __init__(self) -> None:
        self.read = 0
        self.ended: asyncio.Future[BaseException | None] = asyncio.Future()

    async def transcribe(self, request: Body, call: Call) -> Body:
        """How long the file was."""
        assert request.upload
        assert not request.upload.again
        try:
            async for piece in request.upload.chunks():
                self.read += len(piece)
        except BaseException as error:
            self.ended.set_result(error)
            raise
        return Body.from_value("TranscribeResponse", {"text": str(self.read)})


@pytest.mark.parametrize("protocol", [GatewayProtocol, HttpToolsProtocol])
async def test_a_caller_who_leaves_in_the_middle_of_a_file_ends_its_call(
    protocol: type[HttpToolsProtocol],
) -> None:
    """G5, G34: also on a server that tells nobody but who reads."""
    service = Reader()
    async with serving({TRANSCRIBE: service}, protocol=protocol) as rest:
        async with caller(f"http://127.0.0.1:{rest.port}") as client:
            await client.begin()
            await client.send(field("model", "m"), FILE_HEAD, *[bytes(PIECE)] * 4)
            await until(lambda: service.read > 3 * PIECE)
            client.leave("close")
            error = await asyncio.wait_for(service.ended, 5)
        await until(lambda: rest.life.in_flight == 0)
    assert isinstance(error, asyncio.CancelledError | errors.Cancelled)


@pytest.mark.parametrize("protocol", [GatewayProtocol, HttpToolsProtocol])
async def test_a_file_that_arrives_during_its_call_is_read_to_its_end(
    protocol: type[HttpToolsProtocol],
) -> None:
    """G34."""
    service = Reader()
    async with (
        serving({TRANSCRIBE: service}, protocol=protocol) as rest,
        caller(f"http://127.0.0.1:{rest.port}") as client,
    ):
        await client.begin()
        await client.send(field("model", "m"), FILE_HEAD, *[bytes(PIECE)] * 4)
        await until(lambda: service.read > 3 * PIECE)
        await client.end(bytes(PIECE), FILE_TAIL, END)
        assert await client.json() == (200, {"text": str(5 * PIECE)})


async def test_a_file_whose_caller_stalls_is_given_up() -> None:
    service = Reader()
    async with (
        serving({TRANSCRIBE: service}, stall=0.3) as rest,
        caller(f"http://127.0.0.1:{rest.port}") as client,
    ):
        await client.begin()
        await client.send(field("model", "m"), FILE_HEAD, *[bytes(PIECE)] * 4)
        status, body = await client.json()
    assert status == 504
    assert "nothing came for 0.3 s" in body["error"]["message"]


async def test_a_form_over_the_limit_is_413_before_it_is_read() -> None:
    """G34."""
    async with serving({TRANSCRIBE: Unused()}, max_upload_bytes=1000) as rest:
        raw = await rest.post(
            PATH, b"", "content-type: multipart/form-data; boundary=b", "content-length: 1001"
        )
        status, headers = await raw.head()
        error = json.loads(await raw.reader.readexactly(int(headers["content-length"])))["error"]
        await raw.close()
    assert status == 413
    assert "LiveTranscribe" in error["message"]


async def test_a_form_of_unknown_length_is_counted() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        _, body = form.build([Part("file", b"x" * 2000, "a")])
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    async with serving({TRANSCRIBE: Unused()}, max_upload_bytes=1000) as rest:
        content_type, _ = form.build([])
        answer = await rest.client.post(
            PATH, content=pieces(), headers={"content-type": content_type}
        )
        assert rest.life.in_flight == 0
    assert answer.status_code == 413


async def test_fields_are_held_to_the_limit_of_requests_without_a_file() -> None:
    async with serving({TRANSCRIBE: Unused()}, max_request_bytes=1000) as rest:
        answer = await send(rest, Part("prompt", b"x" * 1000), FILE)
    assert answer.status_code == 413


async def test_the_request_of_a_large_file_is_over_when_its_answer_is(tmp_path: Path) -> None:
    """The file goes with its call: it cannot be read afterwards, and nothing lies about."""
    service = Speech()
    async with serving({TRANSCRIBE: service}) as rest:
        await send(rest, Part("file", b"x" * 2_000_000, "a"))
        upload = service.requests[0].upload
        assert upload
        with pytest.raises(ValueError, match="closed"):
            [piece async for piece in upload.chunks()]


async def test_a_spool_gives_back_what_was_written_to_several_readers() -> None:
    spool = Spool(memory=10)
    for piece in (b"abc", b"", b"d" * 20, b"ef"):
        await spool.write(piece)
    await spool.end()

    async def whole() -> bytes:
        return b"".join([piece async for piece in spool.chunks()])

    assert list(await asyncio.gather(whole(), whole())) == [b"abc" + b"d" * 20 + b"ef"] * 2
    assert spool.size == 25
    spool.close()


def test_kinds_follow_the_message_s_fields() -> None:
    kinds = kinds_of("TranscribeRequest")
    assert {name: kinds[name] for name in ("model", "temperature", "stream", "task")} == {
        "model": "string",
        "temperature": "number",
        "stream": "boolean",
        "task": "string",
    }
    assert kinds["timestamp_granularities"] == "strings"
    assert kinds["chunking_strategy"] == "object"
    assert kinds["chunking_strategy[silence_duration_ms]"] == "integer"
    assert "file" not in kinds
    assert kinds_of("ChatRequest")["logit_bias"] == "object"
