"""Callers that send a form as slowly, and in as many pieces, as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

BOUNDARY = "quay"
PIECE = 256 * 1024


def field(name: str, text: str) -> bytes:
    """A whole field."""
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{text}\r\n".encode()


FILE_HEAD = (
    f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n'
    "content-type: audio/wav\r\n\r\n"
).encode()
FILE_TAIL = b"\r\n"
END = f"--{BOUNDARY}--\r\n".encode()


class Caller:
    """One connection, with a request under way whose body comes in chunks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.sent = 0

    async def begin(self, path: str = "/v1/audio/transcriptions", *headers: str) -> None:
        """Send the head; a body of unknown length unless the headers tell it."""
        lines = [
            f"POST {path} HTTP/1.1",
            "host: test",
            f"content-type: multipart/form-data; boundary={BOUNDARY}",
            *headers,
        ]
        if not any(line.startswith("content-length") for line in headers):
            lines.append("transfer-encoding: chunked")
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.writer.drain()

    async def send(self, *data: bytes) -> None:
        """Send pieces of the body."""
        for piece in data:
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self.writer.drain()
            self.sent += len(piece)

    async def end(self, *data: bytes) -> None:
        """Send the last pieces of the body."""
        await self.send(*data)
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def answer(self, within: float = 10.0) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        async with asyncio.timeout(within):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = text.rstrip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    async def json(self, within: float = 10.0) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        status, _, body = await self.answer(within)
        return status, json.loads(body)

    def leave(self, how: str) -> None:
        """Hang up: "close" in order, "reset" as a process that is killed does."""
        if how == "reset":
            where = self.writer.get_extra_info("socket")
            where.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def caller(url: str) -> AsyncIterator[Caller]:
    """A connection to a gateway's REST face; closed at the end."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
