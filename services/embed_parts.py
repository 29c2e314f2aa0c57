"""An embeddings request with more inputs than an upstream takes, cut, and its answers joined.

Answers name their inputs by index: here they are put into the order of the whole request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from services import codec, errors
from services.body import Body
from services.parts import Parts, added
from services.routing.table import RoutedModel


def inputs(request: Body) -> list[Any] | None:
    """The inputs of a request that has several; None for a single one (a text, token ids)."""
    given = request.get("input")
    if not isinstance(given, list) or all(isinstance(one, int) for one in given):
        return None
    return given


def cut(request: Body, model: RoutedModel) -> Parts | None:
    """The request in parts that each fit; None if it does so itself."""
    given = inputs(request)
    if given is None:
        return None
    pieces = list(pieces_of(given, model.batch_limit, model.max_batch_bytes))
    if len(pieces) < 2:
        return None
    value = request.value()
    sizes = [len(piece) for piece in pieces]
    requests = [Body.from_value(request.message, value | {"input": piece}) for piece in pieces]
    return Parts(requests, lambda answers: join(answers, sizes))


def pieces_of(items: Sequence[Any], most: int | None, most_bytes: int | None) -> Iterator[Any]:
    """The items in their order, cut so that no piece has more than `most`, nor more than
    `most_bytes` of JSON unless it has only one."""
    begin = size = 0
    for place, item in enumerate(items):
        length = 0 if most_bytes is None else len(codec.dumps(item)) + 1
        full = most is not None and place - begin >= max(1, most)
        if place > begin and (full or (most_bytes is not None and size + length > most_bytes)):
            yield items[begin:place]
            begin, size = place, 0
        size += length
    yield items[begin:]


def join(answers: Sequence[Body], sizes: Sequence[int]) -> Body:
    """One EmbedResponse for those of the parts, which had so many inputs each.

    Raises UpstreamProtocol if one has not a vector for each of its inputs.
    """
    values = [answer.value() for answer in answers]
    data: list[Any] = []
    for value, size in zip(values, sizes, strict=True):
        begin = len(data)
        data += [item | {"index": begin + place} for place, item in enumerate(ordered(value, size))]
    told = [value["usage"] for value in values if value.get("usage") is not None]
    usage = {"usage": reduce(added, told)} if told else {}
    return Body.from_value("EmbedResponse", values[0] | {"data": data} | usage)


def ordered(value: Any, size: int) -> list[dict[str, Any]]:
    """The items of an answer in the order of its `size` inputs. Raises UpstreamProtocol."""
    items = value.get("data") if isinstance(value, dict) else None
    found: list[dict[str, Any] | None] = [None] * size
    for place, item in enumerate(items if isinstance(items, list) else ()):
        index = item.get("index", place) if isinstance(item, dict) else None
        if isinstance(index, int) and 0 <= index < size:
            found[index] = item
    whole = [item for item in found if item is not None]
    if len(whole) < size or len(items or ()) != size:
        raise errors.UpstreamProtocol(
            f"the upstream's answer has not one vector for each of {size} inputs", reached=True
        )
    return whole
