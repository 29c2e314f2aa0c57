"""docs/errors.md from the table of errors: what each is, what callers see, what to do about it.

Codes, statuses and retry rules are read from `services.error_table`, what happened from the
docstrings in `services.errors`. What to do is told here, for every reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from services.error_table import (
    INVALID_STATUSES,
    LIMITS_SAY,
    TABLE,
    UPSTREAM_CLASS,
    UPSTREAM_STATUS,
    Reason,
    Retry,
    Row,
    Wait,
)
from services.errors import CLASSES
from services.server.status import DOMAIN
from tools.docs_advice import ADVICE
from tools.docs_text import filled

_WAITS: Final[Mapping[Wait, str]] = MappingProxyType(
    {
        Wait.NEVER: "",
        Wait.IF_KNOWN: ", after the time told, if one is",
        Wait.ALWAYS: ", after the time told",
    }
)
_PASSING: Final = frozenset({"UNAVAILABLE"})
"""gRPC codes of what passes by itself, with or without a time told."""


def page() -> str:
    """The page's text."""
    shown = [_shown(reason, row) for reason, row in TABLE.items()]
    meant = [f"| `{reason}` | {_happened(reason)} | {ADVICE[reason]} |" for reason in TABLE]
    return filled(
        "errors.md",
        domain=DOMAIN,
        codes=_table("reason | gRPC code | REST | `type` | `code` | retry?", shown),
        meanings=_table("reason | what happened | what to do", meant),
        limits=_limits(),
        statuses=_statuses(),
    )


def _table(columns: str, rows: list[str]) -> str:
    return "\n".join([f"| {columns} |", "|---" * (columns.count("|") + 1) + "|", *rows])


def _shown(reason: Reason, row: Row) -> str:
    code = f"`{row.code}`" if row.code else "null"
    cells = [f"`{reason}`", f"`{row.grpc}`", _status(row), f"`{row.type}`", code, retried(row)]
    return f"| {' | '.join(cells)} |"


def _happened(reason: Reason) -> str:
    """The first part of the docstring: what comes after it is for who raises the error."""
    doc = (CLASSES[reason].__doc__ or "").strip()
    return re.split(r"[.;]\s", doc + "\n")[0] + "."


def _status(row: Row) -> str:
    if row.http is None:
        return ", ".join(map(str, INVALID_STATUSES))
    return str(int(row.http))


def retried(row: Row) -> str:
    """Whether a client should send the same request again, by what the answer tells it."""
    if row.retry is Retry.NEVER:
        return "no" if row.wait is Wait.NEVER else "not before the time told"
    if row.grpc in _PASSING or row.wait is not Wait.NEVER:
        return f"yes{_WAITS[row.wait]}"
    return "no"


def _limits() -> str:
    return "\n".join(f"| `{name}` | {says} |" for name, says in LIMITS_SAY.items())


def _statuses() -> str:
    by_reason: dict[Reason, list[str]] = {}
    for status, reason in sorted(UPSTREAM_STATUS.items()):
        by_reason.setdefault(reason, []).append(str(status))
    for group, reason in sorted(UPSTREAM_CLASS.items()):
        # A 2xx comes here only when its body cannot be read.
        if group >= HTTPStatus.MULTIPLE_CHOICES // 100:
            by_reason.setdefault(reason, []).append(f"any other {group}xx")
    return "\n".join(f"| {', '.join(told)} | `{reason}` |" for reason, told in by_reason.items())
