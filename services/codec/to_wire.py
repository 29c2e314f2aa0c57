"""Writes the Python source that turns parsed JSON into wire bytes, one function a message.

A function takes the JSON value and returns the message's bytes, or None where the value cannot be
that message. What no field holds goes to the remainder (`extra`) or to a union's `other`.
Only text is made here; `compiled` turns it into functions.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.codec.plan import FieldPlan, MessagePlan, Shape, UnionPlan, UnionShape
from services.codec.plan import plan as message_plan

VARINT, FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {
    "string": BYTES,
    "bytes": BYTES,
    "message": BYTES,
    "json": BYTES,
    "double": FIXED64,
    "float": _FIXED32,
    "bool": VARINT,
    "int32": VARINT,
    "int64": VARINT,
    "uint32": VARINT,
    "enum": VARINT,
}
_RANGES = {"int32": "INT32", "int64": "INT64", "uint32": "UINT32"}

# A JSON value `v` as the payload of a field: the condition under which it fits, and the expression.
_SCALARS = {
    "bool": ("v is True or v is False", "(b'\\1' if v else b'\\0')"),
    "int32": (
        "type(v) is int and -2147483648 <= v <= 2147483647",
        "(VARINTS[v] if 0 <= v < 16384 else varint(v))",
    ),
    "int64": (
        "type(v) is int and -9223372036854775808 <= v <= 9223372036854775807",
        "(VARINTS[v] if 0 <= v < 16384 else varint(v))",
    ),
    "uint32": ("type(v) is int and 0 <= v <= 4294967295", "varint(v)"),
    "double": (
        # The first half spares most numbers the call.
        "type(v) is float and -9.223372036854776e18 < v < 9.223372036854776e18 or is_double(v)",
        "pack_double(v)",
    ),
}

_GROUP = 8
"""Fields that are tried before it is asked whether any member is left."""


def identifier(message: str) -> str:
    """A message's name as part of a Python name."""
    return message.replace(".", "_")


def tag_bytes(number: int, wire_type: int) -> bytes:
    """Field number and wire type, as they stand before a value."""
    value = number << 3 | wire_type
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def head_name(number: int) -> str:
    """The constant with a field's tag before each size below 128."""
    return f"HEAD_{tag_bytes(number, BYTES).hex()}"


def _sized(number: int, name: str) -> str:
    """The expression for a field of wire type 2 whose bytes are in a variable."""
    head, tag = head_name(number), tag_bytes(number, BYTES)
    longer = f"length_delimited({tag!r}, {name})"
    return f"{head}[len({name})] + {name} if len({name}) < 128 else {longer}"


def functions(plan: MessagePlan) -> Iterator[str]:
    """Source of the message's function and of what it needs beside it."""
    name = identifier(plan.name)
    union = plan.union
    if union and union.shape is UnionShape.VECTOR:
        yield f"def to_{name}(v):\n    b = vector_wire(v)\n" + _other(union, "    ")
    elif union and union.shape is UnionShape.UNTAGGED:
        yield _untagged(plan, union)
    elif union and union.shape is UnionShape.ADJACENT:
        yield _adjacent(plan, union)
    elif union and union.shape is UnionShape.INTERNAL:
        yield _internal(plan, union)
    elif plan.flat:
        yield (
            f"def to_{name}(v):\n"
            "    if type(v) is not list: return None\n"
            "    if not v: return b''\n" + _indent(_field(plan.flat, "b = {}", "return None"), 4)
        ) + "    return b\n"
    else:
        yield _object(plan)


def _object(plan: MessagePlan) -> str:
    known = f"KNOWN_{identifier(plan.name)}"
    lines = [
        f"def to_{identifier(plan.name)}(o):",
        "    if type(o) is not dict: return None",
        "    out = []; add = out.append; get = o.get; n = len(o); seen = 0; odd = ()",
        *_members(plan, "    "),
        f"    if seen != n and (odd or not {known}.issuperset(o)):",
        *_remainder(plan, known, "        ", refuse="return None"),
        "    return b''.join(out)",
        f"{known} = frozenset(({''.join(f'{f.member!r}, ' for f in plan.members)}))",
    ]
    return "\n".join(lines) + "\n"


def _members(plan: MessagePlan, indent: str) -> Iterator[str]:
    """Straight-line code for the fields; counts members in `seen`, names misfits in `odd`.

    A REQUIRED member that is absent or does not fit refuses the whole.
    """
    fields = plan.members
    for first in range(0, len(fields), _GROUP):
        group = fields[first : first + _GROUP]
        more = ""
        if first and not any(field.required for field in group):
            yield f"{indent}if seen != n:"
            more = "    "
        for field in group:
            yield from (f"{indent}{more}{line}" for line in _member(field))


def _member(field: FieldPlan) -> Iterator[str]:
    refuse = "return None" if field.required else f"odd += ({field.member!r},)"
    yield f"v = get({field.member!r})"
    yield "if v is not None:"
    if field.repeated and field.kind in _ITEMS:
        code = _items(field, refuse)
    else:
        code = _field(field, "add({}); seen += 1", refuse)
    yield from _indent(code, 4).splitlines()
    if field.required:
        yield "else: return None"


def _remainder(plan: MessagePlan, known: str, indent: str, refuse: str) -> Iterator[str]:
    """Code for members that no field took. A null of a typed member is an absent member."""
    yield f"{indent}rest = {{k: w for k, w in o.items() if k in odd or k not in {known}}}"
    if plan.remainder:
        tag = tag_bytes(plan.remainder.number, BYTES)
        yield f"{indent}if rest: add(length_delimited({tag!r}, length_delimited(JSON, raw(rest))))"
    else:
        yield f"{indent}if rest: {refuse}"


def _field(field: FieldPlan, use: str, refuse: str) -> str:
    """Code that puts the wire bytes of `v` into `use`, or does `refuse` where `v` does not fit."""
    if field.is_map:
        return _map(field, use, refuse)
    if field.repeated:
        return _one_or_many(field) + _repeated(field, use, refuse)
    sized = use.format(_sized(field.number, "b"))
    if field.kind == "string":
        return _if("type(v) is str", f"b = v.encode(); {sized}", refuse)
    if field.kind == "message":
        call = f"b = to_{identifier(field.message or '')}(v)\n"
        return call + _if("b is not None", sized, refuse)
    if field.kind == "json":
        return f"b = length_delimited(JSON, raw(v)); {sized}\n"
    if field.kind == "bytes":
        leaf = "byte_list_wire" if field.shape is Shape.BYTES_AS_INTS else "base64_wire"
        return f"b = {leaf}(v)\n" + _if("b is not None", sized, refuse)
    if field.kind == "enum":
        values = dict(field.values)
        return f"b = {values!r}.get(v) if type(v) is str else None\n" + _if(
            "b is not None", use.format(f"{tag_bytes(field.number, VARINT)!r} + varint(b)"), refuse
        )
    fits, payload = _SCALARS[field.kind]
    tag = tag_bytes(field.number, _WIRE_TYPES[field.kind])
    return _if(fits, use.format(f"{tag!r} + {payload}"), refuse)


def _one_or_many(field: FieldPlan) -> str:
    return "if type(v) is not list: v = [v]\n" if field.shape is Shape.ONE_OR_MANY else ""


# Statements that make the bytes `b` of an item `e`, or None.
_ITEMS = {
    "string": "b = e.encode() if type(e) is str else None",
    "json": "b = length_delimited(JSON, raw(e))",
    "message": "b = to_{message}(e)",
}


def _items(field: FieldPlan, refuse: str) -> str:
    """A list as a member of an object. An empty one does not fit: the wire cannot tell it from an
    absent one."""
    shallow = f" and shallow(v, {field.member!r})" if field.recursive else ""
    return (
        f"{_one_or_many(field)}"
        f"if type(v) is list and v{shallow}:\n"
        "    mark = len(out)\n"
        "    for e in v:\n"
        f"        {_ITEMS[field.kind].format(message=identifier(field.message or ''))}\n"
        f"        if b is None: del out[mark:]; {refuse}; break\n"
        f"        add({_sized(field.number, 'b')})\n"
        "    else: seen += 1\n"
        f"else: {refuse}\n"
    )


def _repeated(field: FieldPlan, use: str, refuse: str) -> str:
    """A list as one value: packed numbers, or what stands alone in its message."""
    if field.kind in _ITEMS:
        make = _ITEMS[field.kind].format(message=identifier(field.message or ""))
        item = make.removeprefix("b = ")
        return (
            f"b = [{item} for e in v] if type(v) is list else None\n"
            "if b and None not in b:\n"
            f"    b = b''.join([{_sized(field.number, 'e')} for e in b])\n"
            f"    {use.format('b')}\n"
            f"else: {refuse}\n"
        )
    sized = use.format(_sized(field.number, "b"))
    if field.kind in _RANGES:
        return f"b = ints_wire(v, {_RANGES[field.kind]})\n" + _if("b is not None", sized, refuse)
    if field.kind == "float":
        return "b = floats_wire(v)\n" + _if("b is not None", sized, refuse)
    if field.kind == "double":
        packed = "b''.join(map(pack_double, v))"
        fits = "type(v) is list and v and all(map(is_double, v))"
        return _if(fits, f"b = {packed}; {sized}", refuse)
    raise ValueError(f"{field.name}: a list of {field.kind} has no wire form here")


def _map(field: FieldPlan, use: str, refuse: str) -> str:
    """An object, each member as an entry {1: key, 2: value}. An empty one does not fit."""
    tag = tag_bytes(field.number, BYTES)
    int_keys = field.shape is Shape.INT_KEYS
    key = "int_key_wire(k)" if int_keys else "length_delimited(b'\\n', k.encode())"
    value_tag = tag_bytes(2, _WIRE_TYPES[field.kind])
    if field.kind == "string":
        fits, payload = "type(v) is str", f"length_delimited({value_tag!r}, v.encode())"
    elif field.kind == "message":
        fits = f"(w := to_{identifier(field.message or '')}(v)) is not None"
        payload = f"length_delimited({value_tag!r}, w)"
    else:
        fits, expression = _SCALARS[field.kind]
        payload = f"{value_tag!r} + {expression}"
    return (
        "b = [] if type(v) is dict else None\n"
        "for k, v in (v.items() if b is not None else ()):\n"
        f"    k = {key}\n"
        f"    if k is None or not ({fits}): b = None; break\n"
        f"    b.append(length_delimited({tag!r}, k + {payload}))\n"
        "if b:\n"
        "    b = b''.join(b)\n"
        f"    {use.format('b')}\n"
        f"else: {refuse}\n"
    )


def _untagged(plan: MessagePlan, union: UnionPlan) -> str:
    """Arms in their order; the first whose JSON type fits."""
    lines = [f"def to_{identifier(plan.name)}(v):"]
    for arm in union.arms:
        code = _field(arm, "return {}", "pass")
        if union.ordered and arm.kind == "message":
            members = tuple(field.member for field in message_plan(arm.message or "").members)
            code = f"if in_order(v, {members!r}):\n{_indent(code, 4)}"
        lines.append(_indent(code, 4).rstrip("\n"))
    return "\n".join(lines) + "\n    b = None\n" + _other(union, "    ")


def _other(union: UnionPlan, indent: str) -> str:
    """What a union does with a value that fits no arm: `b` is None."""
    other = union.other
    if other is None:
        return f"{indent}return b\n"
    tag = tag_bytes(other.number, BYTES)
    return (
        f"{indent}if b is None: return length_delimited({tag!r}, length_delimited(JSON, raw(v)))\n"
        f"{indent}return b\n"
    )


def _adjacent(plan: MessagePlan, union: UnionPlan) -> str:
    """{"type": X, X: arm, siblings}. Without a known tag and a fitting arm: `other`."""
    name = identifier(plan.name)
    siblings = [union.tag, *(f.member for f in plan.members)]
    lines = [
        f"def to_{name}(v):",
        f"    b = part_{name}(v) if type(v) is dict else None",
        _other(union, "    "),
        f"def part_{name}(o):",
        f"    get = o.get; t = get({union.tag!r}); v = get(t) if type(t) is str else None",
        "    if v is None: return None",
    ]
    for number, arm in enumerate(union.arms):
        lines.append(f"    {'el' if number else ''}if t == {arm.member!r}:")
        lines.append(_indent(_field(arm, "out = [{}]", "return None"), 8).rstrip("\n"))
    lines += [
        "    else: return None",
        "    add = out.append; n = len(o); seen = 2; odd = ()",
        *_members(plan, "    "),
        "    if seen != n:",
    ]
    if plan.members or plan.remainder:
        lines.append(f"        known = {{{''.join(f'{name!r}, ' for name in siblings)}t}}")
        lines += _remainder(plan, "known", "        ", refuse="return None")
    else:
        lines.append("        return None")
    lines.append("    return b''.join(out)")
    return "\n".join(lines) + "\n"


def _internal(plan: MessagePlan, union: UnionPlan) -> str:
    """{"type": X, members of the arm}. Without a known tag: `other`."""
    lines = [f"def to_{identifier(plan.name)}(v):", "    b = None"]
    lines.append("    if type(v) is dict:")
    lines.append(f"        o = v; t = o.get({union.tag!r})")
    lines.append(
        f"        if type(t) is str: v = {{k: w for k, w in o.items() if k != {union.tag!r}}}"
    )
    for number, arm in enumerate(union.arms):
        lines.append(f"        {'el' if number else ''}if t == {arm.member!r}:")
        lines.append(_indent(_field(arm, "return {}", "pass"), 12).rstrip("\n"))
    lines.append("        v = o")
    return "\n".join(lines) + "\n" + _other(union, "    ")


def _if(condition: str, then: str, otherwise: str) -> str:
    return f"if {condition}: {then}\nelse: {otherwise}\n"


def _indent(code: str, by: int) -> str:
    return "".join(" " * by + line + "\n" for line in code.splitlines())
