"""Socket files: what is left of a server that was killed is in the way of the next one."""

from __future__ import annotations

import os
import socket


def remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on; one that is in use fails the bind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return
