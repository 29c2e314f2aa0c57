"""One accepted TCP connection, byte by byte: reads, exact writes, FIN, RST, optional TLS.

Plain sockets instead of asyncio transports, so that nothing is buffered or flushed behind
our back. It knows nothing of HTTP. A peer that closes is noticed in every phase, also while
reading is paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from typing import Literal

How = Literal["fin", "rst"]

_PIECE = 65536


class Gone(ConnectionError):
    """The peer has closed or reset the connection, or we have."""


class Wire:
    """Calls `on_data` when `inbox` has grown and `on_gone` once, when the peer has closed."""

    def __init__(
        self, sock: socket.socket, on_data: Callable[[], None], on_gone: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # a peer may be gone before we look
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox = bytearray()
        self.gone = False
        self.closed = False
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_data = on_data
        self._on_gone = on_gone
        self._watch: select.epoll | None = None
        self._writer: asyncio.Future[None] | None = None
        self._reading = False
        self.resume()

    def pause(self) -> None:
        """Leaves what arrives from now on in the kernel, so that the peer meets a full window."""
        if not self._reading:
            return
        self._reading = False
        self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        """Reads on after pause()."""
        if self._reading or self.gone or self.closed:
            return
        if self._watch is None and hasattr(select, "EPOLLRDHUP"):
            # A FIN behind unread bytes is not seen by reading, nor is a reset by uvloop's readers.
            self._watch = select.epoll()
            self._watch.register(self._sock, select.EPOLLRDHUP)
            self._loop.add_reader(self._watch.fileno(), self._hung_up)
        self._reading = True
        self._loop.add_reader(self._sock, self._readable)

    async def send(self, data: bytes | memoryview) -> None:
        """Returns when the kernel has taken everything; raises Gone if the peer does not want it.

        Does not yield to the loop between the last byte and the return.
        """
        view = memoryview(data)
        while view:
            if self.closed:
                raise Gone("closed on our side")
            try:
                view = view[self._sock.send(view[:_PIECE]) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                self._lost()
                raise Gone(str(error)) from error

    async def close(self, how: How = "fin") -> None:
        """Ends the connection in order, or with a reset; what was sent before still arrives."""
        if self.closed:
            return
        with contextlib.suppress(OSError):  # the peer may have been faster
            if how == "rst":
                await self._acknowledged()
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._sock.shutdown(socket.SHUT_WR)
                self._discard()
        self.release()

    def release(self) -> None:
        """Gives the socket back at once; unread bytes make the kernel send a reset."""
        if self.closed:
            return
        self.closed = True
        self._stop_reading()
        if self._writer is not None:
            self._loop.remove_writer(self._sock)
            if not self._writer.done():
                self._writer.set_exception(Gone("closed on our side"))
        self._sock.close()

    def _feed(self, data: bytes) -> None:
        self.inbox += data

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._feed(data)
        self._on_data()

    def _hung_up(self) -> None:
        while self._reading:
            self._readable()
        if not self.closed:
            self._lost()

    def _lost(self) -> None:
        if not self.gone:
            self.gone = True
            self._stop_reading()
            self._on_gone()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)
        self._unwatch()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    async def _writable(self) -> None:
        self._writer = self._loop.create_future()
        self._loop.add_writer(self._sock, _resolve, self._writer)
        try:
            await self._writer
        finally:
            if not self.closed:
                self._loop.remove_writer(self._sock)
            self._writer = None

    async def _acknowledged(self) -> None:
        # A reset throws away what the kernel has not delivered yet; nobody tells when it has.
        for _ in range(1000):
            waiting = fcntl.ioctl(self._sock, termios.TIOCOUTQ, struct.pack("i", 0))
            if struct.unpack("i", waiting)[0] == 0:
                return
            await asyncio.sleep(0.001)

    def _discard(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._sock.recv(_PIECE):
                pass


class TlsWire(Wire):
    """The same under TLS; FIN and RST come without a close_notify, as from a killed process."""

    def __init__(
        self,
        sock: socket.socket,
        on_data: Callable[[], None],
        on_gone: Callable[[], None],
        context: ssl.SSLContext,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._shaken = False
        super().__init__(sock, on_data, on_gone)

    async def send(self, data: bytes | memoryview) -> None:
        self._tls.write(data)
        await super().send(self._outgoing.read())

    def _feed(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            while plain := self._tls.read(_PIECE):
                self.inbox += plain
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._lost()
        if self._outgoing.pending:
            # A handshake's answers are small and come before any of ours: they always fit.
            with contextlib.suppress(OSError):
                self._sock.send(self._outgoing.read())


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
