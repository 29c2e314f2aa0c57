"""The load of a soak: calls over both faces, and streams that are left at every point."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from tetrad.v1 import chat_service_pb2

from bench.soak_processes import ANSWER, PATIENCE, linger

AT_ONCE = 32

_QUESTION = {"model": "m", "messages": [{"role": "user", "content": "say something"}]}

Operation = Callable[[int], Awaitable[None]]
"""Takes its number, by which operations differ in where they break off."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Both operations over one face."""

    face: str
    stream: Operation
    unary: Operation


class RestCaller:
    """Calls over bare sockets; connections of whole answers are kept."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._where = (host, int(port))
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._question = self._posted(_QUESTION)
        self._streamed = self._posted(_QUESTION | {"stream": True})

    @staticmethod
    def _posted(value: object) -> bytes:
        body = json.dumps(value).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json"
        return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    async def stream(self, number: int) -> None:
        """Leaves before the headers, after them, after one event or after three."""
        reader, writer = await asyncio.open_connection(*self._where)
        linger(writer.transport)
        try:
            writer.write(self._streamed)
            if number % 4 == 0:
                await asyncio.sleep(0.001 * (number % 7))
                return
            expect(await reader.readuntil(b"\r\n\r\n"), b"HTTP/1.1 200 ")
            for _ in range((0, 0, 1, 3)[number % 4]):
                await reader.readuntil(b"\n\n")
        finally:
            writer.transport.abort()

    async def unary(self, number: int) -> None:
        """One whole answer."""
        if not self._kept:
            self._kept.append(await asyncio.open_connection(*self._where))
        reader, writer = self._kept.pop()
        writer.write(self._question)
        head = await reader.readuntil(b"\r\n\r\n")
        expect(head, b"HTTP/1.1 200 ")
        at = head.index(b"content-length: ") + 16
        body = await reader.readexactly(int(head[at : head.index(b"\r", at)]))
        expect(body, ANSWER)
        self._kept.append((reader, writer))

    def close(self) -> None:
        """Closes what is kept."""
        for _, writer in self._kept:
            writer.transport.abort()


class GrpcCaller:
    """Calls over one channel, in bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        asked = chat_service_pb2.ChatRequest(model="m")
        asked.messages.add(role="user").content.text = "say something"
        self._question = asked.SerializeToString()
        service = "/tetrad.v1.ChatService/"
        self._stream: Any = channel.unary_stream(service + "StreamChat")
        self._unary: Any = channel.unary_unary(service + "Chat")

    async def stream(self, number: int) -> None:
        """Leaves before the first message, or after one, two or three."""
        call = self._stream(self._question)
        try:
            if number % 4 == 0:
                await asyncio.sleep(0.001 * (number % 7))
            for _ in range(number % 4):
                if await call.read() is grpc.aio.EOF:
                    raise ValueError("the stream ended by itself")
        finally:
            call.cancel()

    async def unary(self, number: int) -> None:
        """One whole answer."""
        await self._unary(self._question)


def expect(data: bytes, start: bytes) -> None:
    """Raises ValueError for another answer."""
    if not data.startswith(start):
        raise ValueError(f"an answer that was not expected: {data[:100]!r}")


async def load(operation: Operation, numbers: range, each: Callable[[int], Awaitable[None]]) -> int:
    """Does them all, AT_ONCE at a time; how many were done when `each` raised OutOfTime.

    Raises Failed for the first that fails.
    """
    todo = iter(numbers)
    count = itertools.count(1)
    done = 0

    async def work() -> None:
        nonlocal done
        for number in todo:
            async with asyncio.timeout(PATIENCE):
                await operation(number)
            done = next(count)
            await each(done)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(numbers))):
                group.create_task(work())
    except* OutOfTime:
        pass
    except* Exception as failures:
        raise Failed(f"{failures.exceptions[0]!r}") from failures
    return done


class Failed(Exception):
    """An operation did not end as it should."""


class OutOfTime(Exception):
    """The whole run has taken as long as it may."""
