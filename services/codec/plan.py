"""What the descriptors and their JSON options say, as plain data.

The compiler, the REST routes, the OpenAPI document and the JSON surface are all made from plans;
nothing else reads the options. A message of tetrad.v1 goes by its short name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache

from google.api import field_behavior_pb2
from google.protobuf import descriptor as protobuf
from google.protobuf import descriptor_pool, message, message_factory
from tetrad.v1 import (
    chat_pb2,
    chat_service_pb2,
    embed_service_pb2,
    error_details_pb2,
    json_pb2,
    model_service_pb2,
    rerank_service_pb2,
    transcribe_service_pb2,
    usage_pb2,
)

PACKAGE = "tetrad.v1"

_FILES = (
    chat_service_pb2,
    embed_service_pb2,
    transcribe_service_pb2,
    rerank_service_pb2,
    model_service_pb2,
    chat_pb2,
    usage_pb2,
    error_details_pb2,
)


class Shape(Enum):
    """How a field's value stands in JSON (FieldShape of json.proto)."""

    PLAIN = json_pb2.FIELD_SHAPE_UNSPECIFIED
    ONE_OR_MANY = json_pb2.FIELD_SHAPE_ONE_OR_MANY
    FLATTEN = json_pb2.FIELD_SHAPE_FLATTEN
    REMAINDER = json_pb2.FIELD_SHAPE_REMAINDER
    BYTES_AS_INTS = json_pb2.FIELD_SHAPE_BYTES_AS_INTS
    INT_KEYS = json_pb2.FIELD_SHAPE_INT_KEYS
    UPLOAD = json_pb2.FIELD_SHAPE_UPLOAD
    DOCUMENT = json_pb2.FIELD_SHAPE_DOCUMENT
    DATA_URL = json_pb2.FIELD_SHAPE_DATA_URL
    BASE64 = json_pb2.FIELD_SHAPE_BASE64
    HIDDEN = json_pb2.FIELD_SHAPE_HIDDEN


class NullWhen(Enum):
    """When an absent field is printed as null."""

    NEVER = json_pb2.NULL_WHEN_UNSPECIFIED
    ABSENT = json_pb2.NULL_WHEN_ABSENT
    USAGE_ASKED = json_pb2.NULL_WHEN_USAGE_ASKED


class UnionShape(Enum):
    """How a oneof stands in JSON (OneofShape of json.proto)."""

    MEMBERS = json_pb2.ONEOF_SHAPE_UNSPECIFIED
    UNTAGGED = json_pb2.ONEOF_SHAPE_UNTAGGED
    ADJACENT = json_pb2.ONEOF_SHAPE_ADJACENT
    INTERNAL = json_pb2.ONEOF_SHAPE_INTERNAL
    VECTOR = json_pb2.ONEOF_SHAPE_VECTOR


class Body(Enum):
    """What a REST request carries."""

    NONE = json_pb2.REST_BODY_UNSPECIFIED
    JSON = json_pb2.REST_BODY_JSON
    MULTIPART = json_pb2.REST_BODY_MULTIPART


# Shapes that gRPC callers use and that no JSON member has under the field's own name.
NOT_MEMBERS = {
    Shape.REMAINDER,
    Shape.UPLOAD,
    Shape.DOCUMENT,
    Shape.DATA_URL,
    Shape.BASE64,
    Shape.HIDDEN,
}

_KINDS = {
    protobuf.FieldDescriptor.TYPE_STRING: "string",
    protobuf.FieldDescriptor.TYPE_BYTES: "bytes",
    protobuf.FieldDescriptor.TYPE_BOOL: "bool",
    protobuf.FieldDescriptor.TYPE_DOUBLE: "double",
    protobuf.FieldDescriptor.TYPE_FLOAT: "float",
    protobuf.FieldDescriptor.TYPE_INT32: "int32",
    protobuf.FieldDescriptor.TYPE_INT64: "int64",
    protobuf.FieldDescriptor.TYPE_UINT32: "uint32",
    protobuf.FieldDescriptor.TYPE_ENUM: "enum",
    protobuf.FieldDescriptor.TYPE_MESSAGE: "message",
}


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """One field. `kind` is string, bytes, bool, double, float, int32, int64, uint32, enum, message
    or json (JsonText); for a map it is the kind of the values, and `key_kind` is set. `exclusive`:
    an arm of a oneof, which clears the others. `recursive`: it holds its own message."""

    name: str
    number: int
    member: str
    kind: str
    message: str | None
    values: tuple[tuple[str, int], ...]
    repeated: bool
    key_kind: str | None
    presence: bool
    shape: Shape
    null_when: NullWhen
    required: bool
    exclusive: bool
    recursive: bool

    @property
    def is_map(self) -> bool:
        return self.key_kind is not None

    @property
    def is_member(self) -> bool:
        """Whether the JSON has a member of this field's own."""
        return self.shape not in NOT_MEMBERS


@dataclass(frozen=True, slots=True)
class UnionPlan:
    """The oneof that makes a message a union. `other` is the arm for any other JSON. `ordered`: it
    also takes objects whose members' order an arm would change."""

    name: str
    shape: UnionShape
    tag: str
    arms: tuple[FieldPlan, ...]
    other: FieldPlan | None
    ordered: bool


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """One message. With `flat` its JSON is that field's list; with `union` see UnionShape."""

    name: str
    full_name: str
    fields: tuple[FieldPlan, ...]
    union: UnionPlan | None
    flat: FieldPlan | None
    remainder: FieldPlan | None

    def field(self, name: str) -> FieldPlan:
        """The field of that proto name; KeyError if there is none."""
        for field in (*self.fields, *(self.union.arms if self.union else ())):
            if field.name == name:
                return field
        raise KeyError(name)

    @property
    def members(self) -> tuple[FieldPlan, ...]:
        """The fields that are JSON members of their own, unions left out."""
        return tuple(field for field in self.fields if field.is_member)


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """One REST path of a method."""

    verb: str
    path: str
    constants: tuple[tuple[str, str], ...]
    dialect: str


@dataclass(frozen=True, slots=True)
class RestPlan:
    """The REST face of a method."""

    routes: tuple[RoutePlan, ...]
    body: Body
    stream_member: str
    stream_method: str
    response_member: str
    summary: str


@dataclass(frozen=True, slots=True)
class MethodPlan:
    """One RPC; messages by short name."""

    name: str
    service: str
    path: str
    request: str
    response: str
    client_streaming: bool
    server_streaming: bool
    rest: RestPlan | None


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service; `name` is the full one."""

    name: str
    methods: tuple[MethodPlan, ...]

    def method(self, name: str) -> MethodPlan:
        """The RPC of that name; KeyError if there is none."""
        for method in self.methods:
            if method.name == name:
                return method
        raise KeyError(name)


def short_name(full_name: str) -> str:
    """ChatRequest for tetrad.v1.ChatRequest; other packages keep theirs."""
    return full_name.removeprefix(f"{PACKAGE}.")


@cache
def message_class(name: str) -> type[message.Message]:
    """The generated class of a message. KeyError if there is none."""
    return message_factory.GetMessageClass(_descriptor(name))


@cache
def plan(name: str) -> MessagePlan:
    """The plan of a message. KeyError if there is none."""
    descriptor = _descriptor(name)
    union_descriptor = _union(descriptor)
    arm_names = {f.name for f in union_descriptor.fields} if union_descriptor else set()
    fields = tuple(_field(f) for f in descriptor.fields if f.name not in arm_names)
    flat = next((f for f in fields if f.shape is Shape.FLATTEN), None)
    remainder = next((f for f in fields if f.shape is Shape.REMAINDER), None)
    union = None
    if union_descriptor:
        options = union_descriptor.GetOptions().Extensions[json_pb2.json_oneof]
        arms = tuple(_field(f) for f in union_descriptor.fields)
        other = next((a for a in arms if a.kind == "json" and a.name == "other"), None)
        union = UnionPlan(
            name=union_descriptor.name,
            shape=UnionShape(options.shape),
            tag=options.tag,
            arms=tuple(a for a in arms if a is not other),
            other=other,
            ordered=options.ordered,
        )
    return MessagePlan(
        short_name(descriptor.full_name), descriptor.full_name, fields, union, flat, remainder
    )


@cache
def service_plans() -> tuple[ServicePlan, ...]:
    """All services, in the order of their files."""
    found = []
    for module in _FILES:
        for service in module.DESCRIPTOR.services_by_name.values():
            methods = tuple(_method(service, m) for m in service.methods)
            found.append(ServicePlan(service.full_name, methods))
    return tuple(found)


@cache
def message_names() -> tuple[str, ...]:
    """Short names of all messages of the contract, JsonText and options left out, sorted."""
    return tuple(sorted(name for m in _FILES for name in m.DESCRIPTOR.message_types_by_name))


def _descriptor(name: str) -> protobuf.Descriptor:
    pool = descriptor_pool.Default()
    full_name = name if "." in name else f"{PACKAGE}.{name}"
    return pool.FindMessageTypeByName(full_name)


def _union(descriptor: protobuf.Descriptor) -> protobuf.OneofDescriptor | None:
    for oneof in descriptor.oneofs:
        if oneof.GetOptions().Extensions[json_pb2.json_oneof].shape:
            return oneof
    return None


def _field(field: protobuf.FieldDescriptor) -> FieldPlan:
    options = field.GetOptions()
    json = options.Extensions[json_pb2.json_field]
    target, key_kind = field, None
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        target, key_kind = entry["value"], _KINDS[entry["key"].type]
    kind = _KINDS[target.type]
    message_name = None
    if target.message_type is not None:
        message_name = short_name(target.message_type.full_name)
        if message_name == "JsonText":
            kind = "json"
    return FieldPlan(
        name=field.name,
        number=field.number,
        member=json.name or field.name,
        kind=kind,
        message=message_name,
        values=_enum_values(target.enum_type) if target.enum_type is not None else (),
        repeated=field.is_repeated and key_kind is None,
        key_kind=key_kind,
        presence=field.has_presence,
        shape=Shape(json.shape),
        null_when=NullWhen(json.null_when),
        required=field_behavior_pb2.REQUIRED
        in options.Extensions[field_behavior_pb2.field_behavior],  # type: ignore[index]
        exclusive=field.containing_oneof is not None and len(field.containing_oneof.fields) > 1,
        recursive=field.message_type is not None and field.message_type == field.containing_type,
    )


def _enum_values(enum: protobuf.EnumDescriptor) -> tuple[tuple[str, int], ...]:
    """JSON names: TRANSCRIBE_TASK_TRANSLATE is "translate". The zero value has none: absent."""
    zero = next(value.name for value in enum.values if value.number == 0)
    prefix = zero.removesuffix("UNSPECIFIED")
    return tuple((v.name.removeprefix(prefix).lower(), v.number) for v in enum.values if v.number)


def _method(service: protobuf.ServiceDescriptor, method: protobuf.MethodDescriptor) -> MethodPlan:
    rest = None
    options = method.GetOptions()
    if options.HasExtension(json_pb2.rest):
        option = options.Extensions[json_pb2.rest]
        rest = RestPlan(
            routes=tuple(
                RoutePlan(
                    route.verb,
                    route.path,
                    tuple((constant.name, constant.value) for constant in route.constants),
                    route.dialect,
                )
                for route in option.routes
            ),
            body=Body(option.body),
            stream_member=option.stream_member,
            stream_method=option.stream_method,
            response_member=option.response_member,
            summary=option.summary,
        )
    return MethodPlan(
        name=method.name,
        service=service.full_name,
        path=f"/{service.full_name}/{method.name}",
        request=short_name(method.input_type.full_name),
        response=short_name(method.output_type.full_name),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        rest=rest,
    )
