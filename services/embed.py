"""EmbedService: vectors by models of type text-embeddings-inference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np

from services import codec, embed_parts, errors
from services.body import Body
from services.bulk import Bulk, ErrorStatus
from services.bulk_pack import Packer
from services.call import Call
from services.dispatch import Dispatch, Unary
from services.parts import together
from services.routing.table import RoutedModel
from services.telemetry.logs import log_bulk

TYPE = "text-embeddings-inference"

ALONE = 32
"""Items of one bulk that can share no request and are at an upstream at the same time."""

_OTHER_DTYPES = ("embed_dtype", "output_dtype", "endianness")
"""Members by which a caller asks for other numbers than little-endian float32."""


class EmbedService:
    """Embeds inputs. Every method raises errors.TetradError only."""

    def __init__(self, dispatch: Dispatch, error_status: ErrorStatus) -> None:
        self._dispatch = dispatch
        self._error_status = error_status
        self._packer = Packer(partial(dispatch.part, operation=self._operation))

    async def embed(self, request: Body, call: Call) -> Body:
        """EmbedRequest to EmbedResponse."""
        return await self._answer(request, call, self._in_parts)

    async def _answer(
        self,
        request: Body,
        call: Call,
        through: Callable[[Body, Call, RoutedModel], Awaitable[Body] | None],
    ) -> Body:
        if request.get("input") is None and not request.get("messages"):
            raise errors.InvalidRequest(
                "input: required, but absent",
                param="input",
                violations=(errors.Violation("input", "required, but absent"),),
            )
        return await self._dispatch.unary(
            TYPE, request, call, self._operation, partial(through, request, call)
        )

    def _packed(
        self, alone: asyncio.Semaphore, request: Body, call: Call, model: RoutedModel
    ) -> Awaitable[Body]:
        """The answer to an item of a bulk, out of a request that it shares with others."""
        packed = self._packer.answer(model, request, call)
        return packed or self._not_packed(alone, request, call, model)

    async def _not_packed(
        self, alone: asyncio.Semaphore, request: Body, call: Call, model: RoutedModel
    ) -> Body:
        """One that shares none, in its turn."""
        async with alone:
            parts = self._in_parts(request, call, model)
            if parts is not None:
                return await parts
            return await self._dispatch.part(model, request, call, self._operation)

    def _operation(self, adapter: Any) -> Unary:
        return partial(self._embed, adapter)

    def _in_parts(self, request: Body, call: Call, model: RoutedModel) -> Awaitable[Body] | None:
        """The answer to a request with more inputs than a provider takes; None for any other."""
        parts = embed_parts.cut(request, model)
        if parts is None:
            return None
        return together(
            parts, model, call, partial(self._dispatch.part, model, operation=self._operation)
        )

    async def _embed(self, adapter: Any, request: Body, call: Call) -> Body:
        """One attempt. Raises WrongDimension if its vectors are not as long as other providers'."""
        answer: Body = await adapter.embed(request, call)
        dimension = None if request.get("dimensions") else _dimension(answer, request)
        if dimension is None:
            return answer
        model = self._dispatch.router.table.resolve(TYPE, call.model, call.principal)
        other = model.other_dimension(adapter, dimension)
        if other is not None:
            raise errors.WrongDimension(
                f"{adapter.endpoint.name} answers vectors of {dimension} dimensions, another "
                f"provider of `{model.name}` answers {other}",
                metadata={"dimension": str(dimension), "expected": str(other)},
                reached=True,
            )
        return answer

    async def bulk_embed(
        self, requests: AsyncIterator[Body], call: Call
    ) -> AsyncGenerator[list[Body], None]:
        """BulkEmbedRequests to BulkEmbedResponses as they finish, in batches.

        An item that fails is answered with its status. A duplicate open id ends the stream.
        """
        call.usage.close("OK")  # it has no record: its items have theirs
        through = partial(self._packed, asyncio.Semaphore(ALONE))
        bulk = Bulk(partial(self._answer, through=through), call, self._error_status)
        reader = asyncio.create_task(bulk.read(requests))
        outcome = "OK"
        try:
            while batch := await bulk.next_batch():
                yield batch
            await reader
        except BaseException as error:
            outcome = self._dispatch.outcome(call, error)
            raise
        finally:
            await bulk.cancel(reader)
            log_bulk(call, outcome, items=bulk.items, failed=bulk.failed)


def _dimension(answer: Body, request: Body) -> int | None:
    """The length of an answer's first vector; None where it is not one of plain numbers."""
    data = answer.get("data")
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    if isinstance(vector, np.ndarray):
        return vector.size or None
    if isinstance(vector, list):
        return len(vector) if vector and isinstance(vector[0], int | float) else None
    if not isinstance(vector, codec.Packed) or request.get("encoding_format") != "base64":
        return None
    if any(request.get(name) for name in _OTHER_DTYPES):
        return None
    return len(vector.data) // codec.FLOAT32.itemsize
