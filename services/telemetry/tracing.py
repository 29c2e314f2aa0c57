"""Traces of a process: which calls are sampled, and the sender of their spans, put together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from random import Random
from typing import NamedTuple
from uuid import uuid4

from services.telemetry import trace_environ
from services.telemetry.trace_export import Post, TraceExport
from services.telemetry.traces import Traces


class Tracing(NamedTuple):
    """`traces` are both ends of a call; `export` is to be started, and closed after all calls."""

    traces: Traces
    export: TraceExport


def tracing(
    endpoint: str,
    ratio: float,
    post: Post,
    random: Random,
    environ: Mapping[str, str] = os.environ,
) -> Tracing:
    """Sends spans to `endpoint` by `post`. ratio: share of the traces that begin here."""
    export = TraceExport(
        endpoint,
        post,
        random,
        headers=trace_environ.headers(environ),
        resource=trace_environ.resource(environ, str(uuid4())),
    )
    return Tracing(Traces(ratio, export.put, random), export)
