"""The answer to one request: status, headers, and the body as it arrives.

An end in the middle, a reset, silence and wrong framing come out as errors of ours. Each transport
makes its own kind of these; what is inside is not seen from outside.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, Self

from services import errors
from services.upstream.base import Timeouts

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024

_EXCERPT_BYTES = 64 * 1024
_EXCERPT_SECONDS = 2.0


class Response(ABC):
    """An answer from its headers on: `status`, and `headers` with lower-case names."""

    __slots__ = ("_broken", "_complete", "_endpoint", "_rest", "_timeouts", "headers", "status")

    def __init__(
        self, status: int, headers: dict[str, str], endpoint: str, timeouts: Timeouts
    ) -> None:
        self.status = status
        self.headers = headers
        self._endpoint = endpoint
        self._timeouts = timeouts
        self._complete = False
        self._broken = False
        self._rest = 0.0

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
        if announced.isdigit() and int(announced) > limit:
            raise self._too_large(limit)
        self._as_it_is()
        return await self._whole(limit)

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
        self._as_it_is()
        return self

    def release(self, rest: float = 1.0) -> None:
        """All that matters has been read: if the end comes within `rest` seconds after the block
        was left, which does not wait for it, the connection is kept."""
        self._rest = rest

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> bytes:
        """The next read's bytes."""

    async def _whole(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise self._too_large(limit)
        return b"".join(pieces)

    def _as_it_is(self) -> None:
        encoding = self.headers.get("content-encoding")
        if encoding is not None and encoding.strip().lower() not in ("", "identity"):
            raise errors.UpstreamProtocol(
                f"{self._endpoint} answered in {encoding.strip().lower()[:40]},"
                " which nobody asked for",
                reached=True,
            )

    def _too_large(self, limit: int) -> errors.TetradError:
        return errors.UpstreamProtocol(
            f"the answer of {self._endpoint} is larger than {limit} bytes", reached=True
        )

    def _idle(self) -> errors.TetradError:
        return errors.DeadlineExceeded("idle", seconds=self._timeouts.idle, reached=True)

    def _truncated(self) -> errors.TetradError:
        return errors.UpstreamTruncated(f"the answer of {self._endpoint} broke off", reached=True)

    def _unframed(self) -> errors.TetradError:
        return errors.UpstreamProtocol(
            f"the answer of {self._endpoint} is not framed as HTTP/1.1", reached=True
        )

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
