"""A fake upstream as a process of its own, for tests that kill it.

`python -m tests.fakes.process --port 0 --profile vllm` prints `ready URL MODEL` once it
listens, then one `request METHOD PATH` line each; SIGTERM and SIGINT end it in order. With
`--stall N` a chat's stream stops after N bytes and never ends.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence

from tests.fakes.http1 import Received
from tests.fakes.profiles import PROFILES
from tests.fakes.upstream import FakeUpstream, Record, Stall


class _Telling(FakeUpstream):
    def arrived(self, received: Received) -> None:
        print(f"request {received.method} {received.path}", flush=True)
        super().arrived(received)


async def serve(port: int, profile: str, stall: int | None = None) -> None:
    """Serves until a signal to end comes."""
    stop = asyncio.Event()
    for which in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(which, stop.set)
    async with _Telling(port=port) as up:
        model = PROFILES[profile](up)
        if stall is not None:
            stream = Record("chat/openai-usage-stream.sse")
            up.on("POST", "/v1/chat/completions", Stall("mid", stream, stall))
        print(f"ready {up.url} {model}", flush=True)
        await stop.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.process")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="vllm")
    parser.add_argument("--stall", type=int, metavar="N", help="bytes of a chat's stream")
    options = parser.parse_args(argv)
    asyncio.run(serve(options.port, options.profile, options.stall))


if __name__ == "__main__":
    main()
