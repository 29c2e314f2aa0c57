"""What a dialect is: forms of another system's JSON, told apart by their members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services import errors
from services.errors import TetradError, Violation


@dataclass(frozen=True, slots=True)
class Converted:
    """A request in our JSON, and how its answer is turned back."""

    value: dict[str, Any]
    answer: Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Form:
    """One shape of request and answer.

    fits: whether a request is of this shape. read: the request in ours; raises InvalidRequest.
    names: the caller's name of each of our members that has another there. request, reply: JSON
    schemas for the reference page.
    """

    fits: Callable[[dict[str, Any]], bool]
    read: Callable[[dict[str, Any]], Converted]
    names: Mapping[str, str]
    request: Mapping[str, Any]
    reply: Mapping[str, Any]

    def renamed(self, error: TetradError) -> TetradError:
        """The error, with the caller's own names of members; the same object."""
        error.param = self._theirs(error.param) if error.param else error.param
        path, colon, rest = error.message.partition(": ")
        error.message = self._theirs(path) + colon + rest
        error.violations = tuple(
            Violation(self._theirs(each.field), each.description) for each in error.violations
        )
        return error

    def _theirs(self, path: str) -> str:
        for ours, theirs in self.names.items():
            if path == ours or path.startswith((f"{ours}.", f"{ours}[")):
                return theirs + path[len(ours) :]
        return path


@dataclass(frozen=True, slots=True)
class Dialect:
    """The forms that a path takes; with `also_ours` a request that fits none is one of ours."""

    forms: tuple[Form, ...]
    also_ours: bool

    def form(self, value: Any) -> Form | None:
        """The form of a request; None if it is one of ours, or no object."""
        if not isinstance(value, dict):
            return None
        for form in self.forms:
            if form.fits(value):
                return form
        return None if self.also_ours else self.forms[0]


def required(value: Mapping[str, Any], name: str) -> Any:
    """A member that must be there. Raises InvalidRequest."""
    found = value.get(name)
    if found is None:
        raise wrong(name, "required, but absent")
    return found


def wrong(name: str, description: str) -> errors.InvalidRequest:
    """The error of one member."""
    return errors.InvalidRequest(
        f"{name}: {description}", param=name, violations=[Violation(name, description)]
    )


def listed(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects in an answer of ours. Raises UpstreamProtocol."""
    items = answer.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise errors.UpstreamProtocol(f"the upstream's answer has no list of objects `{name}`")
    return items
