"""Calls and attempts, made directly, for the tests of traces."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

from services.auth import Principal
from services.call import Call
from services.telemetry.trace import Trace
from services.telemetry.traces import Span, Traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
NOT_SAMPLED = f"00-{TRACE}-{PARENT}-00"


def new(method: str = "Chat", traceparent: str = "", **headers: str) -> Call:
    """A call that begins."""
    given = {"x-request-id": "req_1", **headers}
    if traceparent:
        given["traceparent"] = traceparent
    return Call(
        "req_1", method, "grpc", headers=given, principal=Principal("indexer"), model="chatty"
    )


def route(host: str = "h:8000", kind: str = "vllm", model: str = "qwen3-8b") -> Any:
    """A provider, as routing knows it."""
    endpoint = SimpleNamespace(url=f"http://{host}", kind=kind, model=model)
    return SimpleNamespace(name=f"{kind} {host}", adapter=SimpleNamespace(endpoint=endpoint))


def attempt(call: Call, error: BaseException | None = None, at: Any = None) -> None:
    """One attempt from its begin to its end, as `Attempts` tells of it."""
    call.attempts += 1
    at = at or route()
    call.endpoint = at.name
    began = time.monotonic()
    if call.trace:
        call.trace.attempt(call)
        call.trace.attempted(call, at, began, error)


def end(call: Call, outcome: str = "OK", error: str = "", **usage: Any) -> Call:
    """The call has ended."""
    for name, value in usage.items():
        setattr(call.usage, name, value)
    call.usage.close(outcome)
    call.error = error
    call.ended_at = time.monotonic()
    return call


def traces(ratio: float = 1.0, seed: int = 7) -> tuple[Traces, list[Span]]:
    """Traces, and where their spans go."""
    made: list[Span] = []
    return Traces(ratio, made.extend, Random(seed)), made  # noqa: S311


def traced(call: Call) -> Trace:
    """The call's trace; it must be sampled."""
    assert call.trace
    return call.trace


def told(span: Span) -> dict[str, Any]:
    """A span's attributes."""
    names = (*span.kind.fixed, *span.kind.own)
    pairs: Sequence[tuple[str, Any]] = [*zip(names, (*span.fixed, *span.own), strict=True)]
    return {name: value for name, value in pairs if value is not None}
