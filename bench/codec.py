"""The codec beside google.protobuf.json_format, on the same messages and the same wire bytes.

json_format cannot read OpenAI's JSON (content that is a string or a list, tagged parts): it gets
each message in the spelling that it writes itself. Both start from bytes and end with bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf import json_format

from bench import samples
from bench.measure import Measured, Operation, interleaved
from bench.table import Table, number
from services import codec

OURS: Final = "ours"
THEIRS: Final = "json_format"


@dataclass(frozen=True, slots=True)
class Case:
    """One body in one direction. `goal`: how many times cheaper than json_format it should be."""

    name: str
    operations: Mapping[str, Operation]
    goal: float | None = None


@cache
def cases() -> tuple[Case, ...]:
    """Everything that is measured."""
    lists = samples.embeddings(32, 1024, as_base64=False)
    packed = samples.embeddings(32, 1024, as_base64=True)
    return (
        *_both_ways("chunk", "StreamChatResponse", samples.CHUNK, goal=5),
        *_both_ways("ten messages and a tool", "ChatRequest", samples.request(), goal=4),
        *_both_ways("32 x 1024, lists", "EmbedResponse", lists),
        *_both_ways("32 x 1024, base64", "EmbedResponse", packed),
    )


def _both_ways(
    what: str, message: str, text: bytes, goal: float | None = None
) -> tuple[Case, Case]:
    kind = codec.message_class(message)
    wire = codec.encode(message, text)
    theirs = _printed(message, wire)
    # Else the two would not do the same work.
    assert json_format.Parse(theirs, kind()).SerializeToString() == wire
    into: Mapping[str, Operation] = {
        OURS: lambda: codec.encode(message, text),
        THEIRS: lambda: json_format.Parse(theirs, kind()).SerializeToString(),
    }
    back: Mapping[str, Operation] = {
        OURS: lambda: codec.decode(message, wire),
        THEIRS: lambda: _printed(message, wire),
    }
    return Case(f"{what}: JSON to wire", into, goal), Case(f"{what}: wire to JSON", back, goal)


def _printed(message: str, wire: bytes) -> bytes:
    parsed = codec.message_class(message).FromString(wire)
    text = json_format.MessageToJson(parsed, indent=None, preserving_proto_field_name=True)
    return text.encode()


def measure(case: Case, rounds: int) -> dict[str, Measured]:
    """Our costs and theirs, by OURS and THEIRS."""
    return interleaved(case.operations, rounds=rounds)


def run(rounds: int) -> Iterator[Table]:
    """One table: a row for each body and direction."""
    table = Table(
        "codec: bytes to bytes",
        ["body", "ours us", "json_format us", "times cheaper", "goal"],
        notes=[
            "json_format reads and writes its own spelling of the same messages: it cannot read"
            " OpenAI's."
        ],
    )
    for case in cases():
        found = measure(case, rounds)
        ours, theirs = found[OURS], found[THEIRS]
        goal = "" if case.goal is None else f"{case.goal:g}"
        row = [case.name, number(ours.median), number(theirs.median)]
        table.rows.append([*row, f"{ours.times(theirs):.1f}", goal])
    yield table
