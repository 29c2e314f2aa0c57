"""Calls of keys that have limits, and how many of them a limiter lets in.

As a program: `python -m tests.lib.limited URL CALLS TOKENS LIMIT=N ...` prints how many were let
in; it begins when a line comes in.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from services.auth import Principal
from services.call import Call
from services.config import KeyLimits
from services.errors import RateLimited
from services.limits import Limiter
from services.limits.shared import SharedWindows


def call_of(name: str = "ann", /, tokens: int | None = None, **limits: Any) -> Call:
    """A call of the key `name`, which used `tokens`."""
    principal = Principal(name, None, KeyLimits.model_validate(limits))
    call = Call("id", "Chat", "rest", principal=principal)
    call.usage.total_tokens = tokens
    return call


async def admitted(limiter: Limiter, call: Call) -> bool:
    """Whether the call was let in."""
    try:
        await limiter.admit(call)
    except RateLimited:
        return False
    return True


async def _main(url: str, calls: int, tokens: int, limits: dict[str, int]) -> int:
    limiter = Limiter(SharedWindows(url, 10))
    call = call_of(tokens=tokens, **limits)

    async def one() -> bool:
        if not await admitted(limiter, call):
            return False
        limiter.charge(call)
        return True

    try:
        return sum(await asyncio.gather(*(one() for _ in range(calls))))
    finally:
        await limiter.aclose()


if __name__ == "__main__":
    sys.stdin.readline()
    given = dict(pair.split("=") for pair in sys.argv[4:])
    print(
        asyncio.run(
            _main(
                sys.argv[1],
                int(sys.argv[2]),
                int(sys.argv[3]),
                {name: int(value) for name, value in given.items()},
            )
        )
    )
