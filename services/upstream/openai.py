"""The adapter for servers that speak OpenAI's REST, or nearly; what differs stands in a Dialect.

Bytes pass through: a request changes in the members that it must, an answer only where it is not
what the caller asked for. Knows no other endpoint and retries nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from services import codec
from services.body import Body
from services.call import Call
from services.upstream.any_to_rerank import to_rerank, usage_of
from services.upstream.base import Endpoint
from services.upstream.embed_openai import Embeddings
from services.upstream.exchange import EVENTS, Exchange, Payload
from services.upstream.live import Live
from services.upstream.rerank_to_texts import as_texts
from services.upstream.speech import Speech, SpeechDialect
from services.upstream.stream import ChatStream
from services.upstream.transport import Transport


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a kind of server wants otherwise. Paths are tried in turn.

    stream_options: it knows them, so usage can be asked for. only_max_tokens: it does not read
    max_completion_tokens. text_documents: it ranks texts, no objects. base64: it is likely to give
    vectors so, see `embed_openai`.
    """

    stream_options: bool = True
    only_max_tokens: bool = False
    text_documents: bool = False
    base64: bool = True
    chat: tuple[str, ...] = ("/v1/chat/completions",)
    embed: tuple[str, ...] = ("/v1/embeddings",)
    rerank: tuple[str, ...] = ("/v1/rerank", "/rerank")
    speech: SpeechDialect = field(default_factory=SpeechDialect)


class OpenAIAdapter:
    """See `base.Adapter`."""

    def __init__(
        self, endpoint: Endpoint, transport: Transport, dialect: Dialect | None = None
    ) -> None:
        self.endpoint = endpoint
        self._dialect = dialect or Dialect()
        self._exchange = Exchange(endpoint, transport)
        self._embeddings = Embeddings(
            self._exchange, self._dialect.embed, base64=self._dialect.base64
        )
        self._speech = Speech(self._exchange, self._dialect.speech)
        self._live = Live(endpoint, self._speech, self._dialect.speech.realtime)

    async def chat(self, request: Body, call: Call) -> Body:
        """ChatRequest to ChatResponse, the upstream's bytes."""
        request = self._chat_request(request)
        if request.get("stream"):
            request = request.with_members(stream=None)
        answer = await self._exchange.post(self._dialect.chat, Payload(request.json()), call)
        value = self._exchange.object(answer)
        if "choices" not in value:
            raise self._exchange.unreadable(answer, answer.body)
        call.usage.tokens(value.get("usage"))
        return Body.from_json("ChatResponse", answer.body.strip(), value)

    async def stream_chat(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """ChatRequest to StreamChatResponses, the upstream's bytes, one list for each read."""
        request = self._chat_request(request).with_members(
            stream=True, stream_options=self._stream_options(request)
        )
        stream = ChatStream(
            self.endpoint.name,
            self._exchange.error,
            call.usage.tokens,
            usage_asked=call.include_usage,
            choices=_count(request.get("n")),
        )
        payload = Payload(request.json())
        async with (
            self._exchange.open(self._dialect.chat, payload, call, accept=EVENTS) as response,
            aclosing(self._exchange.events(response, stream)) as batches,
        ):
            async for batch in batches:
                yield [
                    Body.from_json(codec.CHUNK, c.data, c.value)
                    if c.template is None
                    else Body.from_chunk(c.data, c.template, c.text)
                    for c in batch
                ]

    async def embed(self, request: Body, call: Call) -> Body:
        """EmbedRequest to EmbedResponse, with the vectors in the form that was asked for."""
        return await self._embeddings.embed(self._with_model(request), call)

    async def rerank(self, request: Body, call: Call) -> Body:
        """RerankRequest to RerankResponse: best first, at most top_n, documents as asked for."""
        request = self._with_model(request)
        sent = as_texts(request) if self._dialect.text_documents else request
        answer = await self._exchange.post(self._dialect.rerank, Payload(sent.json()), call)
        value = self._exchange.value(answer)
        shaped = to_rerank(value, request.value())
        if shaped is None:
            raise self._exchange.unreadable(answer, answer.body)
        call.usage.tokens(usage_of(shaped))
        if shaped is value:
            return Body.from_json("RerankResponse", answer.body.strip(), value)
        return Body.from_value("RerankResponse", shaped)

    async def transcribe(self, request: Body, call: Call) -> Body:
        """See `speech.Speech.transcribe`."""
        return await self._speech.transcribe(request, call)

    def stream_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """See `speech.Speech.stream_transcribe`."""
        return self._speech.stream_transcribe(request, call)

    @property
    def live(self) -> str:
        """See `base.Adapter.live`."""
        return self._live.how

    def live_transcribe(self, request: Body, call: Call) -> AsyncGenerator[list[Body], None]:
        """See `live.Live.transcribe`."""
        return self._live.transcribe(request, call)

    async def aclose(self) -> None:
        """Nothing is held beyond a call."""

    def _with_model(self, request: Body) -> Body:
        model = self.endpoint.model
        return request.with_members(model=model) if model else request

    def _chat_request(self, request: Body) -> Body:
        request = self._with_model(request)
        if self._dialect.only_max_tokens and request.get("max_tokens") is None:
            request = request.with_members(max_tokens=request.get("max_completion_tokens"))
        return request

    def _stream_options(self, request: Body) -> Any:
        options = request.get("stream_options")
        if not self._dialect.stream_options:
            return None
        if options is None or isinstance(options, dict):
            return {**(options or {}), "include_usage": True}
        return options  # of no known type: the upstream judges it


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 1
