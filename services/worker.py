"""A worker process: a gateway that shares its ports with others, and obeys the supervisor.

    python -m services.worker CHANNEL LISTENER SUPERVISOR

Two file descriptors (-1: none) and a process number. It ends when the supervisor does: the channel
closes then, and until it is read, the kernel sends a signal.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from services.worker_channel import Channel
from services.worker_seat import Seat

_PR_SET_PDEATHSIG = 1

_log = logging.getLogger("tetrad")


def main(arguments: Sequence[str]) -> int:
    """Serve; the exit code is the program's, if this fails at the first start."""
    channel, listener, supervisor = map(int, arguments)
    for number in (signal.SIGINT, signal.SIGHUP):  # the supervisor's to act on
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    if not _ends_with(supervisor):
        return 0
    import uvloop

    return uvloop.run(_main(channel, listener))


def _ends_with(supervisor: int) -> bool:
    """Have the kernel end us with the supervisor; False if it has ended already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return os.getppid() == supervisor


async def _main(channel_fd: int, listener_fd: int) -> int:
    channel = await Channel.on(socket.socket(fileno=channel_fd))
    lines = channel.lines()
    start = await anext(lines, None)
    if start is None:
        return 0
    listener = socket.socket(fileno=listener_fd) if listener_fd >= 0 else None
    seat = Seat(channel, start, listener)
    obeying = asyncio.create_task(seat.obey(lines))
    try:
        return await _serve(seat)
    finally:
        obeying.cancel()
        await asyncio.gather(obeying, return_exceptions=True)
        channel.close()


async def _serve(seat: Seat) -> int:
    from services import app
    from services.commands import welcome
    from services.telemetry import logs

    logs.set_up(seat.config.telemetry.log_format)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Names(seat.number))
        if isinstance(handler, logs.JsonStream):
            handler.always = {"worker": seat.number, "pid": os.getpid()}
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, _warn)

    def announce(running: app.Running) -> None:
        seat.ready(welcome.text(running, demo=False))

    try:
        await app.serve(seat.config, announce, seat.source, seat)
    except app.StartError as error:
        await seat.failed(1, str(error))
        return 1
    except app.BindErrors as error:
        await seat.failed(3, f"tetrad: {error}")
        return 3
    return 0


def _warn() -> None:
    """A service manager may signal each process: then the supervisor has it, too, and drains all.

    A worker that left by itself would still be given connections.
    """
    _log.info("SIGTERM: the supervisor, process %d, says when to stop", os.getppid())


class _Names(logging.Filter):
    """Puts the worker's number and process into each line."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        record.worker, record.pid = self._number, os.getpid()
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
