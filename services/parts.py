"""One call as several requests: its parts run at once over a model's providers, and are one call.

Limits, record and log see one call; each part has attempts of its own. The first part that fails
for good ends the others, and so does whoever cancels the call. Knows no operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Final

from services import errors
from services.body import Body
from services.call import Call
from services.routing.table import RoutedModel
from services.usage import UsageRecord

AT_ONCE: Final = 4
"""Parts of one call at one provider at the same time, if it takes as many."""

_COUNTS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "audio_seconds",
    "documents",
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The requests of a call's parts, and how their answers, in the same order, become one."""

    requests: Sequence[Body]
    join: Callable[[Sequence[Body]], Body]


Cut = Callable[[RoutedModel], Parts | None]
"""A request's parts at a model; None if it fits as it is."""


async def together(
    parts: Parts, model: RoutedModel, call: Call, one: Callable[[Body, Call], Awaitable[Body]]
) -> Body:
    """The joined answer. `one` answers a part on a call of its own. Raises what the first part to
    fail raised; what was used until then is on `call`."""
    answers: list[Body | None] = [None] * len(parts.requests)
    todo = iter(enumerate(parts.requests))
    used: list[list[Call]] = []

    async def lane(calls: list[Call]) -> None:
        for place, request in todo:
            calls.append(_share(call))
            answers[place] = await one(request, calls[-1])

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(parts.requests), lanes(model))):
                used.append([])
                group.create_task(lane(used[-1]))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        _add_up(call, used)
    done = [answer for answer in answers if answer is not None]
    if len(done) < len(answers):
        raise errors.Internal("a part of the call was given up")
    return parts.join(done)


def added(first: Any, second: Any) -> Any:
    """Two usage members as one: numbers add up, all else is the first's."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {
            name: added(first[name], second[name]) if name in first and name in second else value
            for name, value in {**second, **first}.items()
        }
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in (first, second))
    return first + second if numbers else first


def shared(usage: Any, weights: Sequence[int]) -> list[Any]:
    """A usage member as shares by weight: whole numbers, which add up to it again."""
    total = max(1, sum(weights))
    ends = [0, *accumulate(weights)]
    return [_share_of(usage, begin, end, total) for begin, end in pairwise(ends)]


def _share_of(value: Any, begin: int, end: int, total: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _share_of(item, begin, end, total) for name, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return value * end // total - value * begin // total
    return value * (end - begin) / total if isinstance(value, float) else value


def lanes(model: RoutedModel) -> int:
    """How many requests to a model are under way at once on behalf of one caller."""
    places = (AT_ONCE if r.max_concurrency is None else r.max_concurrency for r in model.routes)
    return max(1, sum(min(AT_ONCE, most) for most in places))


def _share(call: Call) -> Call:
    """A call of a part's own, with the same caller, deadline and headers."""
    return replace(
        call,
        usage=UsageRecord(),
        out={},
        attempts=0,
        queued=0.0,
        upstream_seconds=0.0,
        _outer=None,
    )


def _add_up(call: Call, lanes: Iterable[Sequence[Call]]) -> None:
    """What the parts went through, on their call. Times are those of the longest lane, attempts
    one and those that parts were tried again with."""
    shares = [share for lane in lanes for share in lane]
    for name in _COUNTS:
        known = [n for share in shares if (n := getattr(share.usage, name)) is not None]
        if known:
            setattr(call.usage, name, sum(known))
    if any(share.usage.source == "upstream" for share in shares):
        call.usage.source = "upstream"
    again = sum(max(0, share.attempts - 1) for share in shares)
    call.attempts += again + any(share.attempts for share in shares)
    call.queued += max((sum(s.queued for s in lane) for lane in lanes), default=0.0)
    call.upstream_seconds += max(
        (sum(s.upstream_seconds for s in lane) for lane in lanes), default=0.0
    )
    call.closed_at = max((s.closed_at for s in shares if s.closed_at is not None), default=None)
    call.left_at = call.left_at or min(
        (s.left_at for s in shares if s.left_at is not None), default=None
    )
    asked = dict.fromkeys(share.endpoint for share in shares if share.endpoint)
    for share in reversed(shares):
        call.out.update(share.out)
    if asked:
        call.endpoint = next(iter(asked))
        call.out["x-tetrad-endpoint"] = ", ".join(asked)
