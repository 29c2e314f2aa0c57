"""Where reloads come from: a file that changes, a signal, and what a restart is needed for."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from services import reload
from services.config import Config, ConfigError, load, parse
from services.reload import Change, FileSource, fixed_faults

QUICK = 0.02
"""Seconds between two looks at the file."""

SEVERAL_LOOKS = 15 * QUICK


def text(*models: str, more: str = "") -> str:
    entries = ", ".join(
        f"{{name: {name}, type: text-generation, providers: [{{url: 'http://h'}}]}}"
        for name in models
    )
    return f"models: [{entries}]\n{more}\n"


def write(path: Path, content: str) -> None:
    path.write_text(content)


def read(path: Path) -> str:
    return path.read_text()


def config(more: str = "") -> Config:
    return parse(text("a", more=more), "t.yaml", {})


class Watched:
    """A source, and its changes as they come."""

    def __init__(self, path: Path, environ: dict[str, str] | None = None) -> None:
        self.source = FileSource(path, lambda: load(path, environ or {}), every=QUICK)
        self._changes = self.source.changes()
        self._coming: asyncio.Future[Change] | None = None

    async def next(self) -> Change:
        coming, self._coming = self._coming or self._await(), None
        async with asyncio.timeout(10):
            return await coming

    def _await(self) -> asyncio.Future[Change]:
        return asyncio.ensure_future(anext(self._changes))

    async def taken(self) -> Config:
        """The next change, which is good and is taken."""
        change = await self.next()
        assert change.config is not None, change.faults
        self.source.applied(change.generation, None)
        return change.config

    async def assert_none(self) -> None:
        """Nothing comes within several looks."""
        self._coming = self._coming or self._await()
        done, _ = await asyncio.wait({self._coming}, timeout=SEVERAL_LOOKS)
        assert not done


def names(config: Config) -> list[str]:
    return [model.name for model in config.models]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reload, "_SETTLED", QUICK)
    path = tmp_path / "tetrad.yaml"
    write(path, text("a"))
    return path


# What is a change.


async def test_another_content_is_a_change_and_counts_when_it_is_taken(path: Path) -> None:
    """G37."""
    watched = Watched(path)
    assert watched.source.generation == 1
    for generation, models in ((2, ["a", "b"]), (3, ["b"])):
        write(path, text(*models))
        change = await watched.next()
        assert change.config is not None
        assert (change.generation, names(change.config)) == (generation, models)
        assert watched.source.generation == generation - 1
        watched.source.applied(generation, None)
        assert watched.source.generation == generation
        assert watched.source.config == change.config


async def test_a_file_that_an_editor_replaces_by_rename_is_read(path: Path) -> None:
    watched = Watched(path)
    fresh = path.with_suffix(".new")
    fresh.write_text(text("b"))
    os.utime(fresh, (1, 1))  # older than the one it replaces
    fresh.rename(path)
    assert names(await watched.taken()) == ["b"]


async def test_a_symbolic_link_that_leads_elsewhere_is_read(path: Path, tmp_path: Path) -> None:
    """How a mounted ConfigMap changes: the folder behind the link is another."""
    for name in "a", "b":
        (tmp_path / f"data-{name}").mkdir()
        (tmp_path / f"data-{name}" / "c.yaml").write_text(text(name))
        os.utime(tmp_path / f"data-{name}" / "c.yaml", (1, 1))
    link = tmp_path / "data"
    link.symlink_to("data-a")
    watched = Watched(link / "c.yaml")
    other = tmp_path / "data-new"
    other.symlink_to("data-b")
    other.rename(link)
    assert names(await watched.taken()) == ["b"]


async def test_the_same_content_again_is_no_change(path: Path) -> None:
    watched = Watched(path)
    write(path, read(path))
    os.utime(path, (1, 1))
    await watched.assert_none()


async def test_a_change_that_leaves_time_and_size_alone_is_seen(path: Path) -> None:
    """The clock of a file system is coarse: a stamp is not believed while it is fresh."""
    soon = time.time() + 60
    os.utime(path, (soon, soon))
    watched = Watched(path)
    await watched.assert_none()
    before = os.stat(path)
    write(path, text("b"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(await watched.taken()) == ["b"]


async def test_a_file_is_not_read_while_it_is_being_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written so far parses: half of the models would be gone for a moment."""
    monkeypatch.setattr(reload, "_SETTLED", 0.3)
    watched = Watched(path)
    whole = "models:\n" + "".join(
        f"  - {{name: m{n}, type: text-generation, providers: [{{url: 'http://h'}}]}}\n"
        for n in range(40)
    )

    async def write() -> None:
        with path.open("w") as file:
            for line in whole.splitlines(keepends=True):
                file.write(line)
                file.flush()
                await asyncio.sleep(0.03)

    writing = asyncio.create_task(write())
    assert len((await watched.taken()).models) == 40
    await writing
    await watched.assert_none()


async def test_reload_reads_again_also_what_did_not_change(path: Path) -> None:
    environ = {"NAME": "a"}
    write(path, text("${NAME}"))
    watched = Watched(path, environ)
    await watched.assert_none()
    environ["NAME"] = "b"
    watched.source.reload()
    assert names(await watched.taken()) == ["b"]
    assert watched.source.generation == 2
    watched.source.reload()
    assert names(await watched.taken()) == ["b"]
    assert watched.source.generation == 3


async def test_without_a_file_only_reload_is_a_change() -> None:
    source = FileSource(None, lambda: Config.for_upstreams(["http://h"]), every=QUICK)
    changes = source.changes()
    source.reload()
    change = await anext(changes)
    assert change.config is not None
    assert change.generation == 2


# What is not taken.


async def test_a_bad_file_keeps_the_generation_and_says_why(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """G37; and a file that is right again is taken, though it is the one from before."""
    watched = Watched(path)
    good = read(path)
    for bad, said in (
        ("models: [", f"{path}:"),
        (text("a", more="nonsens: 1"), "unknown key"),
        (text("a", "a"), "duplicate name"),
        ("", "the file is empty"),
    ):
        caplog.clear()
        write(path, bad)
        change = await watched.next()
        assert change.config is None
        assert change.generation == watched.source.generation == 1
        assert said in str(change.faults[0])
        assert str(change.faults[0]) in caplog.text
        assert "generation 1 stays" in caplog.text
        await watched.assert_none()
    write(path, good)
    assert names(await watched.taken()) == ["a"]
    assert watched.source.generation == 2


async def test_a_file_that_is_gone_is_a_fault_and_its_return_a_change(path: Path) -> None:
    watched = Watched(path)
    os.unlink(path)
    change = await watched.next()
    assert change.config is None
    assert "no such file" in str(change.faults[0])
    write(path, text("b"))
    assert names(await watched.taken()) == ["b"]


async def test_a_reader_that_breaks_does_not_end_the_watch(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = False

    def read() -> Config:
        if broken:
            raise RecursionError("secret")
        return load(path, {})

    source = FileSource(path, read, every=QUICK)
    changes = source.changes()
    broken = True
    source.reload()
    change = await anext(changes)
    assert change.config is None
    assert "RecursionError" in str(change.faults[0])
    assert "secret" not in str(change.faults[0])
    broken = False
    source.reload()
    assert (await anext(changes)).config is not None
    assert "reading the configuration failed" in caplog.text


async def test_what_the_gateway_does_not_take_is_no_generation(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(path)
    write(path, text("b"))
    change = await watched.next()
    watched.source.applied(change.generation, "no room")
    assert watched.source.generation == 1
    assert names(watched.source.config) == ["a"]
    assert "not taken, generation 1 stays: no room" in caplog.text
    write(path, text("c"))
    assert names(await watched.taken()) == ["c"]
    assert watched.source.generation == 2


async def test_only_what_was_offered_can_be_taken(path: Path) -> None:
    watched = Watched(path)
    with pytest.raises(ValueError, match="generation 2 was not offered"):
        watched.source.applied(2, None)
    write(path, "nonsens: 1")
    assert (await watched.next()).config is None
    with pytest.raises(ValueError, match="generation 1 was not offered"):
        watched.source.applied(1, None)


async def test_warnings_of_a_configuration_are_told_when_it_is_taken(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tetrad")
    watched = Watched(path)
    write(path, text("a", more="dependencies: {}"))
    assert (taken := await watched.taken()).warnings
    assert taken.warnings[0] in caplog.text


def test_a_start_with_a_bad_file_is_refused(path: Path) -> None:
    write(path, "nonsens: 1")
    with pytest.raises(ConfigError):
        FileSource(path, lambda: load(path, {}))


# What a restart is needed for.

FIXED = {
    "workers": "workers: 2",
    "grpc.address": "grpc: {address: '127.0.0.1:1'}",
    "grpc.max_connection_age": "grpc: {max_connection_age: null}",
    "http.address": "http: {address: '127.0.0.1:1'}",
    "http": "http: null",
    "limits.max_request_bytes": "limits: {max_request_bytes: 5}",
    "ledger.url": "ledger: {url: 'sqlite:x'}",
    "telemetry.log_format": "telemetry: {log_format: json}",
    "telemetry.otlp_endpoint": "telemetry: {otlp_endpoint: 'http://h:4318'}",
}


@pytest.mark.parametrize("key", FIXED)
def test_what_cannot_change_is_refused_in_both_directions(key: str) -> None:
    old, new = config(), config(FIXED[key])
    for one, other in ((old, new), (new, old)):
        assert [str(fault) for fault in fixed_faults(one, other)] == [
            f"t.yaml: {key}: a running gateway keeps it; restart to change it"
        ]


def test_everything_else_can_change() -> None:
    more = "limits: {max_in_flight: 5}\nhttp: {cors: ['*']}\ndrain: {grace: 1}\nrelay: false"
    assert fixed_faults(config(), config(more)) == []


def test_every_fixed_setting_exists() -> None:
    def present(key: str) -> bool:
        section, _, name = key.partition(".")
        fields = type(getattr(Config(), section)).model_fields if name else Config.model_fields
        return (name or section) in fields

    assert [key for key in reload.FIXED if not present(key)] == []


async def test_a_change_of_what_is_fixed_keeps_the_old_configuration(path: Path) -> None:
    watched = Watched(path)
    write(path, text("b", more="workers: 3"))
    change = await watched.next()
    assert change.config is None
    assert "workers" in str(change.faults[0])
    assert names(watched.source.config) == ["a"]
