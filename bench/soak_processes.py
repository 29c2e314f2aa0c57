"""The two processes of a soak: the gateway, and the upstream behind it; each tells what it holds.

They print where they listen, answer every line of standard input with a line of figures, and end
with whoever started them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 30.0
"""Seconds that one operation may take, and the gateway to become quiet."""

_LINGER = struct.pack("ii", 1, 0)  # a close is a reset: no port waits for minutes
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: "
_CHUNK = b'{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word "}}]}'
_EVENT = b"data: " + _CHUNK + b"\n\n"
_FRAME = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)
ANSWER = (
    b'{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":'
    b'"stop","message":{"role":"assistant","content":"word"}}],"usage":{"prompt_tokens":1,'
    b'"completion_tokens":1,"total_tokens":2}}'
)
_MODELS = b'{"object":"list","data":[{"id":"m","object":"model","owned_by":"vllm"}]}'


def facts(**more: int) -> dict[str, int]:
    """What this process holds, rubbish left out."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "fds": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        **more,
    }


def obey(tell: Callable[[], Mapping[str, int]]) -> None:
    """Answer each line of standard input with the facts; end with our parent, which holds it."""
    number = sys.stdin.fileno()

    def ready() -> None:
        asked = os.read(number, 100)
        if asked:
            print(json.dumps(tell()), flush=True)
        else:
            asyncio.get_running_loop().remove_reader(number)
            os.kill(os.getpid(), signal.SIGTERM)

    asyncio.get_running_loop().add_reader(number, ready)


async def gateway(upstream: str) -> None:
    """The gateway in front of the stub; its log goes nowhere, but is written."""
    # Not above: the stub and the load need none of it.
    from services import app
    from services.config import parse
    from services.telemetry import logs

    provider = {"type": "vllm", "url": upstream, "model_name": "m"}
    config = {
        "models": [{"name": "m", "type": "text-generation", "providers": [provider]}],
        "required_types": [],
        "grpc": {"address": "127.0.0.1:0"},
        "http": {"address": "127.0.0.1:0"},
    }

    def announce(running: app.Running) -> None:
        print(running.grpc, running.http, flush=True)

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # noqa: ASYNC230
        logs.set_up("json", nowhere)
        obey(facts)
        await app.serve(parse(json.dumps(config), "the soak", {}), announce)


class Stub(asyncio.Protocol):
    """One connection to the upstream: whole answers, and streams that never end by themselves."""

    streaming = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None
        linger(transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, blank, body = self._held.partition(b"\r\n\r\n")
        if not blank:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self._held = b""
        if head.startswith(b"GET"):
            self._whole(_MODELS)
        elif b'"stream":true' in body.replace(b" ", b""):
            Stub.streaming += 1
            self._transport.write(
                _HEAD + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._next()
        else:
            self._whole(ANSWER)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            Stub.streaming -= 1
            self._timer.cancel()

    def eof_received(self) -> None:
        self._transport.abort()

    def _whole(self, body: bytes) -> None:
        length = b"application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(_HEAD + length + body)

    def _next(self) -> None:
        self._transport.write(_FRAME)
        self._timer = asyncio.get_running_loop().call_later(0.005, self._next)


async def stub() -> None:
    """The upstream, until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(Stub, "127.0.0.1", 0)
    obey(lambda: facts(streaming=Stub.streaming))
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.close()


def linger(transport: asyncio.BaseTransport) -> None:
    """Make closing a reset."""
    bare = transport.get_extra_info("socket")
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)


class Child:
    """One of the two processes, seen from here."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout

    @classmethod
    @asynccontextmanager
    async def started(cls, *arguments: str) -> AsyncIterator[Child]:
        """Started; ended and waited for on the way out."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.soak", *arguments),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(10):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def line(self) -> str:
        """The next line of its output. Raises EOFError if it has ended."""
        async with asyncio.timeout(PATIENCE):
            line = await self._out.readline()
        if not line:
            raise EOFError(f"the process ended with {await self._process.wait()}")
        return line.decode().strip()

    async def facts(self) -> dict[str, int]:
        """What it holds now."""
        self._in.write(b"\n")
        found: dict[str, int] = json.loads(await self.line())
        return found
