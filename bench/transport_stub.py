"""An upstream as a process of its own, that costs little: `python -m bench.transport_stub`.

It prints its port and ends with whoever holds its standard input. `/unary` is answered at once,
`/burst` by CHUNKS events as fast as they go, `/paced` by as many, PAUSE seconds apart.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final, cast

import uvloop

from bench.samples import CHUNK

CHUNKS: Final = 50
PAUSE: Final = 0.01

_ANSWER = (
    b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"}}]}'
)
_UNARY = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 10:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 10:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT = b"data: " + CHUNK + b"\n\n"
_FRAME = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)


class Stub(asyncio.Protocol):
    """One connection; requests come one at a time, with a content-length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._held = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, blank, body = self._held.partition(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not blank or len(body) < length:
            return
        self._held = b""
        if head.startswith(b"POST /unary"):
            self._transport.write(_UNARY)
            return
        self._transport.write(_STREAM)
        self._left = CHUNKS
        self._next(PAUSE if head.startswith(b"POST /paced") else 0.0)

    def _next(self, pause: float) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_FRAME)
        self._left -= 1
        if not self._left:
            self._transport.write(b"0\r\n\r\n")
        else:
            asyncio.get_running_loop().call_later(pause, self._next, pause)


async def serve() -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stub, "127.0.0.1", 0)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
