"""The ASGI application: reads a request whole, finds its handler, sends what that answers.

A client that goes away ends its handler's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from demo import catalogue, wire
from demo.audio_routes import AudioRoutes
from demo.chat import ChatRoutes
from demo.ears import Ears, EarsError
from demo.vector_routes import VectorRoutes
from demo.vectors import Embedder
from demo.wire import ApiError, EventStream, Handler, Reply, Request

MAX_BODY: Final = 64 * 1024 * 1024

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ONE_MODEL: Final = "/v1/models/"
_EVENT_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
}

log = logging.getLogger("demo")


class ClientGone(Exception):
    """The client closed its connection before its request was complete."""


class App:
    """Serves the models; `pace` is the time in seconds that a streamed word of chat takes."""

    def __init__(self, pace: float) -> None:
        self._embedder = Embedder()
        self._ears = Ears()
        vectors, audio = VectorRoutes(self._embedder), AudioRoutes(self._ears)
        chat = ChatRoutes(pace)
        self._routes: Mapping[str, Mapping[str, Handler]] = {
            "/v1/chat/completions": {"POST": chat.completions},
            "/v1/embeddings": {"POST": vectors.embeddings},
            "/v1/audio/transcriptions": {"POST": audio.transcriptions},
            "/v1/audio/translations": {"POST": audio.translations},
            "/v1/rerank": {"POST": vectors.rerank},
            "/v1/models": {"GET": _models},
            "/embed": {"POST": vectors.tei_embed},
            "/rerank": {"POST": vectors.tei_rerank},
            "/info": {"GET": vectors.info},
            "/health": {"GET": _health},
        }

    async def load(self) -> None:
        """Loads both models, so that the first request need not wait for it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(asyncio.to_thread(self._embedder.load), self._ears.start())
        log.info("models loaded in %.1f s", loop.time() - started)

    async def close(self) -> None:
        """Ends what runs beside this process."""
        await self._ears.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        assert scope["type"] == "http"  # noqa: S101  (the server is told so)
        with contextlib.suppress(ClientGone):
            try:
                handler = self._handler(scope["method"], scope["path"])
                request = await _request(scope, receive)
            except ApiError as error:
                await _send_reply(send, error.reply())
                return
            await _while_connected(receive, self._respond(handler, request, send), request.path)

    def _handler(self, method: str, path: str) -> Handler:
        methods = self._routes.get(path)
        if methods is None and path.startswith(_ONE_MODEL):
            methods = {"GET": _model}
        if methods is None:
            raise ApiError(f"There is no {path} here.", status=HTTPStatus.NOT_FOUND)
        # What a GET answers, a HEAD may ask for.
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise ApiError(
                f"{path} takes {' and '.join(methods)}, not {method}.",
                status=HTTPStatus.METHOD_NOT_ALLOWED,
                headers={"allow": ", ".join(methods)},
            )
        return handler

    async def _respond(self, handler: Handler, request: Request, send: Send) -> None:
        try:
            answer = await handler(request)
            if isinstance(answer, EventStream):
                await _send_events(send, answer)
                return
        except Exception as error:
            answer = _reply_to(error)
        await _send_reply(send, answer)


async def _models(request: Request) -> Reply:
    listed = [model.listed() for model in catalogue.MODELS.values()]
    return wire.reply_json({"object": "list", "data": listed})


async def _model(request: Request) -> Reply:
    return wire.reply_json(catalogue.find(request.path.removeprefix(_ONE_MODEL)).listed())


async def _health(request: Request) -> Reply:
    return Reply()


async def _request(scope: Message, receive: Receive) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    told = headers.get("content-length", "0")
    if told.isdecimal() and int(told) > MAX_BODY:
        raise _too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _too_large()
        if not message.get("more_body"):
            return Request(scope["method"], scope["path"], headers, bytes(body))


def _too_large() -> ApiError:
    return ApiError(
        f"The body is larger than {MAX_BODY} bytes.",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        code="request_too_large",
    )


async def _while_connected(receive: Receive, work: Awaitable[None], path: str) -> None:
    """Does the work; if the client goes away, what is left of it is not done."""
    doing = asyncio.ensure_future(work)
    going = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((doing, going), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            log.info("%s: the client went away", path)
    finally:
        for task in (doing, going):
            if not task.done():
                task.cancel()
        await asyncio.wait((doing, going))
    if not doing.cancelled():
        doing.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _reply_to(error: Exception) -> Reply:
    """The answer to a failure: to what is no ApiError, one that tells nothing of it."""
    match error:
        case ApiError():
            return error.reply()
        case EarsError():
            log.error("%s", error)
            message = "The speech recogniser broke off. It is started anew for the next request."
        case _:
            log.error("a handler failed", exc_info=error)
            message = "Something went wrong here; what, stands in the log."
    return ApiError(message, status=HTTPStatus.INTERNAL_SERVER_ERROR).reply()


async def _send_reply(send: Send, reply: Reply) -> None:
    headers = {"content-length": str(len(reply.body)), **reply.headers}
    if reply.body:
        headers["content-type"] = reply.media_type
    await _start(send, reply.status, headers)
    await send({"type": "http.response.body", "body": reply.body})


async def _send_events(send: Send, stream: EventStream) -> None:
    """The events; a failure before the first is the caller's, a later one is the last event."""
    sent = 0

    async def write(one: bytes) -> None:
        nonlocal sent
        if not sent:
            await _start(send, HTTPStatus.OK, _EVENT_HEADERS)
        await send({"type": "http.response.body", "body": one, "more_body": True})
        sent += 1

    async with contextlib.aclosing(stream.events) as events:
        try:
            async for one in events:
                await write(one)
        except asyncio.CancelledError:
            log.info("%s stream given up after %d events", stream.name, sent)
            raise
        except Exception as error:
            if not sent:
                raise
            await write(b"data: " + _reply_to(error).body + b"\n\n")
    await send({"type": "http.response.body"})


async def _start(send: Send, status: HTTPStatus, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status.value, "headers": pairs})
