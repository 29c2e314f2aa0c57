"""What callers of a running gateway see when the server behind it, or another caller, goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.faces import Case, over_grpc, over_rest
from tests.lib.held import REQUEST, Held, before, two_streams
from tests.lib.tetrad import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    async with before(upstream, tmp_path_factory.mktemp("broken")) as one:
        yield one


@pytest.fixture
def served(running: Served, upstream: FakeUpstream) -> Served:
    """One gateway for all tests, in front of a server that is well again for each."""
    profiles.vllm(upstream)
    return running


async def test_a_stopped_upstream_is_503_and_unavailable_with_its_name(
    upstream: FakeUpstream, served: Served
) -> None:
    await upstream.stop_listening()
    said = f"vllm 127.0.0.1:{upstream.port} cannot be reached: Connection refused"
    case = Case("stopped", "Chat", REQUEST, None)
    streamed = Case("stopped", "StreamChat", REQUEST, None)
    for one in (case, streamed):
        rest, over_rpc = await over_rest(served.gate, one), await over_grpc(served.gate, one)
        assert rest.failure is not None
        assert over_rpc.failure is not None
        assert (rest.failure["status"], rest.failure["message"]) == (503, said)
        assert (over_rpc.failure["code"], over_rpc.failure["message"]) == ("UNAVAILABLE", said)

    await upstream.listen()
    assert (await over_rest(served.gate, case)).failure is None  # G20: without a restart


async def test_an_upstream_that_dies_in_a_stream_ends_it_as_an_error(
    upstream: FakeUpstream, served: Served
) -> None:
    """G1."""
    held = Held()
    upstream.on("POST", "/v1/chat/completions", held)
    rest, over_rpc = await two_streams(served)
    await upstream.stop_listening("rst")
    text, error = await asyncio.gather(rest, over_rpc)
    await upstream.listen()
    assert '"code":"upstream_truncated"' in text
    assert "[DONE]" not in text
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_who_leaves_closes_the_upstream_s_connection(
    upstream: FakeUpstream, served: Served
) -> None:
    """G5: over both faces."""
    held = Held()
    upstream.on("POST", "/v1/chat/completions", held)
    streams = await two_streams(served)
    for number, task in enumerate(streams, 1):
        task.cancel()
        await upstream.until(lambda number=number: held.disconnected == number, 5)
    await asyncio.gather(*streams, return_exceptions=True)
