"""Silent streams show signs of life: comments over REST, pings of HTTP/2 over gRPC."""

from __future__ import annotations

import asyncio

from services.server.face import options
from tests.fakes.upstream import DelayedUntil, Record, Sse, Stall
from tests.lib.adapters import sse
from tests.lib.rig import REST, rig

STREAM = sse("chat/openai-usage-stream.sse")
COMMENT = b": keep-alive\n\n"
EVERY = {"first": 0.1, "every": 0.05}


async def comment(caller: object) -> bytes:
    """One chunk of an answer."""
    reader = caller.reader  # type: ignore[attr-defined]
    size = int(await reader.readline(), 16)
    return bytes((await reader.readexactly(size + 2))[:-2])


async def test_a_stream_that_has_not_begun_shows_signs_of_life() -> None:
    """G25: also before the first token, with the headers; what comes then is whole."""
    go_on = asyncio.Event()
    async with rig(heartbeat=EVERY) as one:
        one.up.on("POST", "/*", DelayedUntil(go_on, Record("chat/openai-usage-stream.sse")))
        caller = await REST.start(one, "StreamChat")
        async with asyncio.timeout(5):
            assert b"200 OK" in await caller.head()
            for _ in range(3):
                assert await comment(caller) == COMMENT
        go_on.set()
        end = await caller.end()
        assert end.done
        assert end.answers


async def test_a_stream_that_falls_silent_shows_signs_of_life() -> None:
    """G25: between two tokens."""
    go_on = asyncio.Event()
    async with rig(heartbeat=EVERY) as one:
        one.up.on("POST", "/*", Stall("mid", Sse(STREAM), len(STREAM) // 2, go_on))
        caller = await REST.start(one, "StreamChat")
        seen = 0
        async with asyncio.timeout(5):
            await caller.first()
            while seen < 3:
                seen += await comment(caller) == COMMENT
        go_on.set()
        assert (await caller.end()).done


async def test_an_upstream_that_fails_after_a_sign_of_life_ends_as_an_error_event() -> None:
    """G1, G25: the status is gone by then."""
    async with rig(heartbeat=EVERY, timeouts={"first_byte": 0.4}) as one:
        one.up.on("POST", "/*", Stall("headers"))
        end = await (await REST.start(one, "StreamChat")).end()
        assert (end.code, end.which, end.done, end.errors) == (200, "first_byte", False, 1)
        assert end.closed
        assert end.text.startswith(": keep-alive")


def test_the_grpc_server_pings_and_lets_itself_be_pinged() -> None:
    """G25."""
    told = dict(options(1))
    assert told["grpc.keepalive_time_ms"] <= 60_000  # what balancers cut silent streams after
    assert told["grpc.keepalive_timeout_ms"] <= 20_000
    assert told["grpc.keepalive_permit_without_calls"] == 1
    assert told["grpc.http2.min_recv_ping_interval_without_data_ms"] <= 10_000


def test_a_connection_s_age_is_configured_or_without_end() -> None:
    """Balancers pin a connection to a replica; those who balance by themselves need no end."""
    assert dict(options(1, age=90.0))["grpc.max_connection_age_ms"] == 90_000
    assert dict(options(1))["grpc.max_connection_age_ms"] == 2**31 - 1  # grpc's word for none
