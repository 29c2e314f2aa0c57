"""Limits of keys in the memory of one process."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import ANONYMOUS, Keyring
from services.call import Call
from services.config import Key, KeyLimits, parse
from services.errors import RateLimited
from services.limits import Limiter
from services.limits.windows import PERIODS
from tests.lib.limited import admitted, call_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(clock=clock)


async def test_of_many_calls_at_once_exactly_as_many_as_the_limit_are_let_in(
    limiter: Limiter,
) -> None:
    """G14."""
    call = call_of(rpm=50, rpd=1000)
    assert sum(await asyncio.gather(*(admitted(limiter, call) for _ in range(200)))) == 50
    assert limiter.rejected == {"rpm": 150}


async def test_a_call_refused_by_the_minute_costs_nothing_of_the_day(
    limiter: Limiter, clock: Clock
) -> None:
    """G14."""
    call = call_of(rpm=2, rpd=4)
    let_in = []
    for _ in range(3):
        let_in.append(sum([await admitted(limiter, call) for _ in range(10)]))
        clock.now += 60
    assert let_in == [2, 2, 0]
    assert limiter.rejected == {"rpm": 8, "rpd": 18}  # the longer wait is told


async def test_a_call_refused_by_the_day_costs_nothing_of_the_minute(limiter: Limiter) -> None:
    """G14."""
    assert [await admitted(limiter, call_of(rpm=9, rpd=1)) for _ in range(9)].count(True) == 1
    call = call_of(rpm=9)
    await limiter.admit(call)
    assert call.out["x-ratelimit-remaining-requests"] == "7"


async def test_a_call_refused_by_tokens_costs_no_request(limiter: Limiter) -> None:
    """G14."""
    call = call_of(tokens=5, rpm=9, tpm=5)
    await limiter.admit(call)
    limiter.charge(call)
    assert not await admitted(limiter, call)
    assert not await admitted(limiter, call)
    call = call_of(rpm=9)
    await limiter.admit(call)
    assert call.out["x-ratelimit-remaining-requests"] == "7"


@pytest.mark.parametrize(("name", "period"), PERIODS.items())
async def test_a_window_ends_after_its_period(
    limiter: Limiter, clock: Clock, name: str, period: int
) -> None:
    call = call_of(tokens=1, **{name: 1})
    await limiter.admit(call)
    limiter.charge(call)
    clock.now += period - 0.25
    with pytest.raises(RateLimited) as caught:
        await limiter.admit(call)
    assert caught.value.retry_after == pytest.approx(0.25)
    clock.now += 0.25
    await limiter.admit(call)


async def test_a_limit_of_zero_lets_nobody_in(limiter: Limiter) -> None:
    for name in PERIODS:
        assert not await admitted(limiter, call_of(name, **{name: 0}))


async def test_keys_do_not_share_a_window(limiter: Limiter) -> None:
    assert await admitted(limiter, call_of("ann", rpm=1))
    assert await admitted(limiter, call_of("bob", rpm=1))
    assert not await admitted(limiter, call_of("ann", rpm=1))


async def test_a_limit_that_was_raised_keeps_its_count(limiter: Limiter) -> None:
    assert [await admitted(limiter, call_of(rpm=1)) for _ in range(2)] == [True, False]
    assert [await admitted(limiter, call_of(rpm=2)) for _ in range(2)] == [True, False]


async def test_tokens_are_those_of_prompt_and_answer_where_no_total_is_told(
    limiter: Limiter,
) -> None:
    call = call_of(tpm=100)
    call.usage.prompt_tokens, call.usage.completion_tokens = 30, 12
    limiter.charge(call)
    await limiter.admit(call)
    assert call.out["x-ratelimit-remaining-tokens"] == "58"


async def test_the_tighter_of_minute_and_day_is_told(limiter: Limiter, clock: Clock) -> None:
    call = call_of(tokens=7, rpm=10, rpd=5, tpm=20, tpd=1000)
    await limiter.admit(call)
    limiter.charge(call)
    clock.now += 1
    await limiter.admit(call)
    assert call.out == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "23h59m59s",
        "x-ratelimit-limit-tokens": "20",
        "x-ratelimit-remaining-tokens": "13",
        "x-ratelimit-reset-tokens": "59s",
    }


async def test_a_refusal_says_which_limit_how_long_and_what_is_left(limiter: Limiter) -> None:
    """G19."""
    call = call_of(rpm=1)
    await limiter.admit(call)
    with pytest.raises(RateLimited) as caught:
        await limiter.admit(call)
    assert caught.value.retry_after == 60
    assert caught.value.metadata == {"limit": "rpm", "max": "1", "used": "1"}
    assert call.out["x-ratelimit-remaining-requests"] == "0"
    assert call.out["x-ratelimit-reset-requests"] == "1m0s"


async def test_of_two_limits_reached_the_longer_wait_is_told(limiter: Limiter) -> None:
    call = call_of(rpm=1, rpd=1)
    await limiter.admit(call)
    with pytest.raises(RateLimited) as caught:
        await limiter.admit(call)
    assert caught.value.retry_after == 86_400


async def test_who_has_no_limits_is_told_nothing(limiter: Limiter) -> None:
    call = Call("id", "Chat", "rest", principal=ANONYMOUS)
    await limiter.admit(call)
    limiter.charge(call)
    assert call.out == {}


STEP = st.one_of(st.just("call"), st.integers(1, 20), st.sampled_from([1.0, 59.0, 60.0, 86_400.0]))


@given(
    st.fixed_dictionaries({name: st.none() | st.integers(0, 12) for name in PERIODS}),
    st.lists(STEP, max_size=60),
)
def test_every_limit_holds_and_all_are_taken_or_none(
    limits: dict[str, int | None], steps: list[str | int | float]
) -> None:
    """G14. Against windows counted apart: a call, tokens used, or seconds that pass."""
    clock = Clock()
    limiter = Limiter(clock=clock)
    call = call_of(**limits)
    used: dict[str, int] = defaultdict(int)
    ends: dict[str, float] = {}

    def use(prefix: str, amount: int) -> None:
        for name, period in PERIODS.items():
            if name.startswith(prefix):
                if ends.get(name, 0) <= clock.now:
                    used[name], ends[name] = 0, clock.now + period
                used[name] += amount

    async def run() -> None:
        for step in steps:
            if isinstance(step, float):
                clock.now += step
            elif isinstance(step, int):
                call.usage.total_tokens = step
                limiter.charge(call)
                use("t", step)
            else:
                full = [
                    name
                    for name, limit in limits.items()
                    if limit is not None
                    and (used[name] if ends.get(name, 0) > clock.now else 0) >= limit
                ]
                assert await admitted(limiter, call) == (not full)
                if not full:
                    use("r", 1)

    asyncio.run(run())


async def test_admission_in_memory_is_quick() -> None:
    """Measured: 18 us with two limits."""
    limiter = Limiter()
    call = call_of(rpm=10**9, tpm=10**9)
    began = time.process_time()
    for _ in range(5000):
        await limiter.admit(call)
    assert (time.process_time() - began) / 5000 < 200e-6


def test_a_key_without_limits_has_none_to_look_up() -> None:
    key, limited = "tk-a", "tk-b"
    digests = {text: hashlib.sha256(text.encode()).hexdigest() for text in (key, limited)}
    ring = Keyring(
        [
            Key(name="a", sha256=digests[key]),
            Key(name="b", sha256=digests[limited], limits=KeyLimits(rpm=0)),
        ],
        open=False,
    )
    assert ring.identify(f"Bearer {key}").limits is None
    assert ring.identify(f"Bearer {limited}").limits == KeyLimits(rpm=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("closed", ["closed"] * 4),
        ("{rpd: closed}", ["open", "closed", "open", "open"]),
    ],
)
def test_one_word_or_one_for_each_limit_says_what_happens_without_the_store(
    text: str, expected: list[str]
) -> None:
    config = parse(
        "models: [{name: a, type: text-generation, providers: [{url: 'http://h'}]}]\n"
        "required_types: []\n"
        f"auth: {{keys: [{{name: k, sha256: {'ab' * 32}, "
        f"limits: {{rpm: 5, on_store_failure: {text}}}}}]}}\n"
        "state: {url: 'unix:///run/valkey.sock', timeout: 0.5}\n",
        "t.yaml",
        {},
    )
    said = config.auth.keys[0].limits.on_store_failure
    assert [getattr(said, name) for name in PERIODS] == expected
    assert config.state.timeout == 0.5
