"""Looks for what was added to a copy of the contract, with nothing but that copy's own code.

Run in the copy (`python -m tests.lib.grown`); prints one line of JSON: what was found where. The
names are those that tests/contract/test_add_a_field.py adds. Nothing here is there without it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any

import grpc

from services import codec
from tests.fakes.upstream import FakeUpstream, Json, Raw, Received, Responder, Sse
from tests.lib.gateway import Gateway, gateway

REQUEST = {
    "model": "m",
    "heat": 0.7,
    "messages": [
        {
            "role": "user",
            "content": [{"type": "smell_url", "smell_url": {"url": "https://harbour.example/tar"}}],
        }
    ],
}
ANSWER = {
    "id": "a1",
    "object": "chat.completion",
    "created": 1795000000,
    "model": "m",
    "warmth": 7,
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    ],
}
CHUNK = {
    "id": "a1",
    "object": "chat.completion.chunk",
    "created": 1795000000,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "yes", "mood": "calm"}, "finish_reason": "stop"}],
}
MODELS = {"text-generation": "m", "text-classification": "r"}


async def upstream_answer(received: Received, responder: Responder) -> None:
    """One answer or one chunk."""
    reply = Sse([CHUNK]) if received.json().get("stream") else Json(ANSWER)
    await reply(received, responder)


def in_messages() -> dict[str, Any]:
    """In the generated code and the codec."""
    generated = importlib.import_module("tetrad.v1.chat_service_pb2")
    message: Any = codec.message_class("ChatRequest").FromString(
        codec.encode_value("ChatRequest", REQUEST)
    )
    answer: Any = codec.message_class("ChatResponse").FromString(
        codec.encode_value("ChatResponse", ANSWER)
    )
    part = message.messages[0].content.parts.parts[0]
    return {
        "made": generated.ChatRequest(heat=0.7).heat,
        "number": generated.ChatRequest.DESCRIPTOR.fields_by_name["heat"].number,
        "from_json": message.heat,
        "in_extra": message.HasField("extra") or answer.HasField("extra"),
        "warmth": answer.warmth,
        "arm": part.WhichOneof("part"),
        "smell": part.smell_url.url,
        "same_again": json.loads(codec.decode("ChatRequest", message.SerializeToString()))
        == REQUEST,
    }


async def over_grpc(gate: Gateway, upstream: FakeUpstream) -> dict[str, Any]:
    """Through the generated stubs, messages as generated classes."""
    messages = importlib.import_module("tetrad.v1.chat_service_pb2")
    parts = importlib.import_module("tetrad.v1.chat_pb2")
    stubs = importlib.import_module("tetrad.v1.chat_service_pb2_grpc")
    part = parts.ContentPart(smell_url={"url": "https://harbour.example/tar"})
    content = parts.Content(parts={"parts": [part]})
    request = messages.ChatRequest(
        model="m", heat=0.7, messages=[parts.ChatMessage(role="user", content=content)]
    )
    stub: Any = stubs.ChatServiceStub(gate.channel)
    answer = await stub.Chat(request)
    sent = upstream.requests[-1].json()
    call = stub.StreamChat(request)
    chunks = [chunk async for chunk in call]
    call.cancel()
    return {
        "sent": {name: sent.get(name) for name in ("heat", "messages")},
        "warmth": answer.warmth,
        "in_extra": answer.HasField("extra"),
        "mood": chunks[0].choices[0].delta.mood,
    }


async def over_rest(gate: Gateway, upstream: FakeUpstream) -> dict[str, Any]:
    """As JSON."""
    answer = await gate.rest.post("/v1/chat/completions", json=REQUEST)
    sent = upstream.requests[-1].json()
    stream = await gate.rest.post("/v1/chat/completions", json={**REQUEST, "stream": True})
    first = json.loads(stream.text.partition("\n")[0].removeprefix("data: "))
    return {
        "sent": {name: sent.get(name) for name in ("heat", "messages")},
        "warmth": answer.json()["warmth"],
        "mood": first["choices"][0]["delta"]["mood"],
    }


async def in_document(gate: Gateway) -> dict[str, Any]:
    """In /openapi.json."""
    shown = (await gate.rest.get("/openapi.json")).json()
    schemas = shown["components"]["schemas"]
    arms = schemas["ContentPart"]["anyOf"]
    explain = shown["paths"].get("/v1/explain", {}).get("post", {})
    return {
        "heat": schemas["ChatRequest"]["properties"].get("heat"),
        "warmth": schemas["ChatResponse"]["properties"].get("warmth"),
        "mood": schemas["Delta"]["properties"].get("mood"),
        "arms": [arm.get("title") for arm in arms],
        "summary": explain.get("summary"),
        "answers": explain.get("responses", {}).get("200", {}).get("content"),
    }


async def new_method(gate: Gateway) -> dict[str, Any]:
    """The method, over both faces."""
    messages = importlib.import_module("tetrad.v1.rerank_service_pb2")
    stubs = importlib.import_module("tetrad.v1.rerank_service_pb2_grpc")
    stub: Any = stubs.RerankServiceStub(gate.channel)
    rpc = await stub.Explain(messages.ExplainRequest(question="the tide"))
    rest = await gate.rest.post("/v1/explain", json={"question": "the tide"})
    bad = await gate.rest.post("/v1/explain", json={})
    try:
        await stub.Explain(messages.ExplainRequest())
        code = "OK"
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    return {
        "grpc": rpc.answer,
        "rest": rest.json(),
        "without_its_member": [bad.status_code, bad.json()["error"]["param"], code],
    }


async def main() -> None:
    """Everything, behind one upstream."""
    async with FakeUpstream() as upstream:
        upstream.on("GET", "/*", Raw(b"{}", "application/json")).on("POST", "/*", upstream_answer)
        provider = {"type": "openai", "url": upstream.url}
        models = [
            {"name": name, "type": type, "providers": [provider]} for type, name in MODELS.items()
        ]
        found: dict[str, Any] = {"messages": in_messages()}
        for relay in (True, False):
            config = {
                "models": models,
                "relay": relay,
                "required_types": [],
                "probes": {"interval": 3600},
            }
            async with gateway(json.dumps(config)) as gate:
                name = "relaying" if relay else "recoding"
                found[f"rest {name}"] = await over_rest(gate, upstream)
                found[f"grpc {name}"] = await over_grpc(gate, upstream)
                found["document"] = await in_document(gate)
                found["method"] = await new_method(gate)
    found["code"] = {
        name: str(sys.modules[name].__file__) for name in ("services.codec", "gateway_http.openapi")
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
