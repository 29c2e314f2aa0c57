"""ChatService: conversations with models of type text-generation."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.body import Body
from services.call import Call
from services.dispatch import Dispatch

TYPE = "text-generation"


class ChatService:
    """Answers conversations. Every method raises errors.TetradError only."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def chat(self, request: Body, call: Call) -> Body:
        """ChatRequest to ChatResponse."""
        return await self._dispatch.unary(TYPE, request, call, lambda adapter: adapter.chat)

    def stream_chat(self, request: Body, call: Call) -> AsyncIterator[list[Body]]:
        """ChatRequest to StreamChatResponses, in batches.

        The end without an error means that every choice was finished.
        """
        options = request.get("stream_options")
        call.include_usage = isinstance(options, dict) and options.get("include_usage") is True
        return self._dispatch.streamed(TYPE, request, call, lambda adapter: adapter.stream_chat)
