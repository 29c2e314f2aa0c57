"""Word of a hang-up on a connection that nobody reads, since what reads it is held back.

Linux tells it by EPOLLRDHUP, apart from the bytes that still lie there. Elsewhere it is learned
when reading goes on.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

_CAN_TELL: Final = hasattr(select, "epoll")


class HangUpWatch:
    """Calls back once when the other end of a socket has closed; to be closed."""

    __slots__ = ("_called", "_loop", "_poll")

    def __init__(self, descriptor: int, callback: Callable[[], object]) -> None:
        self._poll = select.epoll()
        self._poll.register(descriptor, select.EPOLLRDHUP)
        self._called = callback
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._poll.fileno(), self._closed)

    def close(self) -> None:
        """No longer call back."""
        if not self._poll.closed:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()

    def _closed(self) -> None:
        self.close()
        self._called()


def watch(transport: asyncio.BaseTransport, callback: Callable[[], object]) -> HangUpWatch | None:
    """A watch on a transport's socket; None where there is no such thing."""
    socket = transport.get_extra_info("socket")
    if not _CAN_TELL or socket is None or socket.fileno() < 0:
        return None
    return HangUpWatch(socket.fileno(), callback)
