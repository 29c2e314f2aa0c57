"""How `tetrad serve` ends: in order, in time, at once."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc

from tests.fakes.upstream import FakeUpstream
from tests.lib.faces import Case, over_grpc, over_rest, sse_data
from tests.lib.held import REQUEST, Held, before, two_streams


async def test_ctrl_c_ends_everything_and_leaves_nothing(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """Connections that callers keep open do not hold up the end."""
    async with before(upstream, tmp_path) as served:
        for run in (over_rest, over_grpc):
            assert (await run(served.gate, Case("before", "Chat", REQUEST, None))).failure is None
        assert await served.program.stop(signal.SIGINT, within=5) == 0
        served.assert_gone()
        assert "Traceback" not in served.program.output
    await upstream.until(lambda: upstream.connections.open == 0)


async def test_an_open_stream_finishes_while_readiness_says_that_we_leave(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """G36: on both faces; new calls are refused with a status that says to go elsewhere."""
    async with before(upstream, tmp_path) as served:
        held = Held()
        upstream.on("POST", "/v1/chat/completions", held)
        gate = served.gate
        health = gate.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await health.read() == b"\x08\x01"  # SERVING
        over_grpc_stream = gate.stream("ChatService", "StreamChat", REQUEST)
        async with gate.rest.stream(
            "POST", "/v1/chat/completions", json={**REQUEST, "stream": True}
        ) as answer:
            lines = answer.aiter_lines()
            assert '"a"' in await anext(lines)
            assert (await anext(over_grpc_stream))["choices"][0]["delta"]["content"] == "a"

            served.program.send(signal.SIGTERM)
            assert await health.read() == b"\x08\x02"  # NOT_SERVING
            ready = await gate.rest.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            alive = await gate.rest.get("/health")
            assert alive.status_code == 200
            refused = await over_rest(gate, Case("late", "Chat", REQUEST, None))
            assert refused.failure is not None
            assert (refused.failure["status"], refused.failure["code"]) == (503, "draining")
            late = await over_grpc(gate, Case("late", "Chat", REQUEST, None))
            assert late.failure is not None
            assert (late.failure["code"], late.failure["reason"]) == ("UNAVAILABLE", "DRAINING")
            assert served.program.returncode is None

            held.go_on.set()
            rest = "\n".join([line async for line in lines])
            events = sse_data(rest.strip("\n") + "\n\n")
            assert events[-1] == "[DONE]"
            assert '"b"' in events[-2]
            last = [one async for one in over_grpc_stream]
            assert last[-1]["choices"][0]["finish_reason"] == "stop"
        assert await served.program.exit() == 0
        served.assert_gone()


async def test_calls_on_their_way_to_an_idle_gateway_that_ends_are_refused_in_order(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """G36: whoever calls in that moment is told so, on both faces, and may go elsewhere."""
    async with before(upstream, tmp_path) as served:
        health = served.gate.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await health.read() == b"\x08\x01"  # SERVING
        served.program.send(signal.SIGTERM)
        assert await health.read() == b"\x08\x02"  # NOT_SERVING, with no call in work
        case = Case("late", "Chat", REQUEST, None)
        over_rpc, over_http = await asyncio.gather(
            over_grpc(served.gate, case), over_rest(served.gate, case)
        )
        assert over_rpc.failure is not None
        assert over_http.failure is not None
        assert (over_rpc.failure["code"], over_rpc.failure["reason"]) == ("UNAVAILABLE", "DRAINING")
        assert (over_http.failure["status"], over_http.failure["code"]) == (503, "draining")
        assert await served.program.exit() == 0


async def test_a_stream_that_outlives_the_grace_is_ended_with_a_status(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """G36: inside the grace time they finish, then UNAVAILABLE."""
    async with before(upstream, tmp_path, drain={"grace": 0.3}) as served:
        held = Held()
        upstream.on("POST", "/v1/chat/completions", held)
        rest, over_rpc = await two_streams(served)
        served.program.send(signal.SIGTERM)
        text, error = await asyncio.gather(rest, over_rpc)
        assert '"code":"draining"' in text
        assert "[DONE]" not in text
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert await served.program.exit(5) == 0
        served.assert_gone()
        await upstream.until(lambda: held.disconnected == 2)


async def test_a_second_signal_ends_at_once(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with before(upstream, tmp_path) as served:
        held = Held()
        upstream.on("POST", "/v1/chat/completions", held)
        rest, over_rpc = await two_streams(served)
        served.program.send(signal.SIGTERM)
        await served.program.line("stopping: open calls have 60 s to end")
        served.program.send(signal.SIGTERM)
        assert await served.program.exit(5) == 0
        served.assert_gone()
        text, error = await asyncio.gather(rest, over_rpc)
        assert '"code":"draining"' in text
        assert "[DONE]" not in text
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        await upstream.until(lambda: held.disconnected == 2)
        assert "Traceback" not in served.program.output
