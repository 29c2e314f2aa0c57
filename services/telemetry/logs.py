"""Logs on standard error: readable on a terminal, one JSON object a line elsewhere.

One line a call. No prompt, no answer and no key ever stands in a line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TextIO

import orjson

from services.auth import ANONYMOUS
from services.call import Call

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, default=str)

_WELL: Final = frozenset({"OK", "CANCELLED"})

_USED: Final = ("prompt_tokens", "completion_tokens", "audio_seconds", "documents")

FLUSH: Final = 0.05
"""Seconds that the line of a call waits for others, to be written with them."""

calls = logging.getLogger("tetrad.call")
_root = logging.getLogger()


class JsonLines(logging.Formatter):
    """Time, level, logger, message, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        more = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        if record.exc_info:
            more["trace"] = self.formatException(record.exc_info)
        return _json(record.created, record.levelno, record.name, record.getMessage(), more)


class JsonStream(logging.StreamHandler[TextIO]):
    """Writes JSON lines. Those of calls skip the machinery of logging, which costs ten times what
    they do, and go out several at once; `always` stands in each of them."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonLines())
        self.always: Mapping[str, Any] = {}
        self._lines: list[str] = []

    def put(self, level: int, name: str, message: str, more: Mapping[str, Any]) -> None:
        """Write a line, soon. From the event loop's thread only."""
        self._lines.append(_json(time.time(), level, name, message, {**more, **self.always}))
        if len(self._lines) == 1:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # nothing would come back to it
                self.flush()
            else:
                loop.call_later(FLUSH, self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """A record like any other, after the lines before it."""
        self.flush()
        super().emit(record)

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if lines:
            try:
                self.stream.write("\n".join(lines) + "\n")
            except OSError:  # as logging has it: a full disk ends no call
                self.handleError(logging.makeLogRecord({"msg": "lines of calls are lost"}))
        super().flush()


def _json(created: float, level: int, name: str, message: str, more: Mapping[str, Any]) -> str:
    second = int(created)
    line = {
        "time": f"{_second(second)}.{int((created - second) * 1000):03d}Z",
        "level": _LEVELS.get(level) or logging.getLevelName(level).lower(),
        "logger": name,
        "message": message,
        **more,
    }
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # integers and texts that it does not know
        return _ENCODER.encode(line)


_LEVELS: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


class ReadableLines(logging.Formatter):
    """Time, level and message; for a call then its facts, in the order and words of READABLE."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """All but a trace."""
        line = super().formatMessage(record)
        if record.name != calls.name:
            return line
        facts = record.__dict__
        told = (says(facts[name]) for name, says in READABLE.items() if name in facts)
        return "  ".join([line, *filter(None, told)])


def _milliseconds(value: float) -> str:
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.3g} ms"


READABLE: Final[Mapping[str, Callable[[Any], str]]] = {
    "duration_ms": _milliseconds,
    "first_ms": lambda value: f"first {_milliseconds(value)}",
    "queued_ms": lambda value: f"queued {_milliseconds(value)}",
    "prompt_tokens": lambda value: f"in {value}",
    "completion_tokens": lambda value: f"out {value}",
    "audio_seconds": lambda value: f"audio {value:g} s",
    "documents": lambda value: f"documents {value}",
    "items": lambda value: f"items {value}",
    "failed": lambda value: f"failed {value}" if value else "",
    "usage_source": lambda value: "" if value == "upstream" else str(value),
    "attempts": lambda value: f"{value} attempts" if value > 1 else "",
    "endpoint": lambda value: f"at {value}",
    "key": lambda value: "" if value == ANONYMOUS.name else f"for {value}",
    "id": str,
}
"""How the facts of a call are said on a terminal; what goes without saying is "". """


def set_up(log_format: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error). `log_format` is text, json or auto."""
    target = stream or sys.stderr
    handler: logging.Handler
    if log_format == "text" or (log_format == "auto" and target.isatty()):
        handler = logging.StreamHandler(target)
        handler.setFormatter(ReadableLines())
    else:
        handler = JsonStream(target)
    # No line tells them, and finding them out costs more than writing the line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    _root.handlers[:] = [handler]
    _root.setLevel(logging.WARNING)
    logging.getLogger("tetrad").setLevel(logging.INFO)


def log_call(call: Call) -> None:
    """The line of a call that has ended: a sink of calls."""
    usage = call.usage
    well = usage.outcome in _WELL
    level = (logging.DEBUG if call.item else logging.INFO) if well else logging.WARNING
    if not calls.isEnabledFor(level):
        return
    _write(level, (call.method, call.model or "-", call.error or usage.outcome), _facts(call))


def log_bulk(call: Call, outcome: str, *, items: int, failed: int) -> None:
    """The line of a bulk whose stream has ended: how many items it answered, and failed."""
    level = logging.INFO if outcome in _WELL else logging.WARNING
    facts = _facts(call) | {"outcome": outcome, "items": items, "failed": failed}
    _write(level, (call.method, call.model or "-", call.error or outcome), facts)


def _write(level: int, words: tuple[str, str, str], facts: dict[str, Any]) -> None:
    handlers = _root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], JsonStream):
        handlers[0].put(level, calls.name, " ".join(words), facts)
    else:
        # As calls.log, which would look up the line that it stands in, on every call.
        record = calls.makeRecord(calls.name, level, "", 0, "%s %s %s", words, None, extra=facts)
        calls.handle(record)


def _facts(call: Call) -> dict[str, Any]:
    """What is told of a call, less what there was not."""
    usage = call.usage
    ended = time.monotonic() if call.ended_at is None else call.ended_at
    facts: dict[str, Any] = {
        "id": call.id,
        "method": call.method,
        "face": call.face,
        "key": call.principal.name,
    }
    if call.model:
        facts["model"] = call.model
    if call.endpoint:
        facts["endpoint"] = call.endpoint
    facts["attempts"] = call.attempts
    facts["outcome"] = usage.outcome
    if call.error:
        facts["error"] = call.error
    facts["duration_ms"] = _rounded(ended - call.began)
    if call.first_at is not None:
        facts["first_ms"] = _rounded(call.first_at - call.began)
    if call.queued:
        facts["queued_ms"] = _rounded(call.queued)
    if usage.source != "none" or usage.documents is not None:
        for name in _USED:
            figure = getattr(usage, name)
            if figure is not None:
                facts[name] = figure
        if usage.source != "none":
            facts["usage_source"] = usage.source
    return facts


def _rounded(seconds: float) -> float:
    """Milliseconds, to the microsecond."""
    return round(max(seconds, 0.0) * 1000, 3)
