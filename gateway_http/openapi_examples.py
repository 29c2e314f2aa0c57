"""What examples of an operation are, and where they stand in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Example(NamedTuple):
    """One value, and what it shows."""

    summary: str
    value: Any


Examples = Mapping[str, Example]
"""By a short name."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The examples of one operation.

    request: bodies (a form as an object of its members). answer, event: JSON answers, and one
    event of a stream. texts: an answer that is a text, by media type. parameters: of a GET, by
    name. failed: JSON answers of other statuses.
    """

    answer: Examples
    request: Examples = field(default_factory=dict)
    event: Examples = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, Examples] = field(default_factory=dict)


def put(paths: Mapping[str, Mapping[str, Any]], examples: Mapping[tuple[str, str], Shown]) -> None:
    """Puts examples (by verb and path) into the operations of a document's `paths`."""
    for path, verbs in paths.items():
        for verb, operation in verbs.items():
            shown = examples.get((verb, path))
            if shown is not None:
                _put(operation, shown)


def _put(operation: Mapping[str, Any], shown: Shown) -> None:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        content["examples"] = _listed(shown.request)
    answered = operation["responses"]["200"]["content"]
    answered["application/json"]["examples"] = _listed(shown.answer)
    if "text/event-stream" in answered:
        answered["text/event-stream"]["examples"] = _listed(shown.event)
    for media_type, text in shown.texts.items():
        answered[media_type]["example"] = text
    for parameter in operation.get("parameters", ()):
        if parameter.get("name") in shown.parameters:
            parameter["example"] = shown.parameters[parameter["name"]]
    for status, examples in shown.failed.items():
        failed = operation["responses"][status]["content"]["application/json"]
        failed["examples"] = _listed(examples)


def _listed(examples: Examples) -> dict[str, Any]:
    return {name: {"summary": one.summary, "value": one.value} for name, one in examples.items()}
