"""A multipart request: fields become members typed by the message's plan, the file an upload."""

from __future__ import annotations

from typing import Any

from gateway_http.incoming import Incoming
from gateway_http.spool import Spool
from services import codec, errors
from services.codec.plan import Shape
from services.form import FormError, Kinds, fields_to_json
from services.multipart import End, MultipartError, MultipartReader, PartBegin, PartData, PartEnd
from services.upload import Upload

TYPE = "multipart/form-data"


def file_name(message: str) -> str:
    """Name of the part that holds the file, or "" if the message takes none."""
    fields = codec.plan(message).fields
    return next((field.member for field in fields if field.shape is Shape.UPLOAD), "")


class FormBody:
    """Reads one form. The fields' texts may take `limit` bytes in all, their names included.

    After `read`, `members` and `upload` are what was sent; the upload can be read until `close`.
    The file is complete by then: fields may come after it, and another attempt reads it again.
    """

    def __init__(self, message: str, kinds: Kinds, *, limit: int) -> None:
        self.members: dict[str, Any] = {}
        self.upload: Upload | None = None
        self._file_name = file_name(message)
        self._kinds = kinds
        self._limit = limit
        self._fields: list[tuple[str, str]] = []
        self._field_bytes = 0
        self._begin: PartBegin | None = None
        self._text = bytearray()
        self._spool: Spool | None = None

    async def read(self, content_type: str, incoming: Incoming) -> None:
        """Read the whole form.

        Raises InvalidRequest for what is no form, a file that has no place and a second one, and
        whatever `incoming` raises.
        """
        try:
            reader = MultipartReader(content_type)
            while not incoming.ended:
                for event in reader.feed(await incoming.piece()):
                    await self._take(event)
            reader.close()
            self.members = fields_to_json(self._fields, self._kinds)
        except (MultipartError, FormError) as error:
            raise errors.InvalidRequest(f"the form cannot be read: {error}") from None

    def close(self) -> None:
        """Forget the file."""
        if self._spool is not None:
            self._spool.close()

    async def _take(self, event: PartBegin | PartData | PartEnd | End) -> None:
        if isinstance(event, PartData):
            if self._into_file:
                assert self._spool is not None  # noqa: S101  (made when the part began)
                await self._spool.write(event.data)
            else:
                self._count(len(event.data))
                self._text += event.data
        elif isinstance(event, PartBegin):
            self._begin_part(event)
        elif isinstance(event, PartEnd):
            await self._end_part()

    @property
    def _into_file(self) -> bool:
        return self._begin is not None and self._begin.name == self._file_name

    def _begin_part(self, begin: PartBegin) -> None:
        self._begin = begin
        if self._into_file:
            if self._spool is not None:
                raise errors.InvalidRequest(
                    f"the form has two parts `{begin.name}`: send one file", param=begin.name
                )
            self._spool = Spool()
        elif begin.filename is not None:
            home = f": send it as `{self._file_name}`" if self._file_name else ""
            raise errors.InvalidRequest(
                f"the part `{begin.name}` is a file, which has no place here{home}",
                param=begin.name,
            )
        else:
            self._count(len(begin.name))

    async def _end_part(self) -> None:
        begin, self._begin = self._begin, None
        assert begin is not None  # noqa: S101  (the reader ends only what it began)
        if begin.name == self._file_name and self._spool is not None:
            await self._spool.end()
            spool = self._spool
            self.upload = Upload.spooled(
                spool.chunks, begin.filename or "", begin.content_type or "", spool.size
            )
            return
        text, self._text = bytes(self._text), bytearray()
        try:
            self._fields.append((begin.name, text.decode()))
        except UnicodeDecodeError as error:
            raise errors.InvalidRequest(
                f"{begin.name}: not UTF-8 at byte {error.start}", param=begin.name
            ) from None

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > self._limit:
            raise errors.RequestTooLarge(
                f"the form's fields, the file left out, are larger than {self._limit} bytes",
                metadata={"limit_bytes": str(self._limit)},
            )
