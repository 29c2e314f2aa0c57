"""What only httpx's client can do: reach an upstream through the proxy of the environment."""

from __future__ import annotations

import pytest

from services import errors
from services.upstream import Endpoint, Timeouts, build
from tests.fakes.upstream import FakeUpstream, Record
from tests.lib.adapters import a_call, chat, transport

TIMEOUTS = Timeouts(connect=5.0, first_byte=5.0, idle=5.0)
HOST = "http://model.example:8000"


@pytest.fixture
def proxy(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> FakeUpstream:
    """A proxy that answers for everybody, and the environment that names it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", upstream.url)
    upstream.on("POST", "/*", Record("chat/openai-text-response.json"))
    return upstream


async def asked(url: str, via: str) -> object:
    """The answer of a chat model at a URL."""
    end = Endpoint("fake", url, "openai", timeouts=TIMEOUTS, transport=via)
    async with transport() as one:
        return (await build(end, one).chat(chat(), a_call())).get("choices")


async def test_a_request_goes_through_the_proxy_if_its_endpoint_says_httpx(
    proxy: FakeUpstream,
) -> None:
    assert await asked(HOST, "httpx")
    assert proxy.requests[0].target == f"{HOST}/v1/chat/completions"


async def test_our_own_client_takes_no_notice_of_proxies(proxy: FakeUpstream) -> None:
    with pytest.raises(errors.UpstreamUnavailable):
        await asked("http://host.invalid", "own")
    assert proxy.requests == []


async def test_no_proxy_and_this_machine_are_reached_directly(
    proxy: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await asked(proxy.url, "httpx")
    assert proxy.requests[0].target == "/v1/chat/completions"
    monkeypatch.setenv("no_proxy", "host.invalid")
    with pytest.raises(errors.UpstreamUnavailable):
        await asked("http://host.invalid", "httpx")
    assert len(proxy.requests) == 1
