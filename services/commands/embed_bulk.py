"""`tetrad embed --bulk FILE`: JSON lines in, JSON lines out, over one stream.

A second run with the same output goes on where the first one stopped. Knows gRPC's calls only as
something that takes messages and gives messages.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from google.rpc import code_pb2
from tetrad.v1 import embed_service_pb2

from services import codec

_EVERY: Final = 0.1
"""Seconds between two looks of the progress bar."""

_WIDTH: Final = 30


class _Line:
    """One line of the input: its number, its id, and its request or what is wrong with it."""

    def __init__(self, number: int, text: bytes, args: argparse.Namespace) -> None:
        self.number = number
        self.id = str(number)
        self.request: bytes | None = None
        self.problem = ""
        try:
            value = codec.loads(text)
            value = {"text": value} if isinstance(value, str) else value
            if not isinstance(value, dict):
                raise codec.JsonError("neither a text nor an object")
            self.id = _id(value.pop("id", None), number)
            self.request = codec.encode_value("EmbedRequest", _request(value, args))
        except (codec.JsonError, codec.CodecError) as error:
            self.problem = str(error)


def _id(given: Any, number: int) -> str:
    if given is None:
        return str(number)
    return given if isinstance(given, str) else codec.dumps(given).decode()


def _request(value: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The members of a request; `text` is another name of `input`."""
    if "text" in value and "input" not in value:
        value["input"] = value.pop("text")
    usual = {"model": args.model, "dimensions": args.dimensions}
    return {name: item for name, item in usual.items() if item is not None} | value


def run(args: argparse.Namespace, bulk: Callable[[Iterator[Any]], Any]) -> int:
    """Embed the lines of a file; 1 if one of them failed. `bulk` is the RPC."""
    path = Path(args.bulk)
    known = _finished(Path(args.output)) if args.output else set()
    with ExitStack() as stack:
        source = stack.enter_context(path.open("rb"))
        out: IO[str] = sys.stdout
        if args.output:
            out = stack.enter_context(Path(args.output).open("a", encoding="utf-8"))
        progress = stack.enter_context(_Progress(path))
        return _Run(args, source, out, known, progress).run(bulk)


class _Run:
    """The lines under way: `open` are those that were sent, by number."""

    def __init__(
        self,
        args: argparse.Namespace,
        source: IO[bytes],
        out: IO[str],
        known: set[str],
        progress: _Progress,
    ) -> None:
        self._args, self._source, self._out = args, source, out
        self._known, self._progress = known, progress
        self._open: dict[str, str] = {}
        self._writing = threading.Lock()  # items are made in a thread of gRPC's
        self._failed = 0

    def run(self, bulk: Callable[[Iterator[Any]], Any]) -> int:
        """All lines; cancels what is left of the call if it is left early."""
        call = bulk(self._items())
        try:
            for answer in call:
                self._answered(answer)
        finally:
            call.cancel()
        if self._failed:
            print(f"tetrad: {self._failed} of the lines failed", file=sys.stderr)
        return 1 if self._failed else 0

    def _items(self) -> Iterator[Any]:
        for number, text in enumerate(self._source, start=1):
            if not text.strip():
                continue
            line = _Line(number, text, self._args)
            if line.id in self._known:
                self._progress.step()
            elif line.request is None:
                self._fail(line.id, "INVALID_ARGUMENT", f"line {number}: {line.problem}")
            else:
                self._open[str(number)] = line.id
                item: Any = embed_service_pb2.BulkEmbedRequest(id=str(number))
                item.request.MergeFromString(line.request)
                yield item

    def _answered(self, answer: Any) -> None:
        id = self._open.pop(answer.id)
        if answer.WhichOneof("result") == "error":
            code = code_pb2.Code.Name(answer.error.code)
            self._fail(id, code, answer.error.message)
            return
        data = sorted(answer.response.data, key=lambda one: one.index)
        vectors = [codec.to_json("Vector", one.embedding).decode() for one in data]
        name = "embedding" if len(vectors) == 1 else "embeddings"
        shown = vectors[0] if len(vectors) == 1 else f"[{','.join(vectors)}]"
        self._write(f'{{"id":{json.dumps(id, ensure_ascii=False)},"{name}":{shown}}}')

    def _fail(self, id: str, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        self._write(json.dumps({"id": id, "error": error}, ensure_ascii=False), failed=1)

    def _write(self, line: str, failed: int = 0) -> None:
        with self._writing:
            self._failed += failed
            print(line, file=self._out, flush=True)
            self._progress.step()


def _finished(path: Path) -> set[str]:
    """The ids that an output has vectors of. A line that broke off at its end is taken away."""
    found: set[str] = set()
    if not path.exists():
        return found
    whole = 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                value = codec.loads(line)
            except codec.JsonError:
                continue
            if isinstance(value, dict) and "error" not in value and "id" in value:
                found.add(str(value["id"]))
        file.truncate(whole)
    return found


class _Progress:
    """A bar on a terminal's standard error; elsewhere nothing."""

    def __init__(self, path: Path) -> None:
        self._shown = sys.stderr.isatty()
        self._done = self._total = 0
        self._began = time.monotonic()
        self._next = 0.0
        if self._shown:
            with path.open("rb") as file:
                self._total = sum(1 for line in file if line.strip())

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._shown:
            self._draw()
            print(file=sys.stderr)

    def step(self) -> None:
        """One line more is done."""
        self._done += 1
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + _EVERY
            self._draw()

    def _draw(self) -> None:
        share = self._done / self._total if self._total else 1.0
        bar = "#" * int(share * _WIDTH)
        seconds = max(time.monotonic() - self._began, 1e-3)
        rate = self._done / seconds
        print(
            f"\r[{bar:<{_WIDTH}}] {self._done}/{self._total}  {rate:.0f} a second ",
            end="",
            file=sys.stderr,
            flush=True,
        )
