"""Writes gen/ from proto/, or with --check says what in gen/ differs from what would be written.

Runs in .venv-gen (the pinned generator); buf and the surface listing come from .venv. The result
depends on nothing but proto/ and the two lock files, and nothing is fetched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "build" / "include"
RUNTIME = ROOT / ".venv" / "bin"
DESCRIPTORS = "tetrad.binpb"
SURFACE = "json_surface.txt"
LINK = b"\0link to "
# What Python and pip leave in gen/ and nobody generates.
FOREIGN = ("__pycache__", ".egg-info", ".dist-info", "dist/")


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> bytes:
    """Runs a program and gives its standard output; its complaints go to ours."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return done.stdout


def write_python(out: Path) -> None:
    """Messages, stubs and the types of both, with imports absolute from the proto root."""
    proto, programs = ROOT / "proto", Path(sys.executable).parent
    sources = sorted(str(path.relative_to(proto)) for path in proto.glob("tetrad/**/*.proto"))
    if not sources:
        raise SystemExit("proto/tetrad holds no .proto file")
    run(
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{proto}",
        f"-I{INCLUDE}",
        f"-I{resources.files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={programs / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={programs / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        # Not protoc's own --pyi_out: these carry the protos' comments and the types of extensions.
        f"--mypy_out=quiet:{out}",
        f"--grpc_python_out={out}",
        f"--mypy_grpc_out=quiet:{out}",
        *sources,
    )
    for stub in out.glob("tetrad/**/*_pb2_grpc.py*"):
        # The gRPC plugins write a pair for every file; those without a service say nothing.
        source = proto / stub.relative_to(out).parent / (stub.name.split("_pb2_grpc")[0] + ".proto")
        if "\nservice " not in source.read_text():
            stub.unlink()


def copy_beside(out: Path) -> None:
    """What is not generated but ships in the wheel: its packaging, and the clients' policies."""
    shutil.copytree(ROOT / "proto" / "packaging", out, dirs_exist_ok=True)
    for policy in sorted((ROOT / "proto").glob("tetrad/**/*.json")):
        shutil.copy(policy, out / policy.relative_to(ROOT / "proto"))


def write_descriptors(out: Path) -> None:
    """The descriptor set that ships: our files with their comments, Google's without."""
    target = out / DESCRIPTORS
    run(RUNTIME / "buf", "build", "proto", "-o", target)
    descriptors = FileDescriptorSet.FromString(target.read_bytes())
    for file in descriptors.file:
        if not file.package.startswith("tetrad."):
            file.ClearField("source_code_info")
    target.write_bytes(descriptors.SerializeToString(deterministic=True))
    # In the wheel it lies beside the messages, where importlib.resources finds it.
    (out / "tetrad" / "v1" / DESCRIPTORS).symlink_to(Path("..", "..", DESCRIPTORS))


def write_surface(out: Path) -> None:
    """The listing of the JSON surface, made by the codec from the descriptors just written."""
    listing = run(RUNTIME / "python", "-m", "services.codec.surface", PYTHONPATH=str(out))
    (out / SURFACE).write_bytes(listing)


def generated(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` by its path inside, without what Python and pip leave there.

    A symbolic link is the text `LINK` and its target.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(mark in name for mark in FOREIGN):
            continue
        if path.is_symlink():
            files[name] = LINK + os.fsencode(path.readlink())
        elif path.is_file():
            files[name] = path.read_bytes()
    return files


def put(files: dict[str, bytes], folder: Path) -> None:
    """Makes `folder` hold exactly `files`, leaving alone those that are right already."""
    present = generated(folder) if folder.exists() else {}
    for name in present.keys() - files.keys():
        (folder / name).unlink()
    for name, data in files.items():
        if present.get(name) == data:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if data.startswith(LINK):
            path.symlink_to(os.fsdecode(data.removeprefix(LINK)))
        else:
            path.write_bytes(data)


def differences(fresh: dict[str, bytes], present: dict[str, bytes]) -> list[str]:
    """One line per file that is missing, stale or not generated."""
    lines = []
    for name in sorted(fresh.keys() | present.keys()):
        if name not in present:
            lines.append(f"gen/{name} is missing")
        elif name not in fresh:
            lines.append(f"gen/{name} is not generated from anything")
        elif fresh[name] != present[name]:
            lines.append(f"gen/{name} differs")
    return lines


def report(lines: list[str]) -> int:
    """Prints what differs and gives the exit code."""
    if not lines:
        print("gen/ is up to date")
        return 0
    print(*lines, "run `make gen` and commit gen/", sep="\n")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory(prefix="tetrad-gen-") as folder:
        out = Path(folder)
        write_python(out)
        copy_beside(out)
        write_descriptors(out)
        if not check:
            # Before the listing, whose own code may import names that are new in this run.
            listing = ROOT / "gen" / SURFACE
            kept = {SURFACE: listing.read_bytes()} if listing.exists() else {}
            put({**generated(out), **kept}, ROOT / "gen")
        write_surface(out)
        fresh = generated(out)
        if check:
            return report(differences(fresh, generated(ROOT / "gen")))
        put(fresh, ROOT / "gen")
        print(f"gen/ is written ({len(fresh)} files)")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as fault:
        sys.exit(f"gen: `{' '.join(fault.cmd[:4])} ...` ended with {fault.returncode}")
