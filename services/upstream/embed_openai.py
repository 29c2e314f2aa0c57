"""Embeddings over OpenAI's route of one endpoint, vectors as bytes where that costs less.

For callers who get numbers as bytes anyway (gRPC) base64 is asked for in their stead, a third of
the size; an endpoint that refuses or ignores it is not asked for it again. Retries nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services import codec, errors
from services.body import Body
from services.call import Call
from services.upstream import vectors
from services.upstream.exchange import Answer, Exchange, Payload


class Embeddings:
    """Embedding requests to one endpoint. base64: it is likely to know that form."""

    def __init__(self, exchange: Exchange, paths: tuple[str, ...], *, base64: bool) -> None:
        self._exchange, self._paths = exchange, paths
        self._base64 = base64

    async def embed(self, request: Body, call: Call) -> Body:
        """EmbedRequest, with the upstream's model in it, to EmbedResponse."""
        asked = request.value()
        packing = call.face == "grpc" and self._base64 and vectors.wants_base64(asked) is False
        answer = await (self._packed(request, call) if packing else self._post(request, call))
        value, text = self._exchange.vectors(answer)
        if not isinstance(value.get("data"), list):
            raise self._exchange.unreadable(answer, answer.body)
        if packing and text is not None:
            self._base64 = all(isinstance(vector, codec.Packed) for vector in text.vectors)
        call.usage.tokens(value.get("usage") or usage_of(answer.headers))
        if text is not None:
            return vectors.as_asked(text, asked, answer.body.strip())
        as_asked = vectors.value_as_asked(value, asked)
        if as_asked is value:
            return Body.from_json("EmbedResponse", answer.body.strip(), value)
        return Body.from_value("EmbedResponse", as_asked)

    async def _packed(self, request: Body, call: Call) -> Answer:
        """The answer to a request for base64; to the caller's own if that is what is refused."""
        try:
            return await self._post(request.with_members(encoding_format="base64"), call)
        except errors.UpstreamInvalidRequest as error:
            if not _is_about_the_format(error):
                raise
        self._base64 = False
        return await self._post(request, call)

    async def _post(self, request: Body, call: Call) -> Answer:
        return await self._exchange.post(self._paths, Payload(request.json()), call)


def usage_of(headers: Mapping[str, Any]) -> dict[str, int] | None:
    """The tokens that TEI tells in its headers, as usage."""
    told = headers.get("x-compute-tokens", "")
    if not told.isdigit():
        return None
    return {"prompt_tokens": int(told), "total_tokens": int(told)}


def _is_about_the_format(error: errors.TetradError) -> bool:
    said = (error.message, error.param or "", error.upstream.body if error.upstream else "")
    return any(word in text for text in said for word in ("encoding_format", "base64"))
