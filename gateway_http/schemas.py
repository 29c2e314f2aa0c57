"""Messages of the contract as JSON schemas (2020-12, the dialect of OpenAPI 3.1), from plans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from services import codec
from services.codec import FieldPlan, MessagePlan
from services.codec.plan import Shape, UnionPlan, UnionShape

Schema: TypeAlias = dict[str, Any]

_SCALARS: Mapping[str, Schema] = {
    "string": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "bool": {"type": "boolean"},
    "double": {"type": "number", "format": "double"},
    "float": {"type": "number", "format": "float"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "uint32": {"type": "integer", "minimum": 0},
    "json": {},
}
_ANY: Schema = {"description": "Any other JSON."}
_VECTOR: Schema = {
    "anyOf": [
        {"type": "array", "items": {"type": "number"}, "description": "One number a dimension."},
        {
            "type": "string",
            "contentEncoding": "base64",
            "description": "The numbers as bytes, little-endian float32 unless asked otherwise.",
        },
        {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "value"],
                "properties": {"index": {"type": "integer"}, "value": {"type": "number"}},
            },
            "description": "The dimensions that are not zero.",
        },
        _ANY,
    ]
}


def ref(message: str) -> Schema:
    """A reference to a message's schema."""
    return {"$ref": f"#/components/schemas/{message}"}


class Schemas:
    """Collects the schemas of messages and of all that they hold. `texts` describe full names."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self.found: dict[str, Schema] = {}

    def add(self, message: str) -> Schema:
        """A reference to a message, whose schema is made if it is not there yet."""
        if message not in self.found:
            self.found[message] = {}  # messages may hold themselves
            plan = codec.plan(message)
            self.found[message] = self.described(plan.full_name, self._message(plan))
        return ref(message)

    def members(self, message: str, leave_out: Iterable[str] = ()) -> tuple[Schema, list[str]]:
        """The properties of a message, and the names of those that are required."""
        plan, fields = self._fields(message, leave_out)
        properties = {field.member: self._member(plan, field) for field in fields}
        return properties, [field.member for field in fields if field.required]

    def field(self, plan: MessagePlan, field: FieldPlan) -> Schema:
        """One member, or one arm of a union."""
        return self.described(f"{plan.full_name}.{field.name}", self._value(field))

    def texts(self, message: str, leave_out: Iterable[str] = ()) -> tuple[Schema, list[str]]:
        """The same for members that are written as texts, in a query or a form: without null."""
        plan, fields = self._fields(message, leave_out)
        properties = {field.member: self.field(plan, field) for field in fields}
        return properties, [field.member for field in fields if field.required]

    def _fields(
        self, message: str, leave_out: Iterable[str]
    ) -> tuple[MessagePlan, list[FieldPlan]]:
        plan = codec.plan(message)
        return plan, [field for field in plan.members if field.member not in set(leave_out)]

    def _member(self, plan: MessagePlan, field: FieldPlan) -> Schema:
        # A null of a typed member is its absence, in requests and in what servers print.
        made = _not_empty if field.required else _or_null
        return self.described(f"{plan.full_name}.{field.name}", made(self._value(field)))

    def described(self, full_name: str, schema: Schema) -> Schema:
        """The schema with what the contract says of that name."""
        text = self._texts.get(full_name)
        return {"description": text, **schema} if text else schema

    def _message(self, plan: MessagePlan) -> Schema:
        if plan.flat is not None:
            return self._value(plan.flat)
        if plan.union is None:
            return self._object(plan)
        return _UNIONS[plan.union.shape](self, plan, plan.union)

    def _object(self, plan: MessagePlan) -> Schema:
        properties, required = self.members(plan.name)
        schema: Schema = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        schema["additionalProperties"] = plan.remainder is not None
        return schema

    def _value(self, field: FieldPlan) -> Schema:
        item = self._item(field)
        if field.is_map:
            schema: Schema = {"type": "object", "additionalProperties": item}
            if field.shape is Shape.INT_KEYS:
                schema["propertyNames"] = {"pattern": "^-?[0-9]+$"}
            return schema
        if field.shape is Shape.BYTES_AS_INTS:
            byte = {"type": "integer", "minimum": 0, "maximum": 255}
            return {"type": "array", "items": byte}
        if not field.repeated:
            return item
        many: Schema = {"type": "array", "items": item}
        return {"anyOf": [item, many]} if field.shape is Shape.ONE_OR_MANY else many

    def _item(self, field: FieldPlan) -> Schema:
        if field.kind == "enum":
            return {"type": "string", "enum": [name for name, _ in field.values]}
        if field.kind == "message":
            assert field.message is not None  # noqa: S101  (plans name the message of a message)
            return self.add(field.message)
        return dict(_SCALARS[field.kind])

    def _untagged(self, plan: MessagePlan, union: UnionPlan) -> Schema:
        return {"anyOf": [*(self.field(plan, arm) for arm in union.arms), *_rest(union)]}

    def _adjacent(self, plan: MessagePlan, union: UnionPlan) -> Schema:
        """{"type": "text", "text": ...}: the tag names the member beside it."""
        common, _ = self.members(plan.name)
        arms = [
            {
                "type": "object",
                "title": arm.member,
                "required": [union.tag, arm.member],
                "properties": {
                    union.tag: {"type": "string", "const": arm.member},
                    arm.member: self.field(plan, arm),
                    **common,
                },
            }
            for arm in union.arms
        ]
        return {"anyOf": [*arms, *_rest(union)]}

    def _internal(self, plan: MessagePlan, union: UnionPlan) -> Schema:
        """{"type": "transcript.text.delta", ...}: the arm's members stand beside the tag."""
        arms: list[Schema] = []
        for arm in union.arms:
            assert arm.message is not None  # noqa: S101  (only messages have members)
            tag = {union.tag: {"type": "string", "const": arm.member}}
            properties, required = self.members(arm.message)
            tagged: Schema = {
                "type": "object",
                "title": arm.member,
                "required": [union.tag, *required],
                "properties": {**tag, **properties},
            }
            arms.append(self.described(f"{plan.full_name}.{arm.name}", tagged))
        return {"anyOf": [*arms, *_rest(union)]}

    def _vector(self, plan: MessagePlan, union: UnionPlan) -> Schema:
        return dict(_VECTOR)


_UNIONS = {
    UnionShape.UNTAGGED: Schemas._untagged,
    UnionShape.ADJACENT: Schemas._adjacent,
    UnionShape.INTERNAL: Schemas._internal,
    UnionShape.VECTOR: Schemas._vector,
}


def _rest(union: UnionPlan) -> list[Schema]:
    return [dict(_ANY)] if union.other is not None else []


def _not_empty(schema: Schema) -> Schema:
    """Without the values that count as absent: a union may well allow them all."""
    if schema.get("type") == "array":
        return {**schema, "minItems": 1}
    return {**schema, "not": {"enum": [None, [], {}]}} if "$ref" in schema else schema


def _or_null(schema: Schema) -> Schema:
    kind = schema.get("type")
    if isinstance(kind, str):
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
