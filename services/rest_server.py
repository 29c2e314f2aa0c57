"""Serves the REST face by uvicorn inside our own loop.

uvicorn alone would install signal handlers and exit the process when a port is taken; here the
socket is bound beforehand and signals are left to `app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from gateway_http import GatewayProtocol
from services.certificates import Certificates
from services.config import Address
from services.socket_file import remove_stale

_BACKLOG = 2048


class BindError(OSError):
    """The address cannot be listened on."""


def _not_a_cancellation(record: logging.LogRecord) -> bool:
    """uvicorn takes the end of a call that it cancels itself, when time is up, for a fault."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: one owner."""
        yield


class RestServer:
    """The REST face on one address, over TLS if there are `certificates`."""

    def __init__(self, application: Any, certificates: Certificates | None = None) -> None:
        logging.getLogger("uvicorn.error").addFilter(_not_a_cancellation)
        config = uvicorn.Config(
            application,
            http=GatewayProtocol,
            ssl_context_factory=(lambda *_: certificates.context) if certificates else None,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            proxy_headers=False,
            backlog=_BACKLOG,
        )
        self._server = _Quiet(config)
        self._socket: socket.socket | None = None
        self._path = ""
        self._task: asyncio.Task[None] | None = None

    def bind(
        self, address: Address, *, shared: bool = False, listener: socket.socket | None = None
    ) -> int:
        """Take the address; returns the port (0 for a socket file). Raises BindError.

        `shared`: beside other processes of ours, the kernel shares connections out. `listener`:
        a socket that is bound to it already, and that stays its maker's to give back.
        """
        try:
            bound = listener or self._take(address, shared)
            bound.listen(_BACKLOG)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BindError(f"REST cannot listen on {address}: {reason}") from None
        self._socket = bound
        return 0 if address.path else int(bound.getsockname()[1])

    def _take(self, address: Address, shared: bool) -> socket.socket:
        if address.path:
            bound = socket.socket(socket.AF_UNIX)
            remove_stale(address.path)
            bound.bind(address.path)
            self._path = address.path
            return bound
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        )[0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(where)
        return bound

    async def start(self) -> None:
        """Begin to answer."""
        if self._socket is None:
            raise RuntimeError("bind comes before start")
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self, grace: float) -> None:
        """Take no new connections, give open answers `grace` seconds, then close them."""
        try:
            if self._task is not None:
                # Calls were waited for before; this is for pages and for connections to close.
                self._server.config.timeout_graceful_shutdown = math.ceil(grace)
                self._server.should_exit = True
                await self._ended(self._task)
        finally:
            if self._socket is not None:
                self._socket.close()
            if self._path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)

    async def _ended(self, task: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:  # by a second signal: what listens is closed all the same
            self._server.force_exit = True
            await task
            raise
