"""services/metadata.py: which names pass, and what an id may be."""

from __future__ import annotations

import re

import pytest

from services import metadata


@pytest.mark.parametrize("given", ["a", "req-1", "x" * 128, "with space", "!~"])
def test_a_caller_s_id_is_kept(given: str) -> None:
    assert metadata.request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "é", "a\nb", "a\tb", "\x00", "\x7f"])
def test_a_missing_or_odd_id_is_replaced(given: str | None) -> None:
    made = metadata.request_id(given)
    assert re.fullmatch(r"req_[0-9a-f]{24}", made)
    assert metadata.request_id(given) != made


def test_tracing_passes_and_nothing_else() -> None:
    """G40."""
    pairs = [
        ("traceparent", "00-1"),
        ("tracestate", "a=b"),
        ("baggage", "c=d"),
        ("authorization", "Bearer secret"),
        ("cookie", "a"),
        ("x-other", "b"),
        ("grpc-timeout", "1S"),
        ("user-agent", "c"),
    ]
    assert metadata.passing(pairs, (), "req-1") == {
        "x-request-id": "req-1",
        "traceparent": "00-1",
        "tracestate": "a=b",
        "baggage": "c=d",
    }


def test_the_configuration_lets_names_pass() -> None:
    pairs = [("x-tenant", "a"), ("x-other", "b"), ("x-raw-bin", b"\x00")]
    assert metadata.passing(pairs, {"x-tenant", "x-raw-bin"}, "req-1") == {
        "x-request-id": "req-1",
        "x-tenant": "a",
    }


@pytest.mark.parametrize("name", ["authorization", "proxy-authorization", "cookie", "host"])
def test_a_caller_s_key_never_passes_whatever_the_configuration_allows(name: str) -> None:
    pairs = [(name, "Bearer secret"), ("x-tenant", "a")]
    assert metadata.passing(pairs, {name, "x-tenant"}, "r") == {
        "x-request-id": "r",
        "x-tenant": "a",
    }
    assert list(metadata.told({name: "Bearer secret", "x-tenant": "a"})) == [("x-tenant", "a")]


def test_the_id_that_was_chosen_wins_over_the_caller_s() -> None:
    """An id that was refused must not slip through by being allowed by name."""
    pairs = [("x-request-id", "bad\nid")]
    assert metadata.passing(pairs, {"x-request-id"}, "req-1") == {"x-request-id": "req-1"}


def test_of_several_values_the_last_passes() -> None:
    pairs = [("baggage", "a"), ("baggage", "b")]
    assert metadata.passing(pairs, (), "r")["baggage"] == "b"
