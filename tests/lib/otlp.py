"""A receiver of traces: a fake upstream's requests, read with OpenTelemetry's own messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.fakes.upstream import FakeUpstream, Raw, Received

PATH = "/v1/traces"
MEDIA_TYPE = "application/x-protobuf"
KINDS = {2: "server", 3: "client"}


@dataclass(frozen=True)
class Got:
    """A span as a receiver sees it. Ids are hexadecimal, `parent` "" for none; times are
    nanoseconds since the epoch. remote: what its flags say of the parent, None if nothing."""

    trace: str
    id: str
    parent: str
    kind: str
    name: str
    state: str
    begin: int
    end: int
    failed: bool
    remote: bool | None
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


def taken(rejected: int = 0, why: str = "") -> Raw:
    """The answer of a receiver that takes all spans but `rejected`."""
    answer = ExportTraceServiceResponse()
    if rejected or why:
        part = ExportTracePartialSuccess(rejected_spans=rejected, error_message=why)
        answer.partial_success.CopyFrom(part)
    return Raw(answer.SerializeToString(), MEDIA_TYPE)


def receive(upstream: FakeUpstream) -> FakeUpstream:
    """Make a fake upstream take all spans."""
    return upstream.on("POST", PATH, taken())


def read(body: bytes) -> list[Got]:
    """The spans of a request; it holds nothing that the messages do not know."""
    request = ExportTraceServiceRequest.FromString(body)
    request.DiscardUnknownFields()
    assert len(request.SerializeToString()) == len(body)
    return [
        Got(
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            kind=KINDS[span.kind],
            name=span.name,
            state=span.trace_state,
            begin=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            failed=span.status.code == 2,
            remote=bool(span.flags & 0x200) if span.flags & 0x100 else None,
            attributes=_values(span.attributes),
            resource=_values(whole.resource.attributes),
        )
        for whole in request.resource_spans
        for scope in whole.scope_spans
        for span in scope.spans
    ]


def received(requests: Iterable[Received]) -> list[Got]:
    """The spans of all requests whose body is here."""
    return [
        span
        for one in requests
        if one.path == PATH and one.complete.is_set()
        for span in read(one.body)
    ]


async def spans(upstream: FakeUpstream, count: int, within: float = 10.0) -> list[Got]:
    """Waits until so many have come, and no more: all of them."""
    await upstream.until(lambda: len(received(upstream.requests)) >= count, within)
    found = received(upstream.requests)
    assert len(found) == count, found
    return found


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    pairs = [(one.key, one.value) for one in attributes]
    found = {key: getattr(value, str(value.WhichOneof("value"))) for key, value in pairs}
    assert len(found) == len(pairs), "an attribute stands there twice"
    return found
