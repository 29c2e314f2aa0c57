"""grpc.health.v1: a status per service and "", and watches that end when the server drains.

grpc's own servicer keeps watches open until the server is torn down, which holds up the drain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Request: TypeAlias = health_pb2.HealthCheckRequest
Status: TypeAlias = health_pb2.HealthCheckResponse
Context: TypeAlias = "grpc.aio.ServicerContext[Request, Status]"


class Health(health_pb2_grpc.HealthServicer):
    """NOT_SERVING until `serving` is called, and for good once `end` was."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()

    def serving(self) -> None:
        """All services answer."""
        if not self._ended:
            self._serving = True
            self._tell()

    def end(self) -> None:
        """No service answers any more: watches say so and end."""
        self._serving, self._ended = False, True
        self._tell()

    async def Check(self, request: Request, context: Context) -> Status:
        """The status now. NOT_FOUND for a name that is none of ours."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return Status(status=self._status(request.service))

    async def Watch(self, request: Request, context: Context) -> None:
        """The status now and at each change, to the end of the server's life."""
        told: int | None = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                await context.write(Status(status=status))
                told = status
            elif self._ended:
                return
            else:
                await changed.wait()

    def _status(self, name: str) -> Any:
        if name not in self._names:
            return Status.SERVICE_UNKNOWN
        return Status.SERVING if self._serving else Status.NOT_SERVING

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
