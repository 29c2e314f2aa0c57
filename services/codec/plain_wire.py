"""Writes the Python source that reads wire bytes into what orjson prints, one function a message.

A function takes the whole wire, where the message begins and ends in it, and whether usage was
asked for. It knows plain wire only: tags of the contract, nothing to merge, no negative numbers, no
maps. All else raises one of plain_leaves.UNREAD; then protobuf's parser and `from_wire` decide.
Only text is made here; `compiled` turns it into functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from services.codec.plan import FieldPlan, MessagePlan, NullWhen, Shape, UnionPlan, UnionShape
from services.codec.plan import plan as message_plan
from services.codec.to_wire import BYTES, FIXED64, VARINT, identifier

_REFUSE = "raise Unplain"
# `n` is a number's first byte; two bytes, such as most sizes above 127 have, need no call.
_MORE = "n, i = (n - 128 + (w[i] << 7), i + 1) if 0 < w[i] < 128 else more(n, w, i)"
_LIMITS = {"int32": 2**31 - 1, "int64": 2**63 - 1, "uint32": 2**32 - 1}

# Code before the value at `w[i:j]`, and the expression for it.
_SIZED = {
    "string": "w[i:j].decode()",
    "json": "fragment_at(w, i, j)",
    "bytes": "base64_text(w[i:j])",
}


class _Frame(NamedTuple):
    """Wire type of a field, and the code before and after its branch."""

    wire_type: int
    before: list[str]
    after: list[str]


def function(plan: MessagePlan) -> str:
    """Source of the message's function."""
    union = plan.union
    head = f"def read_{identifier(plan.name)}(w, i, end, asked{_depth(plan)}):\n"
    if union and union.shape is UnionShape.VECTOR:
        body: Iterable[str] = ["return vector_at(w, i, end)"]
    elif union and union.shape is UnionShape.INTERNAL:
        body = [_REFUSE]
    elif union and union.shape is UnionShape.UNTAGGED:
        body = _untagged(plan, union)
    elif plan.flat:
        body = _flat(plan, plan.flat)
    else:
        body = _object(plan)
    return head + "".join(f"    {line}\n" for line in body)


def _depth(plan: MessagePlan) -> str:
    return ", depth=0" if any(_is_recursive(plan, field) for field in plan.fields) else ""


def _is_recursive(plan: MessagePlan, field: FieldPlan) -> bool:
    return field.kind == "message" and field.message == plan.name


def _is_mostly_text(field: FieldPlan) -> bool:
    """Whether the value is a union whose field 1 is a string: content, that is. Short ones are read
    where they stand."""
    union = message_plan(field.message or "").union
    if union is None or union.shape is not UnionShape.UNTAGGED:
        return False
    return any(arm.number == 1 and arm.kind == "string" and not arm.repeated for arm in union.arms)


def _is_preset(field: FieldPlan) -> bool:
    """Whether the member is null until it comes."""
    return field.null_when is NullWhen.ABSENT and not field.repeated


def _object(plan: MessagePlan) -> Iterator[str]:
    """A dict, member by member as they come."""
    nulls = [f"{field.member!r}: None" for field in plan.members if _is_preset(field)]
    yield f"o = {{{', '.join(nulls)}}}"
    if plan.remainder:
        yield "rest = None"
    branches = []
    union = plan.union if plan.union and plan.union.shape is UnionShape.ADJACENT else None
    for field in plan.fields:
        if field.exclusive:
            continue  # it would clear others that stood before it
        if field.is_member:
            branches.append((field, list(_member(plan, field))))
        elif field is plan.remainder:
            branches.append((field, ["rest = text_at(w, i, j)"]))
    for arm in union.arms if union else ():
        assert union is not None  # noqa: S101  (it has arms)
        code = [
            f"if {union.tag!r} in o: {_REFUSE}",
            f"o[{union.tag!r}] = {arm.member!r}; o[{arm.member!r}] = {_value(plan, arm)}",
        ]
        branches.append((arm, code))
    if union and union.other:
        more = " or rest is not None" if plan.remainder else ""
        code = [f"if o or j != end{more}: {_REFUSE}", "return fragment_at(w, i, j)"]
        branches.append((union.other, code))
    yield "while i < end:"
    for line in _branches(branches):
        yield f"    {line}"
    yield f"if i != end: {_REFUSE}"
    needed = [field.member for field in plan.members if field.required]
    for member in [*needed, union.tag] if union else needed:
        yield f"if {member!r} not in o: {_REFUSE}"
    for field in plan.members:
        if field.null_when is not NullWhen.NEVER and not _is_preset(field):
            asked = "asked and " if field.null_when is NullWhen.USAGE_ASKED else ""
            yield f"if {asked}{field.member!r} not in o: o[{field.member!r}] = None"
    if plan.remainder:
        yield f"if rest is not None: return merged(o, rest.decode(), FITS[{plan.name!r}])"
    yield "return o"


def _flat(plan: MessagePlan, field: FieldPlan) -> Iterator[str]:
    """The list of the only field."""
    code = f"o += {_ints(field)}" if field.kind in _LIMITS else f"o.append({_value(plan, field)})"
    yield "o = []"
    yield "while i < end:"
    for line in _branches([(field, [code])]):
        yield f"    {line}"
    yield f"if i != end: {_REFUSE}"
    yield "return o"


def _untagged(plan: MessagePlan, union: UnionPlan) -> Iterator[str]:
    """Exactly one arm, which is the whole."""
    branches = [(arm, [f"o = {_value(plan, arm)}"]) for arm in union.arms]
    if union.other:
        branches.append((union.other, ["o = fragment_at(w, i, j)"]))
    yield from _branches(branches)
    yield f"if i != end: {_REFUSE}"
    yield "return o"


def _branches(branches: list[tuple[FieldPlan, list[str]]]) -> Iterator[str]:
    """Code for one field at `i`: reads its tag, does its branch, leaves `i` behind it.

    In a branch `n` is the number or the size, and `w[i:j]` the value of what has a size.
    """
    plain = []
    for field, code in branches:
        frame = _frame(field)
        if frame is not None:
            after = () if code[-1].startswith("return ") else frame.after
            plain.append((_tag(field.number, frame.wire_type), [*frame.before, *code, *after]))
    plain.sort()
    short = _chain([branch for branch in plain if branch[0] < 128])
    longer = _chain([branch for branch in plain if branch[0] > 127])
    otherwise = [_REFUSE]
    if longer:  # what was taken for the value was the tag's second byte
        otherwise = ["t |= n << 8; n = w[i]; i += 1", *longer, f"    {_REFUSE}"]
    yield "t = w[i]; n = w[i + 1]; i += 2"
    yield from short
    yield from (f"    {line}" if short else line for line in otherwise)


def _chain(branches: list[tuple[int, list[str]]]) -> list[str]:
    """if ...: elif ...: else: whose last body is still to come; nothing for nothing."""
    lines: list[str] = []
    for tag, code in branches:
        lines.append(f"{'elif' if lines else 'if'} t == {tag}:")
        lines += [f"    {line}" for line in code]
    return [*lines, "else:"] if lines else []


def _tag(number: int, wire_type: int) -> int:
    """The tag's one or two bytes as `t` has them."""
    tag = number << 3 | wire_type
    return tag if tag < 128 else tag & 0x7F | 0x80 | tag >> 7 << 8


def _frame(field: FieldPlan) -> _Frame | None:
    """The frame of a field's branch; None if it is never plain."""
    if field.is_map or (field.repeated and field.kind in ("bool", "double", "float", "enum")):
        return None
    if field.kind in (*_SIZED, "message") or field.repeated:
        return _Frame(BYTES, [f"if n > 127: {_MORE}", "j = i + n"], ["i = j"])
    if field.kind == "double":
        read = ["v = double_at(w, i - 1)[0]", f"if v - v != 0: {_REFUSE}"]
        return _Frame(FIXED64, read, ["i += 7"])
    if field.kind in ("enum", "int64"):
        return _Frame(VARINT, [f"if n > 127: {_MORE}"], [])
    if field.kind == "bool":
        return _Frame(VARINT, [f"if n > 1: {_REFUSE}"], [])
    if field.kind in _LIMITS:
        over = f"    if n > {_LIMITS[field.kind]}: {_REFUSE}"
        return _Frame(VARINT, ["if n > 127:", f"    {_MORE}", over], [])
    return None


def _member(plan: MessagePlan, field: FieldPlan) -> Iterator[str]:
    """Code that puts a field into `o`. Absent and zero are one without presence."""
    member = repr(field.member)
    if field.repeated and field.kind in _LIMITS:
        yield f"if {member} in o or not n: {_REFUSE}"
        yield f"o[{member}] = {_ints(field)}"
        return
    value = _value(plan, field)
    if field.repeated:
        yield f"v = {value}"
        yield f"if {member} in o: o[{member}].append(v)"
        yield f"else: o[{member}] = [v]"
        return
    if not field.presence or field.kind == "enum":
        yield f"if not {'v' if field.kind == 'double' else 'n'}: {_REFUSE}"
    if field.kind == "message":  # a second one is merged into the first
        there = f"o[{member}] is not None" if _is_preset(field) else f"{member} in o"
        yield f"if {there}: {_REFUSE}"
    yield f"o[{member}] = {value}"


def _ints(field: FieldPlan) -> str:
    return f"ints_at(w, i, j, {_LIMITS[field.kind]})"


def _value(plan: MessagePlan, field: FieldPlan) -> str:
    """The expression for one value."""
    if field.kind == "message":
        name = identifier(field.message or "")
        if _is_recursive(plan, field):
            return f"read_{name}(w, i, j, asked, deeper(depth))"
        if _is_mostly_text(field):
            text = "w[i + 2:j].decode() if n < 130 and w[i] == 10 and w[i + 1] == n - 2"
            return f"{text} else read_{name}(w, i, j, asked)"
        return f"read_{name}(w, i, j, asked)"
    if field.shape is Shape.BYTES_AS_INTS:
        return "list(w[i:j])"
    if field.kind in _SIZED:
        return _SIZED[field.kind]
    if field.kind == "enum":
        names = {number: name for name, number in field.values}
        return f"enum_name({names!r}, n)"
    return {"double": "v", "bool": "n == 1"}.get(field.kind, "n")
