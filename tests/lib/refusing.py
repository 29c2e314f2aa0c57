"""A port that refuses every connection, and that nobody else can take meanwhile."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def refusing_port(host: str = "127.0.0.1") -> Iterator[int]:
    """It is bound, but nobody listens."""
    with socket.socket() as holder:
        holder.bind((host, 0))
        yield holder.getsockname()[1]
