"""`python -m bench.soak`: long runs over both faces; fails where memory, sockets or tasks grow.

The gateway and a stub of an upstream are processes of their own; all is on loopback. Each phase
warms up, takes a sample, runs, waits until all is quiet, and takes another: the growth is judged.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping

import grpc
import uvloop

from bench.soak_load import (
    AT_ONCE,
    Caller,
    Failed,
    GrpcCaller,
    Operation,
    OutOfTime,
    RestCaller,
    load,
)
from bench.soak_processes import PATIENCE, Child, gateway, stub

MIB = 1024 * 1024

MOST_MIB = 5.0
MOST = {"fds": 2 * AT_ONCE + 8, "tasks": 8}
"""What may be there afterwards and was not before: connections are kept on both sides."""


class Soak:
    """A run. `faults` is what it found."""

    def __init__(
        self, gate: Child, upstream: Child, until: float, most_mib: float, warm: int
    ) -> None:
        self.faults: list[str] = []
        self._gate, self._upstream = gate, upstream
        self._until, self._most, self._warm = until, most_mib, warm
        self._sampled = asyncio.Lock()

    async def phase(self, name: str, operation: Operation, total: int) -> None:
        """Warm up, sample, run, wait for quiet, sample, judge."""
        if total <= 0 or time.monotonic() > self._until:
            return
        await load(operation, range(self._warm), self._nothing)
        before = await self._quiet(None)
        self._show(name, 0, total, before, before, 0.0)
        begun = told = time.monotonic()

        async def each(done: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now > self._until:
                raise OutOfTime
            if now - told >= 5 and not self._sampled.locked():
                async with self._sampled:
                    told = now
                    self._show(name, done, total, before, await self._gate.facts(), now - begun)

        done = await load(operation, range(total), each)
        seconds = time.monotonic() - begun
        after = await self._quiet(before)
        self._show(name, done, total, before, after, seconds)
        if done < total:
            print(f"{name}: the time is over; judged by {done:,} of {total:,}")
        self._judge(name, before, after)

    def _judge(self, name: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        grown = (after["rss"] - before["rss"]) / MIB
        if grown > self._most:
            self.faults.append(f"{name}: memory grew by {grown:.1f} MiB, more than {self._most:g}")
        for what, most in MOST.items():
            more = after[what] - before[what]
            if more > most:
                self.faults.append(f"{name}: {more} {what} are left over")
        if after["streaming"]:
            self.faults.append(f"{name}: {after['streaming']} streams go on at the upstream")

    async def _quiet(self, before: Mapping[str, int] | None) -> dict[str, int]:
        """The facts once no stream is open and what was open before is no longer exceeded."""
        until = time.monotonic() + PATIENCE
        seen: dict[str, int] = {}
        while True:
            last, seen = seen, await self._gate.facts()
            seen["streaming"] = (await self._upstream.facts())["streaming"]
            calm = seen["fds"] == last.get("fds") and seen["tasks"] == last.get("tasks")
            low = before is None or all(seen[one] <= before[one] + MOST[one] for one in MOST)
            if (calm and low and not seen["streaming"]) or time.monotonic() > until:
                return seen
            await asyncio.sleep(0.2)

    @staticmethod
    async def _nothing(done: int) -> None:
        return

    @staticmethod
    def _show(
        name: str,
        done: int,
        total: int,
        before: Mapping[str, int],
        now: Mapping[str, int],
        seconds: float,
    ) -> None:
        rate = f"{done / seconds:,.0f}/s" if seconds else ""
        print(
            f"{name:22} {done:>9,}/{total:,}  {rate:>8}  RSS {now['rss'] / MIB:6.1f} MiB"
            f" ({(now['rss'] - before['rss']) / MIB:+.2f})  fds {now['fds']}  tasks {now['tasks']}",
            flush=True,
        )


async def soak(options: argparse.Namespace) -> list[str]:
    """The whole run; the faults that it found."""
    until = time.monotonic() + options.minutes * 60
    async with Child.started("--be", "stub") as upstream:
        url = f"http://127.0.0.1:{await upstream.line()}"
        async with Child.started("--be", "gateway", "--url", url) as gate:
            grpc_at, _, http_at = (await gate.line()).partition(" ")
            rest = RestCaller(http_at)
            own = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(grpc_at, options=own) as channel:
                grpc_caller = GrpcCaller(channel)
                callers = [
                    Caller("REST", rest.stream, rest.unary),
                    Caller("gRPC", grpc_caller.stream, grpc_caller.unary),
                ]
                run = Soak(gate, upstream, until, options.mib, options.warm)
                try:
                    for one in callers:
                        await run.phase(
                            f"{one.face} cancelled streams", one.stream, options.streams
                        )
                    for one in callers:
                        await run.phase(f"{one.face} unary calls", one.unary, options.unary // 2)
                except Failed as failure:
                    run.faults.append(f"a call failed: {failure}")
            rest.close()
    return run.faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description="long runs that watch growth")
    parser.add_argument("--streams", type=int, default=50_000, help="cancelled, for each face")
    parser.add_argument("--unary", type=int, default=1_000_000, help="calls, for both faces")
    parser.add_argument("--minutes", type=float, default=120, help="at most, for the whole run")
    parser.add_argument("--mib", type=float, default=MOST_MIB, help="growth allowed in each phase")
    parser.add_argument(
        "--warm", type=int, default=2000, help="calls before each phase's first sample"
    )
    parser.add_argument("--be", choices=("stub", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        uvloop.run(stub() if options.be == "stub" else gateway(options.url))
        return 0
    faults = uvloop.run(soak(options))
    print(*faults, "FAILED" if faults else "ok: nothing grew past its limit", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
