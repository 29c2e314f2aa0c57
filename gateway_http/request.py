"""From an HTTP request to a body of the contract, and to what its call carries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias
from urllib.parse import parse_qsl

from gateway_http.asgi import HeaderMap, Receive
from gateway_http.dialects.base import Converted, Form
from gateway_http.exchange import Exchange
from gateway_http.form import TYPE, FormBody, file_name
from gateway_http.incoming import Incoming
from gateway_http.late import STREAM
from gateway_http.routes import Operation
from gateway_http.settings import RestSettings
from services import errors, metadata
from services.body import Body
from services.call import Call
from services.codec.plan import Body as Carries
from services.form import Kind, fields_to_json

JSON = b"application/json"
TIMEOUT = "x-request-timeout-ms"
MAX_TIMEOUT_MS = 10**12

Names: TypeAlias = tuple[tuple[bytes, str], ...]
"""Header names, as bytes and as text."""

_REQUEST_ID = metadata.REQUEST_ID.encode()
_TIMEOUT = TIMEOUT.encode()
_TYPES: Mapping[Kind, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request read: its body, and the form of another system's JSON that it came in, if any.

    streamed: whether the streaming twin answers. files: what to close when the call has ended.
    receive: ASGI's, for whoever waits for the caller's end; None is that of the request itself.
    """

    body: Body
    streamed: bool = False
    form: Form | None = None
    converted: Converted | None = None
    files: FormBody | None = None
    receive: Receive | None = None

    @property
    def arriving(self) -> bool:
        """Whether its file is still on the way when the call begins."""
        return self.files is not None and self.files.arriving

    @property
    def streamed_late(self) -> bool:
        """Whether a field behind the file asked for a stream; known when the call has ended."""
        return self.files is not None and self.files.late.get(STREAM) is True

    @property
    def usage_asked(self) -> bool:
        """Whether the caller wants the usage of a stream."""
        options = self.body.get("stream_options") if self.streamed else None
        return isinstance(options, dict) and options.get("include_usage") is True

    def close(self) -> None:
        """Forget the upload."""
        if self.files is not None:
            self.files.close()


def request_id(headers: HeaderMap) -> str:
    """The caller's id of the request if it is fit to be one, or ours."""
    given = headers.get(_REQUEST_ID)
    return metadata.request_id(None if given is None else given.decode("latin-1"))


def passing(pass_in: Iterable[str]) -> Names:
    """Names of the headers that go on to the upstream, beside the request's id."""
    names = sorted({*metadata.PASS_IN, *pass_in} - metadata.NOT_PASSED - {metadata.REQUEST_ID})
    return tuple((name.encode(), name) for name in names)


def new_call(operation: Operation, call_id: str, headers: HeaderMap, passes: Names) -> Call:
    """The call of a request, nobody's yet and without a deadline."""
    passed = {metadata.REQUEST_ID: call_id}
    for raw, name in passes:
        value = headers.get(raw)
        if value is not None:
            passed[name] = value.decode("latin-1")
    return Call(
        id=call_id,
        method=operation.method.name,
        face="rest",
        headers=passed,
    )


def deadline(headers: HeaderMap) -> float | None:
    """When the caller's patience ends, in loop time, if it says.

    Raises InvalidRequest for a timeout that is no number of milliseconds.
    """
    told = headers.get(_TIMEOUT)
    if told is None:
        return None
    if not told.isdigit() or not 0 < int(told) <= MAX_TIMEOUT_MS:
        raise errors.InvalidRequest(
            f"the header {TIMEOUT} must be a number of milliseconds above 0",
            param=TIMEOUT,
        )
    return asyncio.get_running_loop().time() + int(told) / 1000


async def read(
    operation: Operation,
    path_members: Mapping[str, str],
    exchange: Exchange,
    settings: RestSettings,
) -> Request:
    """Read and check the request of an operation.

    Raises InvalidRequest, UnsupportedMediaType, RequestTooLarge, DeadlineExceeded, and HungUp.
    """
    reader = _READERS[operation.rest.body]
    if reader is None:
        return _from_url(operation, path_members, exchange.scope["query_string"])
    if exchange.headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise errors.UnsupportedMediaType(
            "a body with a content-encoding is not read; send it uncompressed"
        )
    return await reader(operation, exchange, settings)


def _from_url(operation: Operation, path_members: Mapping[str, str], query: bytes) -> Request:
    """Members of path and query. What the query names beyond the members is not ours to judge:
    proxies and browsers add such."""
    message, kinds = operation.method.request, operation.kinds
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise errors.InvalidRequest("the query is not UTF-8 in percent encoding") from None
    given = [(name, text) for name, text in pairs if name in kinds and name not in path_members]
    members = fields_to_json([*given, *path_members.items()], kinds)
    for name, value in members.items():
        wanted = _TYPES.get(kinds[name], (str,))
        if not isinstance(value, wanted):
            shown = " ".join(kind.__name__ for kind in wanted[:1])
            raise errors.InvalidRequest(f"{name}: expected one value ({shown})", param=name)
    body = Body.from_value(message, {**members, **operation.constants})
    body.check()
    body.wire()  # the codec knows the numbers' ranges
    return Request(body)


async def _from_json(operation: Operation, exchange: Exchange, settings: RestSettings) -> Request:
    content_type = exchange.headers.get(b"content-type", b"")
    if content_type != JSON:
        _check_json(content_type)
    incoming = Incoming(exchange, limit=settings.max_request_bytes, stall=settings.stall)
    data = await incoming.whole()
    body = Body.from_json(operation.method.request, data)
    form = converted = None
    if operation.dialect is not None:
        form = operation.dialect.form(body.value())
        if form is not None:
            converted = form.read(body.value())
            body = Body.from_value(operation.method.request, converted.value)
    try:
        body.check()
    except errors.TetradError as error:
        if form is None:
            raise
        raise form.renamed(error) from None
    if operation.constants:
        body = body.with_members(**operation.constants)
    return Request(body, _streamed(operation, body), form, converted)


async def _from_multipart(
    operation: Operation, exchange: Exchange, settings: RestSettings
) -> Request:
    message = operation.method.request
    content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
    if content_type.partition(";")[0].strip().lower() != TYPE:
        part = file_name(message)
        _unsupported(content_type, f"{TYPE}, with the file in the part `{part}`")
    advice = "; longer audio goes through the RPC LiveTranscribe"
    incoming = Incoming(
        exchange, limit=settings.max_upload_bytes, stall=settings.stall, advice=advice
    )
    form = FormBody(
        message,
        operation.kinds,
        limit=settings.max_request_bytes,
        settled=operation.constants.keys(),
    )
    try:
        await form.read(content_type, incoming)
        body = Body.from_value(message, {**form.members, **operation.constants}, form.upload)
        body.check()
        return Request(body, _streamed(operation, body), files=form, receive=incoming.beyond)
    except BaseException:
        form.close()
        raise


_READERS = {Carries.NONE: None, Carries.JSON: _from_json, Carries.MULTIPART: _from_multipart}


def _streamed(operation: Operation, body: Body) -> bool:
    """Whether the request asks for a stream."""
    if operation.stream is None:
        return False
    name = operation.rest.stream_member
    asked = body.get(name)
    if asked is None or asked is False:
        return False
    if asked is not True:
        raise errors.InvalidRequest(
            f"{name}: expected true or false",
            param=name,
            violations=[errors.Violation(name, "expected true or false")],
        )
    return True


def _check_json(content_type: bytes) -> None:
    text = content_type.decode("latin-1").lower()
    media_type, _, parameters = text.partition(";")
    media_type = media_type.strip()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        _unsupported(text, "application/json")
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(' "')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise errors.UnsupportedMediaType(f"JSON is read in UTF-8 only, not in {charset[:40]!r}")


def _unsupported(content_type: str, wanted: str) -> NoReturn:
    found = f"its content-type is {content_type[:100]!r}" if content_type else "it has none"
    raise errors.UnsupportedMediaType(f"the body must be sent as content-type {wanted}; {found}")
