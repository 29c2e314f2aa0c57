"""The processes of a whole-gateway benchmark: upstream, gateways, references.

A gateway is `tetrad serve` as users start it, with a key, its limits in memory, metrics and one
line of log a call, which is written to nowhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.operations import KEY
from bench.pinned import REST, SERVER, Process, started

_PLENTY = 10**12
_LISTENS = re.compile(r"gRPC on \S+:(\d+), REST on http://\S+:(\d+)")
_TYPES = {
    "chat": "text-generation",
    "idle": "text-generation",
    "busy": "text-generation",
    "embed": "text-embeddings-inference",
    "rerank": "text-classification",
}


@dataclass(frozen=True, slots=True)
class Server:
    """One that calls go to."""

    process: Process
    rest: int
    grpc: int


def config(upstream: str, *, relay: bool, places: int | None = None) -> dict[str, Any]:
    """A configuration with everything on that costs something on each call. `places`: so many
    calls at once for the model "busy", which is then the only one, and no queue."""
    models: list[dict[str, Any]] = [
        {
            "name": name,
            "type": type,
            "providers": [{"type": "vllm", "url": upstream, "model_name": name}],
        }
        for name, type in _TYPES.items()
        if places is None or name == "busy"
    ]
    for model in models:
        if model["name"] == "busy":
            model |= {"max_in_flight": 1, "max_queue": 0}
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    limits = {"rpm": _PLENTY, "tpm": _PLENTY}
    return {
        "grpc": {"address": "127.0.0.1:0"},
        "http": {"address": "127.0.0.1:0"},
        "required_types": [],
        "models": models,
        "auth": {"keys": [{"name": "bench", "sha256": digest, "limits": limits}]},
        "limits": {
            "max_in_flight": places or 10_000,
            "max_queue": 10_000 if places is None else 0,
        },
        "relay": relay,
    }


@contextmanager
def upstream() -> Iterator[str]:
    """The stub's URL."""
    with started(REST, "bench.stub") as process:
        yield f"http://127.0.0.1:{int(process.line)}"


@contextmanager
def gateway(at: str, *, relay: bool = True, places: int | None = None) -> Iterator[Server]:
    """A gateway in front of the stub."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        file = folder / "tetrad.yaml"
        file.write_text(json.dumps(config(at, relay=relay, places=places)), encoding="utf-8")
        process = stack.enter_context(started(SERVER, "services", "serve", "--config", str(file)))
        found = _LISTENS.search(process.line)
        assert found is not None, process.line
        yield Server(process, rest=int(found[2]), grpc=int(found[1]))


@contextmanager
def references(at: str) -> Iterator[Server]:
    """The bare servers."""
    with started(SERVER, "bench.references", at) as process:
        rest, grpc = map(int, process.line.split())
        yield Server(process, rest, grpc)
