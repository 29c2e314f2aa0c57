"""Recorded bodies as bytes through the codec and through both faces of a running gateway.

Bytes, since much of what gets lost is lost when a test parses and prints a body itself. A body is
sent as it stands but for the model's name; `Lab` is what stands behind and before the gateway.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from gateway_http.kinds import kinds_of
from services import codec
from services.form import fields_to_json
from tests.fakes.upstream import FakeUpstream, Json, Raw, Received, Reply
from tests.lib import canonical, form, oracle, recordings
from tests.lib.gateway import Gateway, details, gateway
from tests.lib.recordings import Recording

CHAT, EMBED, SPEECH, RERANK = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)

UPSTREAM_NAME = "acme/été-1"
"""What the upstream calls every model."""

TEI = {"embed.native": "native-embed", "rerank.tei": "native-rerank"}
"""Models on a server that speaks TEI's own JSON, by the operation that asks it."""

KEY = "sk-lossless-9f31aa"

STRICT: Mapping[str, Any] = {"opaque": [""], "ordered": [""], "lexical": True}
"""Equal to the letter: every null, every number's text, the order of members."""


_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Operation:
    """An operation of the recordings: where it is on both faces. `task`: what the path sets."""

    type: str
    path: str
    service: str
    method: str
    streamed: str = ""
    is_form: bool = False
    task: str = ""

    def message(self, direction: str) -> str:
        """The contract's message: of the request, the response, or one event of the stream."""
        rpc = self.rpc(streamed=direction == "stream")
        return rpc.request if direction == "request" else rpc.response

    def rpc(self, *, streamed: bool) -> codec.MethodPlan:
        """The RPC."""
        services = {one.name: one for one in codec.service_plans()}
        service = services[f"tetrad.v1.{self.service}"]
        return service.method(self.streamed if streamed else self.method)


_SPEECH = ("TranscribeService", "Transcribe", "StreamTranscribe", True)
OPERATIONS: Mapping[str, Operation] = {
    "chat.completions": Operation(
        CHAT, "/v1/chat/completions", "ChatService", "Chat", "StreamChat"
    ),
    "embeddings": Operation(EMBED, "/v1/embeddings", "EmbedService", "Embed"),
    "rerank": Operation(RERANK, "/v1/rerank", "RerankService", "Rerank"),
    "audio.transcriptions": Operation(SPEECH, "/v1/audio/transcriptions", *_SPEECH),
    "audio.translations": Operation(SPEECH, "/v1/audio/translations", *_SPEECH, "translate"),
    "embed.native": Operation(EMBED, "/embed", "EmbedService", "Embed"),
    "rerank.tei": Operation(RERANK, "/rerank", "RerankService", "Rerank"),
}

ANSWERS: Mapping[str, Reply] = {
    "chat.completions": Json({"choices": []}),
    "embeddings": Json({"data": [{"index": 0, "embedding": [0.5]}]}),
    "rerank": Json({"results": []}),
    "embed.native": Json([[0.5]]),
    "rerank.tei": Json([{"index": 0, "score": 0.5}]),
    "audio.transcriptions": Json({"text": "Quay"}),
    "audio.translations": Json({"text": "Quay"}),
}
"""What an upstream may answer to any good request of an operation."""

NOT_OFFERED: Mapping[str, tuple[str, ...]] = {
    "score": ("/v1/score", "/score"),
    "embed.all": ("/embed_all",),
    "embed.sparse": ("/embed_sparse",),
}
"""Operations of the recordings without a route or an RPC, and where their servers have them."""

RECOGNISED = ("info", "models.list", "models.get")
"""Operations whose answers tell the gateway what a server is, and are not passed on."""

# Bodies that have a message, though no face offers their operation, or only in another form.
MESSAGES: Mapping[tuple[str, str], str] = {
    **{
        (name, direction): one.message(direction)
        for name, one in OPERATIONS.items()
        for direction in ("request", "response", "stream")
        if direction != "stream" or one.streamed
    },
    ("embed.native", "response"): "Vector",
    ("embed.sparse", "response"): "Vector",
    ("embed.all", "response"): "Vector",
    ("rerank.tei", "response"): "RerankResult",
    ("models.list", "response"): "ListModelsResponse",
    ("models.get", "response"): "Model",
}


def texts(one: Recording) -> list[bytes]:
    """The JSON texts that a recording consists of; [] for a document."""
    if one.mode == "text":
        return []
    if one.mode == "sse":
        return [data for data in sse_events(one.bytes) if data != b"[DONE]"]
    if one.mode == "multipart":
        return [codec.dumps(form_members(one))]
    value = json.loads(one.bytes)
    if not isinstance(value, list):
        return [one.bytes]
    if one.operation == "embed.all":
        value = [vector for tokens in value for vector in tokens]
    return [json.dumps(item).encode() for item in value]


def form_members(one: Recording) -> dict[str, Any]:
    """The members of a recorded form, but the file, as JSON."""
    fields = [(part.name, part.text) for part in one.parts() if part.filename is None]
    return fields_to_json(fields, kinds_of("TranscribeRequest"))


def sse_events(stream: bytes) -> list[bytes]:
    """The data of each event by the rules of the WHATWG, read apart from the product's reader.

    Data of nothing but white space is no event; the last event may lack its blank line.
    """
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for block in text.split("\n\n"):
        lines = [line.partition(":") for line in block.split("\n")]
        data = "\n".join(value.removeprefix(" ") for name, _, value in lines if name == "data")
        if data.strip():
            found.append(data.encode())
    return found


def mended(text: bytes) -> Any:
    """A body parsed, with U+FFFD for every half of a UTF-16 pair, which protobuf cannot hold."""
    value = canonical.loads(text)
    return _mended(value) if _ESCAPED_HALF.search(text) else value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(item) for name, item in value.items()}
    return value


@dataclass
class Got:
    """What a caller got: JSON texts or a document, or a failure. done: a stream said [DONE].

    failure: over REST the status and the error object, over gRPC the status code's name and the
    details by name. said: a failure's message.
    """

    texts: list[bytes] = field(default_factory=list)
    document: tuple[str, str] | None = None
    failure: tuple[Any, Any] | None = None
    said: str | None = None
    done: bool = False


@dataclass(frozen=True)
class Way:
    """A face, and whether REST relays. `exact`: what it carries is equal to the letter."""

    name: str
    is_grpc: bool = False
    relays: bool = True

    @property
    def exact(self) -> bool:
        return self.relays and not self.is_grpc

    def __str__(self) -> str:
        return self.name


REST, RECODING, GRPC = Way("REST"), Way("REST without relay", relays=False), Way("gRPC", True)
WAYS = (REST, RECODING, GRPC)


@dataclass
class Lab:
    """Two gateways, relaying and not, before an upstream of OpenAI's kind and one of TEI's."""

    relaying: Gateway
    recoding: Gateway
    upstream: FakeUpstream
    tei: FakeUpstream

    def script(self, reply: Reply) -> None:
        """What both upstreams answer to every POST from now on."""
        for one in (self.upstream, self.tei):
            one.forget()
            one.on("POST", "/*", reply)

    def received(self) -> Received:
        """The one request that reached an upstream since the last `script`, then forgotten."""
        requests = [*self.upstream.requests, *self.tei.requests]
        assert len(requests) == 1, requests
        self.upstream.forget()
        self.tei.forget()
        return requests[0]

    async def ask(
        self, way: Way, operation: Operation, body: bytes, *, streamed: bool = False
    ) -> Got:
        """Send JSON text. For gRPC the codec makes the message of it."""
        gate = self.relaying if way.relays else self.recoding
        if way.is_grpc:
            rpc = operation.rpc(streamed=streamed)
            message = codec.message_class(rpc.request).FromString(codec.encode(rpc.request, body))
            return await self.call(operation, message, streamed=streamed)
        return await _post(gate, operation.path, "application/json", body)

    async def submit(
        self,
        way: Way,
        operation: Operation,
        parts: Sequence[form.Part],
        *,
        streamed: bool = False,
    ) -> Got:
        """Send a form. For gRPC the fields become members and the file bytes of the message."""
        if not way.is_grpc:
            gate = self.relaying if way.relays else self.recoding
            return await _post(gate, operation.path, *form.build(parts))
        fields = [(part.name, part.text) for part in parts if part.filename is None]
        members = fields_to_json(fields, kinds_of("TranscribeRequest"))
        if operation.task:
            members["task"] = operation.task
        message: Any = codec.message_class("TranscribeRequest")()
        message.MergeFromString(codec.encode_value("TranscribeRequest", members))
        for part in parts:
            if part.filename is not None:
                message.file.data, message.file.filename = part.data, part.filename
                message.file.media_type = part.content_type or ""
        return await self.call(operation, message, streamed=streamed)

    async def bulk(self, request: Any) -> bytes:
        """The EmbedResponse, as JSON, to an EmbedRequest that is the only item of a bulk."""
        item: Any = codec.message_class("BulkEmbedRequest")(id="1", request=request)
        (answer,) = [one async for one in self.relaying.bidi("EmbedService", "BulkEmbed", [item])]
        assert answer.WhichOneof("result") == "response"
        return codec.to_json("EmbedResponse", answer.response)

    async def call(self, operation: Operation, message: Any, *, streamed: bool = False) -> Got:
        """Call with a message."""
        rpc = operation.rpc(streamed=streamed)
        got = Got()
        call = self.relaying.stub(operation.service, rpc.name)(message)
        try:
            if streamed:
                async for event in call:
                    got.texts.append(codec.to_json(rpc.response, event))
            else:
                _take(got, rpc.response, await call)
        except grpc.aio.AioRpcError as error:
            got.failure = error.code().name, details(error)
            got.said = error.details()
        finally:
            call.cancel()
        return got


def _take(got: Got, name: str, answer: Any) -> None:
    if name == "TranscribeResponse" and answer.HasField("document"):
        got.document = answer.document.media_type, answer.document.text
    else:
        got.texts.append(codec.to_json(name, answer))


async def _post(gate: Gateway, path: str, content_type: str, body: bytes) -> Got:
    answer = await gate.rest.post(path, content=body, headers={"content-type": content_type})
    got = Got()
    media_type = answer.headers.get("content-type", "")
    if answer.status_code != 200:
        got.failure = answer.status_code, json.loads(answer.content)["error"]
        got.said = got.failure[1]["message"]
    elif media_type.startswith("text/event-stream"):
        got.texts = sse_events(answer.content)
        if got.texts and got.texts[-1] == b"[DONE]":
            got.done = bool(got.texts.pop())
    elif media_type.startswith("application/json"):
        got.texts = [answer.content]
    else:
        got.document = media_type, answer.text
    return got


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    """Both upstreams and both gateways, running; every model that an own body names is served."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        tei = await stack.enter_async_context(FakeUpstream())
        for one in (upstream, tei):
            one.on("GET", "/*", Raw(b"{}", "application/json"))
        relaying, recoding = [
            await stack.enter_async_context(
                gateway(json.dumps(_configuration(upstream.url, tei.url) | {"relay": relay}))
            )
            for relay in (True, False)
        ]
        yield Lab(relaying, recoding, upstream, tei)


def _configuration(upstream: str, tei: str) -> dict[str, Any]:
    def model(name: str, type: str, kind: str, url: str, **more: Any) -> dict[str, Any]:
        provider = {"type": kind, "url": url, "model_name": UPSTREAM_NAME, "key": KEY}
        return {"name": name, "type": type, "providers": [provider], **more}

    models = [
        model(type, type, "openai", upstream, default=True, aliases=sorted(_named(type)))
        for type in (CHAT, EMBED, SPEECH, RERANK)
    ]
    models += [model(TEI[name], OPERATIONS[name].type, "tei", tei) for name in TEI]
    # What a test counts is its own requests: no probe comes in between.
    return {"probes": {"interval": 3600}, "models": models}


def _named(type: str) -> Iterator[str]:
    """The models that own requests of a type name."""
    names = set()
    for one in recordings.own(direction="request"):
        operation = OPERATIONS.get(one.operation)
        if operation is not None and operation.type == type:
            body = form_members(one) if one.mode == "multipart" else json.loads(one.bytes)
            if isinstance(body.get("model"), str):
                names.add(body["model"])
    yield from names


def free(message: str, text: bytes) -> list[str]:
    """Pointers to what no field of the contract holds, by the oracle: null is a value there, 1.0 is
    not 1, and the order of members counts."""
    exact = codec.dumps(codec.loads_exact(text, replace_surrogates=True))
    return oracle.build(message, exact).opaque


def differences(
    want: Any, got: Any, compare: Mapping[str, Any], message: str | None = None
) -> list[str]:
    """As canonical.differences; the rules of form (mode, events, end) are left out."""
    rules = {k: v for k, v in compare.items() if k not in ("mode", "events", "end")}
    return canonical.differences(want, got, rules, message)
