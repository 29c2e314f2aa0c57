"""The fast path of the SSE reader against the full rules, on reads made to look plain."""

from __future__ import annotations

import pytest

from services.sse import SseEvent, SseReader

PLAIN = b"data: {}\n\n"

NEARLY_PLAIN = [
    b"data: a\n\ndata: b\nevent: x\n\n",
    b"data: a\nevent: x\n\ndata: b\n\n",
    b"data: a\ndata: b\n\ndata: c\n\n",
    b"data: a\n\ndata:  \n\n",
    b"data: a\n\ndata: \n\ndata: b\n\n",
    b"data: a\n\n\n\ndata: b\n\n",
    b"data: a\n\n: ping\n\ndata: b\n\n",
    b"data: a\n\nid: 1\n\n",
    b"data:  \n\n",
]


def read(pieces: list[bytes]) -> list[SseEvent]:
    """The events of a reader that has read one plain event before."""
    reader = SseReader()
    events = reader.feed(PLAIN)
    for piece in pieces:
        events += reader.feed(piece)
    return events + reader.close()


@pytest.mark.parametrize("data", NEARLY_PLAIN)
def test_a_read_that_only_looks_plain_gives_the_events_of_the_rules(data: bytes) -> None:
    """G24."""
    assert read([data]) == read([bytes([byte]) for byte in data])
