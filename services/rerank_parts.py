"""A rerank request with more documents than an upstream takes, cut, and its answers joined.

Scores are of a query and one document, so those of different parts compare. Results name the
whole request's documents, are sorted, and top_n holds after the parts have come together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

from services.body import Body
from services.embed_parts import pieces_of
from services.parts import Parts, added
from services.routing.table import RoutedModel
from services.upstream.any_to_rerank import score

_COUNTED = ("usage", "meta")


def cut(request: Body, model: RoutedModel) -> Parts | None:
    """The request in parts that each fit; None if it does so itself."""
    documents = request.get("documents")
    if not isinstance(documents, list):
        return None
    pieces = list(pieces_of(documents, model.batch_limit, model.max_batch_bytes))
    if len(pieces) < 2:
        return None
    value = request.value()
    begins = [0, *accumulate(len(piece) for piece in pieces[:-1])]
    requests = [Body.from_value(request.message, _part(value, piece)) for piece in pieces]
    return Parts(requests, lambda answers: join(answers, begins, value.get("top_n")))


def _part(value: Mapping[str, Any], documents: Sequence[Any]) -> dict[str, Any]:
    """A part's best are asked for as the whole's are: none beyond them can be among those."""
    top_n = value.get("top_n")
    fits = not isinstance(top_n, int) or top_n <= len(documents)
    return {name: item for name, item in value.items() if name != "top_n" or fits} | {
        "documents": documents
    }


def join(answers: Sequence[Body], begins: Sequence[int], top_n: Any) -> Body:
    """One RerankResponse for those of the parts, whose documents begin there in the whole."""
    values = [answer.value() for answer in answers]
    results = [
        result | {"index": begin + result["index"]}
        for value, begin in zip(values, begins, strict=True)
        for result in value["results"]
    ]
    results.sort(key=score, reverse=True)
    if isinstance(top_n, int) and top_n > 0:
        results = results[:top_n]
    joined = values[0] | {"results": results}
    for name in _COUNTED:
        told = [value[name] for value in values if value.get(name) is not None]
        if told:
            joined[name] = reduce(added, told)
    return Body.from_value("RerankResponse", joined)
