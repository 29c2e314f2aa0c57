"""Fields of a form that come behind its file, when the file was passed on while it arrived.

They follow it to the upstream, where their order is free. What could only be decided before is
refused, never ignored; `stream` is obeyed in the form of the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from services import errors

STREAM = "stream"

_TOO_LATE = frozenset({"model", "task"})


def joined(
    early: Mapping[str, Any], late: Mapping[str, Any], settled: Collection[str]
) -> dict[str, Any]:
    """What the late members add to the early ones: lists grow, a repetition is none.

    Raises InvalidRequest for a member that contradicts its early value, or that chose where the
    file goes.
    """
    added: dict[str, Any] = {}
    for name, value in late.items():
        if name in settled or (name in early and early[name] == value):
            continue
        known = early.get(name)
        grows = isinstance(value, list) and isinstance(known, list)
        grows = grows or (
            isinstance(value, dict) and isinstance(known, dict) and not value.keys() & known.keys()
        )
        if name in early and not grows:
            raise _wrong(name, "came twice, before the file and after it, with different values")
        if name in _TOO_LATE:
            raise _wrong(
                name, "came after the file, which was passed on by then: send it before the file"
            )
        if name == STREAM and not isinstance(value, bool):
            raise _wrong(name, "expected true or false")
        added[name] = value
    return added


def _wrong(name: str, problem: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(
        f"{name}: {problem}", param=name, violations=[errors.Violation(name, problem)]
    )
