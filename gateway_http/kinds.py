"""How texts of a form, a query or a path become JSON members: a message's plan as form kinds."""

from __future__ import annotations

from functools import cache

from services import codec
from services.codec.plan import FieldPlan, UnionShape
from services.form import Kind, Kinds

_DEPTH = 3  # brackets in brackets: no form goes deeper, and messages may hold themselves
_KINDS: dict[str, Kind] = {
    "string": "string",
    "bytes": "string",
    "enum": "string",
    "bool": "boolean",
    "int32": "integer",
    "int64": "integer",
    "uint32": "integer",
    "double": "number",
    "float": "number",
    "message": "object",
    "json": "json",
}


@cache
def kinds_of(message: str) -> Kinds:
    """The kinds of a message's members, nested ones under their bracketed names."""
    found: dict[str, Kind] = {}
    _collect(message, "", found, _DEPTH)
    return found


def _collect(message: str, prefix: str, found: dict[str, Kind], depth: int) -> None:
    plan = codec.plan(message)
    for field in plan.members:
        name = f"{prefix}[{field.member}]" if prefix else field.member
        found[name] = _kind(field)
        if field.kind == "message" and field.message and depth:
            _collect(field.message, name, found, depth - 1)
    if plan.union is not None and plan.union.shape is UnionShape.UNTAGGED and depth:
        for arm in plan.union.arms:
            if arm.kind == "message" and arm.message:
                _collect(arm.message, prefix, found, depth)


def _kind(field: FieldPlan) -> Kind:
    if field.is_map:
        return "object"
    if field.repeated and field.kind == "string":
        return "strings"
    return _KINDS[field.kind]
