"""EmbedService: vectors by models of type text-embeddings-inference."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any

import numpy as np

from services import codec, errors
from services.body import Body
from services.call import Call
from services.dispatch import Dispatch

TYPE = "text-embeddings-inference"

IN_FLIGHT = 32
"""Items of one bulk that are at an upstream or wait to be sent; beyond it nothing more is read."""

ErrorStatus = Callable[[errors.TetradError, str], bytes]
"""An error and the call's id to the bytes of a google.rpc.Status."""

_OTHER_DTYPES = ("embed_dtype", "output_dtype", "endianness")
"""Members by which a caller asks for other numbers than little-endian float32."""

_log = logging.getLogger("tetrad")


class EmbedService:
    """Embeds inputs. Every method raises errors.TetradError only."""

    def __init__(self, dispatch: Dispatch, error_status: ErrorStatus) -> None:
        self._dispatch = dispatch
        self._error_status = error_status

    async def embed(self, request: Body, call: Call) -> Body:
        """EmbedRequest to EmbedResponse."""
        if request.get("input") is None and not request.get("messages"):
            raise errors.InvalidRequest(
                "input: required, but absent",
                param="input",
                violations=(errors.Violation("input", "required, but absent"),),
            )
        return await self._dispatch.unary(
            TYPE, request, call, lambda adapter: partial(self._embed, adapter)
        )

    async def _embed(self, adapter: Any, request: Body, call: Call) -> Body:
        """One attempt. Raises WrongDimension if its vectors are not as long as other providers'."""
        answer: Body = await adapter.embed(request, call)
        dimension = None if request.get("dimensions") else _dimension(answer, request)
        if dimension is None:
            return answer
        model = self._dispatch.router.table.resolve(TYPE, call.model, call.principal)
        other = model.other_dimension(adapter, dimension)
        if other is not None:
            raise errors.WrongDimension(
                f"{adapter.endpoint.name} answers vectors of {dimension} dimensions, another "
                f"provider of `{model.name}` answers {other}",
                metadata={"dimension": str(dimension), "expected": str(other)},
                reached=True,
            )
        return answer

    async def bulk_embed(
        self, requests: AsyncIterator[Body], call: Call
    ) -> AsyncGenerator[list[Body], None]:
        """BulkEmbedRequests to BulkEmbedResponses as they finish, in batches.

        An item that fails is answered with its status. A duplicate open id ends the stream.
        """
        call.usage.close("OK")  # it has no record: its items have theirs
        bulk = _Bulk(self, call, self._error_status)
        reader = asyncio.create_task(bulk.read(requests))
        try:
            while batch := await bulk.next_batch():
                yield batch
            await reader
        finally:
            await bulk.cancel(reader)


def _dimension(answer: Body, request: Body) -> int | None:
    """The length of an answer's first vector; None where it is not one of plain numbers."""
    data = answer.get("data")
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    if isinstance(vector, np.ndarray):
        return vector.size or None
    if isinstance(vector, list):
        return len(vector) if vector and isinstance(vector[0], int | float) else None
    if not isinstance(vector, codec.Packed) or request.get("encoding_format") != "base64":
        return None
    if any(request.get(name) for name in _OTHER_DTYPES):
        return None
    return len(vector.data) // codec.FLOAT32.itemsize


class _Bulk:
    """One bulk under way: ids that are open, tasks, and answers that wait to be sent."""

    def __init__(self, service: EmbedService, call: Call, error_status: ErrorStatus) -> None:
        self._service = service
        self._call = call
        self._error_status = error_status
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._answers: asyncio.Queue[Body | None] = asyncio.Queue()

    async def read(self, requests: AsyncIterator[Body]) -> None:
        """Start an item per request; end the answers when all are done, or with an error."""
        try:
            async for body in requests:
                await self._slots.acquire()
                self._start(body)
            await asyncio.gather(*self._tasks.values())
        finally:
            self._answers.put_nowait(None)

    def _start(self, body: Body) -> None:
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
        self._tasks[name] = asyncio.create_task(self._answer(name, wire))

    async def _answer(self, name: str, wire: bytes) -> None:
        call = Call(
            id=self._call.id,
            method="Embed",
            face=self._call.face,
            deadline=self._call.deadline,
            headers=self._call.headers,
            principal=self._call.principal,
        )
        answer: Any = codec.message_class("BulkEmbedResponse")(id=name)
        try:
            result = await self._service.embed(Body.from_wire("EmbedRequest", wire), call)
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
        self._answers.put_nowait(Body.from_wire("BulkEmbedResponse", answer.SerializeToString()))

    async def next_batch(self) -> list[Body]:
        """The answers that are there, at least one; [] after the last."""
        batch = [await self._answers.get()]
        while not self._answers.empty():
            batch.append(self._answers.get_nowait())
        ended = batch[-1] is None
        if ended and len(batch) > 1:
            self._answers.put_nowait(None)
        answers = [body for body in batch if body is not None]
        for _ in answers:
            self._slots.release()
        return answers

    async def cancel(self, reader: asyncio.Task[None]) -> None:
        """End what is still under way, and wait until it has ended."""
        tasks = [reader, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
