"""One BulkEmbed stream: its open items, and their answers, in whatever order they finish.

No more is read than IN_FLIGHT items, or IN_FLIGHT_BYTES of them, beyond what the caller has taken.
An item that fails is answered with its status; only the stream's own faults end the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from services import codec, errors
from services.body import Body
from services.call import Call

IN_FLIGHT: Final = 256
"""Items of one stream that are open, or whose answers wait to be sent."""

IN_FLIGHT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of such items; a larger one is taken when no other is open."""

ErrorStatus = Callable[[errors.TetradError, str], bytes]
"""An error and the call's id to the bytes of a google.rpc.Status."""

_log = logging.getLogger("tetrad")


class Bulk:
    """One stream under way. `answer` answers an item, on a call of the item's own.

    items: answered so far, `failed` of them with an error.
    """

    def __init__(
        self,
        answer: Callable[[Body, Call], Awaitable[Body]],
        call: Call,
        error_status: ErrorStatus,
    ) -> None:
        self._answer_item = answer
        self._call = call
        self._error_status = error_status
        self._room = asyncio.Condition()
        self._open = self._bytes = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.items = self.failed = 0
        self._answers: asyncio.Queue[tuple[Body, int] | None] = asyncio.Queue()

    async def read(self, requests: AsyncIterator[Body]) -> None:
        """Start an item per request; end the answers when all are done, or with an error."""
        try:
            async for body in requests:
                size = len(body.wire())
                await self._take(size)
                self._start(body, size)
            await asyncio.gather(*self._tasks.values())
        finally:
            self._answers.put_nowait(None)

    async def _take(self, size: int) -> None:
        if self._is_full(size):
            async with self._room:
                await self._room.wait_for(lambda: not self._is_full(size))
        self._open += 1
        self._bytes += size

    def _is_full(self, size: int) -> bool:
        too_large = self._open > 0 and self._bytes + size > IN_FLIGHT_BYTES
        return self._open >= IN_FLIGHT or too_large

    def _start(self, body: Body, size: int) -> None:
        item = body.parsed()
        name: str = item.id
        problem = None
        if not name:
            problem = "required, but absent"
        elif name in self._tasks:
            problem = f"the id {name!r} is still open; give each open item an id of its own"
        if problem:
            raise errors.InvalidRequest(
                f"id: {problem}", param="id", violations=(errors.Violation("id", problem),)
            )
        wire = item.request.SerializeToString()
        self._tasks[name] = asyncio.create_task(self._answer(name, wire, size))

    async def _answer(self, name: str, wire: bytes, size: int) -> None:
        call = Call(
            id=self._call.id,
            method="Embed",
            face=self._call.face,
            deadline=self._call.deadline,
            headers=self._call.headers,
            principal=self._call.principal,
            item=True,
        )
        answer: Any = codec.message_class("BulkEmbedResponse")(id=name)
        try:
            result = await self._answer_item(Body.from_wire("EmbedRequest", wire), call)
            answer.response.MergeFromString(result.wire())
        except errors.TetradError as error:
            answer.error.MergeFromString(self._error_status(error, call.id))
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            # A fault of ours ends its own item, which must not stay without an answer.
            _log.error("%s an item of BulkEmbed failed", call.id, exc_info=error)
            answer.error.MergeFromString(self._error_status(errors.Internal(), call.id))
        finally:
            del self._tasks[name]
        self.items += 1
        self.failed += answer.HasField("error")
        self._call.model = self._call.model or call.model
        body = Body.from_wire("BulkEmbedResponse", answer.SerializeToString())
        self._answers.put_nowait((body, size))

    async def next_batch(self) -> list[Body]:
        """The answers that are there, at least one; [] after the last."""
        batch = [await self._answers.get()]
        while not self._answers.empty():
            batch.append(self._answers.get_nowait())
        if batch[-1] is None and len(batch) > 1:
            self._answers.put_nowait(None)
        answers = [one for one in batch if one is not None]
        self._open -= len(answers)
        self._bytes -= sum(size for _, size in answers)
        async with self._room:
            self._room.notify_all()
        return [body for body, _ in answers]

    async def cancel(self, reader: asyncio.Task[None]) -> None:
        """End what is still under way, and wait until it has ended."""
        tasks = [reader, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
