"""The official OpenAI SDK as tests drive it: one piece of code for its two clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from openai import AsyncOpenAI, OpenAI


class Sdk:
    """Runs one piece of code with the sync client, in a thread, or with the async one."""

    def __init__(self, kind: str, url: str) -> None:
        self._sync = None
        self._async = None
        made: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
        if kind == "sync":
            self._sync = OpenAI(**made)
        else:
            self._async = AsyncOpenAI(**made)

    async def call(self, ask: Callable[[Any], Any]) -> Any:
        """The answer of a call; `ask` gets the client."""
        if self._sync is not None:
            return await asyncio.to_thread(ask, self._sync)
        return await ask(self._async)

    async def stream(self, ask: Callable[[Any], Any], into: list[Any] | None = None) -> list[Any]:
        """All events of a stream; `into` keeps those before an error."""
        found = [] if into is None else into
        if self._sync is not None:
            await asyncio.to_thread(lambda: found.extend(iter_into(ask(self._sync), found)))
        else:
            async for event in await ask(self._async):
                found.append(event)
        return found

    async def close(self) -> None:
        """End its connections."""
        if self._sync is not None:
            await asyncio.to_thread(self._sync.close)
        if self._async is not None:
            await self._async.close()


def iter_into(events: Iterator[Any], found: list[Any]) -> list[Any]:
    for event in events:
        found.append(event)
    return []
