"""Compiles the written source into functions, once, at import.

Two namespaces run the same code: `fast` for values of orjson, `exact` for values of `loads_exact`,
where numbers keep their text. The source is registered in linecache, so that tracebacks show it.
"""

from __future__ import annotations

import linecache
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from services.codec import from_wire, leaves, plain_leaves, plain_wire, to_wire
from services.codec.jsontext import ExactFloat, NeedExact, dumps_exact, raw
from services.codec.plan import FieldPlan, MessagePlan, UnionShape, message_names, plan

_pack_double = struct.Struct("<d").pack


_PAST_64_BITS = 2.0**63


def _is_double_fast(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        if not -_PAST_64_BITS < value < _PAST_64_BITS:
            raise NeedExact  # orjson makes such a float of an integer, too
        return True
    return kind is int and value in leaves.EXACT_IN_DOUBLE


def _is_double(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return True
    if kind is int:
        return value in leaves.EXACT_IN_DOUBLE
    return kind is ExactFloat and value - value == 0  # 1e400 is written as a number, and is none


def _int_key_wire(key: str) -> bytes | None:
    try:
        number = int(key)
    except ValueError:
        return None
    if str(number) != key or number not in leaves.INT64:
        return None
    return b"\x08" + leaves.varint(number)


def _finite(value: float) -> float:
    if value - value != 0:
        raise leaves.Misfit
    return value


def _enum_name(names: dict[int, str], value: int) -> str | None:
    if value == 0:
        return None
    try:
        return names[value]
    except KeyError:
        raise leaves.Misfit from None


def _fields(this: MessagePlan) -> tuple[FieldPlan, ...]:
    """All that stand in the wire."""
    if this.union is None:
        return this.fields
    other = () if this.union.other is None else (this.union.other,)
    return (*this.fields, *this.union.arms, *other)


def _closure(names: tuple[str, ...]) -> tuple[str, ...]:
    """The messages and all that they hold."""
    todo, found = list(names), dict.fromkeys(names)
    while todo:
        this = plan(todo.pop())
        for field in _fields(this):
            if field.kind == "message" and field.message and field.message not in found:
                found[field.message] = None
                todo.append(field.message)
    return tuple(found)


NAMES = _closure(message_names())


_NUMBERS = {field.number for name in NAMES for field in _fields(plan(name))}
HEADS = {to_wire.head_name(n): leaves.heads(to_wire.tag_bytes(n, 2)) for n in sorted(_NUMBERS)}


def source(name: str) -> str:
    """The Python source that was compiled for a message."""
    this = plan(name)
    return "\n".join(
        [*to_wire.functions(this), from_wire.function(this), plain_wire.function(this)]
    )


def _namespace(
    raw_text: Callable[[Any], bytes], is_double: Callable[[Any], bool]
) -> dict[str, Any]:
    return {
        **HEADS,
        "VARINTS": leaves.VARINTS,
        "INT32": leaves.INT32,
        "INT64": leaves.INT64,
        "UINT32": range(2**32),
        "JSON": b"\x0a",
        "varint": leaves.varint,
        "length_delimited": leaves.length_delimited,
        "ints_wire": leaves.ints_wire,
        "floats_wire": leaves.floats_wire,
        "byte_list_wire": leaves.byte_list_wire,
        "base64_wire": leaves.base64_wire,
        "vector_wire": leaves.vector_wire,
        "shallow": leaves.shallow,
        "in_order": leaves.in_order,
        "is_double": is_double,
        "pack_double": _pack_double,
        "int_key_wire": _int_key_wire,
        "raw": raw_text,
        "Misfit": leaves.Misfit,
        "vector_json": leaves.vector_json,
        "json_fragment": leaves.json_fragment,
        "merged": leaves.merged,
        "tagged": leaves.tagged,
        "data_url": leaves.data_url,
        "base64_text": leaves.base64_text,
        "finite": _finite,
        "enum_name": _enum_name,
        "FITS": FITS,
        "Unplain": plain_leaves.Unplain,
        "more": plain_leaves.more,
        "deeper": plain_leaves.deeper,
        "double_at": plain_leaves.double_at,
        "ints_at": plain_leaves.ints_at,
        "text_at": plain_leaves.text_at,
        "fragment_at": plain_leaves.fragment_at,
        "vector_at": plain_leaves.vector_at,
    }


def _field_fits(field: FieldPlan) -> Callable[[Any], bool]:
    """Whether a JSON value fits a field; for the rare remainder that names a typed member."""
    code = next(to_wire.functions(MessagePlan("alone", "", (field,), None, None, None)))
    namespace: dict[str, Any] = {}

    def fits(value: Any) -> bool:
        if value is None:
            return False
        if not namespace:
            namespace.update(exact)
            exec(compile(code, f"<codec {field.name}>", "exec"), namespace)  # noqa: S102
        return namespace["to_alone"]({field.member: value}) is not None

    return fits


def _always(value: Any) -> bool:
    return value is not None


def _typed(this: MessagePlan) -> dict[str, Callable[[Any], bool]]:
    typed = {field.member: _field_fits(field) for field in this.members}
    if this.union and this.union.shape is UnionShape.ADJACENT:
        typed[this.union.tag] = _always
    return typed


FITS: dict[str, dict[str, Callable[[Any], bool]]] = {
    name: _typed(plan(name)) for name in NAMES if plan(name).remainder
}

fast = _namespace(raw, _is_double_fast)
exact = _namespace(dumps_exact, _is_double)

for _name in NAMES:
    _file = f"<codec {_name}>"
    _source = source(_name)
    linecache.cache[_file] = (len(_source), None, _source.splitlines(keepends=True), _file)
    _code = compile(_source, _file, "exec")
    exec(_code, fast)  # noqa: S102  (source made from our own descriptors)
    exec(_code, exact)  # noqa: S102


ToWire: TypeAlias = Callable[[Any], bytes | None]
FromMessage: TypeAlias = Callable[[Any, bool], Any]
FromWire: TypeAlias = Callable[[bytes, int, int, bool], Any]


def _functions(prefix: str, namespace: dict[str, Any]) -> dict[str, Any]:
    return {name: namespace[f"{prefix}_{to_wire.identifier(name)}"] for name in NAMES}


TO_FAST: Mapping[str, ToWire] = _functions("to", fast)
"""JSON value -> wire, or None where the value is no such message; values of orjson."""

TO_EXACT: Mapping[str, ToWire] = _functions("to", exact)
"""The same for values of `loads_exact`."""

FROM: Mapping[str, FromMessage] = _functions("from", fast)
"""Message, usage asked -> printable value. Raises leaves.Misfit."""

READ: Mapping[str, FromWire] = _functions("read", fast)
"""Wire, begin, end, usage asked -> printable value. Raises one of plain_leaves.UNREAD."""
