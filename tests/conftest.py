"""Fixtures and rules for every test: uvloop, a time limit, and nothing left running.

A test may take 60 s in each of set-up, call and tear-down; `@pytest.mark.timeout(seconds)`
says otherwise for one.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
import uvloop

from tests.fakes.upstream import FakeUpstream
from tests.lib import adapters, process

DEFAULT_TIMEOUT = 60.0

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    """A fake upstream without routes, listening."""
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture(params=["own", "httpx"])
def via(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the HTTP clients, for what `tests.lib.adapters` makes."""
    chosen = str(request.param)
    monkeypatch.setattr(adapters, "VIA", chosen)
    return chosen


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timeout(seconds): the time limit of one test, not 60 s")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, LoopFactory]:
    """uvloop, as in production; `mark.asyncio(loop_factories=[...])` names "asyncio" too."""
    factories: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop}
    marks = (mark.kwargs for mark in item.iter_markers("asyncio"))
    if any("loop_factories" in kwargs for kwargs in marks):
        factories["asyncio"] = asyncio.SelectorEventLoop
    return factories


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with _time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with _time_limit(item):
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    left = process.close_all()
    if left:
        print("\nprograms that the tests left running:", *left, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@contextmanager
def _time_limit(item: pytest.Item) -> Iterator[None]:
    mark = item.get_closest_marker("timeout")
    seconds = float(mark.args[0]) if mark else DEFAULT_TIMEOUT

    struck = 0

    def strike(number: int, frame: FrameType | None) -> None:
        nonlocal struck
        struck += 1
        loop = _running_loop()
        if loop is None or struck > 1:
            raise TimeoutError
        # uvloop swallows what a signal's handler raises, and asyncio what a callback does. A
        # coroutine that blocks never sees the stop: it meets the exception a second later.
        for task in asyncio.all_tasks(loop):
            task.print_stack(file=sys.stderr)
        loop.call_soon_threadsafe(loop.stop)

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    except (TimeoutError, RuntimeError) as error:
        if not struck:
            raise
        pytest.fail(f"took longer than {seconds:g} s: {error!r}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
