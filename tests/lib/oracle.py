"""The slow way from JSON to a protobuf message: reflection, one field after another.

The tests' second opinion on the codec, written apart from it: it reads plans, never compiled code
or wire bytes. `build` also tells which places of the JSON no typed field took.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from services import codec
from services.codec import FieldPlan, MessagePlan
from services.codec.plan import Shape, UnionPlan, UnionShape

_INTEGERS = {
    "int32": range(-(2**31), 2**31),
    "int64": range(-(2**63), 2**63),
    "uint32": range(2**32),
}
_EXACT = range(-(2**53), 2**53 + 1)
MAX_NESTED = 32

Path = tuple[str, ...]


class Misfit(Exception):
    """The JSON value cannot be that message or field."""


@dataclass
class Built:
    """A message, and JSON pointers to what stands in it as text."""

    message: Message
    opaque: list[str] = field(default_factory=list)


def build(name: str, text: bytes | str) -> Built:
    """The message that a JSON text is. Raises Misfit."""
    opaque: list[Path] = []
    message = _Builder(opaque).message(name, json.loads(text), ())
    return Built(message, ["".join(map(_token, path)) for path in opaque])


def same(one: Message, two: Message) -> bool:
    """Whether two messages are equal, JSON texts in them by what they say."""
    return _plain(one) == _plain(two)


def _token(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _plain(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    for text in _texts(copy):
        text.json = json.dumps(json.loads(text.json))
    return copy


def _texts(message: Any) -> Iterator[Any]:
    if message.DESCRIPTOR.name == "JsonText":
        yield message
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            if descriptor.message_type.fields_by_name["value"].message_type is not None:
                for item in value.values():
                    yield from _texts(item)
        elif descriptor.is_repeated:
            for item in value:
                yield from _texts(item)
        else:
            yield from _texts(value)


class _Builder:
    def __init__(self, opaque: list[Path]) -> None:
        self._opaque = opaque

    def message(self, name: str, value: Any, path: Path) -> Message:
        plan = codec.plan(name)
        message = codec.message_class(name)()
        if plan.union and plan.union.shape is UnionShape.VECTOR:
            self._vector(message, value, path)
        elif plan.union and plan.union.shape is UnionShape.UNTAGGED:
            self._untagged(plan.union, message, value, path)
        elif plan.union and plan.union.shape is UnionShape.ADJACENT:
            self._adjacent(plan, plan.union, message, value, path)
        elif plan.union and plan.union.shape is UnionShape.INTERNAL:
            self._internal(plan.union, message, value, path)
        elif plan.flat:
            if value != [] or type(value) is not list:
                self._set(plan.flat, message, value, path)
        else:
            self._object(plan, message, value, path, taken=())
        return message

    def _text(self, target: Any, value: Any, path: Path) -> None:
        target.json = json.dumps(value, ensure_ascii=False)
        self._opaque.append(path)

    def _object(
        self, plan: MessagePlan, message: Any, value: Any, path: Path, taken: tuple[str, ...]
    ) -> None:
        if type(value) is not dict:
            raise Misfit
        members = {one.member: one for one in plan.members}
        rest = {}
        for name, item in value.items():
            if name in taken or (name in members and item is None):
                continue
            if name in members and self._fits(members[name], message, item, (*path, name)):
                continue
            if name in members and members[name].required:
                raise Misfit
            rest[name] = item
            self._opaque.append((*path, name))
        if any(one.required and value.get(one.member) is None for one in members.values()):
            raise Misfit
        if rest:
            if plan.remainder is None:
                raise Misfit
            target = getattr(message, plan.remainder.name)
            target.json = json.dumps(rest, ensure_ascii=False)

    def _fits(self, one: FieldPlan, message: Any, value: Any, path: Path) -> bool:
        """Sets the field, wholly or not at all."""
        noted = len(self._opaque)
        scratch = type(message)()
        try:
            self._set(one, scratch, value, path)
        except Misfit:
            del self._opaque[noted:]
            return False
        message.MergeFrom(scratch)
        return True

    def _set(self, one: FieldPlan, message: Any, value: Any, path: Path) -> None:
        if one.is_map:
            self._map(one, getattr(message, one.name), value, path)
            return
        if one.repeated:
            if one.recursive and _height(value, one.member) > MAX_NESTED:
                raise Misfit
            if one.shape is Shape.ONE_OR_MANY and type(value) is not list:
                value = [value]
            if type(value) is not list or not value:
                raise Misfit
            target = getattr(message, one.name)
            for index, item in enumerate(value):
                below = (*path, str(index))
                if one.kind == "json":
                    self._text(target.add(), item, below)
                elif one.kind == "message":
                    target.append(self.message(one.message or "", item, below))
                else:
                    target.append(_scalar(one, item))
        elif one.kind == "json":
            self._text(getattr(message, one.name), value, path)
        elif one.kind == "message":
            target = getattr(message, one.name)
            target.SetInParent()
            target.CopyFrom(self.message(one.message or "", value, path))
        else:
            setattr(message, one.name, _scalar(one, value))

    def _map(self, one: FieldPlan, target: Any, value: Any, path: Path) -> None:
        if type(value) is not dict or not value:
            raise Misfit
        for name, item in value.items():
            key: Any = name
            if one.shape is Shape.INT_KEYS:
                if not name.removeprefix("-").isdecimal() or str(int(name)) != name:
                    raise Misfit
                key = int(name)
                if key not in _INTEGERS["int64"]:
                    raise Misfit
            if one.kind == "message":
                target[key].CopyFrom(self.message(one.message or "", item, (*path, name)))
            else:
                target[key] = _scalar(one, item)

    def _untagged(self, union: UnionPlan, message: Any, value: Any, path: Path) -> None:
        for arm in union.arms:
            if not (union.ordered and _moves(arm, value)) and self._fits(arm, message, value, path):
                return
        self._other(union, message, value, path)

    def _other(self, union: UnionPlan, message: Any, value: Any, path: Path) -> None:
        if union.other is None:
            raise Misfit
        self._text(getattr(message, union.other.name), value, path)

    def _adjacent(
        self, plan: MessagePlan, union: UnionPlan, message: Any, value: Any, path: Path
    ) -> None:
        tag = value.get(union.tag) if type(value) is dict else None
        for arm in union.arms:
            item = value.get(tag) if tag == arm.member else None
            if item is not None and self._fits(arm, message, item, (*path, tag)):
                self._object(plan, message, value, path, taken=(union.tag, tag))
                return
        self._other(union, message, value, path)

    def _internal(self, union: UnionPlan, message: Any, value: Any, path: Path) -> None:
        tag = value.get(union.tag) if type(value) is dict else None
        for arm in union.arms:
            if tag == arm.member:
                rest = {name: item for name, item in value.items() if name != union.tag}
                if self._fits(arm, message, rest, path):
                    return
        self._other(union, message, value, path)

    def _vector(self, message: Any, value: Any, path: Path) -> None:
        if type(value) is list and all(map(_is_float32, value)):
            message.floats.SetInParent()
            message.floats.values.extend(map(float, value))
        elif type(value) is list and all(map(_is_sparse, value)):
            message.sparse.indices.extend(item["index"] for item in value)
            message.sparse.values.extend(float(item["value"]) for item in value)
        else:
            data = _canonical_base64(value)
            if data is None:
                self._text(message.other, value, path)
            else:
                message.packed.SetInParent()
                message.packed.data = data


def _moves(arm: FieldPlan, value: Any) -> bool:
    """Whether an object comes back from the arm in another order, or without a null."""
    if type(value) is not dict or arm.kind != "message":
        return False
    members = [one.member for one in codec.plan(arm.message or "").members]
    printed = [name for name in members if value.get(name) is not None]
    return [*printed, *(name for name in value if name not in members)] != list(value)


def _height(value: Any, member: str) -> int:
    """How many lists stand in each other, each as `member` of an item of the one around it."""
    height, level = 0, [value]
    while level := [item for items in level if type(items) is list for item in items]:
        height += 1
        level = [item.get(member) for item in level if type(item) is dict]
    return height


def _scalar(one: FieldPlan, value: Any) -> Any:
    """The value of a field that is neither a message nor JSON. Raises Misfit."""
    kind = type(value)
    if one.kind == "string" and kind is str:
        return value
    if one.kind == "bool" and kind is bool:
        return value
    if one.kind in _INTEGERS and kind is int and value in _INTEGERS[one.kind]:
        return value
    if one.kind == "double" and kind is int and value in _EXACT:
        return float(value)
    if one.kind == "double" and kind is float and math.isfinite(value):
        return value
    if one.kind == "enum" and kind is str and value in dict(one.values):
        return dict(one.values)[value]
    is_bytes = kind is list and all(type(item) is int and 0 <= item <= 255 for item in value)
    if one.shape is Shape.BYTES_AS_INTS and is_bytes:
        return bytes(value)
    raise Misfit


def _is_float32(value: Any) -> bool:
    if type(value) not in (int, float):
        return False
    try:
        struct.pack("<f", value)
    except OverflowError:
        return False
    return math.isfinite(value)


def _is_sparse(value: Any) -> bool:
    return (
        type(value) is dict
        and value.keys() == {"index", "value"}
        and type(value["index"]) is int
        and value["index"] in _INTEGERS["uint32"]
        and _is_float32(value["value"])
    )


def _canonical_base64(value: Any) -> bytes | None:
    if type(value) is not str:
        return None
    try:
        data = base64.b64decode(value.encode(), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return data if base64.b64encode(data).decode() == value else None
