"""The multipart form that takes a sound to an upstream: fields, the file as it is read, fields.

What came behind the caller's file follows the file here, too: it is known only then.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from services import errors
from services.form import Kinds, json_to_fields
from services.multipart import MultipartError, MultipartWriter
from services.upload import Upload
from services.upstream.exchange import Payload

_KINDS: Final[Kinds] = MappingProxyType({"vllm_xargs": "json"})

_ENDINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "audio/aac": ".aac",
        "audio/flac": ".flac",
        "audio/m4a": ".m4a",
        "audio/mp3": ".mp3",
        "audio/mp4": ".m4a",
        "audio/mpeg": ".mp3",
        "audio/ogg": ".ogg",
        "audio/opus": ".opus",
        "audio/vnd.wave": ".wav",
        "audio/wav": ".wav",
        "audio/wave": ".wav",
        "audio/webm": ".webm",
        "audio/x-flac": ".flac",
        "audio/x-m4a": ".m4a",
        "audio/x-wav": ".wav",
        "video/mp4": ".mp4",
        "video/webm": ".webm",
    }
)
"""Endings by which servers know what the file is, when the caller gave no name."""

Later = Callable[[], dict[str, Any]]
"""The members that follow the file, asked for when it was read."""


def payload(members: dict[str, Any], upload: Upload | None, later: Later) -> Payload:
    """The form for a request. Raises InvalidRequest for text that no form can hold."""
    writer = MultipartWriter(f"tetrad-{secrets.token_hex(16)}")
    try:
        head = _written(writer, members)
        if upload is not None:
            media_type = upload.media_type or "application/octet-stream"
            head += writer.file_head("file", upload.filename or _name(media_type), media_type)
    except MultipartError as error:
        raise _unwritten(error) from None
    tail = len(writer.file_tail()) if upload is not None else 0
    size = upload.size if upload is not None else 0
    return Payload(
        body=_Form(writer, head, upload, later),
        content_type=writer.content_type,
        length=None if size is None else len(head) + size + tail + len(writer.end()),
        again=upload is None or upload.again,
    )


class _Form:
    """The pieces of the body."""

    def __init__(
        self, writer: MultipartWriter, head: bytes, upload: Upload | None, later: Later
    ) -> None:
        self._writer = writer
        self._head = head
        self._upload = upload
        self._later = later

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._head
        if self._upload is None:
            yield self._writer.end()
            return
        async for piece in self._upload.chunks():
            if piece:
                yield piece
        try:
            more = _written(self._writer, self._later())
        except MultipartError as error:
            raise _unwritten(error) from None
        yield self._writer.file_tail() + more + self._writer.end()


def _written(writer: MultipartWriter, members: dict[str, Any]) -> bytes:
    fields = json_to_fields(members, _KINDS)
    return b"".join(writer.field(name, value) for name, value in fields)


def _unwritten(error: MultipartError) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"the form cannot be written: {error}")


def _name(media_type: str) -> str:
    """A name for a file without one: by it servers know a file, and by its ending the format."""
    return f"audio{_ENDINGS.get(media_type.partition(';')[0].strip().lower(), '')}"
