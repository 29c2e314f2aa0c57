"""services/telemetry/trace_wire.py: what we write is what OpenTelemetry's own messages read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.telemetry import trace_wire
from services.telemetry.trace_wire import Malformed
from services.telemetry.traces import CLIENT, SERVER, Kind, Span
from tests.lib import otlp

OFFSET = 1_700_000_000_000_000_000
IDS = st.integers(1, 2**64 - 1)
VALUES = st.one_of(
    st.none(),
    st.text(max_size=300),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)
FIXED = [
    st.none() | st.text(max_size=300),
    st.none() | st.booleans(),
    st.none() | st.integers(2, 9),
]
"""One for each place: what takes few values is of the same type each time."""


@st.composite
def made(draw: st.DrawFn) -> Span:
    kind: Kind = draw(st.sampled_from([SERVER, CLIENT]))
    began = draw(st.floats(0, 1e7))
    return Span(
        kind,
        draw(st.integers(1, 2**128 - 1)),
        draw(IDS),
        draw(st.one_of(st.just(0), IDS)),
        draw(st.booleans()),
        draw(st.text(max_size=200)),
        draw(st.text(min_size=1, max_size=200)),
        began,
        began + draw(st.floats(0, 1e4)),
        draw(st.booleans()),
        tuple(draw(FIXED[place % 3]) for place, _ in enumerate(kind.fixed)),
        tuple(draw(VALUES) for _ in kind.own),
    )


def read(spans: list[Span], **resource: str) -> list[otlp.Got]:
    frame = trace_wire.frame(resource, "tetrad")
    return otlp.read(trace_wire.request(frame, [trace_wire.span(one, OFFSET) for one in spans]))


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@settings(max_examples=60)
@given(st.lists(made(), min_size=1, max_size=2))
def test_every_span_is_read_as_it_was_made(spans: list[Span]) -> None:
    for span, got in zip(spans, read(spans, **{"service.name": "tetrad"}), strict=True):
        assert got.trace == f"{span.trace:032x}"
        assert got.id == f"{span.id:016x}"
        assert got.parent == (f"{span.parent:016x}" if span.parent else "")
        assert got.kind == ("server" if span.kind is SERVER else "client")
        assert (got.name, got.state) == (clean(span.name), clean(span.state))
        assert got.begin == int(span.began * 1e9) + OFFSET
        assert got.end == int(span.ended * 1e9) + OFFSET
        assert (got.failed, got.remote) == (span.failed, span.remote)
        assert got.resource == {"service.name": "tetrad"}
        names = (*span.kind.fixed, *span.kind.own)
        values = zip(names, (*span.fixed, *span.own), strict=True)
        wanted = {
            name: clean(value) if isinstance(value, str) else value
            for name, value in values
            if value is not None
        }
        assert got.attributes == wanted
        assert {n: type(v) for n, v in got.attributes.items()} == {
            n: type(v) for n, v in wanted.items()
        }


@given(st.integers(0, 2**63 - 1), st.text(max_size=200))
def test_what_a_receiver_rejects_is_read(spans: int, why: str) -> None:
    assert trace_wire.rejected(otlp.taken(spans, why).body) == (spans, why)


def test_an_answer_that_rejects_nothing_is_empty() -> None:
    assert trace_wire.rejected(b"") == (0, "")


# A field of each wire type that the message does not have, before the one that it has.
STRANGE = b"\x10\x07" + b"\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x32\x03abc"


def test_fields_of_newer_receivers_are_passed_over() -> None:
    assert trace_wire.rejected(STRANGE + otlp.taken(3, "x").body) == (3, "x")


@pytest.mark.parametrize("answer", [b"\x0a", b"\x0a\x05\x08", b"\x80", b"\x0b", b"<html>", b"{}"])
def test_an_answer_that_is_no_protobuf_is_told_so(answer: bytes) -> None:
    with pytest.raises(Malformed):
        trace_wire.rejected(answer)


@given(st.binary(max_size=60))
def test_no_answer_makes_it_fail_otherwise(answer: bytes) -> None:
    try:
        trace_wire.rejected(answer)
    except Malformed:
        return


def test_what_takes_few_values_is_encoded_once() -> None:
    span = Span(
        CLIENT,
        1,
        2,
        3,
        False,
        "",
        "chat only-here",
        0.0,
        1.0,
        False,
        ("x",) * len(CLIENT.fixed),
        (None,) * len(CLIENT.own),
    )
    before = trace_wire._fixed.cache_info().misses
    for id in range(1, 5):
        trace_wire.span(span._replace(id=id), OFFSET)
    assert trace_wire._fixed.cache_info().misses == before + 1
