"""Rules about the repository itself: make's targets, locks, wheels, and what may be named.

Reads files and runs make, buf and the build backend, offline; it ignores the gateway's code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools import guards

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("run", "dev", "gen", "docs")
PROMISED = "run test setup check gen docs bench soak mutants test-interop release help"
TARGETS = [*PROMISED.split(), "lock", "lint", "types", "clean"]

# In pieces, so that this file does not name what it forbids.
PACKAGE_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs"),
        ("proxy", "golang"),
        ("repo", "maven"),
        ("repo1", "maven"),
        ("deb", "debian", "org"),
        ("index", "crates"),
    )
]
HOME = re.compile(rb"(?<![\w.~*})-])/(?:work|root|home/\w+)/")


def pins(lock: str) -> dict[str, tuple[Version, str]]:
    """Name -> version and the text of its entry, of one lock file."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^(\S+?)==(\S+)(?: ;.*)? \\\n((?:[ ]{4}.*\n?)+)", text, re.MULTILINE)
    return {name: (Version(version), rest) for name, version, rest in entries}


def asked(name: str) -> list[Requirement]:
    """The requirements of one .in file, its own lines only."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def project(folder: str = ".") -> dict[str, Any]:
    path = ROOT / folder / "pyproject.toml"
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return table


def tracked() -> list[Path]:
    """Files that are committed, or would be: what git neither ignores nor lacks."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", f"PYTHON={sys.executable}", *arguments],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_help_lists_every_promised_target() -> None:
    listed = {line.split()[1] for line in make("help").stdout.splitlines()}
    assert set(TARGETS) <= listed


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_how_to_make_it(target: str) -> None:
    planned = make("--dry-run", target)
    assert planned.returncode == 0, planned.stderr


def test_make_run_starts_the_demo_a_configuration_or_a_server() -> None:
    assert "tetrad demo" in make("--dry-run", "run").stdout
    assert "serve --config 'a.yaml'" in make("--dry-run", "run", "CONFIG=a.yaml").stdout
    assert "--upstream 'http://b'" in make("--dry-run", "run", "UPSTREAM=http://b").stdout


@pytest.mark.parametrize(
    ("target", "program"),
    [
        ("bench", "bench/__main__.py"),
        ("soak", "bench/soak.py"),
        ("mutants", "tests/mutants/__main__.py"),
    ],
)
def test_a_target_without_its_program_says_so_and_fails(target: str, program: str) -> None:
    planned = make("--dry-run", target).stdout
    assert f"test -f {program} ||" in planned
    assert "not built yet" in planned
    assert "exit 2" in planned


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    entries = pins(lock)
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    named = re.findall(r"^[a-z].*==", text, re.MULTILINE)
    assert len(entries) == len(named) > 0
    assert [name for name, (_, rest) in entries.items() if "--hash=sha256:" not in rest] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    options = [line for line in text.splitlines() if line.startswith("-")]
    assert options == []
    assert "://" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_satisfies_what_its_source_asks(lock: str) -> None:
    entries = pins(lock)
    for wanted in asked(lock):
        version, _ = entries[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{wanted} is locked to {version}"


def test_the_development_lock_repeats_the_runtime_lock() -> None:
    run, dev = pins("run"), pins("dev")
    assert {name: dev[name][0] for name in run} == {name: pin for name, (pin, _) in run.items()}


def test_the_project_asks_for_what_its_lock_was_made_from() -> None:
    gateway = project()
    extras = gateway["optional-dependencies"]["demo"]
    ours = {str(Requirement(text)) for text in (*gateway["dependencies"], *extras)}
    build = {"editables>=0.5", "hatchling>=1.27"}
    assert ours - {"tetrad-contract"} | build == {str(wanted) for wanted in asked("run")}


def test_generated_code_is_not_newer_than_the_oldest_runtime_allowed() -> None:
    floors = {wanted.name: wanted.specifier for wanted in asked("run")}
    stubs = sorted((ROOT / "gen" / "tetrad" / "v1").glob("*_pb2_grpc.py"))
    assert stubs
    for stub in stubs:
        needed = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stub.read_text(encoding="utf-8"))
        assert needed is not None
        assert str(floors["grpcio"]) == f">={needed[1]}"
    for messages in (ROOT / "gen" / "tetrad" / "v1").glob("*_pb2.py"):
        needed = re.search(
            r"Protobuf Python Version: ([\d.]+)", messages.read_text(encoding="utf-8")
        )
        assert needed is not None
        assert Version(needed[1]) <= Version("6.33.5")
        assert not floors["protobuf"].contains("6.33.4")


def test_the_contract_is_a_typed_namespace_package_of_the_same_version() -> None:
    contract, gateway = project("gen"), project()
    assert contract["name"] == "tetrad-contract"
    assert contract["version"] == gateway["version"]
    assert set(contract["dependencies"]) < set(gateway["dependencies"])
    assert not list((ROOT / "gen").rglob("__init__.py"))
    assert (ROOT / "gen" / "tetrad" / "v1" / "py.typed").is_file()


def test_the_contract_wheel_holds_the_contract_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT / "gen",
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("tetrad_contract-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.rsplit("/", 1)[0] for name in names} == {"tetrad/v1"}
    kinds = {"chat_service_pb2.py", "chat_service_pb2.pyi", "chat_service_pb2_grpc.py"}
    kinds |= {"chat_service_pb2_grpc.pyi", "py.typed", "tetrad.binpb"}
    assert {f"tetrad/v1/{kind}" for kind in kinds} <= names


def test_the_licence_is_one_text() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert (ROOT / "gen" / "LICENSE").read_text(encoding="utf-8") == licence


def test_no_file_names_a_machine_s_folders_or_a_package_host() -> None:
    hosts = re.compile("|".join(map(re.escape, PACKAGE_HOSTS)).encode())
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in tracked()
        for pattern in (HOME, hosts)
        for match in pattern.finditer(path.read_bytes())
    ]
    assert found == []


def test_continuous_integration_is_a_strict_program() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """A copy of the contract's files in which today's state is the baseline."""
    shutil.copytree(ROOT / "proto" / "tetrad", tmp_path / "proto" / "tetrad")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    include = tmp_path / "build" / "include"
    include.mkdir(parents=True)
    (include / "google").symlink_to((ROOT / "build" / "include" / "google").resolve())
    (tmp_path / "gen").mkdir()
    (tmp_path / guards.BASELINE).mkdir()
    for folder in (tmp_path / "gen", tmp_path / guards.BASELINE):
        shutil.copy(ROOT / "gen" / guards.DESCRIPTORS, folder)
        (folder / guards.SURFACE).write_text("a string\nb int32\n", encoding="utf-8")
    return tmp_path


def test_an_unchanged_contract_passes_its_guards(contract: Path) -> None:
    assert {name: guard(contract) for name, guard in guards.GUARDS.items()} == {
        "lint": [],
        "breaking": [],
        "surface": [],
    }


def test_a_removed_field_fails_the_breaking_guard(contract: Path) -> None:
    usage = contract / "proto" / "tetrad" / "v1" / "usage.proto"
    text, removed = re.subn(r".*int32 total_tokens = .*\n", "", usage.read_text(encoding="utf-8"))
    assert removed
    usage.write_text(text, encoding="utf-8")
    assert "total_tokens" in "\n".join(guards.breaking(contract))


def test_an_uncommented_field_fails_the_lint_guard(contract: Path) -> None:
    odd = contract / "proto" / "tetrad" / "v1" / "odd.proto"
    odd.write_text('syntax = "proto3";\npackage tetrad.v1;\nmessage Odd {\n  string X = 1;\n}\n')
    assert "odd.proto" in "\n".join(guards.lint(contract))


def test_a_surface_may_gain_lines_but_never_lose_one(contract: Path) -> None:
    surface = contract / "gen" / guards.SURFACE
    surface.write_text("a string\nb int32\nc bool\n", encoding="utf-8")
    assert guards.surface(contract) == []
    surface.write_text("a string\nb int64\n", encoding="utf-8")
    assert guards.surface(contract) == ["gone from the JSON surface: b int32"]


def test_a_missing_baseline_fails_its_guard(contract: Path) -> None:
    shutil.rmtree(contract / guards.BASELINE)
    assert "is missing" in guards.breaking(contract)[0]
    assert "is missing" in guards.surface(contract)[0]
