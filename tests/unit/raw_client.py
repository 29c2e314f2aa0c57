"""Clients for the tests of the fakes; the raw one shows what is on the wire, without guessing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from tests.fakes.upstream import FakeUpstream


@dataclass
class Answer:
    """One answer; `chunks` and their arrival `times` only if it was chunked."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def request(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    version: str = "1.1",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A request's bytes; the content-length is there if there is a body."""
    lines = [f"{method} {path} HTTP/{version}", "host: fake"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def plain_client() -> httpx.AsyncClient:
    """A client without trusted certificates, which take longer to load than a test."""
    return httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


async def get(up: FakeUpstream, path: str = "/", **how: Any) -> httpx.Response:
    async with plain_client() as client:
        return await client.get(up.url + path, **how)


class RawClient:
    """One connection. Reading past the end raises IncompleteReadError, a reset
    ConnectionResetError."""

    def __init__(self, up: FakeUpstream, receive_buffer: int | None = None) -> None:
        self._up = up
        self._receive_buffer = receive_buffer
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> None:
        sock = socket.socket()
        if self._receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (self._up.host, self._up.port))
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=65536)

    async def close(self) -> None:
        """FIN, as a client that is done."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def reset(self) -> None:
        """RST, as a client that crashed."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def exactly(self, count: int) -> bytes:
        """That many bytes."""
        return await self._reader.readexactly(count)

    async def until(self, mark: bytes) -> bytes:
        """The bytes up to and with `mark`."""
        return await self._reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await self._reader.read()

    async def silence(self, seconds: float = 0.05) -> bool:
        """Whether nothing arrives for so long, not even the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.readexactly(1)
        except TimeoutError:
            return True
        return False

    async def head(self) -> Answer:
        """The head of an answer."""
        line, *lines = (await self.until(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
        headers = dict(one.split(": ", 1) for one in lines)
        return Answer(int(line.split(" ")[1]), headers)

    async def body(self, answer: Answer, count: int) -> bytes:
        """The first bytes of a body, that many, also out of the middle of a chunk."""
        if "content-length" in answer.headers:
            return await self.exactly(count)
        body = b""
        while len(body) < count:
            size = int((await self.until(b"\r\n"))[:-2], 16)
            body += await self.exactly(min(size, count - len(body)))
            if len(body) < count:
                await self.exactly(2)
        return body

    async def answer(self) -> Answer:
        """A whole answer with a length or in chunks."""
        answer = await self.head()
        if "content-length" in answer.headers:
            answer.body = await self.exactly(int(answer.headers["content-length"]))
            return answer
        while size := int((await self.until(b"\r\n"))[:-2], 16):
            answer.chunks.append((await self.exactly(size + 2))[:-2])
            answer.times.append(time.monotonic())
        assert await self.exactly(2) == b"\r\n"
        answer.body = b"".join(answer.chunks)
        return answer
