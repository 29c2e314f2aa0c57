"""Which metadata passes through the gateway, in and out, over both faces."""

from __future__ import annotations

import pytest

from tests.fakes.upstream import FakeUpstream, Json
from tests.lib.gateway import Gateway, gateway, message

CONFIG = """
required_types: []
metadata: {{pass_in: [x-team], pass_out: [x-region]}}
models:
  - name: m
    type: text-generation
    providers: [{{type: vllm, url: "{url}"}}]
"""
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]}
REQUEST = {"messages": [{"role": "user", "content": "hi"}]}
GIVEN = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-request-id": "given-by-the-caller",
    "x-team": "harbour",
    "x-secret": "stays here",
}


async def _over_rest(gate: Gateway) -> dict[str, str]:
    answer = await gate.rest.post("/v1/chat/completions", json=REQUEST, headers=GIVEN)
    assert answer.status_code == 200
    return dict(answer.headers)


async def _over_grpc(gate: Gateway) -> dict[str, str]:
    call = gate.stub("ChatService", "Chat")(
        message("ChatRequest", REQUEST), metadata=tuple(GIVEN.items())
    )
    await call
    return dict(await call.trailing_metadata())


@pytest.mark.parametrize("face", [_over_rest, _over_grpc])
async def test_only_known_and_allowed_names_pass(upstream: FakeUpstream, face) -> None:
    headers = {"x-region": "north", "x-internal": "stays there", "x-request-id": "upstream's own"}
    upstream.on("POST", "/v1/chat/completions", Json(ANSWER, headers=headers))
    async with gateway(CONFIG.format(url=upstream.url)) as gate:
        got = await face(gate)
    sent = upstream.requests[-1].headers
    assert {name: sent.get(name) for name in GIVEN} == {**GIVEN, "x-secret": None}
    assert got["x-region"] == "north"
    assert "x-internal" not in got
    assert got["x-request-id"] == "given-by-the-caller"
    assert got["x-tetrad-model"] == "m"
    assert got["x-tetrad-endpoint"].startswith("vllm 127.0.0.1:")
