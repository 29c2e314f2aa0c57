"""A process of its own that outlives a test run only to end what the run left behind.

It is told process groups on standard input ("+PID", "-PID") and kills those that are still
on its list when the input ends, however the run died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def main(lines: Iterable[str]) -> None:
    """Reads to the end of the input, then kills what is left."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    left: set[int] = set()
    for line in lines:
        change, group = line[0], int(line[1:])
        if change == "+":
            left.add(group)
        else:
            left.discard(group)
    for group in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.stdin)
