"""Items of many bulk streams, packed into requests of the size that an upstream takes.

Items that agree in all but their input share a request. While more keep coming it waits to be full,
some milliseconds at most. A packed request that is refused is sent again item by item, so that one
bad item fails alone. Knows no stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services import codec, embed_parts, errors
from services.body import Body
from services.call import Call
from services.parts import AT_ONCE, lanes, shared
from services.routing.table import RoutedModel

WAIT: Final = 0.003
"""Seconds after which a request is sent that nothing came to."""

LONGEST_WAIT: Final = 0.010
"""Seconds after which it is sent even if more keep coming."""

USUAL: Final = 32
"""Inputs of a request to a model of which no limit is known."""

MOST_BYTES: Final = 1024 * 1024
"""Of the inputs of one request, unless the model's own limit is less."""

_OF_ONE_CALL: Final = frozenset({"x-request-id", "traceparent", "tracestate", "baggage"})
"""Headers that may differ: a packed request has those of its first item."""

Part = Callable[[RoutedModel, Body, Call], Awaitable[Body]]
Key = tuple[str, bytes, tuple[tuple[str, str], ...]]


@dataclass(slots=True, eq=False)
class _Item:
    request: Body
    inputs: Sequence[Any]
    call: Call
    size: int
    done: asyncio.Future[Body]

    @property
    def weight(self) -> int:
        """Its share of a usage: characters or token ids."""
        return sum(map(len, self.inputs)) + len(self.inputs)


@dataclass(slots=True, eq=False)
class _Pack:
    """Items for one request, open for more until it is full or due."""

    key: Key
    items: list[_Item] = field(default_factory=list)
    inputs: int = 0
    size: int = 0
    since: float = 0.0
    seen: int = 0
    due: bool = False
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None

    @property
    def waited_for(self) -> list[_Item]:
        """Items whose streams have not left."""
        return [item for item in self.items if not item.done.done()]


@dataclass(slots=True, eq=False)
class _Line:
    """The packs of one model: open ones by key, full ones, and what is under way."""

    open: dict[Key, _Pack] = field(default_factory=dict)
    full: deque[_Pack] = field(default_factory=deque)
    requests: int = 0
    inputs: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether it can be forgotten."""
        return not self.requests and not self.open and not self.full

    def has_room(self, model: RoutedModel) -> bool:
        """Whether another request may go: as many inputs as some full ones have, at the places
        that the providers have."""
        slots = model.slots
        if slots is not None and self.requests >= slots:
            return False
        return self.inputs < lanes(model) * (model.batch_limit or USUAL)

    def next(self) -> _Pack | None:
        """The pack to send next: full ones first, then those that waited long enough."""
        if self.full:
            return self.full.popleft()
        for key, pack in self.open.items():
            if pack.due:
                return self.open.pop(key)
        return None

    def close(self, pack: _Pack) -> None:
        """Nothing more goes into it."""
        del self.open[pack.key]
        self.full.append(pack)


class Packer:
    """`part` sends a request on a call that is not accounted for; see `Dispatch.part`."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._lines: dict[RoutedModel, _Line] = {}

    def answer(self, model: RoutedModel, request: Body, call: Call) -> Awaitable[Body] | None:
        """The answer to an item; None if it cannot share a request: chats, inputs of other kinds,
        more inputs than fit."""
        kind, inputs = _inputs(request.get("input"))
        if request.get("messages") or not 0 < len(inputs) <= (model.batch_limit or USUAL):
            return None
        frame = {k: v for k, v in sorted(request.value().items()) if k != "input"}
        headers = sorted((k, v) for k, v in call.headers.items() if k not in _OF_ONE_CALL)
        done = asyncio.get_running_loop().create_future()
        size = sum(map(len, inputs))
        item = _Item(request, inputs, call, size, done)
        return self._wait(model, item, (kind, codec.dumps(frame), tuple(headers)))

    async def _wait(self, model: RoutedModel, item: _Item, key: Key) -> Body:
        line = self._lines.setdefault(model, _Line())
        pack = self._add(model, line, item, key)
        self._pump(model, line)
        try:
            return await item.done
        finally:
            # Its stream may have left: what nobody waits for any more is not sent, or ended.
            if not item.done.cancelled():
                item.done.exception()  # it was told, whoever hears it
            elif not pack.waited_for:
                self._drop(model, line, pack)

    def _add(self, model: RoutedModel, line: _Line, item: _Item, key: Key) -> _Pack:
        most, most_bytes = model.batch_limit or USUAL, model.max_batch_bytes or MOST_BYTES
        pack = line.open.get(key)
        if pack is not None and (
            pack.inputs + len(item.inputs) > most or pack.size + item.size > most_bytes
        ):
            line.close(pack)
            pack = None
        if pack is None:
            loop = asyncio.get_running_loop()
            pack = line.open[key] = _Pack(key, since=loop.time(), seen=1)
            pack.timer = loop.call_later(WAIT, self._due, model, line, pack)
        pack.items.append(item)
        pack.inputs += len(item.inputs)
        pack.size += item.size
        if pack.inputs >= most:
            line.close(pack)
        return pack

    def _due(self, model: RoutedModel, line: _Line, pack: _Pack) -> None:
        loop = asyncio.get_running_loop()
        left = pack.since + LONGEST_WAIT - loop.time()
        if len(pack.items) > pack.seen and left > 0:
            pack.seen = len(pack.items)
            pack.timer = loop.call_later(min(WAIT, left), self._due, model, line, pack)
            return
        pack.due = True
        self._pump(model, line)

    def _pump(self, model: RoutedModel, line: _Line) -> None:
        """Send what is to be sent, as far as the model's providers have room for it."""
        while line.has_room(model) and (pack := line.next()) is not None:
            line.requests += 1
            line.inputs += pack.inputs
            if pack.timer is not None:
                pack.timer.cancel()
            pack.task = asyncio.create_task(self._run(model, line, pack))

    async def _run(self, model: RoutedModel, line: _Line, pack: _Pack) -> None:
        try:
            if items := pack.waited_for:
                await self._send(model, items)
        finally:
            line.requests -= 1
            line.inputs -= pack.inputs
            for item in pack.waited_for:  # a fault of ours must not leave them waiting
                item.done.set_exception(errors.Internal())
            self._pump(model, line)
            if line.is_empty:
                self._lines.pop(model, None)

    def _drop(self, model: RoutedModel, line: _Line, pack: _Pack) -> None:
        if pack.task is not None:
            pack.task.cancel()
            return
        if pack.timer is not None:
            pack.timer.cancel()
        if line.open.get(pack.key) is pack:
            del line.open[pack.key]
        elif pack in line.full:
            line.full.remove(pack)
        if line.is_empty:
            self._lines.pop(model, None)

    async def _send(self, model: RoutedModel, items: Sequence[_Item]) -> None:
        """Answer the items by one request, or each by its own if that is refused."""
        request, call = _together(items), _carrier(items)
        try:
            answer = await self._part(model, request, call)
            found = _dealt(answer, items) if len(items) > 1 else [(answer, answer.get("usage"))]
        except errors.UpstreamInvalidRequest as error:
            if len(items) > 1:
                await self._one_by_one(model, items)
            else:
                _fail(items, error, call)
        except Exception as error:
            _fail(items, error, call)
        else:
            for item, (body, usage) in zip(items, found, strict=True):
                _tell(item, call)
                item.call.usage.tokens(usage)
                if not item.done.done():
                    item.done.set_result(body)

    async def _one_by_one(self, model: RoutedModel, items: Sequence[_Item]) -> None:
        todo = iter(items)

        async def lane() -> None:
            for item in todo:
                if not item.done.done():
                    await self._send(model, [item])

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(items))):
                group.create_task(lane())


def _inputs(given: Any) -> tuple[str, Sequence[Any]]:
    """The kind of an input, texts or token ids, and its single inputs; none of mixed or others."""
    if isinstance(given, str):
        return "texts", [given]
    if not isinstance(given, list) or not given:
        return "", []
    if all(isinstance(one, str) for one in given):
        return "texts", given
    if all(type(one) is int for one in given):
        return "tokens", [given]
    if all(isinstance(one, list) and all(type(n) is int for n in one) for one in given):
        return "tokens", given
    return "", []


def _together(items: Sequence[_Item]) -> Body:
    """One request with all inputs; an item that is alone goes as it came."""
    first = items[0].request
    if len(items) == 1:
        return first
    inputs = [one for item in items for one in item.inputs]
    return Body.from_value(first.message, first.value() | {"input": inputs})


def _carrier(items: Sequence[_Item]) -> Call:
    """The call of a request that answers several: it has until the last of them."""
    first = items[0].call
    ends = [item.call.deadline for item in items]
    known = [end for end in ends if end is not None]
    return Call(
        id=first.id,
        method=first.method,
        face=first.face,
        deadline=max(known) if len(known) == len(ends) else None,
        headers=first.headers,
        principal=first.principal,
        model=first.model,
        type=first.type,
        trace=next((item.call.trace for item in items if item.call.trace), False),
    )


def _dealt(answer: Body, items: Sequence[_Item]) -> list[tuple[Body, Any]]:
    """Each item's answer, and its share of the usage."""
    value = answer.value()
    vectors = iter(embed_parts.ordered(value, sum(len(item.inputs) for item in items)))
    usage = value.get("usage")
    shares = shared(usage, [item.weight for item in items])
    found = []
    for item, share in zip(items, shares, strict=True):
        data = [next(vectors) | {"index": place} for place in range(len(item.inputs))]
        told = {"data": data} if usage is None else {"data": data, "usage": share}
        found.append((Body.from_value("EmbedResponse", value | told), share))
    return found


def _fail(items: Sequence[_Item], error: Exception, call: Call) -> None:
    for item in items:
        _tell(item, call)
        if not item.done.done():
            item.done.set_exception(error)


def _tell(item: _Item, call: Call) -> None:
    """What an item's request went through, on the item's own call."""
    own = item.call
    own.attempts += call.attempts
    own.endpoint = call.endpoint or own.endpoint
    own.out.update(call.out)
    own.queued += call.queued
    own.upstream_seconds += call.upstream_seconds
    own.closed_at = call.closed_at
