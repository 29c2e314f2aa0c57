"""Limits of keys over four workers that share a real Valkey: counted, over both faces (G14)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from pathlib import Path

import grpc

from services.upstream.base import Timeouts
from services.upstream.transport import Transport
from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.gateway import message
from tests.lib.tetrad import configuration, model, serving
from tests.lib.valkey import valkey

KEY = "tk-test"
HI = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
LIMIT = 60
CALLS = 100
"""On each face; a worker has about a quarter of the connections."""


async def test_a_limit_is_exact_over_four_workers(upstream: FakeUpstream, tmp_path: Path) -> None:
    """G14: not one more, and not one less."""
    name = profiles.vllm(upstream)
    with valkey() as store:
        hashed = hashlib.sha256(KEY.encode()).hexdigest()
        file = configuration(
            tmp_path,
            [model("chat", "text-generation", "vllm", upstream.url, name)],
            required_types=[],
            auth={"keys": [{"name": "ann", "sha256": hashed, "limits": {"rpm": LIMIT}}]},
            state={"url": store.url, "timeout": 5},
        )
        async with serving("--config", file, "--workers", "4", within=60) as served:
            transport = Transport()
            url, address = served.gate.url, served.gate.address
            ends = Counter(
                await asyncio.gather(
                    *(_over_rest(transport, url) for _ in range(CALLS)),
                    *(_over_grpc(address, number) for number in range(CALLS)),
                )
            )
            await transport.aclose()
        assert store.count("tetrad:{ann}:rpm") == LIMIT
    assert ends == {"OK": LIMIT, "limited": 2 * CALLS - LIMIT}
    asked = sum(one.path == "/v1/chat/completions" for one in upstream.requests)
    assert asked == LIMIT


async def _over_rest(transport: Transport, url: str) -> str:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    path = f"{url}/v1/chat/completions"
    body = json.dumps(HI).encode()
    async with transport.request("POST", path, headers, body, Timeouts()) as answer:
        await answer.read()
    if answer.status == 429:
        assert int(answer.headers["retry-after"]) >= 1
        return "limited"
    assert answer.status == 200
    return "OK"


async def _over_grpc(address: str, number: int) -> str:
    # A connection each for some of them, so that every worker has its part.
    options = [("grpc.use_local_subchannel_pool", 1), ("number", number // 10)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = channel.unary_unary(
            "/tetrad.v1.ChatService/Chat",
            request_serializer=lambda one: one.SerializeToString(),
        )
        try:
            await stub(message("ChatRequest", HI), metadata=[("authorization", f"Bearer {KEY}")])
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            return "limited"
        return "OK"
