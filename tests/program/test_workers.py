"""`tetrad serve --workers N`: processes that share both ports, and one that looks after them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.gateway import Gateway
from tests.lib.held import CHAT, REQUEST, Held
from tests.lib.ports import free_port, is_free
from tests.lib.process import Program
from tests.lib.tetrad import FREE, Served, configuration, done, model, serving, tetrad, until

pytestmark = pytest.mark.timeout(90)


def models(folder: Path, upstream: FakeUpstream, *names: str, **sections: Any) -> Path:
    """The configuration file with these models, and without those of before."""
    listed = [model(name, CHAT, "vllm", upstream.url, "qwen3-8b") for name in names]
    return configuration(folder, listed, required_types=[], **sections)


@asynccontextmanager
async def two(upstream: FakeUpstream, folder: Path, **sections: Any) -> AsyncIterator[Served]:
    """Two workers in front of one chat server."""
    profiles.vllm(upstream)
    file = models(folder, upstream, "chatty", **sections)
    async with serving("--config", file, "--workers", "2", within=60) as served:
        yield served


async def state(served: Served) -> dict[str, Any]:
    """What /ready says, asked on a new connection: of any worker."""
    async with httpx.AsyncClient(base_url=served.gate.url, timeout=10) as client:
        body: dict[str, Any] = (await client.get("/ready")).json()
        return body


async def workers(served: Served) -> dict[int, int]:
    """The processes of the workers, by their numbers."""
    return {one["number"]: one["pid"] for one in (await state(served))["workers"]}


@asynccontextmanager
async def apart(served: Served) -> AsyncIterator[Gateway]:
    """Clients with new connections: the kernel chooses the worker for each."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    url, address = served.gate.url, served.gate.address
    async with (
        httpx.AsyncClient(base_url=url, timeout=20) as rest,
        grpc.aio.insecure_channel(address, options=options) as channel,
    ):
        yield Gateway(channel, rest, url, address, served.gate.running)


async def counted(served: Served) -> int:
    """The calls that /metrics tells of, asked on a new connection: of any worker."""
    async with apart(served) as gate:
        page = (await gate.rest.get("/metrics")).text
    lines = [line for line in page.splitlines() if line.startswith("tetrad_calls_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


async def over_rest(served: Served, name: str = "chatty") -> None:
    """A chat on a new connection. Raises httpx.HTTPError."""
    async with apart(served) as gate:
        body = {**REQUEST, "model": name}
        (await gate.rest.post("/v1/chat/completions", json=body)).raise_for_status()


async def over_grpc(served: Served, name: str = "chatty") -> None:
    """The same over gRPC. Raises grpc.aio.AioRpcError."""
    async with apart(served) as gate:
        await gate.call("ChatService", "Chat", {**REQUEST, "model": name}, timeout=20)


def served_by(program: Program) -> set[tuple[int, str]]:
    """(worker's process, face) of each chat that the logs tell of."""
    lines = [json.loads(line) for line in program.stderr if line.startswith("{")]
    return {(line["pid"], line["face"]) for line in lines if line.get("method") == "Chat"}


async def everywhere(served: Served, name: str = "chatty") -> None:
    """Calls until each worker has answered on both faces, all of them well."""
    pids = (await workers(served)).values()
    wanted = {(pid, face) for pid in pids for face in ("rest", "grpc")}

    async def reached() -> bool:
        await asyncio.gather(over_rest(served, name), over_grpc(served, name))
        return wanted <= served_by(served.program)

    await until(reached)


def loads_grpc(pid: int) -> bool:
    return "/grpc/_cython/" in Path(f"/proc/{pid}/maps").read_text()


async def test_two_workers_share_both_ports_and_speak_with_one_voice(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """Whoever is asked tells of all, also of one that is stuck; Ctrl-C ends all of them once."""
    async with two(upstream, tmp_path) as served:
        pids = await workers(served)
        assert [*pids] == [1, 2]
        assert len({served.program.pid, *pids.values()}) == 3
        assert [loads_grpc(pid) for pid in pids.values()] == [True, True]
        assert not loads_grpc(served.program.pid)
        assert served.program.output.count("Tetrad listens") == 1
        await everywhere(served)
        now = await state(served)
        assert (now["status"], now["generation"]) == ("ready", 1)
        assert now["models"]["chatty"]["ready"] is True
        assert {(one["state"], one["generation"]) for one in now["workers"]} == {("ready", 1)}

        def chats() -> int:
            return len([line for line in served.program.stderr if '"method":"Chat"' in line])

        async def all_told() -> bool:  # lines of calls go out a little later than their answers
            return chats() == await counted(served)

        await until(all_told)
        assert [await counted(served) for _ in range(6)] == [chats()] * 6

        async with httpx.AsyncClient(base_url=served.gate.url, timeout=20) as client:
            asked = (await client.get("/health")).status_code  # a connection to one of them
            assert asked == 200
            os.kill(pids[1], signal.SIGSTOP)
            try:
                told = None
                with contextlib.suppress(httpx.TimeoutException):  # it may be the stopped one
                    told = (await client.get("/ready", timeout=3)).json()
            finally:
                os.kill(pids[1], signal.SIGCONT)
            if told is not None:
                states = {one["number"]: one["state"] for one in told["workers"]}
                assert states == {1: "not answering", 2: "ready"}
                assert told["status"] == "ready"

        os.killpg(served.program.pid, signal.SIGINT)  # as a terminal does
        assert await served.program.exit() == 0
        served.assert_gone()
        assert "Traceback" not in served.program.output
        assert "KeyboardInterrupt" not in served.program.output


async def test_a_dead_worker_is_replaced_and_its_successor_has_the_newest_configuration(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """Under load, only what the dead one had in its hands fails. G37: no worker is behind."""
    async with two(upstream, tmp_path) as served:
        models(tmp_path, upstream, "chatty", "added")
        await agreed(served, 2)
        old = await workers(served)
        over, failed, calls = asyncio.Event(), 0, 0

        async def load() -> None:
            nonlocal failed, calls
            while not over.is_set():
                try:
                    await over_rest(served, "added")
                    await over_grpc(served, "added")
                except (httpx.TransportError, grpc.aio.AioRpcError):
                    failed += 1
                calls += 1

        async def replaced() -> bool:
            now = await state(served)
            rows = {one["number"]: one for one in now["workers"]}
            return bool(rows[1]["pid"] not in (0, old[1]) and rows[1]["state"] == "ready")

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            await until(lambda: more_than(lambda: calls, 8))
            os.kill(old[1], signal.SIGKILL)
            await served.program.line(r"worker 1 \(process \d+\) ended .* SIGKILL; it is replaced")
            while_away = calls
            await until(lambda: more_than(lambda: calls, while_away + 8))
            await until(replaced, 30)
            over.set()
        assert failed <= 4  # one for each caller: what was in work when it died
        new = await workers(served)
        assert new[2] == old[2]
        await agreed(served, 2)
        await everywhere(served, "added")
        assert await served.program.stop() == 0
        served.assert_gone()


async def more_than(count: Any, least: int) -> bool:
    return bool(count() > least)


async def agreed(served: Served, generation: int) -> dict[str, Any]:
    """What /ready says once all workers are ready with that generation."""
    found: dict[str, Any] = {}

    async def all_have_it() -> bool:
        found.clear()
        found.update(await state(served))
        rows = {(one["state"], one["generation"]) for one in found["workers"]}
        return rows == {("ready", generation)} and found["generation"] == generation

    await until(all_have_it)
    return found


async def test_all_workers_take_a_reload_or_none_and_say_why(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """G37: by a change of the file and by SIGHUP."""
    async with two(upstream, tmp_path) as served:
        models(tmp_path, upstream, "chatty", "added")
        now = await agreed(served, 2)
        assert sorted(now["models"]) == ["added", "chatty"]
        await everywhere(served, "added")

        file = tmp_path / "tetrad.yaml"
        good = file.read_text()
        file.write_text("nonsens: 1")
        await served.program.line("not taken, generation 2 stays: .*nonsens: unknown key")

        async def each_says_why() -> bool:
            answers = [await state(served) for _ in range(8)]
            return all("nonsens" in str(one.get("not_taken")) for one in answers)

        await until(each_says_why)
        now = await agreed(served, 2)
        assert now["status"] == "ready"
        await everywhere(served, "added")

        file.write_text(good)
        now = await agreed(served, 3)
        assert "not_taken" not in now
        served.program.send(signal.SIGHUP)
        await agreed(served, 4)
        assert await served.program.stop() == 0


async def test_a_stop_lets_streams_of_all_workers_finish_and_leaves_nothing(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """G36. Also when a service manager signals every process by itself."""
    async with two(upstream, tmp_path) as served:
        held = Held()
        upstream.on("POST", "/v1/chat/completions", held)
        begun = asyncio.Semaphore(0)

        async def rest() -> str:
            text = ""
            async with (
                apart(served) as gate,
                gate.rest.stream(
                    "POST", "/v1/chat/completions", json={**REQUEST, "stream": True}
                ) as answer,
            ):
                async for piece in answer.aiter_text():
                    if not text:
                        begun.release()
                    text += piece
            return text

        async def rpc() -> str:
            text = ""
            async with apart(served) as gate:
                async for chunk in gate.stream("ChatService", "StreamChat", REQUEST):
                    if not text:
                        begun.release()
                    text += json.dumps(chunk)
            return text

        streams = [asyncio.create_task(one()) for one in (rest, rpc) for _ in range(4)]
        async with asyncio.timeout(20):
            for _ in streams:
                await begun.acquire()
        os.killpg(served.program.pid, signal.SIGTERM)
        await served.program.line("stopping: open calls have 60 s to end")
        answer = await served.gate.rest.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert served.program.returncode is None
        held.go_on.set()
        ended = await asyncio.gather(*streams)
        assert all("[DONE]" in text for text in ended[:4])
        assert all('"stop"' in text for text in ended[4:])
        assert await served.program.exit() == 0
        served.assert_gone()


async def test_a_second_signal_ends_all_at_once(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with two(upstream, tmp_path) as served:
        upstream.on("POST", "/v1/chat/completions", Held())
        calls = [asyncio.create_task(one(served)) for one in (over_rest, over_grpc)]
        await upstream.until(lambda: [one.method for one in upstream.requests].count("POST") == 2)
        served.program.send(signal.SIGTERM)
        await served.program.line("stopping: open calls have 60 s to end")
        served.program.send(signal.SIGTERM)
        assert await served.program.exit() == 0
        served.assert_gone()
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(ended, httpx.HTTPError | grpc.aio.AioRpcError)


def minds_ctrl_c(pid: int) -> bool:
    """Whether Python has come up in a process: then it catches SIGINT, or ignores it by now."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{pid}/status").read_text()
        masks = dict(line.split(":", 1) for line in status.splitlines())
        handled = int(masks["SigCgt"], 16) | int(masks["SigIgn"], 16)
        return "python" in masks["Name"] and bool(handled >> (signal.SIGINT - 1) & 1)
    return False


async def test_ctrl_c_during_the_start_ends_all_without_noise(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """The terminal signals the workers, too, before they could say that they do not care."""
    file = models(tmp_path, upstream, "chatty")
    async with tetrad("serve", *FREE, "--workers", "2", "--config", file) as program:

        async def spawned() -> bool:
            return [minds_ctrl_c(pid) for pid in program.group()] == [True] * 3

        await until(spawned, 30)
        os.killpg(program.pid, signal.SIGINT)
        assert await program.exit() == 0
        program.assert_gone()
        for word in ("Traceback", "KeyboardInterrupt", "killed"):
            assert word not in program.output


async def test_workers_end_with_a_supervisor_that_is_killed(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with two(upstream, tmp_path) as served:
        assert len(served.program.group()) == 3
        served.program.send(signal.SIGKILL)
        assert await served.program.exit() == -signal.SIGKILL
        await asyncio.to_thread(served.program.assert_gone, *served.ports, within=15)


async def test_a_start_that_fails_says_why_once_and_leaves_nothing(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    file = models(tmp_path, upstream, "chatty")
    workers = ("--workers", "2", "--config", file, "--http", "127.0.0.1:0")
    unknown = ("--grpc", "127.0.0.1:0", "--upstream", upstream.url)
    free = free_port()
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        here = f"127.0.0.1:{holder.getsockname()[1]}"
        clash = tetrad("serve", *workers, "--grpc", here)
        strange = tetrad("serve", *workers, *unknown)
        file_too = tetrad("serve", *workers, "--grpc", f"unix:{tmp_path}/grpc")
        missing = tetrad(
            "serve", *workers, "--grpc", f"127.0.0.1:{free}", "--require", "text-classification"
        )
        ended = [await done(one, 60) for one in (clash, strange, file_too, missing)]
    assert [one.code for one in ended] == [3, 1, 1, 1]
    assert f"tetrad: gRPC cannot listen on {here}: address already in use" in ended[0].stderr
    assert ended[1].stderr.count("is no model server that is known here") == 1
    assert "several workers cannot share a gRPC socket file" in ended[2].stderr
    assert "required type text-classification" in ended[3].stderr
    assert is_free(free)
    for program in (clash, strange, file_too, missing):
        program.assert_gone()
        assert "Traceback" not in program.output


async def test_workers_share_a_rest_socket_file(upstream: FakeUpstream, tmp_path: Path) -> None:
    profiles.vllm(upstream)
    file = models(tmp_path, upstream, "chatty")
    path = tmp_path / "rest"
    addresses = ("--grpc", "127.0.0.1:0", "--http", f"unix:{path}")
    async with tetrad("serve", "--workers", "2", "--config", file, *addresses) as program:
        await program.line("Tetrad listens", 60)
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://tetrad") as client:
            told = (await client.get("/ready")).json()
            assert {one["state"] for one in told["workers"]} == {"ready"}
        assert await program.stop() == 0
        program.assert_gone()
    assert not path.exists()
