"""The fields of a form and the JSON object that they spell, in both directions.

Names carry the structure: `x[]` or a repeated `x` is a list, `x[a]` a member of an object. Types
are told by the caller, in a table of kinds. No value is refused: a text that does not fit its kind
stays the string that it was, and whoever answers the request judges it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypeAlias

from services.codec.jsontext import ExactFloat, dumps

Kind: TypeAlias = Literal["string", "integer", "number", "boolean", "strings", "object", "json"]
"""What the text of a field is. "strings" is a list even of one; "object" may come in brackets or as
JSON text; "json" is any JSON but a string, and is written back as JSON text, not in brackets."""

Kinds: TypeAlias = Mapping[str, Kind]
"""Kinds by field name: brackets with a key are part of it, empty ones are not (`a`, `a[b]`).
A list's kind is that of its items. What is not in it is a string."""

MAX_DEPTH = 64

_NO_KINDS: Kinds = MappingProxyType({})
_BRACKETED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])+)")
_KEY = re.compile(r"\[([^\[\]]*)\]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}
_LIST = None  # the place of `[]` in a path

_Path: TypeAlias = list[str | None]
_Tree: TypeAlias = "str | list[_Tree] | dict[str, _Tree]"


class FormError(ValueError):
    """The names of the fields contradict each other, or are nested deeper than MAX_DEPTH."""


def fields_to_json(fields: Iterable[tuple[str, str]], kinds: Kinds = _NO_KINDS) -> dict[str, Any]:
    """The object that a form's fields spell, members in the order of their first field.

    In a list of objects (`x[][a]`) an item ends where one of its members comes again. Raises
    FormError for a name that is both an object and something else.
    """
    tree: dict[str, _Tree] = {}
    for name, text in fields:
        path = _path(name)
        if len(path) > MAX_DEPTH:
            raise FormError(f"a field's name is nested deeper than {MAX_DEPTH}: {name[:100]!r}")
        _put(tree, path, 0, text)
    return {name: _typed(node, name, kinds) for name, node in tree.items()}


def json_to_fields(value: dict[str, Any], kinds: Kinds = _NO_KINDS) -> list[tuple[str, str]]:
    """The fields that spell an object, as the official SDK writes them.

    Lists are `name[]` repeated, objects `name[key]`, booleans lower-case, numbers as Python prints
    them. Null, an empty list and an empty object leave no field.
    """
    fields: list[tuple[str, str]] = []
    todo = list(reversed(value.items()))  # a stack: JSON may be deeper than calls can be
    while todo:
        name, item = todo.pop()
        if item is None:
            continue
        if not isinstance(item, dict | list):
            fields.append((name, _text(item)))
        elif kinds.get(name.replace("[]", "")) == "json":
            fields.append((name, _json_text(item)))
        elif isinstance(item, list):
            todo.extend((f"{name}[]", one) for one in reversed(item))
        else:
            todo.extend((f"{name}[{key}]", one) for key, one in reversed(item.items()))
    return fields


def _path(name: str) -> _Path:
    """`x[a][]` as ["x", "a", _LIST]; a name with other brackets stands for itself."""
    match = _BRACKETED.fullmatch(name)
    if match is None:
        return [name]
    return [match[1], *(key or _LIST for key in _KEY.findall(match[2]))]


def _put(node: _Tree | None, path: _Path, at: int, text: str) -> _Tree:
    """`node` (None: nothing yet) with `text` added below path[at:]."""
    if at == len(path):
        if node is None:
            return text
        items = _as_list(node, path)
        items.append(text)
        return items
    key = path[at]
    if key is _LIST:
        items = [] if node is None else _as_list(node, path)
        if items and _has_room(items[-1], path, at + 1):
            items[-1] = _put(items[-1], path, at + 1, text)
        else:
            items.append(_put(None, path, at + 1, text))
        return items
    if node is None:
        node = {}
    if not isinstance(node, dict):
        raise _contradiction(path)
    node[key] = _put(node.get(key), path, at + 1, text)
    return node


def _as_list(node: _Tree, path: _Path) -> list[_Tree]:
    if isinstance(node, dict):
        raise _contradiction(path)
    return node if isinstance(node, list) else [node]


def _contradiction(path: _Path) -> FormError:
    return FormError(f"the field {path[0]!r} is both an object and something else")


def _has_room(node: _Tree, path: _Path, at: int) -> bool:
    """Whether path[at:] leads below `node` to a place that is not taken."""
    for key in path[at:]:
        if key is _LIST:
            return isinstance(node, list)
        if not isinstance(node, dict):
            return False
        if key not in node:
            return True
        node = node[key]
    return False


def _typed(node: _Tree, name: str, kinds: Kinds) -> Any:
    if isinstance(node, dict):
        return {key: _typed(child, f"{name}[{key}]", kinds) for key, child in node.items()}
    kind = kinds.get(name, "string")
    parse = _PARSERS[kind]
    if isinstance(node, list):
        return [parse(one) if isinstance(one, str) else _typed(one, name, kinds) for one in node]
    return [node] if kind == "strings" else parse(node)


def _number(text: str) -> int | float | str:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if match[1] is None and match[2] is None:
        return _integer(text)
    try:
        return _finite(text)
    except ValueError:
        return text


def _integer(text: str) -> int | str:
    match = _NUMBER.fullmatch(text)
    if match is None or match[1] is not None or match[2] is not None:
        return text
    try:
        return int(text)
    except ValueError:  # Python's limit on digits
        return text


def _json(text: str) -> Any:
    """The value of a JSON text. A JSON string stays text, with its quotes, to be written back."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) else value


def _object(text: str) -> Any:
    value = _json(text)
    return value if isinstance(value, dict) and _can_be_spelled(value) else text


def _can_be_spelled(value: dict[str, Any]) -> bool:
    """Whether fields spell all of it: null and what is empty leave none, and would be lost."""
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if item is None or item in ({}, []):
            return False
        if isinstance(item, dict | list):
            todo += item.values() if isinstance(item, dict) else item
    return True


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number of 64 bits")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.text if isinstance(value, ExactFloat) else str(value)


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:  # a number past a double's range
        return dumps(value).decode()


_PARSERS: Mapping[Kind, Callable[[str], Any]] = {
    "string": str,
    "strings": str,
    "integer": _integer,
    "number": _number,
    "boolean": lambda text: _BOOLEANS.get(text, text),
    "object": _object,
    "json": _json,
}
