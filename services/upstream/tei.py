"""The adapter for Text Embeddings Inference: embeddings over both of its routes, and rerank.

Its answers carry no usage; the tokens stand in a header. Batches are sent as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services import codec
from services.body import Body
from services.call import Call
from services.upstream import embed_to_tei, rerank_to_tei
from services.upstream.any_to_rerank import to_rerank
from services.upstream.base import Endpoint, Limited
from services.upstream.embed_openai import Embeddings, usage_of
from services.upstream.exchange import Exchange, Payload
from services.upstream.transport import Transport

OPENAI_EMBED = ("/v1/embeddings",)
EMBED = ("/embed",)
RERANK = ("/rerank",)


class TeiAdapter(Limited):
    """See `base.Adapter`. It offers no chat and no transcription."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        super().__init__(endpoint)
        self._exchange = Exchange(endpoint, transport)
        self._embeddings = Embeddings(self._exchange, OPENAI_EMBED, base64=True)

    async def embed(self, request: Body, call: Call) -> Body:
        """EmbedRequest to EmbedResponse: /v1/embeddings, or /embed if a member asks for it."""
        asked = request.value()
        if embed_to_tei.needs_native(asked):
            return await self._native_embed(asked, call)
        if self.endpoint.model:
            request = request.with_members(model=self.endpoint.model)
        return await self._embeddings.embed(request, call)

    async def rerank(self, request: Body, call: Call) -> Body:
        """RerankRequest to RerankResponse. Raises InvalidRequest for documents without a text."""
        asked = request.value()
        body = codec.dumps(rerank_to_tei.to_tei(asked))
        answer = await self._exchange.post(RERANK, Payload(body), call)
        shaped = to_rerank(self._exchange.value(answer), asked)
        if shaped is None:
            raise self._exchange.unreadable(answer, answer.body)
        usage = usage_of(answer.headers)
        call.usage.tokens(usage)
        told = {"model": self._model(asked), "usage": usage}
        return Body.from_value(
            "RerankResponse", shaped | {name: item for name, item in told.items() if item}
        )

    async def _native_embed(self, asked: Mapping[str, Any], call: Call) -> Body:
        body = codec.dumps(embed_to_tei.to_tei(asked))
        answer = await self._exchange.post(EMBED, Payload(body), call)
        rows = codec.cut_rows(answer.body) or self._exchange.value(answer)
        usage = usage_of(answer.headers)
        value = embed_to_tei.from_tei(rows, asked, self._model(asked), usage)
        if value is None:
            raise self._exchange.unreadable(answer, answer.body)
        call.usage.tokens(usage)
        return Body.from_value("EmbedResponse", value)

    def _model(self, asked: Mapping[str, Any]) -> str:
        named = asked.get("model")
        return self.endpoint.model or (named if isinstance(named, str) else "")
