"""Vectors: what a codec of plain lists costs beside ours, and a bulk beside single calls.

Bytes to bytes: an upstream's answer to what a caller over gRPC or REST gets. "lists" is the usual
way, with a Python float for each number. The bulk counts the CPU time of the gateway and of its
client, which share a process, per item; the upstream is another process.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
import orjson
import uvloop
from tetrad.v1 import embed_service_pb2, embed_service_pb2_grpc

from bench import samples
from bench.measure import Measured, Operation, interleaved
from bench.table import Table, number
from services import app, codec
from services.config import parse
from services.upstream import vectors

OURS: Final = "ours"
LISTS: Final = "lists"
UNARY: Final = "unary"
BULK: Final = "bulk"

_ROOT = Path(__file__).resolve().parent.parent
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_PLAIN: dict[str, Any] = {}
_BASE64: dict[str, Any] = {"encoding_format": "base64"}


@dataclass(frozen=True, slots=True)
class Case:
    """One answer of an upstream on its way to a caller. goal: microseconds."""

    name: str
    operations: Mapping[str, Operation]
    goal: float | None = None

    def __str__(self) -> str:
        return self.name


@cache
def cases() -> tuple[Case, ...]:
    """Everything that is measured bytes to bytes."""
    found = []
    for count, dimension, goals in ((32, 1024, (400.0, 150.0)), (100, 1536, (None, None))):
        size = f"{count} x {dimension}"
        lists = samples.embeddings(count, dimension, as_base64=False)
        packed = samples.embeddings(count, dimension, as_base64=True)
        found += [
            _case(f"{size}, numbers to gRPC numbers", lists, _PLAIN, _wire, goals[0]),
            _case(f"{size}, numbers to gRPC bytes", lists, _BASE64, _wire),
            _case(f"{size}, numbers to REST base64", lists, _BASE64, _json),
            _case(f"{size}, base64 to gRPC numbers", packed, _PLAIN, _wire, goals[1]),
            _case(f"{size}, base64 to gRPC bytes", packed, _BASE64, _wire, goals[1]),
            _case(f"{size}, base64 to REST numbers", packed, _PLAIN, _json),
        ]
    return tuple(found)


def _wire(body: Any) -> object:
    return body.wire()


def _json(body: Any) -> object:
    return body.json()


def _case(
    name: str,
    text: bytes,
    asked: Mapping[str, Any],
    shown: Callable[[Any], object],
    goal: float | None = None,
) -> Case:
    def ours() -> object:
        cut = codec.cut(text)
        assert cut is not None
        return shown(vectors.as_asked(cut, asked, text))

    theirs = _lists_to_wire if shown is _wire else _lists_to_json
    return Case(name, {OURS: ours, LISTS: lambda: theirs(text, asked)}, goal)


def _lists_to_wire(text: bytes, asked: Mapping[str, Any]) -> bytes:
    value = orjson.loads(text)
    answer = embed_service_pb2.EmbedResponse(object=value["object"], model=value["model"])
    for item in value["data"]:
        one = answer.data.add(object=item["object"], index=item["index"])
        numbers = _numbers(item["embedding"])
        if asked:
            one.embedding.packed.data = struct.pack(f"<{len(numbers)}f", *numbers)
        else:
            one.embedding.floats.values.extend(numbers)
    answer.usage.prompt_tokens = value["usage"]["prompt_tokens"]
    answer.usage.total_tokens = value["usage"]["total_tokens"]
    return answer.SerializeToString()


def _lists_to_json(text: bytes, asked: Mapping[str, Any]) -> bytes:
    value = orjson.loads(text)
    for item in value["data"]:
        numbers = _numbers(item["embedding"])
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
        item["embedding"] = base64.b64encode(packed).decode() if asked else numbers
    return orjson.dumps(value)


def _numbers(embedding: Any) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    data = base64.b64decode(embedding)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def measure(case: Case, rounds: int) -> dict[str, Measured]:
    """Our costs and theirs, by OURS and LISTS."""
    return interleaved(case.operations, rounds=rounds)


# --- a bulk beside single calls -----------------------------------------------------------------

ITEMS: Final = 1024
_AT_ONCE = 64


async def _unary(stub: Any) -> None:
    """As a client does that indexes with single calls: so many at once."""
    todo = iter(range(ITEMS))

    async def lane() -> None:
        for n in todo:
            given: Any = {"text": _text(n)}
            await stub.Embed(embed_service_pb2.EmbedRequest(model="e", input=given))

    await asyncio.gather(*(lane() for _ in range(_AT_ONCE)))


async def _bulk(stub: Any) -> None:
    async def items() -> AsyncIterator[Any]:
        for n in range(ITEMS):
            request: Any = {"model": "e", "input": {"text": _text(n)}}
            yield embed_service_pb2.BulkEmbedRequest(id=str(n), request=request)

    got = 0
    async for one in stub.BulkEmbed(items()):
        assert one.WhichOneof("result") == "response", one
        got += 1
    assert got == ITEMS


def _text(n: int) -> str:
    return f"passage {n} of a text that somebody wants to find again"


async def _rounds(rounds: int, url: str) -> dict[str, Measured]:
    ways = {UNARY: _unary, BULK: _bulk}
    found: dict[str, list[float]] = {name: [] for name in ways}
    async with _gateway(url) as stub:
        for turn in range(rounds + 1):  # the first connects and warms up
            for name, way in ways.items():
                began = time.process_time_ns()
                await way(stub)
                if turn:
                    found[name].append((time.process_time_ns() - began) / ITEMS / 1000)
    return {name: Measured(costs) for name, costs in found.items()}


@asynccontextmanager
async def _gateway(url: str) -> AsyncIterator[Any]:
    """A stub of EmbedService of a gateway in this process."""
    provider = {"type": "tei", "url": url, "model_name": "m"}
    model = {"name": "e", "type": "text-embeddings-inference", "providers": [provider]}
    text = json.dumps({"models": [model], "probes": {"interval": 3600}})
    with tempfile.TemporaryDirectory(prefix="tetrad-") as folder:
        config = parse(text, "bench.yaml", {}).with_overrides(
            grpc=f"unix:{folder}/grpc", http="none"
        )
        async with (
            app.gateway(config) as running,
            grpc.aio.insecure_channel(str(running.grpc), options=_OPTIONS) as channel,
        ):
            yield embed_service_pb2_grpc.EmbedServiceStub(channel)


def measure_bulk(rounds: int, dimension: int = 384) -> dict[str, Measured]:
    """CPU microseconds an item, by UNARY and BULK."""
    with _stub(dimension) as url:
        return uvloop.run(_rounds(rounds, url))


@contextmanager
def _stub(dimension: int) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.vectors_stub", str(dimension)],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'gen'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate()  # closes its input, which ends it


def run(rounds: int) -> Iterator[Table]:
    """Two tables: answers bytes to bytes, and a bulk beside single calls."""
    table = Table(
        "vectors: an upstream's answer to a caller's, bytes to bytes",
        ["answer", "ours us", "lists us", "times cheaper", "goal us"],
    )
    for case in cases():
        found = measure(case, rounds)
        ours, lists = found[OURS], found[LISTS]
        goal = "" if case.goal is None else f"{case.goal:g}"
        row = [case.name, number(ours.median), number(lists.median)]
        table.rows.append([*row, f"{ours.times(lists):.1f}", goal])
    yield table
    bulk = Table(
        "vectors: texts embedded over gRPC, client and gateway together",
        ["an item of", "bulk us", "unary us", "times cheaper", "goal"],
    )
    for dimension in (384, 1024):
        found = measure_bulk(max(3, rounds // 3), dimension)
        one, other = found[BULK], found[UNARY]
        row = [f"{dimension} dimensions", number(one.median), number(other.median)]
        bulk.rows.append([*row, f"{one.times(other):.1f}", "2.5"])
    yield bulk
