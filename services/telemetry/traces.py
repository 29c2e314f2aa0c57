"""Which calls are sampled, and the spans that one of them becomes once it has ended.

The caller's decision holds where it sent one, else the configured share of traces is taken. A call
costs nothing more while it is not sampled. No prompt and no answer ever stands in a span. Names are
OpenTelemetry's conventions for generative AI; what those lack is called tetrad.*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from services.call import Call
from services.errors import Reason
from services.telemetry.catalogue import PROVIDER
from services.telemetry.metrics import OPERATIONS, OTHER, Operation
from services.telemetry.trace import TRACEPARENT, TRACESTATE, Attempted, Trace

Value = str | int | float | bool | None
"""Of an attribute; None leaves it out."""


class Kind(NamedTuple):
    """A kind of span: its number in OTLP, and its attributes. Those that take few values (`fixed`),
    each of one type, are encoded once for each combination; the others (`own`) each time."""

    number: int
    fixed: tuple[str, ...]
    own: tuple[str, ...]


SERVER: Final = Kind(
    2,
    (
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.stream",
        "error.type",
        "tetrad.method",
        "tetrad.face",
        "tetrad.key",
        "tetrad.endpoint",
        "tetrad.attempts",
        "tetrad.outcome",
        "tetrad.error",
        "tetrad.usage.source",
    ),
    (
        "tetrad.request.id",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.response.time_to_first_chunk",
        "tetrad.queued_seconds",
        "tetrad.audio_seconds",
        "tetrad.documents",
        "tetrad.cost",
    ),
)
"""A call. Its usage stands here alone, so that sums over spans count it once."""

CLIENT: Final = Kind(
    3,
    (
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.stream",
        "error.type",
        "server.address",
        "server.port",
        "http.response.status_code",
        "tetrad.endpoint",
        "tetrad.error",
    ),
    ("gen_ai.response.time_to_first_chunk",),
)
"""An attempt of a call at an upstream."""


class Span(NamedTuple):
    """A span that has ended. Ids are numbers, `parent` 0 for none; moments are time.monotonic().

    remote: whether the parent is another process's. fixed, own: in the order of the kind's.
    """

    kind: Kind
    trace: int
    id: int
    parent: int
    remote: bool
    state: str
    name: str
    began: float
    ended: float
    failed: bool
    fixed: tuple[Value, ...]
    own: tuple[Value, ...]


FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Outcomes that are errors of the server, by the conventions for gRPC; others are the caller's."""

PROVIDERS: Final[Mapping[str, str]] = {"mistral": "mistral_ai"}
"""gen_ai.provider.name where it differs from the provider's kind."""

_PORTS: Final = {"http": 80, "https": 443}
_GIVEN = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST_STATE: Final = 512
_SAMPLED: Final = 1
_RANDOM_BITS: Final = 56
_RANDOM: Final = (1 << _RANDOM_BITS) - 1
_NOTHING: Final = Operation(OTHER)


class Traces:
    """Both ends of a call: `begin`, before the first attempt, and `ended`, a sink of calls.

    ratio: share of the traces that begin here, 0 to 1. put: gets the spans of a sampled call.
    """

    def __init__(
        self, ratio: float, put: Callable[[Sequence[Span]], object], random: Random
    ) -> None:
        self.sample(ratio)
        self._put = put
        self._random = random

    def sample(self, ratio: float) -> None:
        """Take another share from now on."""
        # The same bits against the same bound as everybody's, so that whoever else decides on a
        # trace by its id comes to the same decision.
        self._least = round((1.0 - ratio) * (1 << _RANDOM_BITS))

    def begin(self, call: Call) -> None:
        """Decide whether the call is sampled: `call.trace` is its Trace then, else False."""
        given = call.headers.get(TRACEPARENT)
        parent = None if given is None else _parent(given)
        if parent is None:
            id = self._random.getrandbits(128)
            sampled = (id & _RANDOM) >= self._least
            call.trace = sampled and Trace(id or 1, 0, "", self._random)
            return
        id, span, sampled = parent
        state = call.headers.get(TRACESTATE, "") if sampled else ""
        call.trace = sampled and Trace(id, span, state, self._random)

    def ended(self, call: Call) -> None:
        """Pass the spans of a call on, if it is sampled; decided now if it failed too early."""
        if call.trace is None:
            self.begin(call)
        if call.trace:
            self._put([*spans(call, call.trace)])


def spans(call: Call, trace: Trace) -> Iterator[Span]:
    """The spans of a call that has ended: its own, then one for each attempt."""
    operation = OPERATIONS.get(call.method, _NOTHING)
    yield _server(call, trace, operation)
    for one in trace.attempts:
        yield _client(call, trace, operation, one)


def _server(call: Call, trace: Trace, operation: Operation) -> Span:
    usage = call.usage
    outcome = usage.outcome
    failed = outcome in FAULTS
    error = "" if outcome == "OK" else call.error or outcome
    ended = call.began if call.ended_at is None else call.ended_at
    first = None
    if operation.streamed and call.first_at is not None:
        first = call.first_at - call.began
    return Span(
        SERVER,
        trace.id,
        trace.span,
        trace.parent,
        trace.parent != 0,
        trace.state[:_LONGEST_STATE],
        f"{operation.name} {call.model}" if call.model else operation.name,
        call.began,
        ended,
        failed,
        (
            operation.name,
            PROVIDER,
            call.model or None,
            operation.streamed or None,
            error if failed else None,
            call.method,
            call.face,
            call.principal.name,
            call.endpoint or None,
            call.attempts,
            outcome,
            error or None,
            None if usage.source == "none" else usage.source,
        ),
        (
            call.id,
            usage.prompt_tokens,
            usage.completion_tokens,
            first,
            call.queued or None,
            usage.audio_seconds,
            usage.documents,
            call.cost or None,
        ),
    )


def _client(call: Call, trace: Trace, operation: Operation, one: Attempted) -> Span:
    provider, host, port = _place(one.endpoint.kind, one.endpoint.url)
    model = one.endpoint.model or call.model
    # Whoever left has not failed.
    failed = one.error != "" and one.error != Reason.CANCELLED
    first = None
    if operation.streamed and call.first_at is not None:
        first = call.first_at - one.began if one.began <= call.first_at <= one.ended else None
    return Span(
        CLIENT,
        trace.id,
        one.span,
        trace.span,
        False,
        trace.state[:_LONGEST_STATE],
        f"{operation.name} {model}",
        one.began,
        one.ended,
        failed,
        (
            operation.name,
            provider,
            model or None,
            operation.streamed or None,
            one.error if failed else None,
            host,
            port,
            one.status or None,
            one.route,
            one.error or None,
        ),
        (first,),
    )


def _parent(header: str) -> tuple[int, int, bool] | None:
    """The trace, the span and whether it is sampled, of a W3C traceparent; None if it is none."""
    match = _GIVEN.fullmatch(header)
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not (int(trace, 16) and int(span, 16)):
        return None
    return int(trace, 16), int(span, 16), bool(int(flags, 16) & _SAMPLED)


@lru_cache(maxsize=1024)
def _place(kind: str, url: str) -> tuple[str, str | None, int | None]:
    """The provider's name, and its host and port."""
    parts = urlsplit(url)
    return PROVIDERS.get(kind, kind), parts.hostname, parts.port or _PORTS.get(parts.scheme)
