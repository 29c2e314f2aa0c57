"""The ledger in PostgreSQL, a real one: frozen, killed and started again under load."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import asyncpg  # type: ignore[import-untyped]
import pytest

from services.ledger import Ledger, LedgerFault, ledger, postgres, totals
from services.ledger.record import TABLE
from tests.lib.process import ROOT, Program
from tests.lib.refusing import refusing_port
from tests.lib.rig import until
from tests.lib.tetrad import done, tetrad
from tests.unit import ledger_server
from tests.unit.ledger_calls import PRICES, added_up, ended, some_calls
from tests.unit.test_ledger_files import WRITER


@pytest.fixture(scope="module")
def server() -> Iterator[ledger_server.Server]:
    with ledger_server.postgres() as one:
        yield one


@pytest.fixture
async def url(server: ledger_server.Server) -> str:
    """The server's database, without the table."""
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
    await connection.close()
    return server.url


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is seen and ended sooner than in production."""
    monkeypatch.setattr(ledger, "WRITE", 0.3)
    monkeypatch.setattr(ledger, "LAST_PAUSE", 0.2)
    monkeypatch.setattr(postgres, "CONNECT", 0.5)


async def ids(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [
            row["id"] for row in await connection.fetch("SELECT id FROM tetrad_usage ORDER BY id")
        ]
    finally:
        await connection.close()


async def read(url: str, by: list[str]) -> totals.Usage:
    return await asyncio.to_thread(totals.read, url, by, None, None)


class Feed:
    """Puts calls for as long as it is entered, and sees how long the loop was held up."""

    def __init__(self, one: Ledger) -> None:
        self.count = 0
        self.longest = 0.0
        self._ledger = one

    async def __aenter__(self) -> Feed:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            begun = time.monotonic()
            for _ in range(10):
                self._ledger.put(ended(f"req_{self.count:06}"))
                self.count += 1
            await asyncio.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - begun)


async def test_totals_are_the_sums_over_the_calls(url: str) -> None:
    """G9, G11, G12: to the token, with a fifth of the calls cancelled."""
    calls = some_calls(4, 2000)
    one = Ledger(url, PRICES.get)
    await one.start()
    for call in calls:
        one.put(call)
    assert await one.aclose(20) == 0
    assert one.written == 2000
    found = await read(url, ["key", "model"])
    expected = added_up(calls, PRICES)
    assert found.rows.keys() == expected.keys()
    for key, figures in found.rows.items():
        assert figures == pytest.approx(expected[key], rel=1e-9), key
    by_day = await read(url, ["day", "month"])
    assert [figures[0] for figures in by_day.rows.values()] == [2000]
    ((day, month),) = by_day.rows
    assert day is not None
    assert month is not None
    assert (len(day), month) == (10, day[:7])


async def test_four_processes_write_to_one_table(url: str) -> None:
    """G9: they also make the table, at the same time."""
    programs = [
        Program("python", "-W", "error", "-c", WRITER, url, str(seed), cwd=ROOT)
        for seed in range(4)
    ]
    try:
        codes = await asyncio.gather(*(program.exit(50) for program in programs))
    finally:
        for program in programs:
            program.close()
    assert codes == [0] * 4, [program.output for program in programs]
    assert [program.stderr for program in programs] == [[]] * 4
    assert (await read(url, [])).total()[0] == 10_000


async def test_many_may_make_the_table_at_once(url: str) -> None:
    for _ in range(5):
        found = [postgres.Postgres(url) for _ in range(8)]
        try:
            await asyncio.gather(*(one.open() for one in found))
        finally:
            for one in found:
                one.interrupt()
        connection = await asyncpg.connect(url)
        await connection.execute(f"DROP TABLE {TABLE}")
        await connection.close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_a_server_that_fails_under_load_is_waited_out(
    url: str, server: ledger_server.Server, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G9, G38: calls go on meanwhile; afterwards each record is there once."""
    caplog.set_level(logging.INFO, "tetrad.ledger")
    one = Ledger(url, PRICES.get, max_queue=1_000_000)
    await one.start()
    async with Feed(one) as feed:
        await until(lambda: one.written > 100)
        server.freeze() if how == "frozen" else server.kill()
        try:
            await until(lambda: "are not written" in caplog.text)
            before = feed.count
            await until(lambda: feed.count > before + 300 and one.queued > 300)
        finally:
            if how == "frozen":
                server.thaw()
            else:
                await asyncio.to_thread(server.start)
        await until(lambda: "are written again" in caplog.text, 15)
    assert await one.aclose(15) == 0
    assert feed.longest < 2
    assert (one.written, one.dropped) == (feed.count, 0)
    assert await ids(url) == [f"req_{number:06}" for number in range(feed.count)]
    assert caplog.text.count("are not written") == 1


@pytest.mark.usefixtures("quick")
async def test_a_write_that_was_cut_is_not_there_twice(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G9: the server carries a statement out after we have given it up and sent it again."""
    one = Ledger(url, PRICES.get)
    await one.start()
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {TABLE} IN EXCLUSIVE MODE")
        for number in range(50):
            one.put(ended(f"req_{number:02}"))
        await until(lambda: "does not answer" in caplog.text)
        waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"
        for _ in range(200):
            if await connection.fetchval(waiting) > 1:
                break
            await asyncio.sleep(0.02)
        assert await connection.fetchval(waiting) > 1  # the first one, and a second attempt
    await connection.close()
    assert await one.aclose(15) == 0
    assert await ids(url) == [f"req_{number:02}" for number in range(50)]


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_hangs_is_dropped_for_another(url: str) -> None:
    one = Ledger(url, PRICES.get)
    await one.start()
    connection = await asyncpg.connect(url)
    process = await connection.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'tetrad'"
    )
    await connection.close()
    os.kill(process, signal.SIGSTOP)
    try:
        one.put(ended("req_1"))
        await until(lambda: one.written == 1)
        assert await ids(url) == ["req_1"]
        assert await one.aclose(10) == 0
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.usefixtures("quick")
async def test_a_drain_in_front_of_a_frozen_server_ends_in_time(
    url: str, server: ledger_server.Server
) -> None:
    """G38: what is lost is told."""
    one = Ledger(url, PRICES.get)
    await one.start()
    one.put(ended())
    await until(lambda: one.written == 1)
    server.freeze()
    try:
        for _ in range(30):
            one.put(ended())
        begun = time.monotonic()
        assert await one.aclose(1) == 30
        assert time.monotonic() - begun < 10
    finally:
        server.thaw()


async def test_the_queue_is_bounded_while_nobody_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G35: an unreachable database does not stop the start either."""
    with refusing_port() as port:
        one = Ledger(f"postgresql://me:sesame@127.0.0.1:{port}/db", PRICES.get, max_queue=100)
        await one.start()
        assert "are not written (PostgreSQL: " in caplog.text
        for _ in range(1000):
            one.put(ended())
        assert (one.queued, one.dropped) == (100, 900)
        assert await one.aclose(0.3) == 1000
    assert "sesame" not in caplog.text


@pytest.mark.usefixtures("quick")
async def test_a_database_that_comes_later_gets_what_waited(
    url: str, server: ledger_server.Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    try:
        one = Ledger(url, PRICES.get)
        await one.start()
        one.put(ended("req_early"))
    finally:
        await asyncio.to_thread(server.start)
    await until(lambda: one.written == 1, 15)
    assert await one.aclose(10) == 0
    assert await ids(url) == ["req_early"]


def with_user(url: str, password: str) -> str:
    user = f"{ledger_server.USER}:{quote(password, safe='')}"
    return url.replace("postgres:@", f"{user}@")


REFUSED: dict[str, tuple[Any, str]] = {
    "a wrong password": (lambda url: with_user(url, "sesame"), "correct its user or password"),
    "no such database": (
        lambda url: url.replace("/postgres?", "/nowhere?"),
        "make that database, or name another one",
    ),
    "no right to make the table": (
        lambda url: with_user(url, ledger_server.PASSWORD),
        "let that user make and fill the table there",
    ),
    "a password that breaks the URL": (
        lambda url: "postgresql://me:sesame/1@127.0.0.1/db",
        "%2F for a /",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_must_be_corrected_stops_the_start(url: str, what: str) -> None:
    """It names the key and what to do, and no password."""
    change, hint = REFUSED[what]
    with pytest.raises(LedgerFault) as caught:
        await Ledger(change(url), PRICES.get).start()
    assert str(caught.value).startswith("ledger.url: ")
    assert hint in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_a_user_who_may_only_insert_suffices_once_the_table_is_there(
    url: str, server: ledger_server.Server
) -> None:
    first = Ledger(url, PRICES.get)
    await first.start()
    assert await first.aclose(5) == 0
    connection = await asyncpg.connect(url)
    await connection.execute(f"GRANT SELECT, INSERT ON {TABLE} TO {ledger_server.USER}")
    await connection.close()
    one = Ledger(with_user(url, ledger_server.PASSWORD), PRICES.get)
    await one.start()
    one.put(ended("req_1"))
    assert await one.aclose(5) == 0
    assert await ids(url) == ["req_1"]


async def test_the_command_adds_up_a_database(url: str) -> None:
    one = Ledger(url, PRICES.get)
    await one.start()
    one.put(ended(prompt_tokens=1000))
    assert await one.aclose(5) == 0
    told, soon, fails = await asyncio.gather(
        done(tetrad("usage", "--ledger", url, "--since", "1d", "--json")),
        done(tetrad("usage", "--ledger", url, "--until", "1d", "--by", "day")),
        done(tetrad("usage", "--ledger", url.replace("/postgres?", "/nowhere?"))),
    )
    assert (told.code, told.stderr) == (0, "")
    (row,) = told.json()["rows"]
    assert (row["key"], row["model"], row["calls"], row["prompt_tokens"], row["cost"]) == (
        "indexer",
        "chat",
        1,
        1000,
        0.0005,
    )
    assert (soon.code, soon.stdout.splitlines()[-1].split()[:2]) == (0, ["TOTAL", "0"])
    assert (fails.code, fails.stdout) == (1, "")
    assert fails.stderr == (
        'tetrad: the ledger cannot be read: PostgreSQL refuses: database "nowhere" does not exist'
    )
