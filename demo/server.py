"""The process: its socket, its signals, the models' start and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator

import uvicorn
import uvloop

from demo.app import App

COULD_NOT_BIND = 3

_GRACE = 2
_STOPPING = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger("demo")


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which end a process by the signal it got."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and says so."""
        await super().startup(sockets)
        assert sockets  # noqa: S101  (ours)
        print(f"demo listening on {_url(sockets[0])}", flush=True)

    def stop(self) -> None:
        """Ends within the grace, or at once when told a second time."""
        self.force_exit = self.should_exit
        self.should_exit = True


def run(host: str, port: int, pace: float, exit_with_stdin: bool) -> int:
    """Serves until it is told to stop; returns the exit code. `pace` is in seconds a word."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="demo: %(message)s", force=True
    )
    try:
        listening = _bind(host, port)
    except (OSError, OverflowError) as error:
        log.error("cannot listen on %s, port %d: %s", host, port, error)
        return COULD_NOT_BIND
    with listening:
        uvloop.run(_serve(listening, pace, exit_with_stdin))
    return 0


def _bind(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = found[0]
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(listening: socket.socket, pace: float, exit_with_stdin: bool) -> None:
    app = App(pace)
    server = Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # What fails in the app, the app logs; uvicorn would add a traceback per cut stream.
            log_level=logging.CRITICAL,
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, server.stop)
    if exit_with_stdin:
        threading.Thread(target=_watch_stdin, args=(loop, server), daemon=True).start()
    loading = asyncio.create_task(_load(app))
    try:
        await server.serve([listening])
    finally:
        loading.cancel()
        await asyncio.wait([loading])
        await app.close()


async def _load(app: App) -> None:
    try:
        await app.load()
    except Exception:
        # A request for the model will fail, too, and tell its client.
        log.exception("a model cannot be loaded")


def _watch_stdin(loop: asyncio.AbstractEventLoop, server: Server) -> None:
    """Blocks until standard input ends, as a pipe does when its writer dies."""
    # Not through sys.stdin, whose lock a blocked thread would hold at exit.
    with contextlib.suppress(OSError):  # there is none
        while os.read(0, 65536):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(server.stop)
