"""JSON text to protobuf wire bytes and back, compiled from the descriptors.

Lossless: what no typed field holds travels in `extra` or `other`, byte for byte. Messages go by
their short names ("ChatRequest"). Knows nothing of HTTP, gRPC or models.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import orjson
from google.protobuf.message import DecodeError

from services.codec import compiled, explain, leaves, plain_leaves
from services.codec.chunks import ChunkTemplate
from services.codec.explain import Violation
from services.codec.jsontext import (
    JsonError,
    NeedExact,
    Packed,
    check_depth,
    dumps,
    loads,
    loads_exact,
)
from services.codec.leaves import base64_bytes
from services.codec.plan import (
    FieldPlan,
    MessagePlan,
    MethodPlan,
    RestPlan,
    RoutePlan,
    ServicePlan,
    message_class,
    message_names,
    plan,
    service_plans,
)
from services.codec.vectortext import FLOAT32, Row, Vector, VectorText, cut, cut_rows

__all__ = [
    "CHUNK",
    "FLOAT32",
    "ChunkTemplate",
    "CodecError",
    "DecodeError",
    "FieldPlan",
    "JsonError",
    "MessagePlan",
    "MethodPlan",
    "Packed",
    "RestPlan",
    "RoutePlan",
    "Row",
    "ServicePlan",
    "Vector",
    "VectorText",
    "Violation",
    "base64_bytes",
    "check",
    "chunk_template",
    "cut",
    "cut_rows",
    "decode",
    "dumps",
    "encode",
    "encode_cut",
    "encode_value",
    "loads",
    "loads_exact",
    "message_class",
    "message_names",
    "plan",
    "service_plans",
    "source",
    "to_json",
]


CHUNK: Final = "StreamChatResponse"

_WITH_VECTORS = frozenset({"EmbedResponse"})
"""Messages whose `data` may hold an `embedding` each; `vectortext` knows no others."""


class CodecError(ValueError):
    """A body that is not what it should be; `violations` say what and where."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(
            "; ".join(
                f"{v.field}: {v.description}" if v.field else v.description for v in violations
            )
        )
        self.violations = violations


def encode(message: str, json: bytes, *, replace_surrogates: bool = False) -> bytes:
    """JSON text to wire bytes.

    A lone surrogate is an error, or U+FFFD with `replace_surrogates` (for upstream answers, which
    nobody can mend). Raises JsonError (no JSON) and CodecError (not such a message).
    """
    if message in _WITH_VECTORS:
        text = cut(json)
        if text is not None:
            return encode_cut(message, text)
    try:
        value = orjson.loads(json)
        check_depth(json)
        wire = compiled.TO_FAST[message](value)
    except (orjson.JSONDecodeError, NeedExact):
        value = loads_exact(json, replace_surrogates=replace_surrogates)
        wire = compiled.TO_EXACT[message](value)
    return wire if wire is not None else _refuse(message, value)


def chunk_template(data: bytes, value: dict[str, Any]) -> ChunkTemplate | None:
    """See `chunks`; `value` is what `data` parses to."""
    return ChunkTemplate.of(data, value, lambda json: encode(CHUNK, json, replace_surrogates=True))


def encode_cut(message: str, text: VectorText) -> bytes:
    """A text that was cut to wire bytes. Raises CodecError."""
    try:
        wire = compiled.TO_FAST[message](text.value)
    except NeedExact:
        wire = compiled.TO_EXACT[message](text.exact())
    return wire if wire is not None else _refuse(message, text.value)


def encode_value(message: str, value: Any) -> bytes:
    """Parsed JSON to wire bytes. Raises CodecError."""
    try:
        wire = compiled.TO_FAST[message](value)
    except NeedExact:
        wire = compiled.TO_EXACT[message](value)
    return wire if wire is not None else _refuse(message, value)


def _refuse(message: str, value: Any) -> NoReturn:
    raise CodecError(
        explain.missing(message, value)
        or (Violation("", f"this JSON has no {message}: a member fits no field"),)
    )


def decode(message: str, wire: bytes, *, usage_asked: bool = False) -> bytes:
    """Wire bytes to JSON text. Raises CodecError.

    With `usage_asked` an absent usage of a chunk is printed as null, as OpenAI does then.
    """
    read = compiled.READ[message]
    try:
        text = orjson.dumps(read(wire, 0, len(wire), usage_asked), option=leaves.OPTIONS)
        check_depth(text)
    except plain_leaves.UNREAD:
        return _decoded(message, wire, usage_asked)
    return text


def _decoded(message: str, wire: bytes, usage_asked: bool) -> bytes:
    """By protobuf's own parser: any wire that there is, and what is wrong with it."""
    try:
        parsed = message_class(message).FromString(wire)
    except DecodeError:
        raise CodecError((Violation("", f"the bytes are not a {message}"),)) from None
    return to_json(message, parsed, usage_asked=usage_asked)


def to_json(message: str, parsed: Any, *, usage_asked: bool = False) -> bytes:
    """A message object to JSON text. Raises CodecError."""
    try:
        value = compiled.FROM[message](parsed, usage_asked)
        text = orjson.dumps(value, option=leaves.OPTIONS)
        check_depth(text)
    except (leaves.Misfit, JsonError) as error:
        violations = explain.misfits(message, parsed) or (Violation("", str(error)),)
        raise CodecError(violations) from None
    return text


def check(message: str, value: Any) -> tuple[Violation, ...]:
    """REQUIRED members that a parsed JSON body lacks or has with the wrong type; () is good."""
    return explain.missing(message, value)


def source(message: str) -> str:
    """The Python source compiled for a message. KeyError if there is none."""
    return compiled.source(message)
