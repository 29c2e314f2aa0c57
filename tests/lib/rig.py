"""One gateway before one fake upstream, with what went on inside, and callers that misbehave.

    async with rig() as one:
        one.up.on("POST", "/*", Stall("headers"))
        caller = await REST.start(one, "Chat")
        await caller.leave("lost")

What went on inside: `ended` holds each call whose usage record was closed, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import grpc
import pytest

from services import runtime
from services.call import Call
from services.inflight import InFlight
from services.routing.table import Route
from tests.fakes.upstream import FakeUpstream, Raw
from tests.lib import form
from tests.lib.faces import OPERATIONS, File, message, parts, plan
from tests.lib.gateway import Gateway, details, gateway
from tests.lib.world import CHAT, EMBED, RERANK, SPEECH

How = Literal["cancel", "lost"]
"""A caller leaves in order (RST_STREAM, FIN), or its connection breaks (RST)."""

HI = [{"role": "user", "content": "hi"}]
REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "Chat": {"model": "chat", "messages": HI},
    "StreamChat": {"model": "chat", "messages": HI},
    "Embed": {"model": "embed", "input": "a"},
    "Transcribe": {"model": "speech"},
    "StreamTranscribe": {"model": "speech"},
    "Rerank": {"model": "rerank", "query": "q", "documents": ["a", "b"]},
}
MODELS = {"chat": CHAT, "embed": EMBED, "speech": SPEECH, "rerank": RERANK}
_PAUSE = 0.005
PATIENT = {"connect": 60, "first_byte": 60, "idle": 60, "total": 60, "stream_total": 60}


@dataclass
class Rig:
    """A gateway under test; `url` is where its models' provider is."""

    gate: Gateway
    up: FakeUpstream
    in_flight: InFlight
    ended: list[Call]
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def routes(self) -> list[Route]:
        """Every provider of every model."""
        return [route for model in self.gate.running.table.models for route in model.routes]

    def note(self, call: Call) -> None:
        """A record was closed."""
        self.ended.append(call)
        self._changed.set()

    async def record(self, number: int = 1, within: float = 10.0) -> Call:
        """The call that was the `number`-th to end, when it has."""
        async with asyncio.timeout(within):
            while len(self.ended) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.ended[number - 1]

    async def at_rest(self) -> None:
        """Waits until no call, no lease and no connection of an answer under way is left."""
        assert await self.in_flight.idle(10)
        assert [route.in_flight for route in self.routes] == [0] * len(self.routes)
        await until(lambda: self.up.busy == 0)


@asynccontextmanager
async def rig(
    url: str = "", timeouts: Mapping[str, float] | None = None, **sections: Any
) -> AsyncIterator[Rig]:
    """A gateway with a model of each type at one fake (or `url`), and no limit that strikes
    unless `timeouts` says so."""
    buffers = sections.pop("buffers", {})
    async with FakeUpstream(**buffers) as up:
        up.on("GET", "/*", Raw(b"{}", "application/json"))
        provider = {"type": "openai", "url": url or up.url, "model_name": "m"}
        config = {
            "models": [
                {"name": name, "type": type, "default": True, "providers": [provider]}
                for name, type in MODELS.items()
            ],
            "probes": {"interval": 3600},
            "timeouts": PATIENT | dict(timeouts or {}),
            "drain": {"grace": 0},
            **sections,
        }
        made: list[InFlight] = []
        ended: list[Call] = []
        noted: list[Callable[[Call], None]] = [ended.append]

        def counted(limit: int | None = None) -> InFlight:
            made.append(InFlight(limit))
            return made[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runtime, "log_call", lambda call: noted[0](call))
            patch.setattr(runtime, "InFlight", counted)
            async with gateway(json.dumps(config)) as gate:
                one = Rig(gate, up, made[0], ended)
                noted[0] = one.note
                up.forget()
                yield one


@dataclass(frozen=True)
class End:
    """How a call ended for its caller.

    reason: of ErrorInfo, or the error's code, lower case. code: gRPC's, or the HTTP status (200 for
    a stream that began). which: the time limit that is told. done: [DONE], or status OK.
    """

    answers: list[Any]
    reason: str = ""
    code: str | int = "OK"
    which: str = ""
    done: bool = False
    closed: bool = False
    errors: int = 0
    text: str = ""


class Caller(Protocol):
    """A call under way."""

    async def leave(self, how: How) -> float:
        """Leaves; when."""
        ...

    async def first(self) -> None:
        """Waits for the first event of a stream."""
        ...

    async def end(self) -> End:
        """Reads to the end."""
        ...


class Face(Protocol):
    """A way to call the gateway."""

    name: str

    async def start(self, one: Rig, operation: str, **how: Any) -> Caller:
        """Begins a call. how: seconds (the caller's deadline), members, sound (bytes of audio),
        receive_buffer (bytes, of a caller that reads nothing by itself)."""
        ...


class RestCaller:
    """A call on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._head = b""
        self._body = b""

    async def leave(self, how: How) -> float:
        """FIN or RST."""
        if how == "lost":
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()
        at = time.monotonic()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        return at

    async def head(self) -> bytes:
        """The answer's head."""
        if not self._head:
            self._head = await self.reader.readuntil(b"\r\n\r\n")
        return self._head

    async def first(self) -> None:
        """The head and one event."""
        await self.head()
        while b"\n\ndata:" not in b"\n\n" + self._body or b"\n\n" not in self._body:
            size = int(await self.reader.readline(), 16)
            self._body += (await self.reader.readexactly(size + 2))[:-2]

    async def end(self) -> End:
        """To the end of the answer; `closed` if the connection ended with it."""
        head = (await self.head()).decode("latin-1")
        status = int(head.split(" ")[1])
        lines = head.lower().split("\r\n")
        lengths = [line.split(":")[1] for line in lines if line.startswith("content-length:")]
        if lengths:
            self._body = await self.reader.readexactly(int(lengths[0]))
            closed = "connection: close" in lines and await self.reader.read() == b""
        else:
            while size := int(await self.reader.readline(), 16):
                self._body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
            # A success leaves the connection open: nothing more comes, not even the end.
            closed = b'"error"' in self._body and await self.reader.read() == b""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        return _rest_end(status, self._body.decode(), closed)


def _rest_end(status: int, text: str, closed: bool) -> End:
    if not text.startswith(("data:", ":")):
        value = json.loads(text) if text.startswith("{") else text
        error = value.get("error") if isinstance(value, dict) else None
        if error:
            reason, which = _named(error)
            return End([], reason, status, which, closed=closed, errors=1, text=text)
        return End([value], code=status, done=True, closed=closed, text=text)
    events = [one[6:] for one in text.split("\n\n") if one.startswith("data: ")]
    done = "[DONE]" in events
    values = [json.loads(one) for one in events if one != "[DONE]"]
    failures = [one["error"] for one in values if one.keys() == {"error"}]
    answers = [one for one in values if one.keys() != {"error"}]
    if answers and answers[-1].get("type") == "transcript.text.done":
        done = not failures  # OpenAI ends transcriptions without [DONE], and so do we
    if failures:
        assert "error" in values[-1], "the error is the last event"
        reason, which = _named(failures[-1])
        return End(answers, reason, status, which, done, closed, len(failures), text)
    return End(answers, code=status, done=done, closed=closed, text=text)


def _named(error: Mapping[str, Any]) -> tuple[str, str]:
    said = str(error["message"])
    which = said.rpartition("(")[2].partition(":")[0] if said.endswith(" s)") else ""
    return str(error["code"]), which


class Rest:
    """REST."""

    name = "rest"

    async def start(
        self,
        one: Rig,
        operation: str,
        *,
        seconds: float | None = None,
        members: Mapping[str, Any] | None = None,
        sound: bytes = b"RIFF",
        receive_buffer: int | None = None,
    ) -> RestCaller:
        """As in Face."""
        where = OPERATIONS[operation]
        request = {**REQUESTS[operation], **(members or {})}
        if where.streamed:
            request["stream"] = True
        if where.form:
            kind, body = form.build(parts(request, File(sound)))
        else:
            kind, body = "application/json", json.dumps(request).encode()
        head = f"POST {where.path} HTTP/1.1\r\nhost: t\r\ncontent-type: {kind}\r\n"
        if seconds is not None:
            head += f"x-request-timeout-ms: {seconds * 1000:.0f}\r\n"
        caller = await self.connect(one, receive_buffer)
        caller.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await caller.writer.drain()
        return caller

    async def connect(self, one: Rig, receive_buffer: int | None = None) -> RestCaller:
        """A connection and nothing sent."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        host, _, port = one.gate.url.removeprefix("http://").rpartition(":")
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        return RestCaller(*await asyncio.open_connection(sock=sock, limit=receive_buffer or 65536))


class GrpcCaller:
    """A call; on a connection of its own if it is to be lost."""

    def __init__(self, call: Any, streamed: bool, relay: Relay | None, close: AsyncExitStack):
        self.call = call
        self._streamed = streamed
        self._relay = relay
        self._close = close
        self._answers: list[Any] = []

    async def leave(self, how: How) -> float:
        """RST_STREAM, or the connection breaks."""
        if how == "lost":
            assert self._relay is not None, "start(own=True)"
            self._relay.cut()
        else:
            self.call.cancel()
        at = time.monotonic()
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await self.call.code()
        self.call.cancel()
        await self._close.aclose()
        return at

    async def first(self) -> None:
        """One message."""
        self._answers.append(await self.call.read())

    async def end(self) -> End:
        """The messages and the status."""
        try:
            if self._streamed:
                while (answer := await self.call.read()) is not grpc.aio.EOF:
                    self._answers.append(answer)
                code = await self.call.code()
                if code is not grpc.StatusCode.OK:
                    raise grpc.aio.AioRpcError(
                        code,
                        await self.call.initial_metadata(),
                        await self.call.trailing_metadata(),
                        await self.call.details(),
                    )
            else:
                self._answers.append(await self.call)
        except grpc.aio.AioRpcError as error:
            info = details(error).get("ErrorInfo")
            reason = info.reason.lower() if info else ""
            which = info.metadata["which"] if info and "which" in info.metadata else ""
            text = error.details() or ""
            return End(self._answers, reason, error.code().name, which, errors=1, text=text)
        finally:
            self.call.cancel()
            await self._close.aclose()
        return End(self._answers, done=True)


class Grpc:
    """gRPC."""

    name = "grpc"

    async def start(
        self,
        one: Rig,
        operation: str,
        *,
        seconds: float | None = None,
        members: Mapping[str, Any] | None = None,
        sound: bytes = b"RIFF",
        receive_buffer: int | None = None,
        own: bool = False,
    ) -> GrpcCaller:
        """As in Face; `own`: on a connection that can be lost."""
        where = OPERATIONS[operation]
        request = {**REQUESTS[operation], **(members or {})}
        rpc = plan(where)
        gate, relay = one.gate, None
        close = AsyncExitStack()
        if own:
            relay = await close.enter_async_context(relayed(gate.address))
            channel = await close.enter_async_context(grpc.aio.insecure_channel(relay.address))
            gate = Gateway(channel, gate.rest, gate.url, relay.address, gate.running)
        sent = message(rpc.request, request, File(sound) if where.form else None)
        call = gate.stub(where.service, operation)(sent, timeout=seconds)
        return GrpcCaller(call, where.streamed, relay, close)


REST, GRPC = Rest(), Grpc()
FACES: tuple[Any, ...] = (REST, GRPC)


class Relay:
    """Carries bytes between a caller and the gateway until it is cut."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._writers: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Breaks every connection, without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From one side to the other until either ends."""
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def relayed(address: str) -> AsyncIterator[Relay]:
    """A relay in front of a unix socket address of gRPC."""
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        relay = Relay(f"unix:{folder}/relay")

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                target = await asyncio.open_unix_connection(address.removeprefix("unix:"))
            except OSError:
                writer.close()
                return
            for pair in ((reader, target[1]), (target[0], writer)):
                relay.tasks.add(asyncio.create_task(relay.carry(*pair)))

        server = await asyncio.start_unix_server(accept, f"{folder}/relay")
        try:
            yield relay
        finally:
            server.close()
            relay.cut()
            if relay.tasks:
                await asyncio.wait(relay.tasks)


@asynccontextmanager
async def full_listener() -> AsyncIterator[str]:
    """The URL of a server that never accepts, with its queue of connections full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


async def until(holds: Callable[[], bool], within: float = 5.0) -> None:
    """Asks again and again for what nobody announces; fails after `within` seconds."""
    for _ in range(int(within / _PAUSE)):
        if holds():
            return
        await asyncio.sleep(_PAUSE)
    raise AssertionError(f"it did not come true within {within} s")


async def still(value: Callable[[], int], seconds: float = 0.3, within: float = 10.0) -> int:
    """The value, once it has not changed for some seconds."""
    seen, unchanged = value(), 0.0
    for _ in range(int(within / _PAUSE)):
        await asyncio.sleep(_PAUSE)
        now = value()
        unchanged = unchanged + _PAUSE if now == seen else 0.0
        seen = now
        if unchanged >= seconds:
            return seen
    raise AssertionError(f"it still changes after {within} s: {seen}")
