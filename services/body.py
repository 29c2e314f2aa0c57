"""One value in two encodings, JSON and protobuf; the other is made only when someone asks.

REST towards an OpenAI-style upstream therefore relays bytes, gRPC runs the codec, and both are one
path. A body is immutable. Knows no face and no upstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from services import codec, errors
from services.codec import splice
from services.codec.plan import Shape
from services.upload import Upload


@dataclass(frozen=True, slots=True)
class Document:
    """An answer that is not JSON: plain text, SRT, WebVTT."""

    media_type: str
    text: str


class Body:
    """A request or an answer. `message` is its short name, such as "ChatRequest".

    upload: the file of a multipart request, which stands in no JSON. document: the answer in a
    format that is not JSON; `json` is then empty. text: all that a chunk adds to its answer, where
    that is known without parsing it. Conversions of what is not what it should be
    raise errors.InvalidRequest for a request and errors.UpstreamProtocol for an answer.
    """

    __slots__ = (
        "_cut",
        "_json",
        "_template",
        "_value",
        "_wire",
        "document",
        "message",
        "text",
        "upload",
        "usage_asked",
    )

    def __init__(self, message: str) -> None:
        self.message = message
        self.upload: Upload | None = None
        self.document: Document | None = None
        self.usage_asked = False
        self._json: bytes | None = None
        self._value: Any = None
        self._wire: bytes | None = None
        self._cut: codec.VectorText | None = None
        self._template: codec.ChunkTemplate | None = None
        self.text: str | None = None

    @classmethod
    def from_json(
        cls, message: str, data: bytes, value: Any = None, upload: Upload | None = None
    ) -> Body:
        """From JSON text, and what it parses to if that is known."""
        body = cls(message)
        body._json, body._value, body.upload = data, value, upload
        return body

    @classmethod
    def from_value(cls, message: str, value: Any, upload: Upload | None = None) -> Body:
        """From parsed JSON."""
        body = cls(message)
        body._value, body.upload = value, upload
        return body

    @classmethod
    def from_wire(cls, message: str, wire: bytes, *, usage_asked: bool = False) -> Body:
        """From protobuf bytes. A file in them becomes the upload."""
        body = cls(message)
        body._wire, body.usage_asked = wire, usage_asked
        if _field(message, Shape.UPLOAD):
            body._detach_upload(wire)
        elif _field(message, Shape.DOCUMENT):
            body._detach_document(wire)
        return body

    @classmethod
    def from_vectors(cls, message: str, text: codec.VectorText, json: bytes | None = None) -> Body:
        """From a text whose vectors were cut out, and that text if they are still as they came."""
        body = cls(message)
        body._cut, body._value, body._json = text, text.value, json
        return body

    @classmethod
    def from_chunk(cls, data: bytes, template: codec.ChunkTemplate, text: str) -> Body:
        """From a chunk of a chat that a template knows."""
        body = cls(codec.CHUNK)
        body._json, body._template, body.text = data, template, text
        return body

    @classmethod
    def from_document(cls, message: str, document: Document) -> Body:
        """From an answer that is not JSON."""
        body = cls(message)
        body.document = document
        return body

    def json(self) -> bytes:
        """The JSON text; as it came, if it came as JSON."""
        if self._json is None:
            if self._cut is not None:
                self._json = self._cut.text()
            elif self._value is not None:
                self._json = codec.dumps(self._value)
            elif self._wire is not None and self.document is None:
                try:
                    self._json = codec.decode(
                        self.message, self._wire, usage_asked=self.usage_asked
                    )
                except codec.CodecError as error:
                    raise self._fault(error) from None
            else:
                self._json = b""
        return self._json

    def value(self) -> Any:
        """The parsed JSON, to be read only; vectors may be numpy rows or codec.Packed."""
        if self._value is None:
            try:
                self._value = codec.loads(self.json(), replace_surrogates=not self._is_request)
            except codec.JsonError as error:
                raise self._fault(error) from None
        return self._value

    def wire(self) -> bytes:
        """The protobuf bytes."""
        if self._wire is None:
            self._wire = self._encoded()
        return self._wire

    def parsed(self) -> Any:
        """The protobuf message, a new one at each call."""
        return self._parsed(self.wire())

    def _encoded(self) -> bytes:
        if self.document is not None:
            field = _field(self.message, Shape.DOCUMENT)
            message = codec.message_class(self.message)()
            target = getattr(message, field)
            target.media_type, target.text = self.document.media_type, self.document.text
            return message.SerializeToString()
        try:
            if self._template is not None and self.text is not None:
                return self._template.wire(self.text)
            if self._cut is not None:
                return codec.encode_cut(self.message, self._cut)
            if self._json is not None:
                replace = not self._is_request
                return codec.encode(self.message, self._json, replace_surrogates=replace)
            return codec.encode_value(self.message, self._value)
        except (codec.CodecError, codec.JsonError) as error:
            raise self._fault(error) from None

    def check(self) -> None:
        """Raise errors.InvalidRequest if the body is no object or lacks a REQUIRED member."""
        violations = codec.check(self.message, self.value())
        if violations:
            raise invalid(codec.CodecError(violations))

    def recoded(self, *, usage_asked: bool = False) -> Body:
        """The same through protobuf: what gRPC callers would see, for `relay: false`."""
        if self.document is not None:
            return self
        body = Body.from_wire(self.message, self.wire(), usage_asked=usage_asked)
        body.upload = self.upload
        return body

    def with_members(self, **members: Any) -> Body:
        """A copy with top-level members set (removed: None); every other byte stays as it is."""
        text, value = self.json(), self.value()
        for name, new in members.items():
            if value.get(name) == new and type(value.get(name)) is type(new):
                continue
            text = splice.with_member(text, value, name, new)
            value = {k: v for k, v in {**value, name: new}.items() if k != name or v is not None}
        return Body.from_json(self.message, text, value, self.upload)

    def get(self, name: str) -> Any:
        """A top-level member, or None."""
        return self.value().get(name)

    def _detach_upload(self, wire: bytes) -> None:
        field = _field(self.message, Shape.UPLOAD)
        parsed = self._parsed(wire)
        if parsed.HasField(field):
            file = getattr(parsed, field)
            self.upload = Upload.of(file.data, file.filename, file.media_type)
            parsed.ClearField(field)
            self._wire = parsed.SerializeToString()

    def _detach_document(self, wire: bytes) -> None:
        field = _field(self.message, Shape.DOCUMENT)
        parsed = self._parsed(wire)
        if parsed.HasField(field):
            document = getattr(parsed, field)
            self.document = Document(document.media_type, document.text)

    def _parsed(self, wire: bytes) -> Any:
        try:
            return codec.message_class(self.message).FromString(wire)
        except codec.DecodeError:
            what = codec.Violation("", f"the bytes are not a {self.message}")
            raise self._fault(codec.CodecError((what,))) from None

    @property
    def _is_request(self) -> bool:
        return self.message.endswith("Request")

    def _fault(self, error: codec.CodecError | codec.JsonError) -> errors.TetradError:
        if not self._is_request:
            return errors.UpstreamProtocol(
                f"the upstream's answer cannot be read: {error}", reached=True
            )
        if isinstance(error, codec.CodecError):
            return invalid(error)
        return errors.InvalidRequest(f"the body is not JSON: {error}")


def invalid(error: codec.CodecError) -> errors.InvalidRequest:
    """The error of a body that the codec refused; `param` is the first member at fault."""
    param = error.violations[0].field or None if error.violations else None
    return errors.InvalidRequest(str(error), param=param, violations=error.violations)


@cache
def _field(message: str, shape: Shape) -> str:
    """Name of the message's field of that shape, or "" if it has none."""
    fields = codec.plan(message).fields
    return next((field.name for field in fields if field.shape is shape), "")
