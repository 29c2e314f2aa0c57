"""Counters in Redis or Valkey: one atomic script a call, each bounded in time.

While the store is away nobody but a task of its own asks it. What reaches the store later than its
sender waits counts nothing. Knows neither calls nor errors of ours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from limits.aio.storage import RedisStorage
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.limits.windows import Level, Rule

_log = logging.getLogger("tetrad.limits")

PAUSE = 1.0
"""Seconds between two questions whether a store that failed is back."""

_CONNECTIONS = 32
_ANY = -1
_LATE = 0
_DRIFT = 0.001

# ARGV: the store's time in ms after which nothing may be counted (0: no such); then of each key its
# limit (-1: any), cost, and period in ms. Answers whether it was in time, its own time, and of each
# key what was used and the ms left.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local latest = tonumber(ARGV[1])
if latest > 0 and now > latest then
    return {0, now}
end
local told, room = {1, now}, true
for i, key in ipairs(KEYS) do
    local limit, period = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i + 1])
    local left = redis.call('PTTL', key)
    local used = 0
    if left >= 0 then
        used = tonumber(redis.call('GET', key) or '0')
    end
    if limit >= 0 and used >= limit then
        room = false
    end
    told[2 * i + 1] = used
    told[2 * i + 2] = left < 0 and period or left
end
if room then
    for i, key in ipairs(KEYS) do
        local cost = tonumber(ARGV[3 * i])
        if cost > 0 then
            if redis.call('PTTL', key) >= 0 then
                redis.call('INCRBY', key, ARGV[3 * i])
            else
                redis.call('SET', key, ARGV[3 * i], 'PX', ARGV[3 * i + 1])
            end
        end
    end
end
return told
"""

_SCHEMES = {"valkey://": "redis://", "valkeys://": "rediss://"}


class StoreAway(Exception):
    """The store did not answer, or is left alone since it did not."""


class SharedWindows:
    """Counters that several processes share. `failures` counts what the store did not do."""

    def __init__(self, url: str, timeout: float) -> None:
        for ours, theirs in _SCHEMES.items():
            if url.startswith(ours):
                url = theirs + url.removeprefix(ours)
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # A script that is sent twice may count twice.
            retry=Retry(NoBackoff(), 0),
        )
        options: dict[str, Any] = {"connection_pool": pool}
        self._pool = pool
        bridge: Any = RedisStorage("async+redis://", implementation="redispy", **options).bridge
        self._client = bridge.get_connection()
        self._script = self._client.register_script(_SCRIPT)
        self._timeout = timeout
        self._seen = 0.0
        self._ahead: float | None = None
        self._pending: dict[str, tuple[int, int, float]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self.failures = 0

    @property
    def away(self) -> bool:
        """Whether it failed and has not been seen since."""
        return self._watcher is not None

    async def start(self) -> None:
        """Ask whether it is there; a warning if it is not."""
        try:
            await self._ask_time()
        except (RedisError, OSError) as error:
            self._failed(error)

    async def take(self, rules: Sequence[Rule]) -> list[Level]:
        """As of Windows. Raises StoreAway within the time limit."""
        return await self._run([(rule.key, rule.limit, rule.cost, rule.period) for rule in rules])

    def add(self, key: str, period: int, amount: int) -> None:
        """Count soon, whatever the limit; while the store is away, as long as the window lasts."""
        tokens, _, since = self._pending.get(key, (0, period, time.monotonic()))
        self._pending[key] = (tokens + amount, period, since)
        self._write_soon()

    async def aclose(self) -> None:
        """Write what waits, within the time limit, and let the store go."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=self._timeout)
        tasks = [task for task in (self._writer, self._watcher) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
        await self._pool.disconnect()

    async def _run(self, counters: Sequence[tuple[str, int, int, int]]) -> list[Level]:
        if self.away:
            raise StoreAway
        keys = [key for key, *_ in counters]
        figures = [
            part for _, limit, cost, period in counters for part in (limit, cost, period * 1000)
        ]
        try:
            async with asyncio.timeout(self._timeout):
                told = await self._send(keys, figures)
                if told[0] == _LATE:  # by a clock that was set anew: now it is known again
                    told = await self._send(keys, figures)
            if told[0] == _LATE:
                raise TimeoutError("it came to it only later")
        except (RedisError, OSError) as error:
            self._failed(error)
            raise StoreAway from error
        return [Level(told[i], told[i + 1] / 1000) for i in range(2, len(told), 2)]

    async def _send(self, keys: list[str], figures: list[int]) -> list[int]:
        sent = time.monotonic() * 1000
        latest = 0
        if self._ahead is not None:
            latest = int(sent + self._ahead + self._timeout * 1000)
        told: list[int] = await self._script(keys=keys, args=[latest, *figures])
        self._saw(told[1])
        return told

    def _saw(self, store_time: float) -> None:
        """Learn how far the store's clock (ms) is ahead of ours: at least so far.

        Never more than it is, so that nothing counts there after its sender has given up; the most
        that was seen holds, less what clocks may drift apart.
        """
        now = time.monotonic() * 1000
        least = store_time - now
        if self._ahead is not None:
            least = max(least, self._ahead - (now - self._seen) * _DRIFT)
        self._ahead, self._seen = least, now

    async def _ask_time(self) -> None:
        async with asyncio.timeout(self._timeout):
            seconds, microseconds = await self._client.time()
        self._ahead = None  # it may be another store by now
        self._saw(seconds * 1000 + microseconds / 1000)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self._watcher is None:
            # The address may hold a password, and errors of the client may hold the address.
            _log.warning("the limits' store does not answer (%s)", type(error).__name__)
            self._watcher = asyncio.create_task(self._watch(), name="limits-store-watch")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            try:
                await self._ask_time()
            except (RedisError, OSError):
                self.failures += 1
                continue
            break
        self._watcher = None
        _log.warning("the limits' store answers again")
        self._write_soon()

    def _write_soon(self) -> None:
        if self._pending and not self.away and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write(), name="limits-store-write")

    async def _write(self) -> None:
        while self._pending and not self.away:
            key, (amount, period, since) = next(iter(self._pending.items()))
            del self._pending[key]
            if time.monotonic() - since >= period:
                continue  # the window that it was used in is over
            try:
                await self._run([(key, _ANY, amount, period)])
            except StoreAway:
                more, _, _ = self._pending.get(key, (0, period, since))
                self._pending[key] = (amount + more, period, since)
