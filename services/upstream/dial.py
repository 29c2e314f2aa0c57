"""Makes connections: all addresses of a host, the quickest wins; says why there is none; ends them.

Addresses are tried in the resolver's order, each a quarter of a second after the one before or at
once when that one failed (RFC 8305). Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

HEAD_START: Final = 0.25
"""Seconds that an address has before the next one is tried beside it."""


class Dialled(asyncio.Protocol):
    """What a connection is made for."""

    def abort(self) -> None:
        """Closes it at once."""
        raise NotImplementedError


P = TypeVar("P", bound=Dialled)
_Address = tuple[int, str]
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


async def dial(made: Callable[[], P], host: str, port: int, tls: ssl.SSLContext | None) -> P:
    """The protocol of a connection that stands, TLS included. Raises OSError, ssl.SSLError too.

    Cancelling it leaves no socket.
    """
    addresses = await _resolved(host, port)
    if len(addresses) == 1:
        return await _one(made, host, port, tls, addresses[0])
    return await _quickest(partial(_one, made, host, port, tls, one) for one in _mixed(addresses))


def hang_up(number: int, *, at_once: bool) -> None:
    """Ends the connection of a socket that asyncio closes only in the loop's next turn.

    `at_once`: what it could not send yet is thrown away, else the end would wait behind it.
    """
    if number < 0:
        return
    same = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=number)
    try:
        with suppress(OSError):  # the peer may have been faster
            if at_once:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                same.shutdown(socket.SHUT_RDWR)
    finally:
        same.detach()


def cause(error: BaseException) -> str:
    """The system's words for why there is no connection, e.g. "Connection refused"."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):  # one for each address of the host
            seen = seen.exceptions[0]
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {seen.verify_message}"
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed: {(seen.reason or 'no handshake').replace('_', ' ').lower()}"
        if isinstance(seen, OSError) and seen.errno:
            # asyncio repeats the address here, which not every caller is to know.
            return os.strerror(seen.errno) if seen.errno > 0 else str(seen.strerror)
        seen = seen.__cause__ or seen.__context__
    return "no connection"


async def _resolved(host: str, port: int) -> list[_Address]:
    """At least one, or OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((one[0], str(one[4][0])) for one in found))


async def _one(
    made: Callable[[], P], host: str, port: int, tls: ssl.SSLContext | None, address: _Address
) -> P:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(
        made, address[1], port, family=address[0], ssl=tls, server_hostname=host if tls else None
    )
    return protocol


def _mixed(addresses: list[_Address]) -> list[_Address]:
    """The same, the first of the other family in second place."""
    first = addresses[0][0]
    other = next((one for one in addresses if one[0] != first), None)
    if other is None:
        return addresses
    rest = [one for one in addresses[1:] if one != other]
    return [addresses[0], other, *rest]


async def _quickest(attempts: Iterable[Callable[[], Coroutine[Any, Any, P]]]) -> P:
    """The first that succeeds; if none does, the first failure is raised."""
    todo = deque(attempts)
    running: set[asyncio.Task[P]] = set()
    won: list[P] = []
    failures: list[BaseException] = []
    chosen: P | None = None
    try:
        while not won and (todo or running):
            if todo:
                running.add(asyncio.get_running_loop().create_task(todo.popleft()()))
            done, running = await asyncio.wait(
                running,
                timeout=HEAD_START if todo else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                failed = task.exception()
                if failed is None:
                    won.append(task.result())
                else:
                    failures.append(failed)
        if not won:
            raise failures[0]
        chosen = won[0]
    finally:
        for task in running:
            task.cancel()
        late = await asyncio.gather(*running, return_exceptions=True)
        for loser in (*won, *late):
            if not isinstance(loser, BaseException) and loser is not chosen:
                loser.abort()
    return chosen
