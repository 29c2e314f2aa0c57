"""What the supervisor does when workers misbehave; their processes are real, and serve nothing."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services import supervisor, supervisor_child
from services.config import Config, load
from services.reload import FileSource
from services.supervisor import Supervisor
from services.supervisor_ports import Ports
from services.telemetry import snapshot
from services.worker_channel import Line
from tests.lib.tetrad import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_child, "PROGRAM", "tests.lib.fake_worker")
    monkeypatch.setattr(supervisor, "_TAKE", 1.0)
    monkeypatch.setattr(supervisor, "_PAUSE", 0.05)
    monkeypatch.setattr(supervisor, "_BEYOND", 0.3)
    monkeypatch.setattr(supervisor, "_AT_ONCE", 0.3)


class Crew:
    """Two workers on a file, run in the test's own loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.began = asyncio.Event()
        self.source = FileSource(path, self._read, every=30)
        self.program: Supervisor
        self.run: asyncio.Task[int]

    def _read(self) -> Config:
        config = load(self.path, {})
        return config.with_overrides(grpc="127.0.0.1:0", http="127.0.0.1:0")

    def start(self, ports: Ports) -> None:
        self.program = Supervisor(self.source, self.source.config, ports, 2)
        self.run = asyncio.create_task(self.program.run(self.announce))

    def announce(self, welcome: str) -> None:
        self.said.append(welcome)
        self.began.set()

    def pids(self) -> list[int]:
        return [child.pid for _, child in sorted(self.program._children.items())]

    def states(self) -> list[tuple[str, int]]:
        """State and generation of each worker, as the supervisor has it."""
        children = sorted(self.program._children.items())
        return [(child.state, child.generation) for _, child in children]

    async def until(self, holds: Callable[[], bool]) -> None:
        async def asked() -> bool:
            return holds()

        await until(asked, 20)

    async def served(self) -> list[str]:
        """What each worker itself says that it runs on."""
        children = [child for _, child in sorted(self.program._children.items())]
        said = await asyncio.gather(*(child.tell("ready") for child in children))
        return [base64.b64decode(one or "").decode() for one in said]

    async def offer(self, *names: str) -> None:
        """A new file, read at once; returns when the supervisor is done with it."""
        write(self.path, *names)
        done = asyncio.Event()
        applied = self.source.applied

        def told(generation: int, error: str | None) -> None:
            applied(generation, error)
            done.set()

        self.source.applied = told  # type: ignore[method-assign]
        self.source.reload()
        async with asyncio.timeout(20):
            await done.wait()
        self.source.applied = applied  # type: ignore[method-assign]

    async def end(self) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.run


def write(path: Path, *names: str) -> None:
    entries = (
        f"{{name: {n}, type: text-generation, providers: [{{url: 'http://h'}}]}}" for n in names
    )
    path.write_text(f"models: [{', '.join(entries)}]\ndrain: {{grace: 0}}\n")


@asynccontextmanager
async def crew(folder: Path, *names: str, ready: bool = True) -> AsyncIterator[Crew]:
    path = folder / "tetrad.yaml"
    write(path, *names)
    one = Crew(path)
    with Ports(one.source.config) as ports:
        one.start(ports)
        try:
            if ready:
                await asyncio.wait_for(one.began.wait(), 20)
            yield one
        finally:
            one.run.cancel()
            await asyncio.gather(one.run, return_exceptions=True)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_the_program_is_welcome_once_and_ends_clean(tmp_path: Path) -> None:
    async with crew(tmp_path, "a") as one:
        assert one.said == ["welcome from 1"]
        assert one.states() == [("ready", 1)] * 2
        pids = one.pids()
        assert await one.end() == 0
        assert all(map(gone, pids))


async def test_a_configuration_that_the_first_refuses_reaches_no_other(tmp_path: Path) -> None:
    """G37: the old one stays, everywhere."""
    async with crew(tmp_path, "a") as one:
        pids = one.pids()
        await one.offer("refuse-1", "die-2")
        assert one.source.generation == 1
        assert one.pids() == pids
        assert await one.served() == ["1 a", "1 a"]
        await one.offer("b")
        assert one.source.generation == 2
        assert await one.served() == ["2 b", "2 b"]


async def test_if_a_later_one_refuses_all_go_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """G37: and nobody is ended for it."""
    async with crew(tmp_path, "a") as one:
        pids = one.pids()
        await one.offer("refuse-2")
        assert one.source.generation == 1
        assert one.states() == [("ready", 1)] * 2
        assert await one.served() == ["1 a", "1 a"]
        assert one.pids() == pids
        assert "generation 1 stays: worker 2: I will not" in caplog.text


async def test_a_worker_that_does_not_answer_a_reload_is_replaced_on_the_old_one(
    tmp_path: Path,
) -> None:
    async with crew(tmp_path, "a") as one:
        pids = one.pids()
        await one.offer("hang-2")
        assert one.source.generation == 1
        await one.until(lambda: one.pids()[1] != pids[1])
        await one.until(lambda: one.states() == [("ready", 1)] * 2)
        assert await one.served() == ["1 a", "1 a"]
        assert one.pids()[0] == pids[0]


async def test_a_worker_that_dies_of_a_reload_is_replaced_on_the_old_one(tmp_path: Path) -> None:
    async with crew(tmp_path, "a") as one:
        await one.offer("die-1")
        assert one.source.generation == 1
        await one.until(lambda: one.states() == [("ready", 1)] * 2)
        assert await one.served() == ["1 a", "1 a"]


async def test_one_that_dies_in_the_middle_of_a_reload_starts_on_the_new_one(
    tmp_path: Path,
) -> None:
    """The first has taken it, so it is good: what ended the other is another matter."""
    async with crew(tmp_path, "a") as one:
        os.kill(one.pids()[1], signal.SIGSTOP)
        offering = asyncio.create_task(one.offer("b"))
        await one.until(lambda: one.states()[0] == ("ready", 2))
        os.kill(one.pids()[1], signal.SIGKILL)
        await offering
        assert one.source.generation == 2
        await one.until(lambda: one.states() == [("ready", 2)] * 2)
        assert await one.served() == ["2 b", "2 b"]


def others_than(one: Crew, pid: int, place: int = 0) -> bool:
    return one.pids()[place] != pid


async def test_one_that_dies_again_and_again_is_replaced_with_growing_pauses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with crew(tmp_path, "a") as one:
        for pause in ("0.05", "0.1", "0.2"):
            pid = one.pids()[0]
            os.kill(pid, signal.SIGKILL)
            await one.until(partial(others_than, one, pid))
            await one.until(lambda: one.states() == [("ready", 1)] * 2)
            assert f"(process {pid}) ended" in caplog.text
            assert f"signal SIGKILL; it is replaced in {pause} s" in caplog.text


async def test_a_start_that_one_refuses_is_refused_with_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with crew(tmp_path, "die-2", ready=False) as one:
        assert await asyncio.wait_for(one.run, 20) == 1
        assert one.said == []
        assert all(map(gone, one.pids()))
        assert capsys.readouterr().err == "it cannot be\n"


async def test_a_signal_before_all_are_ready_ends_all_at_once(tmp_path: Path) -> None:
    async with crew(tmp_path, "late-2", ready=False) as one:
        await one.until(lambda: one.program._welcomes == {1: "welcome from 1"})
        assert await one.end() == 0
        assert one.said == []
        assert all(map(gone, one.pids()))


async def test_a_worker_that_does_not_end_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with crew(tmp_path, "deaf-2") as one:
        assert await one.end() == 1
        assert all(map(gone, one.pids()))
        assert "worker 2 does not end: it is killed" in caplog.text
        assert "worker 1 does not end" not in caplog.text


async def test_one_that_is_stuck_is_not_asked_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_child, "ANSWER_WITHIN", 0.05)
    async with crew(tmp_path, "a") as one:
        os.kill(one.pids()[1], signal.SIGSTOP)
        assert await one.served() == ["1 a", ""]
        assert (await one.program._tell(2, "ready"))["state"] == "not answering"
        child = one.program._children[2]
        assert len(child._owed) == 1
        os.kill(one.pids()[1], signal.SIGCONT)
        await one.until(lambda: not child._owed)
        assert await one.served() == ["1 a", "1 a"]


async def test_what_a_dead_worker_has_counted_stays_in_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as anybody had asked; a sum that falls is taken for a restart."""
    async with crew(tmp_path, "a") as one:
        told: list[Line] = []
        asker = Asker(told)

        async def total() -> str:
            await one.program._gather(asker, 0, "metrics")  # type: ignore[arg-type]
            bodies = [base64.b64decode(row["body"]) for row in told.pop()["workers"]]
            return snapshot.merge(bodies).decode()

        monkeypatch.setattr(supervisor_child, "ANSWER_WITHIN", 5)
        assert "calls_total 4.0" in await total()
        pid = one.pids()[1]
        os.kill(pid, signal.SIGKILL)
        await one.until(partial(others_than, one, pid, 1))
        await one.until(lambda: one.states() == [("ready", 1)] * 2)
        assert "calls_total 6.0" in await total()
        monkeypatch.setattr(supervisor_child, "ANSWER_WITHIN", 0.05)
        os.kill(one.pids()[0], signal.SIGSTOP)
        assert "calls_total 6.0" in await total()


class Asker:
    """Keeps what it is told."""

    def __init__(self, told: list[Line]) -> None:
        self._told = told

    def say(self, do: str, /, **more: Any) -> None:
        self._told.append(more)
