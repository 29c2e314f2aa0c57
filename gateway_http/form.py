"""A multipart request: fields become members typed by the message's plan, the file an upload.

The rule: a file is passed on while it arrives if the member that chooses the upstream came before
it and it is larger than `HELD`; every other is spooled, and its form is read to the end first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final

from gateway_http.caller import HungUp
from gateway_http.incoming import Incoming
from gateway_http.late import joined
from gateway_http.spool import Spool
from services import codec, errors
from services.codec.plan import Shape
from services.form import FormError, Kinds, fields_to_json
from services.multipart import End, MultipartError, MultipartReader, PartBegin, PartData, PartEnd
from services.upload import Upload

TYPE: Final = "multipart/form-data"

HELD: Final = 512 * 1024
"""Bytes of a file that are awaited before it is passed on: most files are complete by then, and
another attempt can send them again."""

CHOOSES: Final = "model"


def file_name(message: str) -> str:
    """Name of the part that holds the file, or "" if the message takes none."""
    fields = codec.plan(message).fields
    return next((field.member for field in fields if field.shape is Shape.UPLOAD), "")


class FormBody:
    """Reads one form. The fields' texts may take `limit` bytes in all, their names included.

    After `read`, `members` and `upload` are what was sent; the upload can be read until `close`.
    Where `arriving` is true, the file is not complete yet: reading it reads on, and fields behind
    it are in `late` once it has ended. `settled`: members that the path sets whatever a form says.
    `hung_up`: the caller left in the middle.
    """

    def __init__(
        self, message: str, kinds: Kinds, *, limit: int, settled: Collection[str] = ()
    ) -> None:
        self.members: dict[str, Any] = {}
        self.late: Mapping[str, Any] = {}
        self.upload: Upload | None = None
        self.arriving = False
        self.hung_up = False
        self._file_name = file_name(message)
        self._kinds = kinds
        self._limit = limit
        self._settled = settled
        self._fields: list[tuple[str, str]] = []
        self._field_bytes = 0
        self._begin: PartBegin | None = None
        self._file: PartBegin | None = None
        self._text = bytearray()
        self._spool: Spool | None = None

    async def read(self, content_type: str, incoming: Incoming) -> None:
        """Read the form, to its end or until its file can be passed on.

        Raises InvalidRequest for what is no form, a file that has no place and a second one, and
        whatever `incoming` raises.
        """
        try:
            reader = MultipartReader(content_type)
            while not (incoming.ended or self._may_go_on()):
                for event in reader.feed(await incoming.piece()):
                    data = self._take(event)
                    if data and self._spool is not None:
                        await self._spool.write(data)
            if incoming.ended:
                reader.close()
            self.members = fields_to_json(self._fields, self._kinds)
        except (MultipartError, FormError) as error:
            raise _unreadable(error) from None
        file, spool = self._file, self._spool
        if file is None or spool is None:
            return
        await spool.end()
        name, kind = file.filename or "", file.content_type or ""
        if incoming.ended:
            self.upload = Upload.spooled(spool.chunks, name, kind, spool.size)
        else:
            self.arriving = True
            self._fields = []
            content = self._arriving(spool, reader, incoming)
            self.upload = Upload.stream(content, name, kind, after=lambda: self.late)

    def close(self) -> None:
        """Forget the file."""
        if self._spool is not None:
            self._spool.close()

    def _may_go_on(self) -> bool:
        """Whether the file can be passed on as things are."""
        return (
            self._into_file
            and self._spool is not None
            and self._spool.size > HELD
            and any(name == CHOOSES for name, _ in self._fields)
        )

    async def _arriving(
        self, spool: Spool, reader: MultipartReader, incoming: Incoming
    ) -> AsyncIterator[bytes]:
        """The file: what was held, then what comes, as fast as it is taken."""
        async for piece in spool.chunks():
            yield piece
        spool.close()
        try:
            while not incoming.ended:
                for event in reader.feed(await incoming.piece()):
                    data = self._take(event)
                    if data:
                        yield data
            reader.close()
            self.late = joined(
                self.members, fields_to_json(self._fields, self._kinds), self._settled
            )
        except (MultipartError, FormError) as error:
            raise _unreadable(error) from None
        except HungUp:
            self.hung_up = True
            raise errors.Cancelled from None

    def _take(self, event: PartBegin | PartData | PartEnd | End) -> bytes:
        """Notes what an event tells; the bytes of the file in it."""
        if isinstance(event, PartData):
            if self._into_file:
                return event.data
            self._count(len(event.data))
            self._text += event.data
        elif isinstance(event, PartBegin):
            self._begin_part(event)
        elif isinstance(event, PartEnd):
            self._end_part()
        return b""

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
            self._file, self._spool = begin, Spool()
        elif begin.filename is not None:
            home = f": send it as `{self._file_name}`" if self._file_name else ""
            raise errors.InvalidRequest(
                f"the part `{begin.name}` is a file, which has no place here{home}",
                param=begin.name,
            )
        else:
            self._count(len(begin.name))

    def _end_part(self) -> None:
        begin, self._begin = self._begin, None
        assert begin is not None  # noqa: S101  (the reader ends only what it began)
        if begin.name == self._file_name:
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


def _unreadable(error: Exception) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"the form cannot be read: {error}")
