"""Sound to words: cuts speech into stretches and has the recogniser's process decode each.

One stretch at a time, whoever asks: callers take turns by stretch. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import sys
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.recogniser import DECODE, HEADER, SPLIT
from demo.sound import RATE

_BYTES_PER_SECOND: Final = RATE * 2
_AROUND: Final = 0.45
"""Seconds of sound before and after a stretch that go with it: first words need them."""

_LONGEST: Final = 20.0
"""Seconds; a longer stretch is cut."""

_ANSWER_LIMIT: Final = 4 * 1024 * 1024
_STOP_WITHIN: Final = 2.0

_ROOT: Final = str(Path(__file__).resolve().parent.parent)
_VARIANT = re.compile(r"\(\d+\)$")


class EarsError(Exception):
    """The recogniser's process ended; the next call starts another."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, its times in seconds, and how sure the recogniser is (0 to 1)."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Words between two silences; never empty."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end

    @property
    def logprob(self) -> float:
        """Mean over the words."""
        return sum(math.log(max(word.probability, 1e-9)) for word in self.words) / len(self.words)


def seconds(pcm: bytes) -> float:
    """How long a sound lasts."""
    return len(pcm) / _BYTES_PER_SECOND


class Ears:
    """The recogniser, started when first needed or by start()."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._exchanges: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Starts the process and waits until its model is loaded: a second."""
        async with self._lock:
            await self._running()

    async def transcribe(self, pcm: bytes) -> AsyncGenerator[Stretch, None]:
        """The stretches of speech in a sound as to_pcm() makes it. Raises EarsError."""
        for start, end in _pieces(await self._ask(SPLIT, pcm), seconds(pcm)):
            told = await self._ask(DECODE, _cut(pcm, start, end))
            words = tuple(_words(told, start))
            if words:
                yield Stretch(words)

    async def close(self) -> None:
        """Ends the process, and with it what it was asked."""
        tasks = tuple(self._exchanges)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None  # noqa: S101  (a pipe was asked for)
        process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _ask(self, kind: bytes, pcm: bytes) -> list[Any]:
        # The answer is awaited even for a caller that is gone: the next one must not get it.
        task = asyncio.create_task(self._exchange(kind, pcm))
        self._exchanges.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._exchanges.discard(task)
        if not task.cancelled():
            task.exception()  # seen, if nobody waits for it any more

    async def _exchange(self, kind: bytes, pcm: bytes) -> list[Any]:
        async with self._lock:
            process = await self._running()
            assert process.stdin is not None  # noqa: S101  (a pipe was asked for)
            try:
                process.stdin.write(HEADER.pack(kind, len(pcm)))
                process.stdin.write(pcm)
                await process.stdin.drain()
                told = await _line(process)
            except (ConnectionError, EarsError) as error:
                self._process = None
                raise EarsError(
                    f"the recogniser's process ended with {await process.wait()}"
                ) from error
            assert isinstance(told, list)  # noqa: S101  (its own protocol)
            return told

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "demo.recogniser",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_ANSWER_LIMIT,
                env={**os.environ, "PYTHONPATH": path},
            )
        )
        try:
            process = await asyncio.shield(starting)
            await _line(process)
        except BaseException:
            # The loop cannot be closed while a process of its own, or a pipe to it, is open.
            process = await starting
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
            raise
        self._process = process
        return process


async def _line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None  # noqa: S101  (a pipe was asked for)
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EarsError("the recogniser's process ended")
    return json.loads(line)


def _pieces(spans: list[list[float]], total: float) -> Iterator[tuple[float, float]]:
    """(start, end) of what is decoded in one go: a span with its surroundings, not too long."""
    for index, (start, end) in enumerate(spans):
        before = spans[index - 1][1] if index else 0.0
        after = spans[index + 1][0] if index + 1 < len(spans) else total
        start, end = max(start - _AROUND, before), min(end + _AROUND, after)
        count = max(1, math.ceil((end - start) / _LONGEST))
        length = (end - start) / count
        for piece in range(count):
            yield start + piece * length, start + (piece + 1) * length


def _cut(pcm: bytes, start: float, end: float) -> bytes:
    return pcm[int(start * RATE) * 2 : int(end * RATE) * 2]


def _words(told: list[list[Any]], offset: float) -> Iterator[Word]:
    """Without marks of silence and noise, and without which pronunciation it was."""
    for text, start, end, probability in told:
        if text[0] not in "<[+":
            yield Word(
                _VARIANT.sub("", text),
                round(offset + start, 2),
                round(offset + end, 2),
                min(1.0, probability),
            )
