"""Where a running gateway gets a new configuration from: its file when that changes, or a signal.

A source yields changes; whoever takes them tells it how that went. Only what was taken counts as a
generation; a bad file changes nothing. Knows files and configurations, no servers.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.config import Config, ConfigError, Fault

EVERY = 0.5
"""Seconds between two looks at the file."""

_SETTLED = 0.2
"""Seconds between two looks that must find the same content: nobody is writing it any more."""

_CLOCK = 2.0
"""Seconds within which a file system may give two writes the same time."""

_log = logging.getLogger("tetrad")

# What a running process cannot change.
FIXED = (
    "workers",
    "grpc.address",
    "grpc.tls",
    "grpc.max_connection_age",
    "http.address",
    "http.tls",
    "limits.max_request_bytes",
    "ledger.url",
    "state.url",
    "telemetry.otlp_endpoint",
    "telemetry.log_format",
)


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration to take, as `generation`; or (config None) why the new one is no good.

    Without a configuration `generation` is the one that stays.
    """

    generation: int
    config: Config | None
    faults: tuple[Fault, ...] = ()


class Source(Protocol):
    """Where changes come from."""

    @property
    def generation(self) -> int:
        """The generation that was taken last; the start's is 1."""

    def changes(self) -> AsyncIterator[Change]:
        """Changes as they come, never ending. The next comes after `applied` was told of one."""

    def applied(self, generation: int, error: str | None) -> None:
        """A change's configuration was taken, or (with an error) the old one stays."""

    def reload(self) -> None:
        """Read again now, changed or not."""


class FileSource:
    """A file that is watched, and `reload`.

    `read` makes the configuration from file, environment and command line; raises ConfigError. It
    is called now (so this raises it, too), and for each reload, then in a thread. `path` None
    watches nothing.
    """

    def __init__(
        self, path: Path | None, read: Callable[[], Config], *, every: float = EVERY
    ) -> None:
        self._path = path
        self._read = read
        self._every = every
        self._offered: Change | None = None
        self._generation = 1
        self._wanted = asyncio.Event()
        self._stamp: object = None
        self._content = _digest(path)  # before it is read, so that no change is missed
        self._config = read()

    @property
    def config(self) -> Config:
        """The configuration that was taken last."""
        return self._config

    @property
    def generation(self) -> int:
        """The generation that was taken last."""
        return self._generation

    def reload(self) -> None:
        """Read again now: also what the file leads to may have changed."""
        self._wanted.set()

    def applied(self, generation: int, error: str | None) -> None:
        """What was offered as `generation` was taken, or (with an error) was not."""
        offered, self._offered = self._offered, None
        if offered is None or offered.config is None or offered.generation != generation:
            raise ValueError(f"generation {generation} was not offered")
        if error is not None:
            _log.error(
                "the configuration is not taken, generation %d stays: %s", self._generation, error
            )
            return
        self._generation, self._config = generation, offered.config
        for warning in offered.config.warnings:
            _log.warning("%s", warning)

    async def changes(self) -> AsyncIterator[Change]:
        """A change for each new content of the file, and for each `reload`."""
        while True:
            await self._news()
            change = await self._change()
            for fault in change.faults:
                _log.error(
                    "the configuration is not taken, generation %d stays: %s",
                    self._generation,
                    fault,
                )
            self._offered = change
            yield change

    async def _change(self) -> Change:
        try:
            config = await asyncio.to_thread(self._read)
        except ConfigError as error:
            return Change(self._generation, None, tuple(error.faults))
        except Exception as error:
            # A watch that died would leave every later change out.
            _log.exception("reading the configuration failed")
            said = f"reading it failed: {type(error).__name__}"
            return Change(self._generation, None, (Fault(str(self._path or ""), 0, 0, "", said),))
        faults = fixed_faults(self._config, config)
        if faults:
            return Change(self._generation, None, tuple(faults))
        return Change(self._generation + 1, config)

    async def _news(self) -> None:
        """Wait for another content that stands still, or for `reload`."""
        while True:
            try:
                async with asyncio.timeout(self._every):
                    await self._wanted.wait()
            except TimeoutError:
                if self._path is None or not await self._another():
                    continue
            else:
                self._wanted.clear()
                self._content = await asyncio.to_thread(_digest, self._path)
            return

    async def _another(self) -> bool:
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp is not None and stamp == self._stamp:
            return False
        content = await asyncio.to_thread(_digest, self._path)
        while content != self._content:
            await asyncio.sleep(_SETTLED)
            first, content = content, await asyncio.to_thread(_digest, self._path)
            if content == first:
                self._content = content
                return True
        self._stamp = stamp
        return False


def fixed_faults(old: Config, new: Config) -> list[Fault]:
    """One fault for each setting that differs and that only a restart changes."""
    faults = []
    if (old.http is None) is not (new.http is None):
        faults.append(_fixed(new, "http"))
    for key in FIXED:
        if _value(old, key) != _value(new, key) and not (key.startswith("http.") and faults):
            faults.append(_fixed(new, key))
    return faults


def _fixed(config: Config, key: str) -> Fault:
    return Fault(config.source, 0, 0, key, "a running gateway keeps it", "restart to change it")


def _value(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def _stamp(path: Path | None) -> object:
    """What changes when the file is replaced or written; None when it cannot tell."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time() - found.st_mtime < _CLOCK:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _digest(path: Path | None) -> bytes | None:
    """What the file holds, as a hash; None when it cannot be read."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
