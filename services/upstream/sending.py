"""Sends a body that comes in pieces, as fast as its source and the upstream let it."""

from __future__ import annotations

from collections.abc import AsyncIterable

from services import errors
from services.upstream.base import Timeouts
from services.upstream.connection import Connection
from services.upstream.http1 import LAST_CHUNK


async def send(
    connection: Connection, body: AsyncIterable[bytes], length: int | None, timeouts: Timeouts
) -> None:
    """Reads the body to its end, or until the connection is closed; then closes the body.

    `length` is what was announced, None sends chunks. A source that takes its time is not idle, an
    upstream that takes nothing is. Raises what the body raises, and Internal for a body that is
    not as long as it was said to be: nothing more is sent then, so that the upstream cannot take
    the request for complete.
    """
    pieces = aiter(body)
    sent = 0
    try:
        async for piece in pieces:
            if connection.closed:
                return
            if not piece:
                continue
            sent += len(piece)
            if length is None:
                connection.write(b"%x\r\n" % len(piece), piece, b"\r\n")
            elif sent <= length:
                connection.write(piece)
            else:
                raise _other_length(sent, length)
            if connection.sending:
                await connection.flushed(timeouts.idle)
        if length is None:
            connection.write(LAST_CHUNK)
        elif sent < length:
            raise _other_length(sent, length)
        connection.all_sent(timeouts.first_byte, timeouts.idle)
    finally:
        closing = getattr(pieces, "aclose", None)
        if closing is not None:
            await closing()


def _other_length(sent: int, length: int) -> errors.Internal:
    error = errors.Internal()
    error.__cause__ = ValueError(f"a body of {length} bytes was announced, {sent} came")
    return error
