"""Programs are awaited by condition, ended for sure, and leave neither process nor port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.lib import process
from tests.lib.ports import black_hole, free_port, is_free
from tests.lib.process import ROOT, Ended, Program

pytestmark = pytest.mark.timeout(30)

# Prints, starts a child of its own, and ignores SIGTERM if told so.
CHATTY = """
import signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("warming up", file=sys.stderr)
print(f"listening on port 1234, child {child.pid}")
time.sleep(600)
"""


def fake(*options: str) -> Program:
    return Program("python", "-m", "tests.fakes.process", *options)


async def test_a_line_is_awaited_and_both_outputs_are_kept() -> None:
    async with Program("python", "-c", CHATTY) as program:
        found = await program.line(r"listening on port (\d+)")
        assert found[1] == "1234"
        assert await program.line("warming up")
        assert program.stderr == ["warming up"]
        assert len(program.stdout) == 1
        assert program.output.count("\n") == 1
        assert len(program.group()) == 2
    assert program.group() == []


def test_the_same_without_a_loop() -> None:
    with Program("python", "-c", CHATTY) as program:
        assert program.wait_for(r"port (\d+)")[1] == "1234"
        assert program.end() == -signal.SIGTERM
        with pytest.raises(AssertionError, match="left behind: process"):
            program.assert_gone(within=0.1)
    program.assert_gone()


async def test_a_line_that_does_not_come_is_an_error_with_the_output() -> None:
    async with Program("python", "-c", "print('one'); print('two'); raise SystemExit(3)") as one:
        with pytest.raises(Ended, match=r"no line like 'three' and ended: 3(.|\n)*one\ntwo"):
            await one.line("three")
        assert await one.exit() == 3
    async with Program("python", "-c", CHATTY) as other:
        with pytest.raises(Ended, match=r"no line like 'three' in 0.05 s"):
            await other.line("three", within=0.05)
        with pytest.raises(Ended, match=r"has not ended in 0.05 s"):
            await other.exit(within=0.05)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_fake_of_its_own_serves_and_ends(how: signal.Signals) -> None:
    async with fake("--profile", "vllm") as program:
        url, model = (await program.line(r"^ready (\S+) (\S+)")).groups()
        async with httpx.AsyncClient() as client:
            models = (await client.get(f"{url}/v1/models")).json()
        assert models["data"][0]["id"] == model
        await program.line("^request GET /v1/models$")
        assert await program.stop(how) == (-9 if how == signal.SIGKILL else 0)
        program.assert_gone(int(url.rpartition(":")[2]))


async def test_a_fake_of_its_own_takes_a_port_and_a_profile() -> None:
    port = free_port()
    async with fake("--port", str(port), "--profile", "tei-reranker") as program:
        await program.line(f"^ready http://127.0.0.1:{port} BAAI/")
        with pytest.raises(AssertionError, match=f"port {port}"):
            program.assert_gone(port, within=0)


async def test_the_tests_own_loop_goes_on_while_it_waits() -> None:
    async def ticks() -> int:
        for tick in range(10_000):
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                count.append(tick)
                raise
        return 0

    count: list[int] = []
    task = asyncio.create_task(ticks())
    # It works for a while, so that there is something to wait for.
    async with Program("python", "-c", "sum(range(10_000_000)); print('there')") as program:
        await program.line("there")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert count[0] > 0


async def test_a_program_that_is_deaf_to_signals_is_killed_with_its_children() -> None:
    async with Program("python", "-c", CHATTY, "deaf") as program:
        await program.line("listening")
        with pytest.raises(Ended, match="has not ended"):
            await program.stop(within=0.1)
    assert program.returncode == -signal.SIGKILL
    program.assert_gone()
    program.close()


def test_the_environment_is_ours_with_changes() -> None:
    os.environ["TETRAD_TEST_GONE"] = "1"
    code = "import os; print(os.environ.get('A'), 'TETRAD_TEST_GONE' in os.environ)"
    try:
        env = {"A": "b", "TETRAD_TEST_GONE": None}
        with Program("python", "-c", code, env=env) as program:
            assert program.wait() == 0
            assert program.stdout == ["b False"]
    finally:
        del os.environ["TETRAD_TEST_GONE"]


def test_what_is_left_open_is_closed_and_told() -> None:
    already = set(Program.running)
    program = Program("python", "-c", CHATTY)
    program.wait_for("listening")
    assert {program} == Program.running - already
    if not already:  # a session's own programs must live on
        assert process.close_all() == [program]
    program.close()
    program.assert_gone()


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_nothing_outlives_a_test_run_that_dies(end: str) -> None:
    run = f"""
import os, signal
from tests.lib.process import Program
program = Program("python", "-c", {CHATTY!r}, "deaf")
program.wait_for("listening")
print(program.pid, flush=True)
{end}
"""
    died = subprocess.run(
        [sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert died.returncode != 0
    deadline = time.monotonic() + 10
    while _group(int(died.stdout)):
        assert time.monotonic() < deadline, "the program is still there"
        time.sleep(0.02)


def _group(group: int) -> bool:
    return any(one == group for _, one in process._processes())


def test_a_free_port_is_free_and_given_once() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert all(is_free(port) for port in ports)


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_free(listener.getsockname()[1])
    assert is_free(free_port())


async def test_connecting_to_a_black_hole_hangs() -> None:
    with black_hole() as port, pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 0.3)
