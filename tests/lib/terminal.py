"""A program on a terminal of its own: what it draws, keys for it, and the modes it leaves behind.

Blocking; from a test with a loop call it in a thread. Linux, where a session's first terminal is
the one that Ctrl-C comes from.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.lib.process import ROOT

_OPEN = 'exec "$@" <>"$TERMINAL" >&0 2>&1'


class Terminal:
    """Starts it; `env` comes on top of ours, None as a value takes one away."""

    def __init__(
        self,
        *argv: str | Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | str = ROOT,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self.output = b""
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._theirs = theirs  # kept open, so that its modes can be read to the end
        merged = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "gen"))),
            "TERM": "xterm",
            "TERMINAL": os.ttyname(theirs),
            "COLUMNS": None,
            "LINES": None,
            **(env or {}),
        }
        self._process = subprocess.Popen(
            ["sh", "-c", _OPEN, "sh", *map(str, argv)],
            cwd=cwd,
            env={name: value for name, value in merged.items() if value is not None},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the program."""
        return self._process.pid

    def modes(self) -> list[Any]:
        """The terminal's settings."""
        return termios.tcgetattr(self._theirs)

    def send(self, keys: bytes) -> None:
        """Types."""
        os.write(self._ours, keys)

    def until(self, pattern: bytes, within: float = 20.0) -> None:
        """Waits for something to be drawn that was not there before this call; fails without."""
        start, deadline = len(self.output), time.monotonic() + within
        while not re.search(pattern, self.output[start:]):
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"drew nothing like {pattern!r}:\n{self.output!r}")

    def wait(self, within: float = 20.0) -> int:
        """The exit code; what was drawn until then is in `output`."""
        deadline = time.monotonic() + within
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        code = self._process.wait(0.1)
        while self._read(0.0):
            pass
        return code

    def _read(self, seconds: float) -> bool:
        """Whether something came in that time."""
        if not select.select([self._ours], [], [], max(seconds, 0.0))[0]:
            return False
        self.output += os.read(self._ours, 65536)
        return True

    def close(self) -> None:
        """Kills what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        os.close(self._ours)
        os.close(self._theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
