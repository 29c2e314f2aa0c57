"""Hypothesis strategies for bodies of the contract, made from the plans.

Members are absent, right, null or of another type; unknown ones stand at every level.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from hypothesis import strategies as st

from services import codec
from services.codec import FieldPlan, MessagePlan
from services.codec.plan import Shape, UnionPlan, UnionShape

TOP = [
    "ChatRequest",
    "ChatResponse",
    "StreamChatResponse",
    "EmbedRequest",
    "EmbedResponse",
    "RerankRequest",
    "RerankResponse",
    "TranscribeRequest",
    "TranscribeResponse",
    "StreamTranscribeResponse",
    "ListModelsResponse",
    "Model",
]
DEPTH = 5

# Names that a codec might trip over: ours, protobuf's, those that need escapes.
NAMES = st.sampled_from(
    ["extra", "other", "@type", "", "$ref", "json", "__proto__", "value", "é\n", 'a"b', "\\", "😀"]
) | st.text(max_size=3)
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.sampled_from([0, -1, 2**31, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64])
    | st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
ANY = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3)
)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=8),
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    "json": ANY.filter(lambda value: value is not None),
}
VECTORS = (
    st.lists(FLOATS | st.integers(-128, 255), max_size=4)
    | st.lists(FLOATS, max_size=4).map(
        lambda numbers: base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    )
    | st.lists(
        st.fixed_dictionaries({"index": st.integers(0, 2**32 - 1), "value": FLOATS}), max_size=3
    )
)


@st.composite
def bodies(draw: st.DrawFn, name: str, depth: int = DEPTH) -> Any:
    """JSON of a message: some of its members, most of them right."""
    plan = codec.plan(name)
    union = plan.union
    if union and union.shape is UnionShape.VECTOR:
        return draw(VECTORS | ANY)
    if union and union.shape is UnionShape.UNTAGGED:
        arm = draw(st.sampled_from(union.arms))
        return draw(ANY) if draw(st.integers(0, 5)) == 0 else _fitting(draw, arm, depth)
    if plan.flat:
        return _fitting(draw, plan.flat, depth)
    value: dict[str, Any] = {}
    if union:
        value |= _tagged(draw, union, depth)
    value |= _members(draw, plan, depth)
    value |= draw(st.dictionaries(NAMES, ANY, max_size=2))
    return {member: value[member] for member in draw(st.permutations(list(value)))}


def _tagged(draw: st.DrawFn, union: UnionPlan, depth: int) -> dict[str, Any]:
    arm = draw(st.sampled_from(union.arms))
    inner = _fitting(draw, arm, depth)
    if draw(st.integers(0, 7)) == 0:
        return {union.tag: draw(ANY)}
    if union.shape is UnionShape.INTERNAL:
        return {**inner, union.tag: arm.member}
    return {union.tag: arm.member, arm.member: inner}


def _members(draw: st.DrawFn, plan: MessagePlan, depth: int) -> dict[str, Any]:
    value = {}
    some = draw(st.lists(st.sampled_from(plan.members), max_size=5)) if plan.members else []
    for one in {*some, *(one for one in plan.members if one.required)}:
        wrong = draw(st.integers(0, 7)) if not one.required else 7
        if wrong == 0:
            value[one.member] = draw(ANY)
        elif wrong == 1:
            value[one.member] = None
        elif depth or one.kind != "message":
            value[one.member] = _fitting(draw, one, depth)
        if one.required and value[one.member] is None:
            value[one.member] = ""
    return value


def _fitting(draw: st.DrawFn, one: FieldPlan, depth: int) -> Any:
    if one.is_map:
        keys = st.integers(-(2**63), 2**63 - 1).map(str)
        names = keys if one.shape is Shape.INT_KEYS else NAMES
        return {name: _item(draw, one, depth) for name in draw(st.lists(names, max_size=3))}
    if one.repeated:
        least = 1 if one.required else 0
        count = draw(st.integers(least, 2))
        if one.shape is Shape.ONE_OR_MANY and draw(st.booleans()):
            return _item(draw, one, depth)
        return [_item(draw, one, depth) for _ in range(count)]
    return _item(draw, one, depth)


def _item(draw: st.DrawFn, one: FieldPlan, depth: int) -> Any:
    if one.kind == "message":
        return draw(bodies(one.message or "", max(depth - 1, 0))) if depth else {}
    if one.kind == "enum":
        return draw(st.sampled_from([name for name, _ in one.values]))
    if one.shape is Shape.BYTES_AS_INTS:
        return list(draw(st.binary(max_size=3)))
    return draw(SCALARS[one.kind])
