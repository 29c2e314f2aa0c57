"""Lists the JSON that the descriptors make, one line a member: the guard of the REST face.

`buf breaking` does not see a changed option; this listing does. Lines may be added, never changed
or removed. `python -m services.codec.surface` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.codec.plan import (
    FieldPlan,
    MessagePlan,
    NullWhen,
    Shape,
    message_names,
    plan,
    service_plans,
)


def lines() -> list[str]:
    """The surface, sorted: members, arms of unions, and REST routes."""
    found = [line for name in message_names() for line in _message(plan(name))]
    found += [line for service in service_plans() for line in _routes(service.name)]
    return sorted(found)


def _message(this: MessagePlan) -> Iterator[str]:
    for field in this.fields:
        if field.shape is Shape.REMAINDER:
            yield f"{this.name}.* any"
        elif field.shape is not Shape.HIDDEN:
            yield f"{this.name}.{field.member} {_type(field)}"
    if this.union:
        tag = f" by {this.union.tag}" if this.union.tag else ""
        shape = f"{this.union.shape.name.lower()}{tag}"
        for arm in this.union.arms:
            yield f"{this.name}<{arm.member}> {_type(arm)} {shape}"
        if this.union.other:
            yield f"{this.name}<*> any {shape}"


def _type(field: FieldPlan) -> str:
    kind = field.message if field.kind == "message" else field.kind
    if field.values:
        kind = "|".join(name for name, _ in field.values)
    if field.key_kind:
        kind = f"map {field.key_kind} {kind}"
    words = [f"list {kind}" if field.repeated else str(kind)]
    if field.shape is not Shape.PLAIN:
        words.append(field.shape.name.lower())
    if field.null_when is not NullWhen.NEVER:
        words.append(f"null_when_{field.null_when.name.lower()}")
    if field.required:
        words.append("required")
    if field.member != field.name:
        words.append(f"renamed_from {field.name}")
    return " ".join(words)


def _routes(service: str) -> Iterator[str]:
    for method in next(s for s in service_plans() if s.name == service).methods:
        if method.rest is None:
            continue
        for route in method.rest.routes:
            words = [route.verb, route.path, f"{service}.{method.name}", method.rest.body.name]
            words += [f"{name}={value}" for name, value in route.constants]
            if route.dialect:
                words.append(f"dialect={route.dialect}")
            if method.rest.stream_method:
                words.append(f"{method.rest.stream_member}={method.rest.stream_method}")
            if method.rest.response_member:
                words.append(f"answer={method.rest.response_member}")
            yield " ".join(words)


if __name__ == "__main__":
    print("\n".join(lines()))
