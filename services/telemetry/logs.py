"""Logs on standard error: readable on a terminal, one JSON object a line elsewhere.

One line a call. No prompt, no answer and no key ever stands in a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Final, TextIO

from services.call import Call

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

calls = logging.getLogger("tetrad.call")


class JsonLines(logging.Formatter):
    """Time, level, logger, message, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(log_format: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error). `log_format` is text, json or auto."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    readable = log_format == "text" or (log_format == "auto" and target.isatty())
    if readable:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
        )
    else:
        handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tetrad").setLevel(logging.INFO)


def log_call(call: Call) -> None:
    """The line of a call that has ended."""
    usage = call.usage
    level = logging.INFO if usage.outcome in ("OK", "CANCELLED") else logging.WARNING
    if not calls.isEnabledFor(level):
        return
    facts = {
        "id": call.id,
        "method": call.method,
        "face": call.face,
        "key": call.principal.name,
        "model": call.model,
        "endpoint": call.out.get("x-tetrad-endpoint", ""),
        "outcome": usage.outcome,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "audio_seconds": usage.audio_seconds,
        "documents": usage.documents,
    }
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    calls.log(
        level,
        "%s %s %s %s",
        call.method,
        call.model or "-",
        usage.outcome,
        call.id,
        extra=known,
    )
