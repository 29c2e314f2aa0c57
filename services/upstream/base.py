"""What an upstream is to the rest: an endpoint, its time limits, the Protocol of an adapter.

Adapters speak one dialect each, towards one endpoint; which one a kind takes stands in `kinds`.
They know neither models' names and aliases nor other endpoints: that is routing's business.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from services import errors
from services.body import Body
from services.call import Call
from services.upstream.model_types import FINAL_ONLY


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one attempt in seconds; `total` and `stream_total` are for the services to keep.

    connect: until the connection (and TLS) stands. first_byte: from the request's last byte to the
    answer's headers. idle: between two reads of the answer, and for one write to get through.
    """

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 60.0
    total: float = 300.0
    stream_total: float = 3600.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One upstream server as one model's provider.

    name: shown to callers and in logs, never with a key. url: base without `/v1` and without a
    slash at its end. key: sent as bearer token, "" for none. model: the upstream's name of the
    model, "" leaves the request's. kind: a key of `kinds.KINDS`. headers: sent with every request.
    pass_out: names of its answers' headers that callers get, lower case. transport: the HTTP
    client, "own" or "httpx".
    """

    name: str
    url: str
    kind: str
    model: str = ""
    key: str = field(default="", repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    pass_out: frozenset[str] = frozenset()
    transport: str = "own"


def endpoint_name(kind: str, url: str) -> str:
    """A name for logs and callers: the kind and where, e.g. "vllm 127.0.0.1:8000"."""
    parts = urlsplit(url)
    return f"{kind} {parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


class Adapter(Protocol):
    """One endpoint in one dialect. Requests and answers are bodies of the contract's messages.

    Every method raises `errors.TetradError` only; an operation that the server's kind lacks is
    `errors.NotOffered`. The adapter sets the upstream's model name and counts usage on the call.
    Streams yield one list for each read; the caller closes them (`aclose`), which, like cancelling
    any of these, closes the upstream connection.
    """

    endpoint: Endpoint

    async def chat(self, request: Body, call: Call) -> Body:
        """ChatRequest to ChatResponse."""
        ...

    def stream_chat(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """ChatRequest to a StreamChatResponse for each chunk."""
        ...

    async def embed(self, request: Body, call: Call) -> Body:
        """EmbedRequest to EmbedResponse."""
        ...

    async def rerank(self, request: Body, call: Call) -> Body:
        """RerankRequest to RerankResponse, best first."""
        ...

    async def transcribe(self, request: Body, call: Call) -> Body:
        """TranscribeRequest, with its upload, to TranscribeResponse (perhaps a document)."""
        ...

    def stream_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """TranscribeRequest to a StreamTranscribeResponse for each event; `done` is the last."""
        ...

    def live_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """TranscribeRequest, its upload still arriving, to StreamTranscribeResponses and, as the
        last, one TranscribeResponse."""
        ...

    @property
    def live(self) -> str:
        """How live_transcribe answers: one of `model_types.LIVE`."""
        ...

    async def aclose(self) -> None:
        """Forgets what the adapter learnt; the transport is shared and stays open."""
        ...


class Limited:
    """The base of adapters that lack operations: what they do not define is NotOffered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def chat(self, request: Body, call: Call) -> Body:
        """Not offered."""
        raise self._lacks("chat")

    def stream_chat(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """Not offered."""
        raise self._lacks("chat")

    async def embed(self, request: Body, call: Call) -> Body:
        """Not offered."""
        raise self._lacks("embeddings")

    async def rerank(self, request: Body, call: Call) -> Body:
        """Not offered."""
        raise self._lacks("rerank")

    async def transcribe(self, request: Body, call: Call) -> Body:
        """Not offered."""
        raise self._lacks("transcription")

    def stream_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """Not offered."""
        raise self._lacks("transcription")

    def live_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """Not offered."""
        raise self._lacks("transcription")

    @property
    def live(self) -> str:
        """It is not."""
        return FINAL_ONLY

    async def aclose(self) -> None:
        """Nothing is held beyond a call."""

    def _lacks(self, operation: str) -> errors.NotOffered:
        name, kind = self.endpoint.name, self.endpoint.kind
        return errors.NotOffered(f"{name} does not offer {operation}: it is of kind {kind}")
