"""`tetrad` as a program under test: a command, or a gateway with clients for both of its faces."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import httpx

from services import app
from tests.lib.gateway import Gateway
from tests.lib.process import Program

LISTENS = r"Tetrad listens: gRPC on (\S+), (?:REST on (\S+)|no REST face)"
FREE = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")

_PAUSE = 0.02
_ELSEWHERE = tempfile.gettempdir()
"""A working directory without a tetrad.yaml."""


def tetrad(*arguments: str | Path, cwd: Path | str = _ELSEWHERE, **env: str | None) -> Program:
    """The program, started; warnings are errors in it, and in what it starts."""
    strict = {"PYTHONWARNINGS": "error", **env}
    return Program("python", "-m", "services", *arguments, cwd=cwd, env=strict)


@dataclass(frozen=True)
class Done:
    """A command that has ended by itself."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Standard output parsed."""
        return json.loads(self.stdout)


async def done(program: Program, within: float = 30.0) -> Done:
    """Waits for the end of a command."""
    async with program:
        code = await program.exit(within)
        return Done(code, "\n".join(program.stdout), "\n".join(program.stderr))


@dataclass(frozen=True)
class Served:
    """A gateway that runs as a program. `ports` are those of gRPC and REST."""

    program: Program
    gate: Gateway
    ports: tuple[int, ...]

    def assert_gone(self) -> None:
        """Fails if a process or a port of it is left."""
        self.program.assert_gone(*self.ports)


@asynccontextmanager
async def serving(
    *arguments: str | Path, command: str = "serve", within: float = 30.0
) -> AsyncIterator[Served]:
    """`tetrad serve` (or another command) on free ports, listening; killed at the end."""
    async with AsyncExitStack() as stack:
        program = await stack.enter_async_context(tetrad(command, *FREE, *arguments))
        listens = await program.line(LISTENS, within)
        address, url = listens[1], listens[2]
        rest = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        )
        gate = Gateway(channel, rest, url, address, cast(app.Running, None))
        ports = tuple(int(re.findall(r":(\d+)", one)[-1]) for one in (address, url))
        yield Served(program, gate, ports)


async def until(holds: Callable[[], Awaitable[bool]], within: float = 10.0) -> None:
    """Asks again and again for what nobody announces; fails `within` seconds."""
    for _ in range(int(within / _PAUSE)):
        if await holds():
            return
        await asyncio.sleep(_PAUSE)
    raise AssertionError(f"{holds} did not come true in {within} s")


def model(
    name: str, type: str, kind: str, url: str, upstream: str = "", *aliases: str
) -> dict[str, Any]:
    """One model of a configuration with one provider."""
    provider = {"type": kind, "url": url, "model_name": upstream}
    return {"name": name, "type": type, "aliases": list(aliases), "providers": [provider]}


def configuration(folder: Path, models: Sequence[Mapping[str, Any]], **sections: Any) -> Path:
    """A configuration file with these models."""
    path = folder / "tetrad.yaml"
    path.write_text(json.dumps({"models": models, **sections}, indent=1))
    return path
