"""What the REST face is told by the application: limits, times, keys, and how it watches calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from services.auth import Keyring
from services.call import Call
from services.errors import TetradError


class PageAnswer(NamedTuple):
    """What a page is at this moment; `headers` beyond its type and length, lower-case names."""

    media_type: str
    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


Page: TypeAlias = Callable[[], PageAnswer | Awaitable[PageAnswer]]
"""A page beside the contract (metrics, playground), asked with GET."""


class State(Protocol):
    """The life of the process, as far as a face looks at it."""

    @property
    def draining(self) -> bool:
        """Whether the process is going away: connections are then closed after their answer."""

    def enter(self) -> None:
        """A call begins, before its body is read. Raises a TetradError to refuse it."""

    def leave(self) -> None:
        """A call that had entered has ended, with the end of its answer or without one."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether there is a valid configuration, and details for /ready (each model's state)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSettings:
    """Times in seconds, sizes in bytes.

    max_upload_bytes bounds a whole multipart body, max_request_bytes every other. cors: origins
    that may call from a web page, "*" for any. relay: False sends every request and answer through
    the codec. heartbeat_first, heartbeat_every: silence before the first comment of a stream (and
    before its headers are sent at the latest), and before each further one. timeout,
    stream_timeout: the deadline of a call whose caller names none; None leaves it to the services'
    own limits. stall: how long a caller may send nothing of a body, or take nothing of an answer.
    pass_in: names of headers that go on to the upstream beyond the known ones, lower case.
    pass_out: names of headers that the services may add to answers, for web pages to read.
    pages: further GET paths. ended: told of each call that failed and how; a call whose service
    told so itself may be told of again. overload: asked before a call's body is read, the error to
    refuse it with; there is no call then to tell of. opengatellm: whether callers see
    OpenGateLLM's habits.
    """

    keyring: Keyring
    state: State
    max_request_bytes: int = 64 * 1024 * 1024
    max_upload_bytes: int = 512 * 1024 * 1024
    cors: tuple[str, ...] = ()
    relay: bool = True
    heartbeat_first: float = 15.0
    heartbeat_every: float = 15.0
    timeout: float | None = None
    stream_timeout: float | None = None
    stall: float = 60.0
    pass_in: frozenset[str] = frozenset()
    pass_out: frozenset[str] = frozenset()
    pages: Mapping[str, Page] = field(default_factory=dict)
    version: str = "0"
    ended: Callable[[Call, str], None] = lambda call, outcome: None
    overload: Callable[[], TetradError | None] = lambda: None
    opengatellm: bool = False
