"""A worker that serves nothing, and misbehaves as the models of its configuration are named.

`refuse-2`: number 2 does not take that configuration; `hang-1`: number 1 never answers; `die-1`:
it dies over it, at a start too; `deaf-1`: it does not end when told to; `late-1` never is ready.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from services.config import Config
from services.telemetry import snapshot
from services.worker_channel import Channel
from services.worker_seat import Seat


def is_to(seat: Seat, what: str, config: Config) -> bool:
    return any(model.name == f"{what}-{seat.number}" for model in config.models)


def names(config: Config) -> list[str]:
    return [model.name for model in config.models]


async def reloads(seat: Seat, models: list[str]) -> None:
    async for change in seat.source.changes():
        if change.config is None:
            continue
        if is_to(seat, "die", change.config):
            os.kill(os.getpid(), signal.SIGKILL)
        if is_to(seat, "hang", change.config):
            await asyncio.Event().wait()
        refused = is_to(seat, "refuse", change.config)
        if not refused:
            models[:] = names(change.config)
        seat.source.applied(change.generation, "I will not" if refused else None)


async def main(channel_fd: int) -> int:
    channel = await Channel.on(socket.socket(fileno=channel_fd))
    lines = channel.lines()
    seat = Seat(channel, await anext(lines), None)
    if is_to(seat, "die", seat.config):
        await seat.failed(1, "it cannot be")
        return 1
    models = names(seat.config)
    seat.answers("ready", lambda: f"{seat.source.generation} {','.join(models)}".encode())
    counted = snapshot.Family("calls_total", "counter", "Calls.", "sum", {"calls_total": 2.0})
    seat.answers("metrics", lambda: snapshot.pack([counted]))
    obeying = asyncio.create_task(seat.obey(lines))
    if not is_to(seat, "late", seat.config):
        seat.ready(f"welcome from {seat.number}")
    taking = asyncio.create_task(reloads(seat, models))
    ends = [asyncio.create_task(one.wait()) for one in (seat.stop, seat.at_once)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if is_to(seat, "deaf", seat.config):
        await asyncio.Event().wait()
    for task in (taking, obeying, *ends):
        task.cancel()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(asyncio.run(main(int(sys.argv[1]))))
