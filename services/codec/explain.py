"""Finds what is wrong with a body, and where, once the compiled code has found that something is.

Slow on purpose: it walks plans, so that the compiled code need not carry paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.message import Message

from services.codec import compiled
from services.codec.jsontext import JsonError, loads, loads_exact
from services.codec.plan import FieldPlan, MessagePlan, Shape, UnionPlan, UnionShape, plan

_TWINS = (Shape.DATA_URL, Shape.BASE64)
"""Raw bytes that are printed into another field's member."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: `field` is a path such as messages[2].content, "" for the whole."""

    field: str
    description: str


def missing(name: str, value: Any) -> tuple[Violation, ...]:
    """REQUIRED members that a JSON value lacks or has with the wrong type."""
    if type(value) is not dict:
        return (Violation("", f"expected a JSON object, found {kind_of(value)}"),)
    return tuple(_missing(required(name), value))


@cache
def required(name: str) -> tuple[FieldPlan, ...]:
    """The REQUIRED members of a message."""
    return tuple(field for field in plan(name).members if field.required)


def _missing(fields: tuple[FieldPlan, ...], value: dict[str, Any]) -> Iterator[Violation]:
    for field in fields:
        member = value.get(field.member)
        if member is None:
            yield Violation(field.member, "required, but absent")
        elif field.repeated and member == []:
            yield Violation(field.member, f"expected {_expected(field)}, found an empty one")
        elif not _looks_right(field, member):
            yield Violation(field.member, f"expected {_expected(field)}, found {kind_of(member)}")


def _looks_right(field: FieldPlan, value: Any) -> bool:
    """Whether the type is right at first sight: each call pays for this, so it does not descend."""
    if field.repeated:
        if type(value) is not list or not value:
            return False
        return field.kind != "message" or all(type(item) is dict for item in value)
    if field.kind == "message":
        union = plan(field.message or "").union
        return type(value) is dict or bool(union and union.shape is UnionShape.UNTAGGED)
    return type(value) is str


def misfits(name: str, message: Message) -> tuple[Violation, ...]:
    """What in a message has no JSON, or is REQUIRED and absent."""
    return tuple(_misfits(plan(name), message, ""))


def _misfits(this: MessagePlan, message: Any, prefix: str) -> Iterator[Violation]:
    for field in (*this.fields, *(this.union.arms if this.union else ())):
        path = f"{prefix}{field.name}"
        if _is_absent(field, message):
            if field.required:
                yield Violation(path, "required, but absent")
            continue
        value = getattr(message, field.name)
        if field.shape is Shape.REMAINDER:
            yield from _remainder_misfits(this, message, value.json, path)
        elif field.shape in _TWINS:
            twin = next((f for f in this.members if f.member == field.member), None)
            if twin and message.HasField(twin.name):
                yield Violation(path, f"set beside {prefix}{twin.name}: give one of the two")
        elif field.is_map:
            for key, item in value.items():
                yield from _value_misfits(field, item, f"{path}[{key!r}]")
        elif field.repeated:
            for index, item in enumerate(value):
                yield from _value_misfits(field, item, f"{path}[{index}]")
        else:
            yield from _value_misfits(field, value, path)
    if this.union:
        yield from _union_misfits(this.union, message, prefix)


def _is_absent(field: FieldPlan, message: Any) -> bool:
    if field.presence:
        return not message.HasField(field.name)
    return not getattr(message, field.name)


def _value_misfits(field: FieldPlan, value: Any, path: str) -> Iterator[Violation]:
    if field.kind == "message":
        yield from _misfits(plan(field.message or ""), value, f"{path}.")
    elif field.kind == "json":
        yield from _text_misfits(value.json, path)
    elif field.kind in ("double", "float") and value - value != 0:
        yield Violation(path, f"{value} has no JSON: give a finite number")
    elif field.kind == "enum" and value and value not in {number for _, number in field.values}:
        known = ", ".join(f"{number} ({name})" for name, number in field.values)
        yield Violation(path, f"unknown value {value}; known are {known}")


def _text_misfits(text: str, path: str) -> Iterator[Violation]:
    try:
        loads(text)
    except JsonError as error:
        yield Violation(path, f"not a JSON text: {error}")


def _remainder_misfits(
    this: MessagePlan, message: Any, text: str, path: str
) -> Iterator[Violation]:
    problems = tuple(_text_misfits(text, path))
    if problems:
        yield from problems
        return
    members = loads_exact(text)
    if type(members) is not dict:
        yield Violation(path, f"expected a JSON object, found {kind_of(members)}")
        return
    fits, taken = compiled.FITS[this.name], dict(_taken(this, message))
    for name, value in members.items():
        home = taken.get(name)
        if home is None and name in fits and fits[name](value):
            home = next(f.name for f in this.members if f.member == name)
        if home is not None:
            yield Violation(path, f"member {name!r} belongs in the field {home}")


def _taken(this: MessagePlan, message: Any) -> Iterator[tuple[str, str]]:
    """Members that are set, and the fields that set them."""
    for field in this.fields:
        if (field.is_member or field.shape in _TWINS) and not _is_absent(field, message):
            yield field.member, field.name
    union = this.union
    if union and union.shape is UnionShape.ADJACENT:
        yield union.tag, union.name
        arm = message.WhichOneof(union.name)
        yield from ((a.member, a.name) for a in union.arms if a.name == arm)


def _union_misfits(union: UnionPlan, message: Any, prefix: str) -> Iterator[Violation]:
    where = prefix.rstrip(".")
    arm = message.WhichOneof(union.name)
    if arm == "other":
        yield from _text_misfits(message.other.json, f"{prefix}other")
        if union.shape is UnionShape.ADJACENT and len(message.ListFields()) > 1:
            yield Violation(where, "`other` is the whole value: nothing can be set beside it")
    elif arm is None and union.shape in (UnionShape.ADJACENT, UnionShape.INTERNAL):
        names = ", ".join(a.name for a in union.arms)
        yield Violation(where, f"nothing set: one of {names} is needed")
    elif arm == "sparse" and len(message.sparse.indices) != len(message.sparse.values):
        yield Violation(f"{prefix}sparse", "indices and values differ in number")


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, (int, float)):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


_WORDS = {
    "string": "a string",
    "bytes": "base64",
    "bool": "a boolean",
    "enum": "a string",
    "message": "an object",
    "json": "JSON",
}


def _expected(field: FieldPlan) -> str:
    if field.is_map:
        return "an object"
    if field.repeated:
        each = {"message": "objects", "string": "strings"}.get(field.kind, "numbers")
        return f"a list of {each}"
    return _WORDS.get(field.kind, "a number")
