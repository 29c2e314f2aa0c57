"""The REST face under a real uvicorn, with services that a test writes, and raw sockets at it.

Not a test itself. Services are plain objects: a coroutine for each unary RPC, an async generator
for each stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway_http import GatewayProtocol, RestApp, RestSettings
from services.auth import Keyring
from services.body import Body
from services.call import Call
from services.config import Key
from services.errors import Draining

CHAT = "tetrad.v1.ChatService"
EMBED = "tetrad.v1.EmbedService"
TRANSCRIBE = "tetrad.v1.TranscribeService"
RERANK = "tetrad.v1.RerankService"
MODEL = "tetrad.v1.ModelService"

OPEN = Keyring([], open=True)
KEY = "tk-secret"
CLOSED = Keyring(
    [Key(name="ada", sha256=hashlib.sha256(KEY.encode()).hexdigest())],
    open=False,
)

CHAT_REQUEST = {"messages": [{"role": "user", "content": "hello"}]}
CHAT_ANSWER = b'{"id":"c1","object":"chat.completion","choices":[],"odd":[1,{"x":null}]}'


# Never used, but httpx would spend longer on loading certificates than a test takes.
UNUSED_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Unused:
    """A service in which nothing is expected to be called."""

    def __getattr__(self, name: str) -> Any:
        async def unexpected(*arguments: Any) -> Any:
            raise AssertionError(f"{name} was called")

        return unexpected


@dataclass
class Life:
    """The state of the process, as a test sets it."""

    draining: bool = False
    refusing: bool = False
    is_ready: bool = True
    in_flight: int = 0
    entered: int = 0

    def enter(self) -> None:
        """A call begins."""
        if self.refusing:
            raise Draining
        self.in_flight += 1
        self.entered += 1

    def leave(self) -> None:
        """A call has ended."""
        self.in_flight -= 1

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """As the test says."""
        return self.is_ready, {"models": {"m": {"ready": self.is_ready}}}


class Recording(RestApp):
    """Keeps the scope of every request."""

    def __init__(self, services: Mapping[str, object], settings: RestSettings) -> None:
        super().__init__(services, settings)
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As the application itself."""
        self.scopes.append(scope)
        await super().__call__(scope, receive, send)


class Server(uvicorn.Server):
    """uvicorn that leaves the signals of the test run alone, and stops without polling."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.leaving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield

    async def end(self, task: asyncio.Task[None]) -> None:
        """Stop: as uvicorn does while requests are in work, else without its pauses."""
        if self.server_state.tasks or self.leaving.is_set():
            self.leaving.set()
            await task
            return
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        task.cancel()
        await asyncio.wait([task])

    async def main_loop(self) -> None:
        """Serve until told to leave."""
        await self.on_tick(0)
        await self.leaving.wait()


@dataclass
class Rest:
    """A face that answers."""

    port: int
    app: Recording
    life: Life
    server: Server
    client: httpx.AsyncClient = field(repr=False)

    async def send(self, head: str, body: bytes = b"") -> RawAnswer:
        """Open a connection of its own and send a request, line ends as LF."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + body)
        await writer.drain()
        return RawAnswer(reader, writer)

    async def post(self, path: str, body: bytes, *headers: str) -> RawAnswer:
        """POST JSON on a connection of its own."""
        lines = [f"POST {path} HTTP/1.1", "host: test", *headers]
        if not any(line.startswith("content-type") for line in headers):
            lines.append("content-type: application/json")
        if not any(line.startswith("content-length") for line in headers):
            lines.append(f"content-length: {len(body)}")
        return await self.send("\n".join(lines) + "\n", body)


@dataclass
class RawAnswer:
    """What comes back on a raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), headers

    async def chunk(self) -> bytes:
        """One chunk of a chunked body; b"" is the last."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Hang up as a process that is killed does."""
        self.writer.transport.abort()


@asynccontextmanager
async def serving(
    services: Mapping[str, object],
    *,
    protocol: type[HttpToolsProtocol] = GatewayProtocol,
    life: Life | None = None,
    keyring: Keyring = OPEN,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Rest]:
    """A running face with these services; ends when the block is left."""
    state = life or Life()
    app = Recording(services, RestSettings(keyring=keyring, state=state, **settings))
    config = uvicorn.Config(
        app,
        ssl_context_factory=(lambda *_: tls) if tls else None,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20, verify=UNUSED_TLS
        ) as client:
            yield Rest(port, app, state, server, client)
    finally:
        await server.end(task)


class Echo:
    """Answers unary calls with one body, and keeps what it was asked."""

    def __init__(self, message: str, answer: bytes, **out: str) -> None:
        self.requests: list[Body] = []
        self.calls: list[Call] = []
        self._message, self._answer, self._out = message, answer, out

    @property
    def request(self) -> Any:
        """The last request as parsed JSON."""
        return self.requests[-1].value()

    async def answer(self, request: Body, call: Call) -> Body:
        """The body."""
        self.requests.append(request)
        self.calls.append(call)
        call.out.update({name.replace("_", "-"): value for name, value in self._out.items()})
        return Body.from_json(self._message, self._answer)

    chat = embed = rerank = transcribe = list_models = get_model = answer

    def __getattr__(self, name: str) -> Any:
        return getattr(Unused(), name)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until a condition holds; fails after so many seconds."""
    async with asyncio.timeout(seconds):
        # What is waited for has no event: counters and tasks of others.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


CHAT_PATH = "/v1/chat/completions"
STREAMED = {**CHAT_REQUEST, "stream": True}

Batches = AsyncIterator[list[Body]]


def chunk(text: str) -> Body:
    """A chunk as an upstream's bytes."""
    return Body.from_json("StreamChatResponse", b'{"id":"%s"}' % text.encode())


class Streaming(Unused):
    """A chat service whose stream the test writes."""

    def __init__(self, make: Callable[[Body, Call], Batches]) -> None:
        self._make = make
        self.calls: list[Call] = []

    def stream_chat(self, request: Body, call: Call) -> Batches:
        """What the test made."""
        self.calls.append(call)
        return self._make(request, call)


async def whole_stream(rest: Rest, **members: Any) -> Any:
    """A whole stream."""
    return await rest.client.post(CHAT_PATH, json={**STREAMED, **members})


async def raw_stream(rest: Rest, **members: Any) -> RawAnswer:
    """A stream on a raw connection."""
    return await rest.post(CHAT_PATH, json.dumps({**STREAMED, **members}).encode())
