"""Takes the addresses that workers share, so that a clash is known before any of them starts.

A socket that is bound and never listens keeps the port from other programs and gets no connection;
the workers listen beside it with SO_REUSEPORT, and the kernel shares connections out among them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import socket
from types import TracebackType

from services.config import Address, Config, Fault
from services.socket_file import remove_stale


class PortError(OSError):
    """An address cannot be listened on."""


def shared_faults(config: Config) -> list[Fault]:
    """Why this system cannot share a port."""
    if platform.system() == "Linux":
        return []
    hint = "leave it out, and run one process per core behind a load balancer"
    said = "sharing a port among processes needs Linux"
    return [Fault(config.source, 0, 0, "workers", said, hint)]


class Ports:
    """Both addresses, taken on construction until the end. Raises PortError.

    `grpc` and `http` have the ports that were found where 0 was asked. `listener` is the REST
    socket file's socket, which the workers inherit; None with a port.
    """

    def __init__(self, config: Config) -> None:
        self._held: list[socket.socket] = []
        self._path = ""
        self.listener: socket.socket | None = None
        self.http: Address | None = None
        try:
            self.grpc = self._take("gRPC", config.grpc.address)
            if config.http is not None:
                self.http = self._take("REST", config.http.address)
        except PortError:
            self.close()
            raise

    def placed(self, config: Config) -> Config:
        """The configuration with the addresses that were taken."""
        http = config.http and config.http.model_copy(update={"address": self.http})
        grpc = config.grpc.model_copy(update={"address": self.grpc})
        return config.model_copy(update={"grpc": grpc, "http": http})

    def close(self) -> None:
        """Give them back."""
        for held in self._held:
            held.close()
        self._held.clear()
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = ""

    def __enter__(self) -> Ports:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, face: str, address: Address) -> Address:
        try:
            if address.path:
                return self._take_file(address)
            return self._take_port(address)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise PortError(f"{face} cannot listen on {address}: {reason}") from None

    def _take_file(self, address: Address) -> Address:
        bound = socket.socket(socket.AF_UNIX)
        self._held.append(bound)
        remove_stale(address.path)
        bound.bind(address.path)
        self._path = address.path
        self.listener = bound
        return address

    def _take_port(self, address: Address) -> Address:
        """Every IP address of the host's name that this machine has, all with one port."""
        port = address.port
        refused: OSError | None = None
        before = len(self._held)
        for family, _, _, _, where in socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        ):
            try:
                port = self._hold(family, (where[0], port, *where[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                refused = error  # a name may stand for ::1 where there is no IPv6
        if refused is not None and len(self._held) == before:
            raise refused
        return address.with_port(port)

    def _hold(self, family: int, where: tuple[str | int, ...]) -> int:
        """Bind, and let only those join that ask for SO_REUSEPORT and have our user."""
        bound = socket.socket(family)
        # At first as by a program that shares with nobody: who listens there already is a clash.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(where)
        except OSError:
            bound.close()
            raise
        self._held.append(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return int(bound.getsockname()[1])
