"""Programs under test: started with captured output, awaited by condition, always ended.

Each runs in a process group of its own; whatever of it is left when its block, the test run
or the interpreter ends is killed. Waiting comes in two forms: `await program.line(...)` for
tests whose own loop must go on, and `wait_for(...)` and the like for plain ones.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from tests.lib.ports import is_free

ROOT = Path(__file__).resolve().parent.parent.parent

_REAPER = Path(__file__).with_name("reaper.py")


class Ended(AssertionError):
    """A program ended, or its time was over, before what was waited for came."""


class Program:
    """A started program. `lines` holds its output so far, standard error included, in order.

    `argv[0]` "python" stands for this interpreter. The environment is ours, unbuffered, with
    the root and gen/ as import roots, and `env` on top (None as a value removes one).
    """

    running: set[Program] = set()  # noqa: RUF012 - shared on purpose: what the guards look at

    def __init__(
        self,
        *argv: str | Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | str = ROOT,
    ) -> None:
        self.argv = [sys.executable if str(arg) == "python" else str(arg) for arg in argv]
        self.lines: list[str] = []
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.returncode: int | None = None
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], None]] = set()
        self._popen = subprocess.Popen(
            self.argv,
            cwd=cwd,
            env=_environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._popen.pid
        Program.running.add(self)
        _guard.add(self.pid)
        streams = ((self._popen.stdout, self.stdout), (self._popen.stderr, self.stderr))
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True) for pair in streams
        ]
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        for thread in (*self._readers, self._waiter):
            thread.start()

    # Waiting, for tests with a loop of their own.

    async def line(self, pattern: str, within: float = 20.0) -> re.Match[str]:
        """The first line of output, old or new, that matches; raises Ended if none comes."""
        await self._until(lambda: self._found(pattern) or self._over(), within)
        return self._match(pattern, within)

    async def exit(self, within: float = 20.0) -> int:
        """Waits for the end by itself; the exit code (negative: a signal)."""
        await self._until(self._over, within)
        return self._code(within)

    async def stop(self, how: signal.Signals = signal.SIGTERM, within: float = 20.0) -> int:
        """Sends the signal to the program (not to its children) and waits for its end."""
        self.send(how)
        return await self.exit(within)

    # The same for tests without one.

    def wait_for(self, pattern: str, within: float = 20.0) -> re.Match[str]:
        """line(), blocking."""
        self._block(lambda: self._found(pattern) or self._over(), within)
        return self._match(pattern, within)

    def wait(self, within: float = 20.0) -> int:
        """exit(), blocking."""
        self._block(self._over, within)
        return self._code(within)

    def end(self, how: signal.Signals = signal.SIGTERM, within: float = 20.0) -> int:
        """stop(), blocking."""
        self.send(how)
        return self.wait(within)

    # Without waiting.

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return "\n".join(self.lines)

    def send(self, what: signal.Signals) -> None:
        """Sends a signal to the program; one that has ended is left alone."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, what)

    def group(self) -> list[int]:
        """The living processes of its group, itself among them (zombies are not living)."""
        return [pid for pid, group in _processes() if group == self.pid]

    def assert_gone(self, *ports: int, within: float = 5.0) -> None:
        """Fails if, `within` seconds after its end, a process of its group or a port is left."""
        deadline = time.monotonic() + within
        while left := [f"process {pid}" for pid in self.group()] + [
            f"port {port}" for port in ports if not is_free(port)
        ]:
            if time.monotonic() > deadline:
                raise AssertionError(f"{self} left behind: {', '.join(left)}\n{self.output}")
            time.sleep(0.02)  # the kernel tells nobody when a process of another parent ends

    def close(self) -> None:
        """Kills what is left of its group and waits for that; safe to call again."""
        if self not in Program.running:
            return  # the number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for thread in (self._waiter, *self._readers):
            thread.join(10)
        for stream in (self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()
        Program.running.discard(self)
        _guard.discard(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def __str__(self) -> str:
        return f"{' '.join(self.argv)} (process {self.pid})"

    def _read(self, stream: IO[str], into: list[str]) -> None:
        for line in stream:
            with self._changed:
                into.append(line.rstrip("\n"))
                self.lines.append(line.rstrip("\n"))
            self._notify()

    def _wait(self) -> None:
        code = self._popen.wait()
        deadline = time.monotonic() + 0.5
        for reader in self._readers:
            # To the last line, unless a child of the program holds the pipe open.
            reader.join(max(0.0, deadline - time.monotonic()))
        self.returncode = code
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _found(self, pattern: str) -> re.Match[str] | None:
        return next((m for line in list(self.lines) if (m := re.search(pattern, line))), None)

    def _over(self) -> bool:
        return self.returncode is not None

    def _match(self, pattern: str, within: float) -> re.Match[str]:
        found = self._found(pattern)
        if found is None:
            raise Ended(self._story(f"printed no line like {pattern!r}", within))
        return found

    def _code(self, within: float) -> int:
        if self.returncode is None:
            raise Ended(self._story("has not ended", within))
        return self.returncode

    def _story(self, what: str, within: float) -> str:
        state = f"in {within} s" if self.returncode is None else f"and ended: {self.returncode}"
        return f"{self} {what} {state}; its output:\n{self.output}"

    def _block(self, condition: Callable[[], object], within: float) -> None:
        with self._changed:
            self._changed.wait_for(condition, within)

    async def _until(self, condition: Callable[[], object], within: float) -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def listener() -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(woken.set)

        with self._changed:
            self._listeners.add(listener)
        try:
            async with asyncio.timeout(within):
                while not condition():
                    await woken.wait()
                    woken.clear()
        except TimeoutError:
            return  # the caller says what is missing, with the output
        finally:
            with self._changed:
                self._listeners.discard(listener)


def close_all() -> list[Program]:
    """Kills every program that is still open; returns those, so that a run can complain."""
    left = list(Program.running)
    for program in left:
        program.close()
    return left


class _Guard:
    """Tells the reaper process which groups to kill if this one dies unasked."""

    def __init__(self) -> None:
        self._reaper: subprocess.Popen[str] | None = None

    def add(self, group: int) -> None:
        if self._reaper is None:
            self._reaper = subprocess.Popen(
                [sys.executable, "-E", "-S", str(_REAPER)],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            atexit.register(self.close)
        self._tell(f"+{group}")

    def discard(self, group: int) -> None:
        self._tell(f"-{group}")

    def close(self) -> None:
        """At exit: what is left is killed by the reaper, whose input ends here."""
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait(10)

    def _tell(self, line: str) -> None:
        assert self._reaper is not None
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(line + "\n")
        self._reaper.stdin.flush()


_guard = _Guard()


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    roots: Sequence[str] = (str(ROOT), str(ROOT / "gen"), os.environ.get("PYTHONPATH", ""))
    merged: dict[str, str | None] = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(root for root in roots if root),
        **changes,
    }
    return {name: value for name, value in merged.items() if value is not None}


def _processes() -> Iterator[tuple[int, int]]:
    """(process, its group) of everything alive."""
    for pid, group, state in _from_proc() if Path("/proc/self/stat").exists() else _from_ps():
        if not state.startswith(("Z", "X")):
            yield pid, group


def _from_proc() -> Iterator[tuple[int, int, str]]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
                # After the name in brackets, which may hold anything: state, parent, group.
                after = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                yield int(entry), int(after[2]), after[0]


def _from_ps() -> Iterator[tuple[int, int, str]]:
    command = ["ps", "-A", "-o", "pid=,pgid=,stat="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, group, state = line.split(None, 2)
        yield int(pid), int(group), state
