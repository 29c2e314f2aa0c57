"""Makes the virtual environments: `setup.py run|dev` for .venv, `setup.py gen` for .venv-gen.

Standard library only, since it runs before anything is installed. An environment that already holds
what its lock file says is left alone; a digest of everything that went in is its stamp.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = ROOT / "build" / "include" / "google"
OLDEST = (3, 11)


@dataclass(frozen=True)
class Environment:
    """One kind of environment: its folder, its lock, and whether our code goes into it."""

    folder: str
    lock: str
    purpose: str
    editable: bool
    covers: tuple[str, ...] = ()  # kinds that this one's lock is a superset of


ENVIRONMENTS = {
    "run": Environment(".venv", "requirements/run.txt", "the gateway and its demo", True),
    "dev": Environment(".venv", "requirements/dev.txt", "gateway, tests and tools", True, ("run",)),
    "gen": Environment(".venv-gen", "requirements/gen.txt", "the code generator", False),
    "docs": Environment(".venv-docs", "requirements/docs.txt", "the documentation", False),
}


def digest(environment: Environment) -> str:
    """Changes with the lock, the project's own metadata, the interpreter and the folder's place."""
    state = hashlib.sha256(f"{ROOT}\0{sys.version}\0".encode())
    names = [environment.lock]
    if environment.editable:
        names += ["pyproject.toml", "proto/packaging/pyproject.toml"]
    for name in names:
        state.update((ROOT / name).read_bytes())
    return state.hexdigest()


def stamp(kind: str) -> Path:
    return ROOT / ENVIRONMENTS[kind].folder / f".{kind}.stamp"


def is_current(kind: str) -> bool:
    """True when the environment was completed from exactly today's inputs and still stands."""
    environment = ENVIRONMENTS[kind]
    try:
        recorded = stamp(kind).read_text()
    except FileNotFoundError:
        return False
    in_place = LINK.is_dir() or not environment.editable
    return recorded == digest(environment) and python_of(environment).exists() and in_place


def python_of(environment: Environment) -> Path:
    return ROOT / environment.folder / "bin" / "python"


def base_python() -> Path:
    """The Python outside any environment: ours may be the very one that is made anew."""
    outside = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    return outside if outside.exists() else Path(sys.executable)


def pip(environment: Environment, *arguments: str) -> None:
    """Runs the environment's pip, which asks nothing; raises CalledProcessError when it fails."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    subprocess.run(
        [python_of(environment), "-m", "pip", *arguments, *quiet],
        check=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )


def is_usable(environment: Environment) -> bool:
    """False for a folder that is missing, half made, moved here, or of another Python."""
    probe = "import sys, pip; print(sys.prefix, sys.version)"
    if not python_of(environment).exists():
        return False
    answer = subprocess.run(
        [python_of(environment), "-c", probe], capture_output=True, text=True, check=False
    )
    return answer.stdout == f"{ROOT / environment.folder} {sys.version}\n"


def build(kind: str) -> None:
    """Creates or completes one environment from its lock, then stamps it."""
    environment = ENVIRONMENTS[kind]
    folder = ROOT / environment.folder
    for other, its in ENVIRONMENTS.items():
        if its.folder == environment.folder:
            stamp(other).unlink(missing_ok=True)
    if not is_usable(environment):
        if folder.exists():
            shutil.rmtree(folder)
        subprocess.run([base_python(), "-m", "venv", folder], check=True)
    # The lock is complete, so pip needs no resolver; the hashes refuse anything that is not in it.
    pip(environment, "install", "--require-hashes", "--no-deps", "-r", environment.lock)
    if environment.editable:
        copy_packaging()
        link_google(environment)
        pip(environment, "install", "--no-deps", "--no-build-isolation", "-e", ".", "-e", "gen")
    for name in (kind, *environment.covers):
        stamp(name).write_text(digest(ENVIRONMENTS[name]))


def copy_packaging() -> None:
    """Puts the hand-written files of the contract's wheel into gen/, as `make gen` does."""
    shutil.copytree(ROOT / "proto" / "packaging", ROOT / "gen", dirs_exist_ok=True)


def link_google(environment: Environment) -> None:
    """Links the google/ protos of googleapis-common-protos where buf and protoc look for them."""
    where = "import google.api, pathlib; print(pathlib.Path(*google.api.__path__).parent)"
    found = subprocess.run(
        [python_of(environment), "-c", where], capture_output=True, text=True, check=True
    )
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(os.path.relpath(found.stdout.strip(), LINK.parent))


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two makes in one checkout wait for each other instead of writing into one environment."""
    path = ROOT / "build" / "setup.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=sorted(ENVIRONMENTS))
    kinds: list[str] = parser.parse_args().kinds
    if all(is_current(kind) for kind in kinds):
        return 0
    with one_at_a_time():
        for kind in kinds:
            if is_current(kind):
                continue
            environment = ENVIRONMENTS[kind]
            print(f"setting up {environment.folder} for {environment.purpose} ", end="")
            print("(about a minute, once) ...", flush=True)
            began = time.monotonic()
            try:
                build(kind)
            except subprocess.CalledProcessError as fault:
                command = " ".join(str(part) for part in fault.cmd)
                print(f"setup failed: `{command}` ended with {fault.returncode}", file=sys.stderr)
                return 1
            print(f"{environment.folder} is ready ({time.monotonic() - began:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    if sys.version_info[:2] < OLDEST:
        sys.exit("Tetrad needs Python 3.11 or newer; give one with: make PYTHON=/path/to/python3")
    sys.exit(main())
