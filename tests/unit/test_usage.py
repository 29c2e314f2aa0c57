"""services/usage.py: zero is a value, and a record is closed once."""

from __future__ import annotations

from typing import Any

import pytest

from services.usage import UsageRecord


def figures(usage: Any) -> tuple[Any, ...]:
    record = UsageRecord()
    record.tokens(usage)
    return (
        record.prompt_tokens,
        record.completion_tokens,
        record.total_tokens,
        record.audio_seconds,
        record.source,
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            (3, 4, 7, None, "upstream"),
        ),
        (
            {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            (0, 0, 0, None, "upstream"),
        ),
        ({"input_tokens": 5, "output_tokens": 6}, (5, 6, None, None, "upstream")),
        ({"type": "duration", "seconds": 9}, (None, None, None, 9.0, "upstream")),
        ({"seconds": 0.0}, (None, None, None, 0.0, "upstream")),
        ({"prompt_tokens": "3", "total_tokens": None}, (None, None, None, None, "none")),
        ({"prompt_tokens": True, "seconds": False}, (None, None, None, None, "none")),
        ({"prompt_tokens": 1.5}, (None, None, None, None, "none")),
        ({}, (None, None, None, None, "none")),
        (None, (None, None, None, None, "none")),
        ([1], (None, None, None, None, "none")),
    ],
)
def test_figures_are_taken_as_the_upstream_tells_them(usage: Any, expected: Any) -> None:
    """G10, G12."""
    assert figures(usage) == expected


def test_the_last_figures_win() -> None:
    """Some upstreams tell the usage on every chunk."""
    record = UsageRecord()
    for completion in (0, 1, 2):
        record.tokens({"prompt_tokens": 3, "completion_tokens": completion})
    record.tokens(None)
    assert (record.prompt_tokens, record.completion_tokens) == (3, 2)


def test_a_record_is_closed_once() -> None:
    """G9."""
    record = UsageRecord()
    assert record.close("OK")
    assert not record.close("CANCELLED")
    assert record.outcome == "OK"
