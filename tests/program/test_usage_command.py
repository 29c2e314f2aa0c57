"""`tetrad usage`: totals as a table and as JSON, from files; what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.ledger import Ledger
from tests.lib.process import ROOT, Program
from tests.lib.tetrad import Done, done, tetrad
from tests.unit.ledger_calls import PRICES, ended

MODEL = {"name": "chat", "type": "text-generation", "providers": [{"url": "http://127.0.0.1:9"}]}


async def wrote(url: str) -> None:
    """A ledger with five calls of two keys."""
    one = Ledger(url, PRICES.get)
    await one.start()
    for key, model, prompt, outcome in [
        ("indexer", "e5", 1_000_000, "OK"),
        ("indexer", "e5", 234_567, "OK"),
        ("indexer", "chat", 0, "UNAVAILABLE"),
        ("ada", "chat", 5, "CANCELLED"),
        ("ada", "", None, "NOT_FOUND"),
    ]:
        completion = None if prompt is None else 3
        one.put(
            ended(
                key=key,
                model=model,
                prompt_tokens=prompt,
                completion_tokens=completion,
                audio_seconds=1.26 if outcome == "CANCELLED" else None,
                documents=2 if model == "e5" else None,
                outcome=outcome,
                source="none" if prompt is None else "upstream",
            )
        )
    assert await one.aclose(10) == 0


@pytest.fixture(params=["jsonl", "sqlite"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    made = f"{request.param}:{tmp_path}/usage"
    await wrote(made)
    return made


async def usage(*arguments: str | Path, **options: Any) -> Done:
    return await done(tetrad("usage", *arguments, **options))


async def test_the_table_has_a_row_per_key_and_model_and_a_total(url: str) -> None:
    told = await usage("--ledger", url)
    assert (told.code, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        "KEY      MODEL  CALLS  FAILED  LEFT  PROMPT TOKENS  COMPLETION TOKENS  TOTAL TOKENS"
        "  AUDIO S  DOCUMENTS    COST",
        "ada      -          1       1     0              0                  0             0"
        "      0.0          0  0.0000",
        "ada      chat       1       0     1              5                  3             0"
        "      1.3          0  0.0000",
        "indexer  chat       1       1     0              0                  3             0"
        "      0.0          0  0.0000",
        "indexer  e5         2       0     0      1,234,567                  6             0"
        "      0.0          4  0.1235",
        "TOTAL               5       2     1      1,234,572                 12             0"
        "      1.3          4  0.1235",
    ]


async def test_one_object_has_the_exact_figures(url: str) -> None:
    told = (await usage("--ledger", url, "--by", "key,source", "--json")).json()
    assert (told["since"], told["until"], told["by"]) == (None, None, ["key", "source"])
    assert [(row["key"], row["source"], row["calls"]) for row in told["rows"]] == [
        ("ada", "none", 1),
        ("ada", "upstream", 1),
        ("indexer", "upstream", 3),
    ]
    assert told["total"] == {
        "calls": 5,
        "failed": 2,
        "cancelled": 1,
        "prompt_tokens": 1_234_572,
        "completion_tokens": 12,
        "total_tokens": 0,
        "audio_seconds": 1.26,
        "documents": 4,
        "cost": 0.1234682,
    }


async def test_days_and_times_bound_what_counts(url: str) -> None:
    now = datetime.now(UTC)
    later = (now + timedelta(hours=1)).astimezone().isoformat()
    cases = [
        (["--since", "7d"], 5),
        (["--since", later], 0),
        (["--until", later], 5),
        (["--until", "1h"], 0),
        (["--since", f"{now - timedelta(days=1):%Y-%m-%d}", "--until", "2999-01-01"], 5),
    ]
    for bounds, calls in cases:
        told = (await usage("--ledger", url, *bounds, "--by", "", "--json")).json()
        assert told["total"]["calls"] == calls, bounds
    days = (await usage("--ledger", url, "--by", "day", "--json")).json()["rows"]
    assert {row["day"] for row in days} <= {
        f"{now:%Y-%m-%d}",
        f"{datetime.now(UTC):%Y-%m-%d}",
    }


async def test_the_ledger_is_that_of_the_configuration(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tetrad.yaml"
    path.write_text(json.dumps({"models": [MODEL], "ledger": {"url": url}}))
    for told in (
        await usage("--config", path, "--by", ""),
        await usage("--by", "", cwd=tmp_path),
    ):
        assert (told.code, told.stderr) == (0, "")
        assert told.stdout.splitlines()[1].split()[:4] == ["5", "2", "1", "1,234,572"]


async def test_what_cannot_be_read_is_told_in_a_line(tmp_path: Path) -> None:
    without = tmp_path / "without.yaml"
    without.write_text(json.dumps({"models": [MODEL]}))
    (tmp_path / "text").write_text("text " * 1000)
    cases: list[tuple[list[str | Path], int, str]] = [
        (["--ledger", f"jsonl:{tmp_path}/no"], 1, "no such file or directory"),
        (["--ledger", f"sqlite:{tmp_path}/no"], 1, "unable to open database file"),
        (["--ledger", f"sqlite:{tmp_path}/text"], 1, "file is not a database"),
        (["--config", without], 1, "set its ledger.url, or name one with --ledger URL"),
        (["--config", tmp_path / "no.yaml"], 1, "no such file or directory"),
        (["--ledger", "mysql://me:sesame@h"], 2, "jsonl:PATH, sqlite:PATH or postgresql://..."),
        (["--ledger", "jsonl:x", "--by", "color"], 2, "key, model, endpoint, day"),
        (["--ledger", "jsonl:x", "--since", "soon"], 2, "7d, 12h or 30m"),
        (["--ledger", "jsonl:x", "--config", "y"], 2, "not allowed with"),
    ]
    for arguments, code, words in cases:
        told = await usage(*arguments)
        assert (told.code, told.stdout) == (code, ""), arguments
        assert words in told.stderr.splitlines()[-1]
        assert "sesame" not in told.stderr
    assert not (tmp_path / "no").exists()


async def test_lines_that_are_no_records_are_told_and_not_counted(tmp_path: Path) -> None:
    await wrote(f"jsonl:{tmp_path}/usage")
    with (tmp_path / "usage").open("a") as file:
        file.write('{"time": "2026-\n\n[]\n{"time": "2026-01-01", "outcome": "OK"}\n')
    told = await usage("--ledger", f"jsonl:{tmp_path}/usage", "--by", "", "--json")
    assert (told.code, told.json()["total"]["calls"]) == (0, 5)
    assert told.stderr == "warning: 3 lines are no records, and not counted"


def test_help_teaches_by_example() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "services", "usage", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for words in ("tetrad usage --since 7d", "--by day,model --json", "Exit codes: 0 printed"):
        assert words in told.stdout


async def test_a_big_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    await wrote(f"jsonl:{tmp_path}/one")
    lines = (tmp_path / "one").read_bytes()
    path = tmp_path / "usage"
    with path.open("wb") as file:
        for _ in range(60):
            file.write(lines * 1000)
    size = path.stat().st_size
    assert size > 100_000_000
    script = (
        "import resource, sys\n"
        "from services.ledger import totals\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(totals.read(sys.argv[1], ['key'], None, None).total()[0])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    told = await done(Program("python", "-c", script, f"jsonl:{path}", cwd=ROOT))
    calls, grown = map(int, told.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    assert calls == 300_000
    assert grown * unit < size / 5
