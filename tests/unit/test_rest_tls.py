"""The REST face over TLS: certificates of clients, and callers that hang up."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest

from services.body import Body
from services.call import Call
from tests.lib.tls import client_context, server_context
from tests.unit.rest_server import CHAT, CHAT_REQUEST, Unused, serving, until


def client(port: int, context: ssl.SSLContext) -> httpx.AsyncClient:
    """An HTTP client with that context."""
    return httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False, timeout=20
    )


async def test_a_client_s_certificate_is_told_to_the_application() -> None:
    async with serving({}, tls=server_context(require_client=True)) as rest:
        async with client(rest.port, client_context(with_certificate=True)) as caller:
            assert (await caller.get("/health")).status_code == 200
        certificate = rest.app.scopes[0]["extensions"]["tls"]["client_cert"]
    assert certificate["subject"] == ((("commonName", "client.test"),),)


async def test_without_a_certificate_there_is_nothing_to_tell() -> None:
    async with serving({}, tls=server_context()) as rest:
        async with client(rest.port, client_context()) as caller:
            assert (await caller.get("/health")).status_code == 200
        assert "tls" not in rest.app.scopes[0]["extensions"]


async def test_a_caller_that_hangs_up_is_noticed_over_tls_too() -> None:
    """G5."""
    begun, ended = asyncio.Event(), asyncio.Event()

    class Waiting(Unused):
        async def chat(self, request: Body, call: Call) -> Body:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    async with serving({CHAT: Waiting()}, tls=server_context()) as rest:
        async with client(rest.port, client_context()) as caller:
            call = asyncio.create_task(caller.post("/v1/chat/completions", json=CHAT_REQUEST))
            await begun.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        async with asyncio.timeout(5):
            await ended.wait()
        await until(lambda: not rest.life.in_flight)
