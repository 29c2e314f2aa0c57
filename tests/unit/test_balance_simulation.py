"""services/routing/balance.py in front of simulated servers: spread, waiting, affinity.

A discrete-event simulation: seeded dice, a clock of its own, no time passes. The figures of
docs/routing.md are made here: `python -m tests.unit.test_balance_simulation` prints them.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from services.routing.balance import STRATEGIES, pick

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "routing.md"

_SMOOTHING = 0.2


@dataclass(eq=False)
class Server:
    """Works on `slots` calls at once, each for `slowness` seconds on average; others wait."""

    name: str
    weight: float = 1.0
    slots: int = 8
    slowness: float = 1.0
    in_flight: int = 0
    upstream_load: float | None = None
    latency: float = 0.0
    taken: int = 0
    most: float = 0.0
    waiting: deque[float] = field(default_factory=deque)


def servers(*weights: float, slots: int = 8) -> list[Server]:
    return [
        Server(f"vllm 10.0.0.{index}:8000", weight, round(slots * weight))
        for index, weight in enumerate(weights)
    ]


def simulate(
    strategy: str,
    fleet: list[Server],
    rate: float,
    *,
    calls: int = 20_000,
    seed: int = 1,
    keys: Callable[[Random], bytes] = lambda dice: dice.randbytes(8),
    each: Callable[[int], None] = lambda number: None,
) -> float:
    """Sends `calls`, `rate` a second on average; the mean seconds from a call to its answer.

    `each` is told the number of every call before it is sent.
    """
    dice, picks = Random(seed), Random(seed + 1)  # noqa: S311
    ends: list[tuple[float, int, Server, float]] = []
    now, total, running = 0.0, 0.0, 0

    def start(server: Server, arrived: float) -> None:
        nonlocal running
        running += 1
        heapq.heappush(
            ends, (now + dice.expovariate(1 / server.slowness), running, server, arrived)
        )

    for number in range(calls):
        arrives = now + dice.expovariate(rate)
        while ends and ends[0][0] <= arrives:
            now, _, server, arrived = heapq.heappop(ends)
            total += now - arrived
            server.in_flight -= 1
            gained = _SMOOTHING if server.latency else 1.0
            server.latency += (now - arrived - server.latency) * gained
            if server.waiting:
                start(server, server.waiting.popleft())
        now = arrives
        each(number)
        server = pick(strategy, fleet, picks, number, keys(dice))
        server.taken += 1
        server.in_flight += 1
        share = sum(one.in_flight for one in fleet) * server.weight
        share /= sum(one.weight for one in fleet)
        server.most = max(server.most, server.in_flight - 1.25 * share)
        if server.in_flight > server.slots:
            server.waiting.append(now)
        else:
            start(server, now)
    return total / calls


def shares(fleet: list[Server]) -> list[float]:
    total = sum(server.taken for server in fleet)
    return [server.taken / total for server in fleet]


def figures() -> Iterator[str]:
    """The rows of the table in docs/routing.md."""
    for strategy in STRATEGIES:
        equal, weighted, slow = servers(1, 1, 1), servers(1, 2, 3), servers(1, 1, 1)
        simulate(strategy, equal, 18)
        simulate(strategy, weighted, 36)
        slow[0].slowness = 5.0
        waits = simulate(strategy, slow, 4)
        cells = [
            strategy,
            " : ".join(f"{100 * share:.1f}" for share in shares(equal)),
            " : ".join(f"{100 * share:.1f}" for share in shares(weighted)),
            f"{waits:.2f} s",
            f"{100 * shares(slow)[0]:.0f} %",
        ]
        yield f"| {' | '.join(cells)} |"


TOLERANCE = {
    "shuffle": 0.015,
    "round_robin": 0.002,
    "least_busy": 0.015,
    "power_of_two": 0.03,
    "prefix_affinity": 0.03,
}
"""How far from its share a route may end up after 20,000 calls, as docs/routing.md says."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_routes_get_the_calls_of_their_weights(
    strategy: str, weights: tuple[float, ...], seed: int
) -> None:
    fleet = servers(*weights)
    simulate(strategy, fleet, 6 * sum(weights), seed=seed)
    assert shares(fleet) == pytest.approx(
        [weight / sum(weights) for weight in weights], abs=TOLERANCE[strategy]
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", ["least_busy", "power_of_two"])
def test_with_one_slow_server_calls_wait_less_than_by_shuffle(strategy: str, seed: int) -> None:
    """One of three is five times slower, and the load such that even shuffle can be served."""

    def wait(strategy: str) -> tuple[float, float]:
        fleet = servers(1, 1, 1)
        fleet[0].slowness = 5.0
        seconds = simulate(strategy, fleet, 4, seed=seed)
        return seconds, shares(fleet)[0]

    shuffled, third = wait("shuffle")
    better, share = wait(strategy)
    assert third == pytest.approx(1 / 3, abs=0.02)
    assert better < 0.7 * shuffled
    assert share < 0.2


def test_latency_counts_where_loads_are_equal() -> None:
    """power_of_two: with a call at a time no load tells the servers apart, but their answers do."""
    fleet = servers(1, 1, 1)
    fleet[0].slowness = 5.0
    assert simulate("power_of_two", fleet, 0.05) < 1.3
    assert shares(fleet)[0] < 0.1
    alike = servers(1, 1, 1)
    alike[0].slowness = 5.0
    assert simulate("least_busy", alike, 0.05) > 2


@pytest.mark.parametrize("seed", [1, 3])
def test_a_server_that_was_slow_once_gets_its_calls_back(seed: int) -> None:
    """G20: a latency is not believed for ever, although only calls measure it."""
    fleet = servers(1, 1, 1)
    fleet[0].slowness = 20.0

    def recovers(number: int) -> None:
        if number == 2_000:
            fleet[0].slowness = 1.0
        if number == 15_000:
            for server in fleet:
                server.taken = 0

    simulate("power_of_two", fleet, 0.3, seed=seed, each=recovers)
    assert shares(fleet)[0] == pytest.approx(1 / 3, abs=0.1)


def test_a_server_that_others_keep_busy_is_spared() -> None:
    """least_busy looks at what the upstream says of itself, where that is more than ours."""
    fleet = servers(1, 1, 1)
    fleet[0].upstream_load = 8.0
    simulate("least_busy", fleet, 6)
    assert shares(fleet)[0] < 0.02
    quiet = servers(1, 1, 1)
    quiet[0].upstream_load = 0.0
    simulate("least_busy", quiet, 6)
    assert shares(quiet) == pytest.approx([1 / 3] * 3, abs=0.02)


def homes(fleet: list[Server], keys: list[bytes]) -> dict[bytes, str]:
    idle = Random(0)  # noqa: S311
    return {key: pick("prefix_affinity", fleet, idle, 0, key).name for key in keys}


KEYS = [f"system prompt {number}".encode() for number in range(9000)]


@pytest.mark.parametrize("count", [3, 5, 10])
def test_when_a_route_leaves_only_its_own_keys_move(count: int) -> None:
    """About 1/n of them, evenly to all that are left."""
    fleet = servers(*[1.0] * count)
    before, after = homes(fleet, KEYS), homes(fleet[1:], KEYS)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {before[key] for key in moved} == {fleet[0].name}
    assert len(moved) / len(KEYS) == pytest.approx(1 / count, rel=0.1)
    heirs = Counter(after[key] for key in moved)
    assert sorted(heirs) == sorted(server.name for server in fleet[1:])
    for taken in heirs.values():
        assert taken / len(moved) == pytest.approx(1 / (count - 1), rel=0.35)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_when_a_route_joins_it_takes_its_share_and_no_other_key_moves(count: int) -> None:
    fleet = servers(*[1.0] * (count + 1))
    before, after = homes(fleet[:-1], KEYS), homes(fleet, KEYS)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {fleet[-1].name}
    assert len(moved) / len(KEYS) == pytest.approx(1 / (count + 1), rel=0.1)


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 3), (1,) * 10])
def test_no_route_bears_more_than_its_bound_under_one_hot_key(weights: tuple[float, ...]) -> None:
    """Nine calls of ten begin alike: what is too much for their home goes to the next ones."""
    fleet = servers(*weights, slots=6)

    def keys(dice: Random) -> bytes:
        return b"hot" if dice.random() < 0.9 else dice.randbytes(8)

    simulate("prefix_affinity", fleet, 5 * sum(weights), keys=keys)
    assert max(server.most for server in fleet) <= 4
    assert min(server.taken for server in fleet) > 0


def test_a_calm_fleet_keeps_each_key_where_it_is() -> None:
    """As long as no route is over its bound: keys of equal weight in the traffic stay at home."""
    fleet = servers(1, 1, 1)
    home = homes(fleet, KEYS[:300])
    strays = 0
    sent: list[bytes] = []

    def keys(dice: Random) -> bytes:
        sent.append(dice.choice(KEYS[:300]))
        return sent[-1]

    before = [0, 0, 0]

    def look(number: int) -> None:
        nonlocal strays, before
        if sent:
            (name,) = (s.name for s, b in zip(fleet, before, strict=True) if s.taken > b)
            strays += name != home[sent[-1]]
        before = [server.taken for server in fleet]

    simulate("prefix_affinity", fleet, 6, calls=5_000, keys=keys, each=look)
    assert strays / 5_000 < 0.1


def test_the_documentation_shows_these_figures() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [row for row in figures() if row not in text] == []


if __name__ == "__main__":
    print("\n".join(figures()))
