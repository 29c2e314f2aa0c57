"""A good request of each operation, and cases of an upstream that fails on it."""

from __future__ import annotations

from typing import Any

from tests.fakes.upstream import Reply
from tests.lib.faces import OPERATIONS, Case, Failure, File, Sent
from tests.lib.world import UPSTREAM_NAME

HI = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "Chat": {"messages": HI},
    "StreamChat": {"messages": HI},
    "Embed": {"input": "quay"},
    "Transcribe": {},
    "StreamTranscribe": {},
    "Rerank": {"query": "q", "documents": ["a", "b"]},
}
SCRIPTED = {
    "Chat": "scripted-chat",
    "StreamChat": "scripted-chat",
    "Embed": "scripted-embed",
    "Transcribe": "scripted-speech",
    "StreamTranscribe": "scripted-speech",
    "Rerank": "scripted-rerank",
}


def failed(name: str, operation: str, reply: Reply, failure: Failure) -> Case:
    """A good request that the upstream answers so."""
    request = {**REQUESTS[operation], "model": SCRIPTED[operation]}
    sent = {**request, "model": UPSTREAM_NAME}
    if OPERATIONS[operation].streamed:
        sent["stream"] = True
        if operation == "StreamChat":
            sent["stream_options"] = {"include_usage": True}
    sound = File() if OPERATIONS[operation].form else None
    at = Sent(OPERATIONS[operation].path, sent)
    return Case(
        f"{name}, {operation}", operation, request, at, failure=failure, reply=reply, file=sound
    )
