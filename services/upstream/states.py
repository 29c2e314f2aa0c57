"""The states of an upstream's stream, and what leads from one to another: a table, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final


class State(Enum):
    """Where a stream is."""

    WAITING = "nothing of the answer has come"
    RUNNING = "some part of the answer has begun and not finished"
    FINISHED = "every part seen has finished; usage may follow"
    COMPLETE = "ended well"
    TRUNCATED = "ended too early"
    FAILED = "the upstream said that it failed, or nonsense"


class Signal(Enum):
    """What one event, or the end, is to the states."""

    NEUTRAL = "usage, or an event that says nothing about the answer's parts"
    PART = "content, and some part of the answer is unfinished"
    FINISH = "content or a finish, and no part is unfinished"
    MARK = "[DONE], or an event that is always the last"
    ERROR = "an error in any form"
    END = "the connection's orderly end"


_WAITING, _RUNNING, _FINISHED = State.WAITING, State.RUNNING, State.FINISHED

TRANSITIONS: Final[Mapping[State, Mapping[Signal, State]]] = MappingProxyType(
    {
        _WAITING: {
            Signal.NEUTRAL: _WAITING,
            Signal.PART: _RUNNING,
            Signal.FINISH: _FINISHED,
            Signal.MARK: State.TRUNCATED,
            Signal.ERROR: State.FAILED,
            Signal.END: State.TRUNCATED,
        },
        _RUNNING: {
            Signal.NEUTRAL: _RUNNING,
            Signal.PART: _RUNNING,
            Signal.FINISH: _FINISHED,
            Signal.MARK: State.TRUNCATED,
            Signal.ERROR: State.FAILED,
            Signal.END: State.TRUNCATED,
        },
        _FINISHED: {
            Signal.NEUTRAL: _FINISHED,
            Signal.PART: _RUNNING,  # another choice begins after all so far have finished
            Signal.FINISH: _FINISHED,
            Signal.MARK: State.COMPLETE,
            Signal.ERROR: State.FAILED,
            Signal.END: State.COMPLETE,
        },
    }
)
"""A state that has no row is final: nothing that comes later is looked at."""
