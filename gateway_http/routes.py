"""From the contract's REST options to handlers: which path and verb is which operation.

Built once, from plans; an exact path is one dictionary look-up. Knows nothing of requests.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway_http.dialects import DIALECTS, Dialect
from gateway_http.kinds import kinds_of
from services import codec, sse
from services.body import Body
from services.call import Call
from services.codec.plan import UnionShape
from services.form import Kinds, fields_to_json

Unary: TypeAlias = Callable[[Body, Call], Awaitable[Body]]
Stream: TypeAlias = Callable[[Body, Call], AsyncIterator[list[Body]]]

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_VARIABLE = re.compile(r"\{(\w+)(=\*\*)?\}")


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and verb of one RPC.

    kinds: how a text in path, query or form becomes a member. constants: members that the path
    sets. event: the message of a stream's events; ending: what ends a good one. dialect: whose
    JSON the path speaks, too or only.
    """

    method: codec.MethodPlan
    rest: codec.RestPlan
    route: codec.RoutePlan
    unary: Unary
    stream: Stream | None
    stream_name: str
    event: str
    ending: bytes
    kinds: Kinds
    constants: Mapping[str, Any]
    dialect: Dialect | None


@dataclass(frozen=True, slots=True)
class Path:
    """One path: its operations by verb, and the verbs as the header `allow` has them."""

    verbs: Mapping[str, Operation]
    allow: str


class Router:
    """Finds the operations of a path."""

    def __init__(self, services: Mapping[str, object]) -> None:
        found: dict[str, dict[str, Operation]] = {}
        for operation in operations(services):
            found.setdefault(operation.route.path, {})[operation.route.verb] = operation
        self._exact: dict[str, Path] = {}
        self._patterns: list[tuple[re.Pattern[str], Path]] = []
        for path, verbs in found.items():
            made = Path(verbs, allowed(verbs))
            if "{" in path:
                self._patterns.append((_pattern(path), made))
            else:
                self._exact[path] = made

    def find(self, path: str) -> tuple[Path, Mapping[str, str]] | None:
        """The path's operations and the members that stand in it; None if there is no such."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        for pattern, made in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return made, match.groupdict()
        return None


def operations(services: Mapping[str, object]) -> Iterable[Operation]:
    """All operations of the services that are there, by full name ("tetrad.v1.ChatService").

    Raises AttributeError for a service without one of its methods, LookupError for an option that
    names an unknown dialect or method.
    """
    for service in codec.service_plans():
        target = services.get(service.name)
        if target is None:
            continue
        for method in service.methods:
            rest = method.rest
            if rest is None:
                continue
            twin = service.method(rest.stream_method) if rest.stream_method else None
            kinds = kinds_of(method.request)
            for route in rest.routes:
                yield Operation(
                    method=method,
                    rest=rest,
                    route=route,
                    unary=getattr(target, snake(method.name)),
                    stream=getattr(target, snake(twin.name)) if twin else None,
                    stream_name=twin.name if twin else "",
                    event=twin.response if twin else "",
                    ending=_ending(twin.response) if twin else b"",
                    kinds=kinds,
                    constants=fields_to_json(route.constants, kinds),
                    dialect=DIALECTS[route.dialect] if route.dialect else None,
                )


def allowed(verbs: Iterable[str]) -> str:
    """The value of `allow` for a path with these verbs."""
    listed = [*verbs, "OPTIONS"]
    if "GET" in listed:
        listed.insert(1, "HEAD")
    return ", ".join(listed)


def snake(name: str) -> str:
    """stream_chat for StreamChat."""
    return _WORD.sub("_", name).lower()


def variables(path: str) -> list[str]:
    """Names of the members that stand in a path."""
    return [match[1] for match in _VARIABLE.finditer(path)]


def _pattern(path: str) -> re.Pattern[str]:
    text, at = "", 0
    for match in _VARIABLE.finditer(path):
        text += re.escape(path[at : match.start()])
        text += f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"
        at = match.end()
    return re.compile(text + re.escape(path[at:]), re.DOTALL)


def _ending(message: str) -> bytes:
    """`[DONE]`, but nothing where events carry their type: there the last one says that it is."""
    union = codec.plan(message).union
    return b"" if union is not None and union.shape is UnionShape.INTERNAL else sse.DONE
