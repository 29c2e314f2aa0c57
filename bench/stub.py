"""The upstream of whole-gateway benchmarks: `python -m bench.stub`, cheap enough never to limit.

It prints its port, and answers chats, embeddings and rerankings at once. A chat's stream comes in
bursts; the models "idle" and "busy" say one word and then nothing until their caller leaves.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Final, cast

import uvloop

from bench.operations import AT_ONCE, CHAT, answer_key, answers, events

_HEAD = b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 10:00:00 GMT\r\nserver: uvicorn\r\n"
_MODELS = b'{"object":"list","data":[%b]}' % b",".join(
    b'{"id":"%b","object":"model","owned_by":"vllm"}' % name.encode()
    for name in ("chat", "idle", "busy", "embed", "rerank")
)


def _whole(body: bytes) -> bytes:
    head = _HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWERS: Final = {key: _whole(body) for key, body in answers().items()}
_STREAM = _HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENTS = events()
_FIRST = _STREAM + _frame(_EVENTS[0])
_BURSTS: Final = [
    b"".join(map(_frame, _EVENTS[at : at + AT_ONCE])) for at in range(0, len(_EVENTS), AT_ONCE)
]
_OTHERS: Final = {b"/v1/models": _whole(_MODELS)}
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Stub(asyncio.Protocol):
    """One connection; requests come one at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        head, blank, body = self._held.partition(b"\r\n\r\n")
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if not blank or len(body) < length:
            return
        self._held = b""
        path = head.split(b" ", 2)[1]
        if path == CHAT.encode() and b'"stream":true' in body:
            if b'"model":"chat"' in body:
                self._burst(0)
            else:
                self._transport.write(_FIRST)
        else:
            known = ANSWERS.get(answer_key(path, body)) or _OTHERS.get(path, _NOT_FOUND)
            self._transport.write(known)

    def _burst(self, index: int) -> None:
        if self._transport.is_closing():
            return
        burst = _BURSTS[index]
        if index == 0:
            burst = _STREAM + burst
        if index + 1 == len(_BURSTS):
            self._transport.write(burst + b"0\r\n\r\n")
            return
        self._transport.write(burst)
        asyncio.get_running_loop().call_soon(self._burst, index + 1)


async def serve() -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(Stub, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
