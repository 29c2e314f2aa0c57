"""RerankService: orders documents with models of type text-classification."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

from services import errors, rerank_parts
from services.body import Body
from services.call import Call
from services.dispatch import Dispatch, Unary
from services.parts import together
from services.routing.table import RoutedModel

TYPE = "text-classification"


def _operation(adapter: Any) -> Unary:
    return partial(_rerank, adapter)


async def _rerank(adapter: Any, request: Body, call: Call) -> Body:
    """One attempt; documents count from here on: a call that was refused has used none."""
    documents = request.get("documents")
    call.usage.documents = len(documents) if isinstance(documents, list) else 1
    answer: Body = await adapter.rerank(request, call)
    return answer


class RerankService:
    """Orders documents by relevance. Every method raises errors.TetradError only."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def rerank(self, request: Body, call: Call) -> Body:
        """RerankRequest to RerankResponse, best first."""
        documents = request.get("documents")
        if not documents:
            raise errors.InvalidRequest(
                "documents: required, at least one",
                param="documents",
                violations=(errors.Violation("documents", "required, at least one"),),
            )
        return await self._dispatch.unary(
            TYPE, request, call, _operation, partial(self._in_parts, request, call)
        )

    def _in_parts(self, request: Body, call: Call, model: RoutedModel) -> Awaitable[Body] | None:
        """The answer to a request with more documents than a provider takes; None for others."""
        parts = rerank_parts.cut(request, model)
        if parts is None:
            return None
        return together(
            parts, model, call, partial(self._dispatch.part, model, operation=_operation)
        )
