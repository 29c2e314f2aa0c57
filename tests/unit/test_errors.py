"""The exception tree: what each class says by itself, and which errors forbid clients a retry."""

from __future__ import annotations

import pytest

from services import errors
from services.errors import (
    LIMITS_SAY,
    DeadlineExceeded,
    Facts,
    Overloaded,
    UpstreamFault,
    UpstreamUnavailable,
    Violation,
    from_upstream,
)


@pytest.mark.parametrize("which", LIMITS_SAY)
def test_a_deadline_says_which_limit_struck(which: str) -> None:
    error = DeadlineExceeded(which, seconds=2.5, metadata={"a": "b"})
    assert error.message == f"{LIMITS_SAY[which]} ({which}: 2.5 s)"
    assert error.metadata == {"a": "b", "which": which, "seconds": "2.5"}
    assert not error.retryable_by_client


def test_an_upstreams_own_timeout_is_a_deadline_of_the_upstream() -> None:
    for status in (408, 504):
        error = from_upstream(status, {}, b'{"error":"slow"}', endpoint="e")
        assert isinstance(error, DeadlineExceeded)
        assert (error.which, error.message) == ("upstream", "slow")


def test_a_class_without_a_message_has_one() -> None:
    for kind in errors.CLASSES.values():
        error = kind("total") if issubclass(kind, DeadlineExceeded) else kind()
        assert error.message
        assert str(error) == error.message


def test_a_client_may_retry_only_what_reached_no_upstream() -> None:
    """G19: one layer of retries."""
    refused = UpstreamUnavailable("connection refused", upstream=UpstreamFault("e", 0))
    assert refused.retryable_by_client
    reset = UpstreamUnavailable("reset", upstream=UpstreamFault("e", 0), reached=True)
    answered = UpstreamUnavailable("503", upstream=UpstreamFault("e", 503))
    spent = UpstreamUnavailable("connection refused")
    spent.gave_up = True
    assert not any(error.retryable_by_client for error in (reset, answered, spent))
    assert Overloaded(retry_after=2).retryable_by_client


def test_groups_catch_their_own() -> None:
    assert issubclass(errors.ContextLengthExceeded, errors.UpstreamInvalidRequest)
    for kind in errors.CLASSES.values():
        groups = (errors.RequestError, errors.LimitError, errors.UpstreamError)
        alone = (errors.DeadlineExceeded, errors.Conflict, errors.Cancelled, errors.Internal)
        assert sum(issubclass(kind, group) for group in (*groups, *alone)) == 1


def test_any_object_with_field_and_description_is_a_violation() -> None:
    class Other:
        field = "a"
        description = "b"

    assert errors.InvalidRequest(violations=[Other()]).violations == (Violation("a", "b"),)


def test_a_named_model_is_in_message_param_and_metadata() -> None:
    for kind in (errors.ModelNotFound, errors.ModelForbidden):
        error = kind.named("a/b")
        assert "`a/b`" in error.message
        assert (error.param, error.metadata) == ("model", {"model": "a/b"})


def test_facts_are_the_same_for_every_class() -> None:
    facts = Facts(param="p", metadata={"a": "b"}, retry_after=1.0, quota="q")
    for kind in errors.CLASSES.values():
        error = kind("total", **facts) if issubclass(kind, DeadlineExceeded) else kind("m", **facts)
        assert (error.param, error.metadata["a"], error.retry_after, error.quota) == (
            "p", "b", 1.0, "q",
        )  # fmt: skip
