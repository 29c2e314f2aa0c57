"""Keeps calls away from an endpoint that fails, and lets one through at times to see.

Pure: the clock is an argument. Knows nothing of calls or errors: its user judges how a call ended,
at the end of the call or stream, and says so. What ends late says nothing about what came since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]


class Breaker:
    """Of one endpoint. `failures` in a row open it for `cooldown` seconds of `clock`.

    Each opening and closing begins a period. `begin` gives the period as a ticket, which comes
    back with the call's end: an end with a ticket of a former period changes nothing.

    | in        | succeeded     | failed                       | neither        | time            |
    |-----------|---------------|------------------------------|----------------|-----------------|
    | closed    | the row is 0  | one more; `failures`: open   | nothing        |                 |
    | open      | closed        | nothing                      | nothing        | cooldown: half  |
    | half_open | closed        | open, for another cooldown   | place is free  | place is free   |

    In half_open one call at a time is let through. Its place lapses after another cooldown, since
    a stream may last for an hour, and shall not keep the endpoint out of use for so long.
    """

    __slots__ = ("_clock", "_cooldown", "_failures", "_period", "_row", "_trial_until", "_until")

    def __init__(self, failures: int, cooldown: float, clock: Callable[[], float]) -> None:
        self._failures = failures
        self._cooldown = cooldown
        self._clock = clock
        self._period = 0
        self._row = 0
        self._until: float | None = None  # none: closed
        self._trial_until: float | None = None

    @property
    def state(self) -> State:
        """Closed, open, or half_open once the cooldown is over."""
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half_open"

    @property
    def retry_in(self) -> float:
        """Seconds until a call may be sent, 0 if now."""
        if self._until is None:
            return 0.0
        return max(0.0, max(self._until, self._trial_until or self._until) - self._clock())

    def allows(self) -> bool:
        """Whether a call may be sent now."""
        return self._until is None or self.retry_in == 0

    def begin(self) -> int:
        """A call is being sent; the ticket to give back with its end."""
        if self._until is not None:
            now = self._clock()
            if now >= self._until:
                self._trial_until = now + self._cooldown
        return self._period

    def succeeded(self, ticket: int | None = None) -> None:
        """A call ended well. Without a ticket it counts as one of this period."""
        if ticket is None or ticket == self._period:
            self._row = 0
            if self._until is not None:
                self.reset()

    def failed(self, ticket: int | None = None) -> None:
        """A call ended in a way that speaks against the endpoint."""
        if ticket is not None and ticket != self._period:
            return
        if self._until is None:
            self._row += 1
            if self._row < self._failures:
                return
        elif self._clock() < self._until:
            return
        self._period += 1
        self._until = self._clock() + self._cooldown
        self._trial_until = None

    def neither(self, ticket: int | None = None) -> None:
        """A call ended in a way that says nothing: the request was bad, or its caller left."""
        if ticket is None or ticket == self._period:
            self._trial_until = None

    def reset(self) -> None:
        """Closes it: a health probe saw the server come back."""
        self._period += 1
        self._row = 0
        self._until = self._trial_until = None
