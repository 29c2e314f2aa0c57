"""The recorded bodies in tests/recordings/, described by its index.json.

A recording is what a server or a client of that name puts on the wire. `compare` holds the
rules of equality that `canonical.differences` takes. Those in own/, with an index of their own,
were written to find loss: `own` gives them, `all` does not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.lib import form

Bytes = bytes  # Recording has a property of that name

FOLDER = Path(__file__).resolve().parent.parent / "recordings"
OWN = "own/"


@dataclass(frozen=True)
class Recording:
    """One body. `file` is its path in the folder; `direction` is request, response or stream.

    asks: members of the request without which an answer would be reshaped. delivers: what callers
    get of an answer whose form is not the contract's; None where that is the answer itself.
    """

    file: str
    operation: str
    direction: str
    source: str
    exercises: tuple[str, ...]
    compare: Mapping[str, Any] = field(default_factory=dict)
    http_status: int = 200
    asks: Mapping[str, Any] = field(default_factory=dict)
    delivers: Any = None

    @property
    def mode(self) -> str:
        """json, sse, multipart or text: what `bytes` holds and which method reads it."""
        return str(self.compare.get("mode", "json"))

    @property
    def bytes(self) -> bytes:
        """The file as it stands."""
        return (FOLDER / self.file).read_bytes()

    def json(self) -> Any:
        """The file parsed (exact integers); for text and multipart that is its description."""
        return json.loads(self.bytes)

    def parts(self) -> list[form.Part]:
        """The parts of a multipart request in order."""
        self._expect("multipart")
        return [
            form.Part(
                name=part["name"],
                data=_part_data(part),
                filename=part.get("filename"),
                content_type=part.get("content_type"),
            )
            for part in self.json()["multipart"]
        ]

    def multipart(self, boundary: str = form.BOUNDARY) -> tuple[str, Bytes]:
        """A multipart request as (content type, body)."""
        return form.build(self.parts(), boundary)

    def text_body(self) -> tuple[str, str]:
        """An answer that is not JSON as (media type, text)."""
        self._expect("text")
        described = self.json()
        return described["content_type"], described["body"]

    def data(self) -> list[str]:
        """Every data line of a stream in order, [DONE] and error events among them."""
        self._expect("sse")
        lines = self.bytes.decode().splitlines()
        return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]

    def events(self) -> list[Any]:
        """The JSON events of a stream that a reader must deliver, without the error event."""
        parsed = [json.loads(line) for line in self.data() if line != "[DONE]"]
        return parsed[: self.compare["events"]]

    def error_event(self) -> Any:
        """The event that carries the stream's error, None for a stream without one."""
        index = self.compare.get("error_event")
        return None if index is None else json.loads(self.data()[index])

    def _expect(self, mode: str) -> None:
        if self.mode != mode:
            raise ValueError(f"{self.file} is recorded as {self.mode}, not as {mode}")


def _part_data(part: Mapping[str, str]) -> Bytes:
    return base64.b64decode(part["base64"]) if "base64" in part else part["value"].encode()


@cache
def _by_file(folder: str = "") -> dict[str, Recording]:
    index = json.loads((FOLDER / folder / "index.json").read_bytes())
    return {
        folder + entry["file"]: Recording(
            file=folder + entry["file"],
            operation=entry["operation"],
            direction=entry["direction"],
            source=entry["source"],
            exercises=tuple(entry["exercises"]),
            compare=entry.get("compare", {}),
            http_status=entry.get("http_status", 200),
            asks=entry.get("asks", {}),
            delivers=entry.get("delivers"),
        )
        for entry in index["bodies"]
    }


def all(
    operation: str | None = None, direction: str | None = None, mode: str | None = None
) -> list[Recording]:
    """Every recording, or those of an operation, direction or mode, in the index's order."""
    return _chosen("", operation, direction, mode)


def own(
    operation: str | None = None, direction: str | None = None, mode: str | None = None
) -> list[Recording]:
    """As `all`, of those in own/."""
    return _chosen(OWN, operation, direction, mode)


def _chosen(
    folder: str, operation: str | None, direction: str | None, mode: str | None
) -> list[Recording]:
    return [
        one
        for one in _by_file(folder).values()
        if operation in (None, one.operation)
        and direction in (None, one.direction)
        and mode in (None, one.mode)
    ]


def get(file: str) -> Recording:
    """The recording of that file, for example "chat/openai-text-response.json"."""
    folder = OWN if file.startswith(OWN) else ""
    try:
        return _by_file(folder)[file]
    except KeyError:
        raise KeyError(f"no recording {file!r} in {FOLDER / folder / 'index.json'}") from None
