"""multipart/form-data bodies, read with the python-multipart package: fields and files by name.

Brackets in names (`languages[]`) are left off, as clients differ about them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from demo.wire import ApiError, Request


@dataclass(frozen=True, slots=True)
class Form:
    """Fields in the order they came in; of files the contents."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def get(self, name: str) -> str | None:
        """The last value of a field; an empty one counts as absent."""
        return self.fields.get(name, [""])[-1] or None


def parse(request: Request) -> Form:
    """The form in a request's body. Raises ApiError if it is none, or breaks off."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError("The body must be multipart/form-data, with a boundary.")
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.part_begin,
                "on_header_begin": collector.header_begin,
                "on_header_field": collector.header_field,
                "on_header_value": collector.header_value,
                "on_header_end": collector.header_end,
                "on_part_data": collector.part_data,
                "on_part_end": collector.part_end,
                "on_end": collector.end,
            },
        )
        parser.write(request.body)
        parser.finalize()
    except MultipartParseError as error:
        raise ApiError(f"The form cannot be read: {error}") from error
    if not collector.ended:
        raise ApiError("The form breaks off before its end.")
    return collector.form


class _Collector:
    """Callbacks of the parser; builds the form."""

    def __init__(self) -> None:
        self.form = Form()
        self.ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._data = bytearray()

    def part_begin(self) -> None:
        self._headers = {}
        self._data = bytearray()

    def header_begin(self) -> None:
        self._name = self._value = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.lower()] = self._value

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def part_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace").removesuffix("[]")
        if b"filename" in options:
            self.form.files[name] = bytes(self._data)
        else:
            value = self._data.decode("utf-8", "replace")
            self.form.fields.setdefault(name, []).append(value)

    def end(self) -> None:
        self.ended = True
