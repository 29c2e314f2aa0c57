"""Admits a call by the limits of its key, and charges its tokens when it has ended.

A refused call has taken nothing of any limit. Waits for a store at most its time limit, and not at
all while the store is away; each limit says whether it then fails open or closed.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from services.call import Call
from services.config import Config, KeyLimits
from services.errors import Overloaded, RateLimited
from services.limits.shared import PAUSE, SharedWindows, StoreAway
from services.limits.windows import MINUTE, PERIODS, Level, Rule, Windows

_SAYS = {
    "rpm": "requests a minute",
    "rpd": "requests a day",
    "tpm": "tokens a minute",
    "tpd": "tokens a day",
}


class Limiter:
    """The limits of all keys. Without `shared`, counters are this process's own."""

    def __init__(
        self, shared: SharedWindows | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._windows = Windows(clock)
        self._rules: dict[str, tuple[KeyLimits, tuple[Rule, ...]]] = {}
        self._rejected: Counter[str] = Counter()

    @classmethod
    def of(cls, config: Config, clock: Callable[[], float] = time.monotonic) -> Self:
        """The limiter of a configuration's `state`."""
        if config.state.url.startswith("memory://"):
            return cls(None, clock)
        return cls(SharedWindows(config.state.url, config.state.timeout), clock)

    @property
    def rejected(self) -> Mapping[str, int]:
        """Calls refused, by the name of the limit that was told."""
        return self._rejected

    @property
    def store_failures(self) -> int:
        """How often the store did not answer; 0 without one."""
        return 0 if self._shared is None else self._shared.failures

    async def start(self) -> None:
        """Ask the store whether it is there; a warning if it is not."""
        if self._shared is not None:
            await self._shared.start()

    async def admit(self, call: Call) -> None:
        """Count a call and tell its caller what is left, in `call.out`.

        Raises errors.RateLimited, having counted nothing; errors.Overloaded where a limit that
        fails closed cannot be looked up.
        """
        rules = self._rules_of(call)
        if not rules:
            return
        for rule in rules:
            if rule.limit == 0:  # it never has room, whatever its store says
                self._refuse(call, [rule], [Level(0, float(rule.period))])
        if self._shared is None:
            levels = self._windows.take(rules)
        else:
            try:
                levels = await self._shared.take(rules)
            except StoreAway:
                self._without_store(rules)
                return
        for rule, level in zip(rules, levels, strict=True):
            if level.used >= rule.limit:
                self._refuse(call, rules, levels)
        call.out.update(_headers(rules, levels, taken=True))

    def charge(self, call: Call) -> None:
        """Count the tokens of a call that has ended; neither waits nor raises."""
        limits = call.principal.limits
        if limits is None or (limits.tpm is None and limits.tpd is None):
            return
        usage = call.usage
        tokens = usage.total_tokens
        if tokens is None:
            tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        if tokens <= 0:
            return
        windows = self._windows if self._shared is None else self._shared
        for rule in self._rules_of(call):
            if rule.counts_tokens:
                windows.add(rule.key, rule.period, tokens)

    async def aclose(self) -> None:
        """Write what waits, within the store's time limit, and let the store go."""
        if self._shared is not None:
            await self._shared.aclose()

    def _rules_of(self, call: Call) -> tuple[Rule, ...]:
        name, limits = call.principal.name, call.principal.limits
        if limits is None:
            return ()
        known = self._rules.get(name)
        if known is None or known[0] is not limits:
            known = self._rules[name] = (limits, _rules(name, limits))
        return known[1]

    def _refuse(self, call: Call, rules: Sequence[Rule], levels: Sequence[Level]) -> None:
        call.out.update(_headers(rules, levels, taken=False))
        pairs = zip(rules, levels, strict=True)
        rule, level = max(
            ((rule, level) for rule, level in pairs if level.used >= rule.limit),
            key=lambda pair: pair[1].left,
        )
        self._rejected[rule.name] += 1
        raise RateLimited(
            f"the key's limit of {rule.limit} {_SAYS[rule.name]} is reached",
            retry_after=max(level.left, 0.001),
            metadata={"limit": rule.name, "max": str(rule.limit), "used": str(level.used)},
        )

    def _without_store(self, rules: Sequence[Rule]) -> None:
        for rule in rules:
            if rule.closed:
                self._rejected[rule.name] += 1
                raise Overloaded(
                    f"the key's limit of {_SAYS[rule.name]} cannot be looked up just now",
                    retry_after=PAUSE,
                    metadata={"limit": rule.name},
                )


def _rules(name: str, limits: KeyLimits) -> tuple[Rule, ...]:
    """The rules of a key; its counters are kept together, should the store be a cluster."""
    return tuple(
        Rule(
            which,
            f"tetrad:{{{name}}}:{which}",
            limit,
            period,
            closed=getattr(limits.on_store_failure, which) == "closed",
        )
        for which, period in PERIODS.items()
        if (limit := getattr(limits, which)) is not None
    )


def _headers(rules: Sequence[Rule], levels: Sequence[Level], *, taken: bool) -> dict[str, str]:
    """The tighter of minute and day, for requests and for tokens."""
    told: dict[str, str] = {}
    least: dict[bool, int] = {}
    for rule, level in zip(rules, levels, strict=True):
        kind, remaining = rule.counts_tokens, rule.limit - level.used
        if taken:
            remaining -= rule.cost
        if remaining < 0:
            remaining = 0
        if kind in least and least[kind] <= remaining:
            continue
        least[kind] = remaining
        limit, left, reset = _HEADERS[kind]
        told[limit], told[left], told[reset] = (
            str(rule.limit),
            str(remaining),
            _duration(level.left),
        )
    return told


_HEADERS = [
    tuple(f"x-ratelimit-{figure}-{what}" for figure in ("limit", "remaining", "reset"))
    for what in ("requests", "tokens")
]


def _duration(seconds: float) -> str:
    """Whole seconds, as in 1s, 6m0s and 23h59m59s."""
    whole = math.ceil(seconds)
    if whole < MINUTE:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s"
