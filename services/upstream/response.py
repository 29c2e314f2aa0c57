"""The answer to one request: status, headers, and the body as it arrives.

An end in the middle, a reset, silence and wrong framing come out as errors of ours. Only
`transport` makes these; nothing of httpx is seen from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, Self, cast

import httpx

from services import errors
from services.upstream.base import Timeouts

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024

_EXCERPT_BYTES = 64 * 1024
_EXCERPT_SECONDS = 2.0


class Response:
    """An answer from its headers on: `status`, and `headers` with lower-case names."""

    def __init__(self, answer: httpx.Response, endpoint: str, timeouts: Timeouts) -> None:
        self.status = answer.status_code
        self.headers = {name.lower(): value for name, value in answer.headers.items()}
        self._answer = answer
        self._endpoint = endpoint
        self._timeouts = timeouts
        self._complete = False
        self._broken = False
        self._rest = 0.0
        self._stream = cast(httpx.AsyncByteStream, answer.stream)
        self._pieces = self._stream.__aiter__()

    @property
    def released(self) -> bool:
        """Whether `release` was called: nobody waits for the end any more."""
        return self._rest > 0

    @property
    def media_type(self) -> str:
        """The content type without parameters, lower-case; "" if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def delimited(self) -> bool:
        """Whether the body says where it ends; if not, it ends with the connection."""
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises UpstreamProtocol beyond `limit` bytes, and as `chunks` does."""
        announced = self.headers.get("content-length", "")
        pieces: list[bytes] = []
        size = int(announced) if announced.isdigit() else 0
        if size <= limit:
            size = 0
            async for piece in self.chunks():
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    break
        if size > limit:
            raise errors.UpstreamProtocol(
                f"the answer of {self._endpoint} is larger than {limit} bytes", reached=True
            )
        return b"".join(pieces)

    async def excerpt(self) -> bytes:
        """The body of an error answer, as much as comes within 2 s, at most 64 KiB.

        Raises nothing: if the rest does not come, the status alone tells enough.
        """
        pieces: list[bytes] = []
        await self._drain(_EXCERPT_SECONDS, pieces)
        return b"".join(pieces)[:_EXCERPT_BYTES]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, to be taken once.

        Raises UpstreamTruncated for an end or a reset in its middle, DeadlineExceeded("idle"), and
        UpstreamProtocol for framing that is no HTTP and for a content-encoding, which we never
        ask for.
        """
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise errors.UpstreamProtocol(
                f"{self._endpoint} answered in {encoding[:40]}, which nobody asked for",
                reached=True,
            )
        return self

    def release(self, rest: float = 1.0) -> None:
        """All that matters has been read: if the end comes within `rest` seconds after the block
        was left, which does not wait for it, the connection is kept."""
        self._rest = rest

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            self._complete = not self._broken
            raise
        except httpx.HTTPError as error:
            self._broken = True
            raise self._failure(error) from None
        except BaseException:
            self._broken = True
            raise

    def _failure(self, error: httpx.HTTPError) -> errors.TetradError:
        if isinstance(error, httpx.ReadTimeout):
            seconds = self._timeouts.idle
            return errors.DeadlineExceeded("idle", seconds=seconds, reached=True)
        if isinstance(error, httpx.NetworkError) or is_end(error):
            return errors.UpstreamTruncated(
                f"the answer of {self._endpoint} broke off", reached=True
            )
        return errors.UpstreamProtocol(
            f"the answer of {self._endpoint} is not framed as HTTP/1.1", reached=True
        )

    async def close(self) -> None:
        """Gives the connection back if the body was read to its end, and closes it if not."""
        if self._rest and not (self._complete or self._broken):
            await self._drain(self._rest, [])
        if not self._complete:
            socket = self._answer.extensions.get("network_stream")
            if socket is not None:
                await socket.aclose()
        await self._stream.aclose()
        closing = getattr(self._pieces, "aclose", None)
        if closing is not None:
            await closing()

    async def _drain(self, seconds: float, pieces: list[bytes]) -> None:
        """Reads until the end, for some seconds, 64 KiB at most, or until it breaks off: then the
        connection will be closed rather than kept."""
        size = 0
        with suppress(TimeoutError, errors.TetradError):
            async with asyncio.timeout(seconds):
                async for piece in self.chunks():
                    pieces.append(piece)
                    size += len(piece)
                    if size > _EXCERPT_BYTES:
                        return


def is_end(error: httpx.HTTPError) -> bool:
    """Whether it stands for a peer that closed in the middle: httpcore's and h11's own words."""
    return isinstance(error, httpx.RemoteProtocolError) and str(error).startswith(
        ("Server disconnected", "peer closed connection")
    )
