"""What every adapter does alike: post a body to one endpoint, judge the answer, read its events.

Path candidates, headers, error statuses and unreadable answers are dealt with here, the members
of requests and answers are not. Only this module and `probe` call the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from services import codec, errors
from services.call import Call
from services.sse import SseError, SseReader
from services.upstream.base import Endpoint
from services.upstream.response import Response
from services.upstream.stream import Chunk, Stream, read_json
from services.upstream.transport import Request, Transport

AWAIT_USAGE: Final = 2.0
"""Seconds that a stream which has succeeded may take to tell its usage and end."""

JSON = "application/json"
EVENTS = "text/event-stream"

_NO_SUCH_PATH = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_NOT_EVENTS = ("application/json", "text/html")


@dataclass(slots=True)
class Answer:
    """A whole answer that is a success by its status.

    `delimited`: whether its body told where it ends.
    """

    headers: Mapping[str, str]
    body: bytes
    media_type: str
    delimited: bool

    @classmethod
    async def of(cls, response: Response) -> Answer:
        """Reads a response to its end."""
        body = await response.read()
        return cls(response.headers, body, response.media_type, response.delimited)


@dataclass(slots=True)
class Payload:
    """What is posted: bytes or pieces, their content type, and their length if it is known.

    `again` tells whether pieces can be read a second time.
    """

    body: bytes | AsyncIterable[bytes]
    content_type: str = JSON
    length: int | None = None
    again: bool = True


class Exchange:
    """Requests to one endpoint."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._secrets = (endpoint.key,) if endpoint.key else ()
        self._known: dict[tuple[str, ...], tuple[str]] = {}
        self._headers = {name.lower(): value for name, value in endpoint.headers.items()}
        if endpoint.key:
            self._headers["authorization"] = f"Bearer {endpoint.key}"

    async def post(
        self, paths: tuple[str, ...], payload: Payload, call: Call, *, accept: str = JSON
    ) -> Answer:
        """The answer, if its status is a success. Every other status raises its error.

        `paths` are tried in turn while the server has no such path; the one that worked is kept.
        """
        refusals: list[errors.TetradError] = []
        for path in self._known.get(paths) or await self._candidates(paths, payload):
            async with self._request(path, payload, call, accept) as response:
                if self._takes(response, paths, path, call):
                    return await Answer.of(response)
                refusals.append(await self._refusal(response))
        raise refusals[0]

    @asynccontextmanager
    async def open(
        self, paths: tuple[str, ...], payload: Payload, call: Call, *, accept: str
    ) -> AsyncIterator[Response]:
        """The response, if its status is a success, its body not yet read; else as `post`."""
        refusals: list[errors.TetradError] = []
        for path in self._known.get(paths) or await self._candidates(paths, payload):
            async with self._request(path, payload, call, accept) as response:
                if self._takes(response, paths, path, call):
                    yield response
                    return
                refusals.append(await self._refusal(response))
        raise refusals[0]

    def _takes(self, response: Response, paths: tuple[str, ...], path: str, call: Call) -> bool:
        """Whether the status is a success."""
        if response.status // 100 != 2:  # some proxies answer a POST with 201
            return False
        if paths not in self._known:
            self._known[paths] = (path,)
        if self.endpoint.pass_out:
            self._pass_out(response, call)
        return True

    def _pass_out(self, response: Response, call: Call) -> None:
        for name in self.endpoint.pass_out & response.headers.keys():
            value = response.headers[name]
            if value.isascii() and value.isprintable():  # all that gRPC's metadata takes
                call.out[name] = value

    async def events(self, response: Response, stream: Stream) -> AsyncGenerator[list[Chunk], None]:
        """What `stream` makes of the response's events, one list for each read.

        Raises the stream's errors, and the transport's unless the stream is settled already.
        """
        if response.media_type in _NOT_EVENTS:
            raise self.unreadable(response, await response.excerpt())
        reader = SseReader()
        chunks = response.chunks()
        patience: float | None = None
        while not stream.over:
            try:
                data = await _next(chunks, patience)
            except errors.TetradError:
                if not stream.settled:
                    raise
                data = None
            try:
                events = reader.close() if data is None else reader.feed(data)
            except SseError as error:
                raise self.protocol(str(error)) from None
            batch = stream.feed(events)
            if batch:
                yield batch
            stream.check()
            if data is None:
                break
            if not stream.settled:
                patience = None
            elif patience is None:
                patience = asyncio.get_running_loop().time() + AWAIT_USAGE
        response.release()
        last = stream.end()
        if last:
            yield last

    def object(self, answer: Answer) -> dict[str, Any]:
        """The JSON object of an answer. Raises the error that it holds, UpstreamTruncated, or
        UpstreamProtocol for what is no object."""
        value = self.value(answer)
        if not isinstance(value, dict):
            raise self.unreadable(answer, answer.body)
        return value

    def vectors(self, answer: Answer) -> tuple[dict[str, Any], codec.VectorText | None]:
        """The object of an embeddings answer, and its text with the vectors cut out if it can be
        cut. Raises as `object` does."""
        text = codec.cut(answer.body)
        if text is None:
            return self.object(answer), None
        if errors.error_in_body(text.value):
            raise self.error(text.value)
        return text.value, text

    def value(self, answer: Answer) -> Any:
        """The JSON value of an answer; raises as `object` does, but for its type."""
        try:
            value = read_json(answer.body)
        except codec.JsonError:
            if answer.delimited and answer.body.strip():
                raise self.unreadable(answer, answer.body) from None
            name = self.endpoint.name
            raise errors.UpstreamTruncated(
                f"the answer of {name} broke off after {len(answer.body)} bytes", reached=True
            ) from None
        if errors.error_in_body(value):
            raise self.error(value)
        return value

    def error(self, value: Any) -> errors.TetradError:
        """The error for an error object or text inside an answer."""
        return errors.from_error_body(value, endpoint=self.endpoint.name, secrets=self._secrets)

    def unreadable(self, answer: Answer | Response, body: bytes) -> errors.TetradError:
        """The error for a success by its status that is not what it should be."""
        return errors.from_upstream(
            HTTPStatus.OK,
            answer.headers,
            body,
            endpoint=self.endpoint.name,
            secrets=self._secrets,
        )

    def protocol(self, what: str) -> errors.UpstreamProtocol:
        """The error for an answer that began well and then became nonsense."""
        return errors.UpstreamProtocol(
            f"the answer of {self.endpoint.name} cannot be read: {what}", reached=True
        )

    async def _candidates(self, paths: tuple[str, ...], payload: Payload) -> tuple[str, ...]:
        """The paths to try. A payload that can be read only once has one chance."""
        if payload.again or len(paths) == 1:
            return paths
        for path in paths:
            headers = {**self._headers, "accept": "*/*"}
            url, timeouts = self.endpoint.url + path, self.endpoint.timeouts
            async with self._transport.request(
                "OPTIONS", url, headers, b"", timeouts, via=self.endpoint.transport
            ) as response:
                if response.status != HTTPStatus.NOT_FOUND:
                    return (path,)
        return paths[:1]

    def _request(self, path: str, payload: Payload, call: Call, accept: str) -> Request:
        endpoint = self.endpoint
        headers = {**self._headers, "content-type": payload.content_type, "accept": accept}
        if payload.length is not None:
            headers["content-length"] = str(payload.length)
        return self._transport.request(
            "POST",
            endpoint.url + path,
            headers,
            payload.body,
            endpoint.timeouts,
            call,
            endpoint=endpoint.name,
            again=payload.again,
            via=endpoint.transport,
        )

    async def _refusal(self, response: Response) -> errors.TetradError:
        """The error of a status that is no success: raised unless it says that there is no such
        path."""
        refusal = errors.from_upstream(
            response.status,
            response.headers,
            await response.excerpt(),
            endpoint=self.endpoint.name,
            secrets=self._secrets,
        )
        if response.status not in _NO_SUCH_PATH:
            raise refusal
        return refusal


async def _next(chunks: AsyncIterator[bytes], until: float | None) -> bytes | None:
    """The next read; None at the end, and when loop time `until` has come."""
    try:
        if until is None:
            return await anext(chunks, None)
        async with asyncio.timeout_at(until):
            return await anext(chunks, None)
    except TimeoutError:
        return None
