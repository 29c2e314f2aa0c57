"""The running gateway keeps to its OpenAPI document, whatever the document's reader sends.

schemathesis makes requests from the document, good and bad ones, the same at each run; a fake
upstream answers every operation. What must hold: no 500, and only statuses, media types and bodies
that the document lists for the operation.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway_http.openapi import document
from services import codec
from tests.fakes.upstream import FakeUpstream, Raw, Received, Record, Reply, Responder
from tests.lib.gateway import gateway
from tests.unit.rest_server import Unused

EXAMPLES = 10
"""Of each mode, for each operation, at both gateways."""

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODELS = {
    "text-generation": "chat",
    "text-embeddings-inference": "embed",
    "automatic-speech-recognition": "speech",
    "text-classification": "rerank",
}
NEVER_GOOD = {"GET /v1/models/{model}"}
"""Operations that want a name which nobody would make up."""

ALWAYS = {"POST /v1/embeddings": {"input": "a"}}
"""Members that the document must leave optional, since some upstreams take others instead."""

REPLIES: Mapping[str, Reply] = {
    "/v1/chat/completions": Record("chat/openai-text-response.json"),
    "/v1/embeddings": Record("embeddings/openai-float-response.json"),
    "/v1/audio/transcriptions": Record("transcriptions/openai-json-tokens-response.json"),
    "/v1/audio/translations": Record("translations/openai-verbose-response.json"),
    "/v1/rerank": Record("rerank/vllm-response.json"),
}
STREAMS: Mapping[str, Reply] = {
    "/v1/chat/completions": Record("chat/openai-usage-stream.sse"),
    "/v1/audio/transcriptions": Record("transcriptions/openai-deltas-stream.sse"),
}


async def answer(received: Received, responder: Responder) -> None:
    """The upstream: one answer for each path, a stream where one was asked for."""
    if received.headers.get("content-type", "").startswith("multipart/"):
        texts = {p.plain_name: p.text for p in received.form() if p.filename is None}
        streamed = texts.get("stream") == "true"
    else:
        streamed = received.json().get("stream") is True
    streams = STREAMS if streamed else REPLIES
    await streams.get(received.path, REPLIES[received.path])(received, responder)


@asynccontextmanager
async def gateways() -> AsyncIterator[list[str]]:
    """URLs of two gateways in front of the upstream: one relays, one recodes every answer."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.on("GET", "/*", Raw(b"{}", "application/json")).on("POST", "/*", answer)
        provider = {"type": "openai", "url": upstream.url}
        models = [
            {"name": name, "type": type, "default": True, "providers": [provider]}
            for type, name in MODELS.items()
        ]
        urls = []
        for relay in (True, False):
            config = {"models": models, "relay": relay, "probes": {"interval": 3600}}
            gate = await stack.enter_async_context(gateway(json.dumps(config)))
            urls.append(gate.url)
        yield urls


def reference() -> Any:
    """The document, of all services."""
    services = {service.name: Unused() for service in codec.service_plans()}
    return json.loads(document(services, "1.0"))


def operations() -> Iterator[Any]:
    """Each operation of the document with the ways to fill it: as told, and not."""
    for found in openapi.from_dict(reference()).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        takes = operation.body or list(operation.iter_parameters())
        for mode in GenerationMode if takes else [GenerationMode.POSITIVE]:
            yield pytest.param(operation, mode, id=f"{operation.label} {mode.name.lower()}")


def ask(operation: Any, mode: GenerationMode, urls: list[str]) -> Counter[int]:
    """Sends made requests to each URL; counts the statuses. Fails where the document is broken.

    Names of models would nearly all be wrong: most requests get none, which means the default.
    """
    statuses: Counter[int] = Counter()

    @given(
        case=operation.as_strategy(generation_mode=mode),
        model=st.sampled_from([None, None, None, None, ..., *MODELS.values(), "nobody"]),
    )
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def one(case: Case[Any], model: Any) -> None:
        if isinstance(case.body, dict) and model is not ...:
            case.body = {k: v for k, v in case.body.items() if k != "model"}
            case.body |= {"model": model} if model else {}
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            case.body = {**ALWAYS.get(operation.label, {}), **case.body}
        for url in urls:
            response = case.call(base_url=url, session=session, timeout=30)
            statuses[response.status_code] += 1
            assert response.status_code != HTTPStatus.INTERNAL_SERVER_ERROR, response.text
            case.validate_response(response, checks=CHECKS)

    with requests.Session() as session:
        one()
    return statuses


@pytest.mark.parametrize(("operation", "mode"), [*operations()])
async def test_the_gateway_answers_as_its_document_says(
    operation: Any, mode: GenerationMode
) -> None:
    async with gateways() as urls:
        statuses = await asyncio.to_thread(ask, operation, mode, urls)
    assert statuses.total() >= EXAMPLES or not operation.body
    if mode is GenerationMode.POSITIVE and operation.label not in NEVER_GOOD:
        assert statuses[HTTPStatus.OK]


async def test_the_document_that_is_served_is_the_one_that_was_asked() -> None:
    async with gateways() as urls:
        served = await asyncio.to_thread(
            lambda: requests.get(f"{urls[0]}/openapi.json", timeout=30)
        )
    assert served.json()["paths"] == reference()["paths"]
    assert served.json()["components"] == reference()["components"]
