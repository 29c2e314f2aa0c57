"""Watches a caller while a service works for it: who hangs up has the work cancelled (G5, G6).

Works like asyncio.timeout: the task's own cancellation, asked for here, ends here; any other
goes on its way.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from gateway_http.asgi import Receive, Scope
from gateway_http.protocol import PEER, Peer


class HungUp(Exception):
    """The caller is gone: there is nobody to answer."""


class Caller:
    """A context around the awaits of one call, entered after its body was read.

    When it is left, `gone` tells whether the caller hung up: then there is nobody to answer.
    Entering raises HungUp if that has happened already.
    """

    __slots__ = ("_cancelling", "_peer", "_receive", "_task", "_watcher", "gone")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.gone = False
        self._peer: Peer | None = scope.get("extensions", {}).get(PEER)
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine of an ASGI server runs in a task)
        self._task = task
        self._cancelling = task.cancelling()
        if self._peer is not None:
            if self._peer.lost:
                raise HungUp
            self._peer.watch(self.give_up)
        else:
            self._watcher = asyncio.create_task(self._watch())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._peer is not None:
            self._peer.unwatch()
        if self._watcher is not None:
            self._watcher.cancel()
        if not self.gone:
            return False
        asked_by_others = self._task.uncancel() > self._cancelling
        return kind is not None and issubclass(kind, asyncio.CancelledError) and not asked_by_others

    def give_up(self) -> None:
        """Cancel the work: the caller is gone, or as good as gone."""
        if not self.gone:
            self.gone = True
            self._task.cancel()

    def close_after_answer(self) -> None:
        """Close the connection once the answer is complete, where the server can do so."""
        if self._peer is not None:
            self._peer.close_after_answer()

    def abort(self) -> None:
        """Close the connection now, where the server can do so."""
        if self._peer is not None:
            self._peer.abort()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.give_up()
