"""An adapter that a test writes, models of each type on it, and the gRPC face in front of them.

Everything of ours but the upstream is real: services, routing, codec, a server on a unix socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from tetrad.v1 import error_details_pb2 as tetrad

from services.auth import Keyring
from services.body import Body
from services.call import Call
from services.chat import ChatService
from services.config import Address
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.errors import NotOffered, TetradError
from services.inflight import InFlight
from services.models import ModelService
from services.rerank import RerankService
from services.routing.table import Route, RoutedModel, Router, Table
from services.server.bind import Settings
from services.server.face import GrpcFace
from services.server.status import rpc_status
from services.transcribe import TranscribeService
from services.upstream import Endpoint, Timeouts
from services.upstream.model_types import FINAL_ONLY

CHAT, EMBED, SPEECH, RERANK = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)
ANSWER = b'{"id":"c1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
VECTOR = b'{"object":"list","data":[{"index":0,"embedding":[0.5,1]}]}'


class FakeAdapter:
    """Tests set its methods; what they leave out is not offered. `asked` holds the requests."""

    chat: Any
    stream_chat: Any
    embed: Any
    rerank: Any
    transcribe: Any
    stream_transcribe: Any
    live = FINAL_ONLY

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self.endpoint = Endpoint(
            "fake one", "http://fake", "openai", timeouts=timeouts or Timeouts()
        )
        self.asked: list[Body] = []

    async def live_transcribe(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        """One answer, behind the last of the sound."""
        yield [await self.transcribe(request, call)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        async def not_offered(request: Body, call: Call) -> Body:
            raise NotOffered(f"{name} is not offered")

        return not_offered


def plain(adapter: FakeAdapter) -> FakeAdapter:
    """Gives it short answers to chats and embeddings."""

    async def chat(request: Body, call: Call) -> Body:
        adapter.asked.append(request)
        return Body.from_json("ChatResponse", ANSWER)

    async def embed(request: Body, call: Call) -> Body:
        adapter.asked.append(request)
        return Body.from_json("EmbedResponse", VECTOR)

    adapter.chat, adapter.embed = chat, embed
    return adapter


def router(adapter: FakeAdapter, *more: RoutedModel) -> Router:
    """A model of each type: m, e, w, r. More of them take their places."""
    models = {
        name: RoutedModel(name, type, [Route("fake one", adapter, ready=True)])
        for name, type in {"m": CHAT, "e": EMBED, "w": SPEECH, "r": RERANK}.items()
    }
    models |= {model.name: model for model in more}
    return Router(Table(models.values()), Random(1))  # noqa: S311


def error_status(error: TetradError, request_id: str) -> bytes:
    return rpc_status(error, request_id).SerializeToString()


def a_call(method: str = "Chat", seconds: float | None = None) -> Call:
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    return Call("req-1", method, "grpc", deadline=deadline)


@dataclass
class Served:
    """A running gRPC face. `ended` holds the calls that were accounted for."""

    face: GrpcFace
    channel: grpc.aio.Channel
    path: Path
    in_flight: InFlight
    router: Router
    ended: list[Call] = field(default_factory=list)


@asynccontextmanager
async def serving(
    adapter: FakeAdapter,
    folder: Path,
    *models: RoutedModel,
    keyring: Keyring | None = None,
    max_in_flight: int | None = None,
    max_request_bytes: int = 1024 * 1024,
    max_upload_bytes: int = 1000,
    pass_in: Collection[str] = (),
) -> AsyncIterator[Served]:
    """The gRPC face on a unix socket in a folder, and a channel to it."""
    routes = router(adapter, *models)
    in_flight = InFlight(max_in_flight)
    ended: list[Call] = []
    dispatch = Dispatch(routes, [ended.append])
    services: dict[str, object] = {
        "tetrad.v1.ChatService": ChatService(dispatch),
        "tetrad.v1.EmbedService": EmbedService(dispatch, error_status),
        "tetrad.v1.TranscribeService": TranscribeService(dispatch, max_upload_bytes),
        "tetrad.v1.RerankService": RerankService(dispatch),
        "tetrad.v1.ModelService": ModelService(routes),
    }
    settings = Settings(keyring or Keyring([], open=True), in_flight, max_request_bytes, pass_in)
    face = GrpcFace(services, settings)
    path = folder / "grpc.sock"
    face.bind(Address.parse(f"unix:{path}"))
    await face.start()
    channel = grpc.aio.insecure_channel(
        f"unix:{path}",
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # Subchannels are shared within a process: each test has its own.
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )
    try:
        yield Served(face, channel, path, in_flight, routes, ended)
    finally:
        await channel.close()
        await face.stop(0)
        assert await in_flight.idle(5), f"{in_flight.count} calls are still in work"


@dataclass(frozen=True)
class Failure:
    """What a client learns of a call that failed."""

    code: str
    message: str
    status: status_pb2.Status
    initial: dict[str, Any]
    trailers: dict[str, Any]

    def detail(self, kind: Any) -> Any:
        """The only detail of a kind; None if there is none."""
        found = [each for each in self.status.details if each.Is(kind.DESCRIPTOR)]
        if not found:
            return None
        (packed,) = found
        message = kind()
        packed.Unpack(message)
        return message

    @property
    def reason(self) -> str:
        """ErrorInfo's reason."""
        return str(self.detail(error_details_pb2.ErrorInfo).reason)

    @property
    def upstream(self) -> tetrad.UpstreamError | None:
        """What the upstream said."""
        found: tetrad.UpstreamError | None = self.detail(tetrad.UpstreamError)
        return found

    @property
    def violations(self) -> list[tuple[str, str]]:
        """BadRequest's fields and descriptions."""
        bad = self.detail(error_details_pb2.BadRequest)
        return [(each.field, each.description) for each in bad.field_violations] if bad else []


async def failure(call: Any) -> Failure:
    """The failure of a call, unary or stream, that delivers nothing more before it."""
    try:
        delivered = await (call.read() if hasattr(call, "read") else call)
        raise AssertionError(f"the call delivered {delivered}")
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        return Failure(
            error.code().name,
            error.details() or "",
            status,
            dict(error.initial_metadata() or ()),
            trailers,
        )
