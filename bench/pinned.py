"""Processes on cores of their own, and what they spend: CPU nanoseconds, bytes of memory.

The first core is the server's under test; whoever loads it, and its upstream, have the rest. On
one core all share it. Linux only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

_CORES = sorted(os.sched_getaffinity(0))
SERVER: Final = frozenset(_CORES[:1])
REST: Final = frozenset(_CORES[1:] or _CORES)

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PATIENCE = 10.0


class Process:
    """A process of ours that says on its first line where it listens."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._clock = (~process.pid << 3) | 2  # the kernel's number of that process's CPU clock
        assert process.stdout is not None
        self.line = process.stdout.readline().decode()
        if not self.line:
            raise RuntimeError(f"{process.args!r} ended with {process.wait()} before it listened")

    def cpu(self) -> int:
        """Nanoseconds that it has run so far: user and system, all threads.

        What /proc/PID/stat tells as utime + stime, without its rounding to 10 ms.
        """
        return time.clock_gettime_ns(self._clock)

    def resident(self) -> int:
        """Bytes of memory that it holds."""
        text = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii")
        return int(text.split()[1]) * _PAGE


@contextmanager
def on(cores: Collection[int]) -> Iterator[None]:
    """Runs this thread, and what it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(cores: Collection[int], own: str, *arguments: str) -> Iterator[Process]:
    """`python -m OWN ARGUMENTS` on these cores; ended and waited for on the way out."""
    with on(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", own, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen'}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if own.startswith("bench.") else subprocess.DEVNULL,  # the log of calls
        )
    with process:
        try:
            yield Process(process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
