"""Logs on standard error: readable on a terminal, one JSON object a line elsewhere.

One line a call. No prompt, no answer and no key ever stands in a line.
"""

from __future__ import annotations

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

calls = logging.getLogger("tetrad.call")


class JsonLines(logging.Formatter):
    """Time, level, logger, message, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # integers and texts that it does not know
            return _ENCODER.encode(line)


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
    handler = logging.StreamHandler(target)
    readable = log_format == "text" or (log_format == "auto" and target.isatty())
    handler.setFormatter(ReadableLines() if readable else JsonLines())
    # No line tells them, and finding them out costs more than writing the line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tetrad").setLevel(logging.INFO)


def log_call(call: Call) -> None:
    """The line of a call that has ended: a sink of calls."""
    usage = call.usage
    level = logging.INFO if usage.outcome in ("OK", "CANCELLED") else logging.WARNING
    if not calls.isEnabledFor(level):
        return
    ended = time.monotonic() if call.ended_at is None else call.ended_at
    facts = {
        "id": call.id,
        "method": call.method,
        "face": call.face,
        "key": call.principal.name,
        "model": call.model,
        "endpoint": call.endpoint,
        "attempts": call.attempts,
        "outcome": usage.outcome,
        "error": call.error,
        "duration_ms": _rounded(ended - call.began),
        "first_ms": None if call.first_at is None else _rounded(call.first_at - call.began),
        "queued_ms": _rounded(call.queued) or None,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "audio_seconds": usage.audio_seconds,
        "documents": usage.documents,
        "usage_source": "" if usage.source == "none" else usage.source,
    }
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    said = call.error or usage.outcome
    words = call.method, call.model or "-", said
    # As calls.log, which would look up the line that it stands in, on every call.
    calls.handle(calls.makeRecord(calls.name, level, "", 0, "%s %s %s", words, None, extra=known))


def _rounded(seconds: float) -> float:
    """Milliseconds, to the microsecond."""
    return round(max(seconds, 0.0) * 1000, 3)
