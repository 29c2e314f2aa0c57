"""The soak in small: it runs, counts what it should, and notices growth."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import pytest

from bench import soak, soak_load
from bench.soak_processes import Child

FACTS = {"rss": 80 * soak.MIB, "fds": 20, "tasks": 10, "streaming": 0}


@pytest.mark.timeout(120)
async def test_a_short_run_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """G7, G8: both faces, streams left at every point; nothing is left open."""
    options = argparse.Namespace(streams=24, unary=40, minutes=1.5, mib=50.0, warm=12)
    assert await soak.soak(options) == []
    told = capsys.readouterr().out
    for phase, count in [("cancelled streams", "24/24"), ("unary calls", "20/20")]:
        for face in ("REST", "gRPC"):
            assert any(
                line.startswith(f"{face} {phase}") and count in line for line in told.splitlines()
            ), told


class Grown(Child):
    """A process whose figures are made up: the first, and then always the second."""

    def __init__(self, *figures: dict[str, int]) -> None:
        self._figures = list(figures)

    async def facts(self) -> dict[str, int]:
        return dict(self._figures.pop(0) if len(self._figures) > 1 else self._figures[0])


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"rss": 86 * soak.MIB}, "memory grew by 6.0 MiB, more than 5"),
        ({"fds": 120}, "100 fds are left over"),
        ({"tasks": 30}, "20 tasks are left over"),
        ({"streaming": 3}, "3 streams go on at the upstream"),
        ({"rss": 84 * soak.MIB, "fds": 60, "tasks": 12}, None),
        ({"rss": 70 * soak.MIB, "fds": 2, "tasks": 1}, None),
    ],
)
async def test_growth_past_a_limit_is_a_fault(
    after: dict[str, int], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "PATIENCE", 0.0)
    gate = Grown(FACTS, FACTS | after)
    run = soak.Soak(gate, Grown(FACTS, FACTS | after), 1e9, most_mib=5.0, warm=1)

    async def nothing(number: int) -> None:
        return

    await run.phase("calls", nothing, 10)
    assert run.faults == ([] if said is None else [f"calls: {said}"])


async def test_the_run_ends_when_its_time_is_over() -> None:
    async def each(done: int) -> None:
        if done == 40:
            raise soak_load.OutOfTime

    async def nothing(number: int) -> None:
        await asyncio.sleep(0)

    assert 40 <= await soak_load.load(nothing, range(10_000), each) <= 40 + soak_load.AT_ONCE


async def test_a_call_that_fails_ends_the_load() -> None:
    async def fails(number: int) -> None:
        if number == 7:
            raise ValueError("seven")

    async def each(done: int) -> None:
        return

    with pytest.raises(soak_load.Failed, match="seven"):
        await soak_load.load(fails, range(100), each)


def test_the_command_line_can_shrink_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    async def look(options: argparse.Namespace) -> list[str]:
        seen.append(options)
        return ["calls: too much"] if options.streams == 7 else []

    monkeypatch.setattr(soak, "soak", look)
    for argv, code in ((["soak"], 0), (["soak", "--streams", "7", "--unary", "0"], 1)):
        monkeypatch.setattr("sys.argv", argv)
        assert soak.main() == code
    assert [(one.streams, one.unary) for one in seen] == [(50_000, 1_000_000), (7, 0)]
