"""An embeddings server as a process of its own: `python -m bench.vectors_stub DIMENSION`.

It prints its port and ends with whoever holds its standard input. Each input, whatever it says,
gets the same vector: base64 if that is asked for, else numbers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import sys
from functools import lru_cache
from typing import cast

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


class Stub(asyncio.Protocol):
    """One connection; requests come one at a time, with a content-length."""

    def __init__(self, dimension: int) -> None:
        numbers = [round((n % 97) / 97 - 0.5, 7) for n in range(dimension)]
        packed = base64.b64encode(struct.pack(f"<{dimension}f", *numbers))
        self._vectors = {True: b'"%b"' % packed, False: json.dumps(numbers).encode()}
        self._held = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, blank, body = bytes(self._held).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not blank or len(body) < length:
            return
        self._held.clear()
        if not length:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        asked = json.loads(body)
        given = asked["input"]
        count = len(given) if isinstance(given, list) else 1
        answer = _answer(self._vectors[asked.get("encoding_format") == "base64"], count)
        self._transport.write(_HEAD % (len(answer), answer))


@lru_cache(maxsize=256)
def _answer(vector: bytes, count: int) -> bytes:
    items = [
        b'{"object":"embedding","index":%d,"embedding":%b}' % (n, vector) for n in range(count)
    ]
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (count, count)
    return b'{"object":"list","data":[%b],"model":"m","usage":%b}' % (b",".join(items), usage)


async def serve(dimension: int) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(dimension), "127.0.0.1", 0)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
