"""A server of realtime transcription on a real WebSocket, in OpenAI's words or in vLLM's.

It writes down a word for each second of sound that it hears. `heard` is the sound so far, `said`
every message of the client, `closed` is set when the connection has ended.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

_TRANSCRIPTION = "conversation.item.input_audio_transcription."


class FakeRealtime:
    """The server. `status` refuses the handshake; `act`, if it is set, is called with each message
    in place of its usual ways, which `usual` goes on with."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.url = ""
        self.status: int | None = None
        self.body = b"{}"
        self.act: Callable[[FakeRealtime, ServerConnection, Any], Awaitable[None]] | None = None
        self.greets = True
        self.open = False
        self.heard = bytearray()
        self.said: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.closed = asyncio.Event()
        self.more = asyncio.Event()
        self.usual = {"vllm": self._vllm, "openai": self._openai}[words]
        self._rate = {"vllm": 16000, "openai": 24000}[words]
        self._told = 0
        self._items = 0

    async def until(self, condition: Callable[[], bool], within: float = 5.0) -> None:
        """Waits for what the client's messages bring."""
        async with asyncio.timeout(within):
            while not condition():
                self.more.clear()
                await self.more.wait()

    def kinds(self) -> list[str]:
        """The types of what was said, sound left out."""
        kinds = [one["type"] for one in self.said]
        return [kind for kind in kinds if kind != "input_audio_buffer.append"]

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """Notes a handshake, and answers it if it is to fail."""
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.raw_items()})
        if self.status is None and "upgrade" in request.headers:
            return None
        status = HTTPStatus(self.status or HTTPStatus.OK)
        headers = Headers({"content-type": "application/json", "connection": "close"})
        headers["content-length"] = str(len(self.body))
        return Response(status, status.phrase, headers, self.body)

    async def talk(self, connection: ServerConnection) -> None:
        """One session."""
        self.open = True
        self.more.set()
        try:
            if self.greets:
                await tell(connection, "session.created")
            async for text in connection:
                message = json.loads(text)
                self.said.append(message)
                if message["type"] == "input_audio_buffer.append":
                    self.heard += base64.b64decode(message["audio"])
                await (self.act or _as_usual)(self, connection, message)
                self.more.set()
        except ConnectionClosed:
            pass
        finally:
            self.closed.set()
            self.more.set()

    def _words(self) -> list[str]:
        """The words for seconds that are full since the last time."""
        full = len(self.heard) // (2 * self._rate)
        words = [f" word{number}" for number in range(self._told, full)]
        self._told = full
        return words

    async def _vllm(self, connection: ServerConnection, message: Any) -> None:
        if message["type"] == "input_audio_buffer.append":
            for word in self._words():
                await tell(connection, "transcription.delta", delta=word)
        elif message.get("final"):
            text = "".join(f" word{number}" for number in range(self._told))
            usage = {"prompt_tokens": 5, "completion_tokens": self._told, "total_tokens": 9}
            await tell(connection, "transcription.done", text=text, usage=usage)

    async def _openai(self, connection: ServerConnection, message: Any) -> None:
        item = f"item{self._items}"
        match message["type"]:
            case "session.update":
                await tell(connection, "session.updated", session=message["session"])
            case "input_audio_buffer.append":
                for word in self._words():
                    await tell(connection, _TRANSCRIPTION + "delta", item_id=item, delta=word)
            case "input_audio_buffer.commit" if self._told:
                await self.item(connection)
            case "input_audio_buffer.commit":
                error = {"code": "input_audio_buffer_commit_empty", "message": "empty"}
                await tell(connection, "error", error=error)

    async def item(self, connection: ServerConnection) -> None:
        """Ends a stretch of speech, as an item of its own."""
        item, count = f"item{self._items}", self._told
        self._items, self._told = self._items + 1, 0
        self.heard.clear()
        await tell(connection, "input_audio_buffer.committed", item_id=item)
        await tell(
            connection,
            _TRANSCRIPTION + "completed",
            item_id=item,
            transcript="".join(f" word{number}" for number in range(count)).strip(),
            usage={"type": "tokens", "input_tokens": 5, "output_tokens": count},
        )


async def tell(connection: ServerConnection, type: str, **members: Any) -> None:
    """Sends an event."""
    await connection.send(json.dumps({"type": type, "event_id": "e", **members}))


async def _as_usual(server: FakeRealtime, connection: ServerConnection, message: Any) -> None:
    await server.usual(connection, message)


@asynccontextmanager
async def realtime(words: str) -> AsyncIterator[FakeRealtime]:
    """A running server, on a port of its own."""
    fake = FakeRealtime(words)
    async with serve(
        fake.talk, "127.0.0.1", 0, process_request=fake.refuse, close_timeout=1
    ) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        fake.url = f"http://{host}:{port}"
        yield fake
