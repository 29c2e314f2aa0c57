"""RerankService: orders documents with models of type text-classification."""

from __future__ import annotations

from services import errors
from services.body import Body
from services.call import Call
from services.dispatch import Dispatch

TYPE = "text-classification"


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
        call.usage.documents = len(documents) if isinstance(documents, list) else 1
        return await self._dispatch.unary(TYPE, request, call, lambda adapter: adapter.rerank)
