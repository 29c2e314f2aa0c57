"""What a configuration says that is not used: told once, by `serve` and by `check`."""

from __future__ import annotations

import sys

from services.config import Breaker, Config, Limits, Retry, Timeouts


def unused(config: Config) -> list[str]:
    """Settings that this version reads and does not act on, where they are not the defaults."""
    changed = {
        "retry": config.retry != Retry(),
        "breaker": config.breaker != Breaker(),
        "limits.max_queue": config.limits.max_queue != Limits().max_queue,
        "timeouts.queue": config.timeouts.queue != Timeouts().queue,
    }
    return [
        f"{config.source}: {key}: read, but this version does not act on it: there is one attempt "
        "per call, and no queue"
        for key, is_set in changed.items()
        if is_set
    ]


def print_all(config: Config) -> None:
    """One line a warning, on standard error."""
    for warning in (*config.warnings, *unused(config)):
        print(f"warning: {warning}", file=sys.stderr)
