"""What one call used: tokens, seconds of audio, documents; zero is a value, None is unknown.

A record is filled while the call runs and closed exactly once, whatever the call's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeGuard

_MOST = 2**53

_FIGURES: Final = (
    ("prompt_tokens", "prompt_tokens"),
    ("input_tokens", "prompt_tokens"),
    ("completion_tokens", "completion_tokens"),
    ("output_tokens", "completion_tokens"),
    ("total_tokens", "total_tokens"),
)
"""Members of a `usage`, and what they are here."""


@dataclass(slots=True)
class UsageRecord:
    """Usage of one call. `source` is "upstream" where the upstream told it, "estimated" where it
    did not and text went by, else "none". characters: of the answer's text, for estimates."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    audio_seconds: float | None = None
    documents: int | None = None
    characters: int = 0
    source: str = "none"
    outcome: str = ""

    def tokens(self, usage: Any) -> None:
        """Take the figures of a `usage` member, of any operation; anything else is ignored."""
        if not isinstance(usage, dict):
            return
        for member, name in _FIGURES:
            value = usage.get(member)
            if value.__class__ is int and 0 <= value <= _MOST:
                setattr(self, name, value)
                self.source = "upstream"
        seconds = usage.get("seconds")
        if _is_figure(seconds):
            self.audio_seconds, self.source = float(seconds), "upstream"

    def close(self, outcome: str) -> bool:
        """Note how the call ended; False if that was noted before."""
        if self.outcome:
            return False
        self.outcome = outcome
        return True


def _is_figure(value: Any) -> TypeGuard[int | float]:
    """A number that can be meant; another would spoil every sum that it enters for ever."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST
