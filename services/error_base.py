"""What every error knows: its row of the table, and what callers of either face are shown of it.

The causes are subclasses, in `errors`. Codes of gRPC are names here: this module knows neither
grpc nor a face.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Protocol, TypedDict, Unpack

from services import error_table
from services.error_table import (
    DEFAULT_WAIT,
    MAX_WAIT,
    OPENAI_CODES,
    TABLE,
    Reason,
    Retry,
    Row,
    Wait,
)
from services.error_text import valid_utf8
from services.upstream_error import UpstreamFault, Violation


class AnyViolation(Protocol):
    """What is read of a violation: ours and the codec's both have it."""

    @property
    def field(self) -> str:
        """Path of the member, e.g. "messages[0].content"."""

    @property
    def description(self) -> str:
        """What is wrong with it, and what would be right."""


class Facts(TypedDict, total=False):
    """The keyword arguments that every error takes; see TetradError."""

    param: str | None
    metadata: Mapping[str, str]
    violations: Iterable[AnyViolation]
    retry_after: float | None
    quota: str | None
    upstream: UpstreamFault | None
    upstream_status: int
    reached: bool | None


class TetradError(Exception):
    """Base of all: never raised itself.

    param: the request member at fault. metadata: the figures of the message, for ErrorInfo.
    violations: what is wrong, member by member. retry_after: seconds. quota: what is used up.
    upstream: what an upstream said. upstream_status: the HTTP status that its failure stands for,
    if not the one it answered with. reached: whether the call, or a part of it, reached an
    upstream; by default, whether one answered. `gave_up` is set by routing when its own retries
    are spent. An error that reached an upstream or gave up tells clients not to retry.
    """

    reason: ClassVar[Reason]
    says: ClassVar[str] = "the call failed"
    """The message of an error that is raised without one."""

    def __init__(self, message: str = "", **facts: Unpack[Facts]) -> None:
        self.message = valid_utf8(message or self.says)
        super().__init__(self.message)
        self.param = facts.get("param")
        self.metadata = dict(facts.get("metadata", ()))
        self.violations = tuple(
            Violation(each.field, each.description) for each in facts.get("violations", ())
        )
        self.retry_after = facts.get("retry_after")
        self.quota = facts.get("quota")
        self.upstream = facts.get("upstream")
        answered = self.upstream.http_status if self.upstream else 0
        self.upstream_status = facts.get("upstream_status") or answered
        reached = facts.get("reached")
        self.reached = answered > 0 if reached is None else reached
        self.gave_up = False

    @property
    def row(self) -> Row:
        """This error's row of the table."""
        return TABLE[self.reason]

    @property
    def grpc_code(self) -> str:
        """Name of the gRPC status code, e.g. "INVALID_ARGUMENT"."""
        return self.row.grpc

    @property
    def http_status(self) -> HTTPStatus | int:
        """Status of the REST answer; an int only for 499."""
        return error_table.http_status(self.reason, self.upstream_status)

    @property
    def retryable_by_client(self) -> bool:
        """False: the answer carries grpc-retry-pushback-ms: -1, or x-should-retry: false."""
        return not (self.row.retry is Retry.NEVER or self.reached or self.gave_up)

    @property
    def wait(self) -> float | None:
        """Seconds that the answer tells the client to wait (RetryInfo, retry-after), or None."""
        if self.row.wait is Wait.NEVER:
            return None
        if self.retry_after is None:
            return DEFAULT_WAIT if self.row.wait is Wait.ALWAYS else None
        return min(max(0.0, self.retry_after), MAX_WAIT)

    def openai_error(self) -> dict[str, Any]:
        """{"message", "type", "param", "code"}: the upstream's own with all its members, or ours.

        A member that the upstream left out or null is the table's. So is a code that only repeats
        the HTTP status, where OpenAI has a name for the cause (context_length_exceeded, ...).
        """
        own = dict(self.upstream.error or {}) if self.upstream else {}
        kind, param, code = own.pop("type", None), own.pop("param", None), own.pop("code", None)
        repeats_status = str(code) in {str(self.upstream_status), str(self._answered)}
        if code is None or (repeats_status and self.row.code in OPENAI_CODES):
            code = self.row.code
        return {
            "message": own.pop("message", None) or self.message,
            "type": self.row.type if kind is None else kind,
            "param": self.param if param is None else param,
            "code": code,
        } | own

    @property
    def _answered(self) -> int:
        return self.upstream.http_status if self.upstream else 0
