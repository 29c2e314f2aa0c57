"""`tetrad serve`: when it starts, when it refuses to, and what it says then."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.ports import black_hole, free_port
from tests.lib.process import Program
from tests.lib.refusing import refusing_port
from tests.lib.tetrad import FREE, LISTENS, configuration, done, model, serving, tetrad, until

CHAT, EMBED = "text-generation", "text-embeddings-inference"

FAULTY = """\
models:
  - name: a
    type: text-genertion
    providers: [{type: vllm, url: "http://127.0.0.1:1"}]
limits: {max_in_flight: -3}
nonsens: 1
"""


@pytest.fixture(scope="module", autouse=True)
def hopeless() -> Iterator[dict[int, Program]]:
    """Starts before upstreams that never answer, by port: refused, and silent.

    They begin with the first test, so that nobody has to wait for their end.
    """
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(refusing_port()), stack.enter_context(black_hole())]
        yield {
            port: stack.enter_context(
                tetrad("serve", *FREE, "--upstream", f"http://127.0.0.1:{port}")
            )
            for port in ports
        }


async def test_each_fault_of_a_configuration_is_a_line_with_its_place(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.yaml"
    faulty.write_text(FAULTY)
    served, checked = await asyncio.gather(
        done(tetrad("serve", "--config", faulty)), done(tetrad("check", "--config", faulty))
    )
    for run in (served, checked):
        assert run.code == 1
        assert run.stdout == ""
        assert [line.split(": ")[:2] for line in run.stderr.splitlines()] == [
            [f"{faulty}:3:11", "models[0].type"],
            [f"{faulty}:5:25", "limits.max_in_flight"],
            [f"{faulty}:6:1", "nonsens"],
        ]
        assert "did you mean 'text-generation'" in run.stderr


async def test_bad_usage_is_2_and_a_missing_file_1(tmp_path: Path) -> None:
    nothing, unknown, workers, missing = await asyncio.gather(
        done(tetrad("serve", cwd=tmp_path)),
        done(tetrad("serve", "--confg", "x")),
        done(tetrad("serve", "--workers", "some")),
        done(tetrad("serve", "--config", tmp_path / "no.yaml")),
    )
    assert nothing.code == unknown.code == workers.code == 2
    assert "there is no ./tetrad.yaml" in nothing.stderr
    assert "--upstream URL" in nothing.stderr
    assert "tetrad demo" in nothing.stderr
    assert "--confg" in unknown.stderr
    assert missing.code == 1
    assert f"{tmp_path / 'no.yaml'}: cannot be read: no such file or directory" in missing.stderr


@contextlib.contextmanager
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


async def test_a_taken_port_is_3_for_either_face_and_nothing_is_left(tmp_path: Path) -> None:
    config = configuration(tmp_path, [model("a", CHAT, "vllm", "http://127.0.0.1:1")])
    config_of = ("--config", config, "--require", "none")
    with taken() as port:
        here, free = f"127.0.0.1:{port}", "127.0.0.1:0"
        grpc, rest = (
            tetrad("serve", *config_of, "--grpc", here, "--http", free),
            tetrad("serve", *config_of, "--grpc", free, "--http", here),
        )
        for face, program in (("gRPC", grpc), ("REST", rest)):
            ended = await done(program)
            assert ended.code == 3, ended
            said = f"tetrad: {face} cannot listen on {here}: address already in use"
            assert said in ended.stderr.splitlines()
            assert "Traceback" not in ended.stderr
            assert ended.stdout == ""
            program.assert_gone()


async def test_a_missing_required_type_refuses_the_start_and_shows_both_ways_out(
    tmp_path: Path,
) -> None:
    config = configuration(tmp_path, [model("a", CHAT, "vllm", "http://127.0.0.1:1")])
    another = ("--require", "text-classification")
    refused, other = await asyncio.gather(
        done(tetrad("serve", *FREE, "--config", config)),
        done(tetrad("serve", *FREE, "--config", config, *another)),
    )
    assert refused.code == other.code == 1
    assert "required type text-classification" in other.stderr
    assert EMBED in refused.stderr
    assert "--upstream http://" in refused.stderr
    assert "--require none" in refused.stderr
    async with serving("--config", config, "--require", "none") as served:
        assert "a  (not ready yet" in served.program.output


async def test_without_a_rest_face_only_grpc_listens(tmp_path: Path) -> None:
    config = configuration(tmp_path, [model("a", EMBED, "tei", "http://127.0.0.1:1")])
    async with tetrad(
        "serve", "--config", config, "--grpc", "127.0.0.1:0", "--http", "none"
    ) as one:
        listens = await one.line(LISTENS)
        assert listens[2] is None
        assert await one.stop() == 0


# A server that is not there.


async def test_a_dead_provider_does_not_stop_the_start_and_comes_in_when_it_starts(
    tmp_path: Path,
) -> None:
    """G20, G37: not ready, then ready within the probe interval; and the way back."""
    port = free_port()
    config = configuration(
        tmp_path,
        [model("e5", EMBED, "tei", f"http://127.0.0.1:{port}")],
        probes={"interval": 0.2},
    )
    async with serving("--config", config) as served:
        rest = served.gate.rest
        assert "not ready yet: its provider does not answer" in served.program.output
        ready = await rest.get("/ready")
        assert ready.status_code == 200
        assert ready.json()["models"]["e5"]["ready"] is False
        told = await served.gate.call("ModelService", "GetModel", {"model": "e5"})
        assert told["model"]["ready"] is False
        refused = await rest.post("/v1/embeddings", json={"input": "a"})
        assert refused.status_code == 503

        async with FakeUpstream(port=port) as upstream:
            profiles.tei(upstream)
            await served.program.line("`e5` is ready", within=10)
            assert (await rest.get("/ready")).json()["models"]["e5"]["ready"] is True
            answer = await rest.post("/v1/embeddings", json={"input": "a"})
            assert answer.status_code == 200

        async def down() -> bool:
            return not (await rest.get("/ready")).json()["models"]["e5"]["ready"]

        await until(down)
        assert await served.program.stop() == 0
        # Told once for each change, not at each probe.
        change = "`e5` is not ready: it does not answer its probe"
        assert sum(change in line for line in served.program.lines) == 2


async def test_an_upstream_that_is_still_starting_is_waited_for() -> None:
    port = free_port()
    program = tetrad("serve", *FREE, "--upstream", f"http://127.0.0.1:{port}")
    async with program, FakeUpstream(port=port) as upstream:
        await upstream.stop_listening()
        await _starting(program)
        profiles.tei(upstream)
        await upstream.listen()
        await program.line(LISTENS)
        assert await program.stop() == 0


async def test_a_signal_before_the_start_ends_it_at_once() -> None:
    with black_hole() as silent:
        async with tetrad("serve", *FREE, "--upstream", f"http://127.0.0.1:{silent}") as program:
            await _starting(program)
            assert await program.stop(within=5) == 0
            program.assert_gone()


async def _starting(program: Program) -> None:
    """Waits until the program listens to its signals: then it asks its upstreams."""

    async def catches_sigterm() -> bool:
        return bool(_caught(program.pid) >> (signal.SIGTERM - 1) & 1)

    await until(catches_sigterm, 20)


def _caught(pid: int) -> int:
    """The signals that a process handles, as the kernel's bits."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["SigCgt"].strip(), 16)


async def test_what_is_no_model_server_ends_the_start_with_its_answer() -> None:
    async with FakeUpstream() as upstream:
        ended = await done(tetrad("serve", *FREE, "--upstream", upstream.url))
    assert ended.code == 1
    assert f"--upstream {upstream.url}: " in ended.stderr
    assert "is no model server that is known here" in ended.stderr


async def test_an_upstream_that_answers_nothing_for_ten_seconds_ends_the_start(
    hopeless: dict[int, Program],
) -> None:
    for port, program in hopeless.items():
        ended = await done(program)
        assert ended.code == 1
        assert f"--upstream http://127.0.0.1:{port}: no answer within 10 s" in ended.stderr
        assert "Traceback" not in ended.stderr
        program.assert_gone()
