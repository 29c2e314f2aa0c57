"""The ledger's files: lines and tables that several processes write, full disks, rotations."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.config import ConfigError, parse
from services.ledger import Ledger, LedgerFault, ledger, record, totals
from services.ledger.jsonl import JsonLines
from services.ledger.record import COLUMNS, NAMES, TABLE
from services.ledger.sqlite import Sqlite
from services.ledger.store import StoreDown
from tests.lib.process import ROOT, Program
from tests.lib.rig import until
from tests.unit.ledger_calls import PRICES, added_up, ended, some_calls

by_file = pytest.mark.parametrize("kind", ["jsonl", "sqlite"])

WRITER = """
import asyncio, sys
from services.ledger import Ledger
from tests.unit.ledger_calls import PRICES, some_calls

async def main(url, seed):
    one = Ledger(url, PRICES.get)
    await one.start()
    for number, call in enumerate(some_calls(seed, 2500)):
        one.put(call)
        if number % 25 == 0:
            await asyncio.sleep(0.002)
    assert await one.aclose(30) == 0

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def of(number: int) -> record.Record:
    return record.of(ended(f"req_{number}"), PRICES.get)


def whole_lines(path: Path) -> tuple[list[Any], int]:
    """The records of a file, and how many lines are none."""
    found, torn = [], 0
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            torn += 1
    return found, torn


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk that is full at that size: a write takes what fits, the next one nothing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@by_file
async def test_four_processes_write_to_one_file(kind: str, tmp_path: Path) -> None:
    """G9, G11: each record is there once and whole."""
    url = f"{kind}:{tmp_path}/usage"
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
    found = totals.read(url, ["key", "model"], None, None)
    assert found.unread == 0
    expected = added_up([call for seed in range(4) for call in some_calls(seed, 2500)], PRICES)
    assert found.rows.keys() == expected.keys()
    for key, figures in found.rows.items():
        assert figures == pytest.approx(expected[key], rel=1e-9), key


@by_file
async def test_a_full_disk_loses_nothing_and_doubles_nothing(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G9, G35."""
    monkeypatch.setattr(ledger, "LAST_PAUSE", 0.2)
    url = f"{kind}:{tmp_path}/usage"
    one = Ledger(url, PRICES.get)
    await one.start()
    with no_file_beyond(200_000):
        for number in range(1500):
            one.put(ended(f"req_{number}"))
        await until(lambda: "are not written" in caplog.text)
        assert one.queued + one.written == 1500
        assert one.queued > 0
    assert await one.aclose(20) == 0
    if kind == "jsonl":
        records, torn = whole_lines(tmp_path / "usage")
        assert torn <= 1
        ids = [one["id"] for one in records]
    else:
        with closing(sqlite3.connect(tmp_path / "usage")) as connection:
            ids = [row[0] for row in connection.execute("SELECT id FROM tetrad_usage")]
    assert sorted(ids) == sorted(f"req_{number}" for number in range(1500))


async def test_a_line_without_its_end_is_ended_before_the_next(tmp_path: Path) -> None:
    """What a process that was killed leaves behind."""
    path = tmp_path / "usage"
    path.write_bytes(b'{"time": "2026-')
    store = JsonLines(str(path))
    await store.open()
    assert await store.write([of(1), of(2)]) == 2
    await store.aclose()
    records, torn = whole_lines(path)
    assert ([one["id"] for one in records], torn) == (["req_1", "req_2"], 1)
    found = totals.read(f"jsonl:{path}", [], None, None)
    assert (found.total()[0], found.unread) == (2, 1)


async def test_a_line_that_lacks_only_its_line_break_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    path.write_bytes(b"\n" * 200_000)
    store = JsonLines(str(path))
    await store.open()
    first, second = of(1), of(2)
    length = len(json.dumps(dict(zip(NAMES, first, strict=True)), separators=(",", ":")))
    with no_file_beyond(200_000 + length):
        assert await store.write([first, second]) == 1
        with pytest.raises(StoreDown, match="too large"):
            await store.write([second])
    assert await store.write([second]) == 1
    await store.aclose()
    records, torn = whole_lines(path)
    assert torn == len([line for line in path.read_bytes().split(b"\n")[:-1] if not line])
    assert [one["id"] for one in records] == ["req_1", "req_2"]


@by_file
@pytest.mark.parametrize("how", ["moved", "removed"])
async def test_a_file_that_was_taken_away_is_made_anew(kind: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "usage"
    one = Ledger(f"{kind}:{path}", PRICES.get)
    await one.start()
    one.put(ended("req_1"))
    await until(lambda: one.written == 1)
    if how == "moved" and kind == "jsonl":
        path.rename(tmp_path / "usage.1")
    else:
        path.unlink()
    one.put(ended("req_2"))
    await until(lambda: one.written == 2)
    assert totals.read(f"{kind}:{path}", [], None, None).total()[0] == 1
    if how == "moved" and kind == "jsonl":
        assert [line["id"] for line in whole_lines(tmp_path / "usage.1")[0]] == ["req_1"]
    assert await one.aclose(10) == 0


@by_file
async def test_reopening_loses_nothing(kind: str, tmp_path: Path) -> None:
    one = Ledger(f"{kind}:{tmp_path}/usage", PRICES.get)
    await one.start()
    for number in range(5):
        one.put(ended(f"req_{number}"))
        await until(lambda: not one.queued)
        one.reopen()
    assert await one.aclose(10) == 0
    assert totals.read(f"{kind}:{tmp_path}/usage", [], None, None).total()[0] == 5


async def test_a_table_says_once_what_is_written_twice(tmp_path: Path) -> None:
    """A commit that nobody heard of."""
    store = Sqlite(str(tmp_path / "usage"))
    await store.open()
    assert await store.write([of(1), (again := of(2))]) == 2
    assert await store.write([again, of(3)]) == 2
    await store.aclose()
    assert totals.read(f"sqlite:{tmp_path}/usage", [], None, None).total()[0] == 3


async def test_a_database_that_another_holds_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ledger.sqlite.BUSY", 0.1)
    one = Ledger(f"sqlite:{tmp_path}/usage", PRICES.get)
    await one.start()
    with closing(sqlite3.connect(tmp_path / "usage", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        one.put(ended())
        await until(lambda: "are not written" in caplog.text)
        other.execute("ROLLBACK")
    assert await one.aclose(10) == 0
    assert one.written == 1


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda path: path.write_text("text " * 1000), "name another file"),
        (lambda path: _other_table(path), "another version"),
    ],
    ids=["no database", "another table"],
)
async def test_a_file_of_something_else_stops_the_start(
    make: Any, hint: str, tmp_path: Path
) -> None:
    make(tmp_path / "usage")
    with pytest.raises(LedgerFault, match=hint):
        await Ledger(f"sqlite:{tmp_path}/usage", PRICES.get).start()


def _other_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {TABLE} (time TEXT, tokens INTEGER)")


def page() -> str:
    return (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")


def test_the_page_tells_every_column_in_its_order() -> None:
    table = page().partition("| column | holds |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    told = [name.strip(" `") for cell in first for name in cell.split(",")]
    assert told == [column.name for column in COLUMNS]


async def test_the_page_s_queries_run(tmp_path: Path) -> None:
    one = Ledger(f"sqlite:{tmp_path}/usage", PRICES.get)
    await one.start()
    one.put(ended(prompt_tokens=7))
    assert await one.aclose(10) == 0
    queries = re.findall(r"```sql\n(.*?)```", page(), re.DOTALL)
    assert len(queries) == 2
    with closing(sqlite3.connect(tmp_path / "usage")) as connection:
        found = connection.execute(queries[0].replace("2026-02-01", "2999-01-01")).fetchall()
        assert [row[:4] for row in found] == [("indexer", "chat", 1, 7)]
        assert connection.execute(queries[1].replace("2025", "2999")).rowcount == 1


async def test_the_page_s_configuration_is_good() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", page(), re.DOTALL)
    config = parse(f"required_types: []\n{text}", "page", {})
    assert config.ledger.url == "sqlite:/var/lib/tetrad/usage.db"


@pytest.mark.parametrize("url", ["jsonl:", "sqlite::memory:", "sqlite:///usage.db", "jsonl://x"])
def test_a_url_without_a_file_s_path_is_a_fault(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.url: expected the path of a file; such as"):
        parse(f"models: []\nledger: {{url: '{url}'}}", "t.yaml", {}, upstreams=["http://h"])
