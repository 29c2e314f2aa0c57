"""Limits of keys through both faces of a gateway: the refusal, its wait, and the headers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import grpc
import pytest

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.gateway import Gateway, details, gateway

CHAT = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
BEARER = {"authorization": "Bearer tk-a"}
DIGEST = hashlib.sha256(b"tk-a").hexdigest()


@pytest.fixture
async def gate() -> AsyncIterator[Gateway]:
    """One request a day for the one key."""
    async with FakeUpstream() as fake:
        profiles.vllm(fake)
        text = (
            "required_types: []\n"
            "models: [{name: a, type: text-generation, "
            f"providers: [{{url: '{fake.url}', type: vllm, model_name: qwen3-8b}}]}}]\n"
            f"auth: {{keys: [{{name: k, sha256: {DIGEST}, limits: {{rpd: 1}}}}]}}\n"
        )
        async with gateway(text) as one:
            yield one


async def test_over_rest_a_refusal_says_how_long_to_wait(gate: Gateway) -> None:
    """G19."""
    first = await gate.rest.post("/v1/chat/completions", json=CHAT, headers=BEARER)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    refused = await gate.rest.post("/v1/chat/completions", json=CHAT, headers=BEARER)
    assert refused.status_code == 429
    assert 86_000 < int(refused.headers["retry-after"]) <= 86_400
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


async def test_over_grpc_a_refusal_says_how_long_to_wait(gate: Gateway) -> None:
    """G19."""
    metadata = tuple(BEARER.items())
    await gate.call("ChatService", "Chat", CHAT, metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gate.call("ChatService", "Chat", CHAT, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = details(caught.value)
    assert 86_000 < told["RetryInfo"].retry_delay.seconds <= 86_400
    assert told["ErrorInfo"].metadata["limit"] == "rpd"
    sent = {**dict(caught.value.initial_metadata()), **dict(caught.value.trailing_metadata())}
    assert sent["x-ratelimit-remaining-requests"] == "0"
