"""Writes the Python source that turns messages into what orjson prints, one function a message.

A function takes the parsed message (and whether usage was asked for) and returns dicts, lists,
scalars and Fragments. What has no JSON raises Misfit; `explain` then finds where.
Only text is made here; `compiled` turns it into functions.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.codec.plan import FieldPlan, MessagePlan, NullWhen, Shape, UnionPlan, UnionShape
from services.codec.to_wire import identifier


def function(plan: MessagePlan) -> str:
    """Source of the message's function."""
    name = identifier(plan.name)
    union = plan.union
    head = f"def from_{name}(m, asked):\n"
    if union and union.shape is UnionShape.VECTOR:
        return head + "    return vector_json(m)\n"
    if plan.flat:
        return head + f"    v = m.{plan.flat.name}\n    return {_value(plan.flat, 'v')}\n"
    if union and union.shape is UnionShape.UNTAGGED:
        return head + "\n".join(_arms(union, "    return {}")) + "\n    return None\n"
    if union and union.shape is UnionShape.INTERNAL:
        return head + "\n".join(_internal(union)) + "\n    raise Misfit\n"
    lines = ["    o = {}; has = m.HasField"]
    if union and union.shape is UnionShape.ADJACENT:
        lines += _adjacent(union)
    for field in plan.fields:
        lines += _field(field)
    if plan.remainder:
        lines.append(f"    if has({plan.remainder.name!r}):")
        lines.append(f"        return merged(o, m.{plan.remainder.name}.json, FITS[{plan.name!r}])")
    return head + "\n".join(lines) + "\n    return o\n"


def _field(field: FieldPlan) -> Iterator[str]:
    """Code that puts the field into `o`, if it is there."""
    access, member = f"m.{field.name}", repr(field.member)
    if field.shape is Shape.DATA_URL:
        media_type = "m.media_type"
        yield f"    if has({field.name!r}):"
        yield f"        if {member} in o: raise Misfit"
        yield f"        o[{member}] = data_url({access}, {media_type})"
    elif field.shape is Shape.BASE64:
        yield f"    if has({field.name!r}):"
        yield f"        if {member} in o: raise Misfit"
        yield f"        o[{member}] = base64_text({access})"
    elif field.is_member:
        if field.repeated or field.is_map:
            yield f"    v = {access}"
            yield f"    if v: o[{member}] = {_value(field, 'v')}"
        elif field.presence:
            yield f"    if has({field.name!r}): o[{member}] = {_value(field, access)}"
        else:
            yield f"    v = {access}"
            yield f"    if v: o[{member}] = {_value(field, 'v')}"
        absent = _absent(field)
        if absent:
            yield f"    el{absent}" if absent.startswith("if") else f"    {absent}"


def _absent(field: FieldPlan) -> str:
    if field.required:
        return "else: raise Misfit"
    member = repr(field.member)
    if field.null_when is NullWhen.ABSENT:
        return f"else: o[{member}] = None"
    if field.null_when is NullWhen.USAGE_ASKED:
        return f"if asked: o[{member}] = None"
    return ""


def _value(field: FieldPlan, access: str) -> str:
    """The expression for a field that is there."""
    if field.is_map:
        item = _item(field, "w")
        key = "str(k)" if field.shape is Shape.INT_KEYS else "k"
        return f"{{{key}: {item} for k, w in {access}.items()}}"
    if field.repeated:
        if field.kind in ("string", "int32", "int64", "uint32", "bool"):
            return f"{access}[:]"
        return f"[{_item(field, 'e')} for e in {access}[:]]"
    return _item(field, access)


def _item(field: FieldPlan, access: str) -> str:
    if field.kind == "message":
        return f"from_{identifier(field.message or '')}({access}, asked)"
    if field.kind == "json":
        return f"json_fragment({access})"
    if field.kind == "bytes":
        return f"list({access})" if field.shape is Shape.BYTES_AS_INTS else f"base64_text({access})"
    if field.kind == "enum":
        names = {number: name for name, number in field.values}
        return f"enum_name({names!r}, {access})"
    if field.kind in ("double", "float"):
        return f"finite({access})"
    return access


def _arms(union: UnionPlan, use: str) -> Iterator[str]:
    yield f"    w = m.WhichOneof({union.name!r})"
    for arm in union.arms:
        yield f"    if w == {arm.name!r}:"
        yield "    " + use.format(_value(arm, f"m.{arm.name}"))
    if union.other:
        yield "    if w == 'other':"
        yield "    " + use.format("json_fragment(m.other)")


def _internal(union: UnionPlan) -> Iterator[str]:
    tag = union.tag
    yield f"    w = m.WhichOneof({union.name!r})"
    for arm in union.arms:
        value = _value(arm, f"m.{arm.name}")
        yield f"    if w == {arm.name!r}: return tagged({tag!r}, {arm.member!r}, {value})"
    if union.other:
        yield "    if w == 'other': return json_fragment(m.other)"


def _adjacent(union: UnionPlan) -> Iterator[str]:
    tag = union.tag
    yield f"    w = m.WhichOneof({union.name!r})"
    for number, arm in enumerate(union.arms):
        value = _value(arm, f"m.{arm.name}")
        yield f"    {'el' if number else ''}if w == {arm.name!r}:"
        yield f"        o[{tag!r}] = {arm.member!r}; o[{arm.member!r}] = {value}"
    if union.other:
        yield "    elif w == 'other':"
        yield "        if len(m.ListFields()) > 1: raise Misfit"
        yield "        return json_fragment(m.other)"
    yield "    else: raise Misfit"
