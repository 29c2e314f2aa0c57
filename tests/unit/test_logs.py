"""services/telemetry/logs.py: one line a call, for people and for programs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from services.auth import Principal
from services.call import Call
from services.errors import Reason
from services.telemetry import logs
from services.usage import UsageRecord


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("tetrad")
    kept = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    ours.setLevel(kept[2])


def line(call: Call, log_format: str) -> str:
    out = io.StringIO()
    logs.set_up(log_format, out)
    logs.log_call(call)
    (text,) = out.getvalue().splitlines()
    return text


def told(call: Call) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(line(call, "json"))
    return {k: v for k, v in parsed.items() if k not in ("time", "logger")}


def streamed() -> Call:
    return Call(
        "req-7",
        "StreamChat",
        "rest",
        headers={"authorization": "Bearer sk-upstream"},
        principal=Principal("indexer"),
        out={"x-tetrad-endpoint": "vllm 127.0.0.1:8000"},
        usage=UsageRecord(12, 345, 357, source="estimated", outcome="OK"),
        model="qwen3",
        endpoint="vllm 127.0.0.1:8000",
        attempts=2,
        queued=0.0052,
        chunks=40,
        began=100.0,
        first_at=100.31,
        ended_at=101.2345,
    )


def refused() -> Call:
    usage = UsageRecord(outcome="NOT_FOUND")
    error = Reason.MODEL_NOT_FOUND
    return Call("req-8", "Chat", "grpc", usage=usage, error=error, began=100.0, ended_at=100.0004)


def test_a_program_is_told_all_facts_of_a_call() -> None:
    assert told(streamed()) == {
        "level": "info",
        "message": "StreamChat qwen3 OK",
        "id": "req-7",
        "method": "StreamChat",
        "face": "rest",
        "key": "indexer",
        "model": "qwen3",
        "endpoint": "vllm 127.0.0.1:8000",
        "attempts": 2,
        "outcome": "OK",
        "duration_ms": 1234.5,
        "first_ms": 310.0,
        "queued_ms": 5.2,
        "prompt_tokens": 12,
        "completion_tokens": 345,
        "usage_source": "estimated",
    }


def test_a_person_reads_one_short_line() -> None:
    assert line(streamed(), "text")[8:] == (
        " INFO    StreamChat qwen3 OK  1.23 s  first 310 ms  queued 5.2 ms  in 12  out 345"
        "  estimated  2 attempts  at vllm 127.0.0.1:8000  for indexer  req-7"
    )


def test_a_failure_is_a_warning_by_its_reason_without_what_there_was_not() -> None:
    assert told(refused()) == {
        "level": "warning",
        "message": "Chat - MODEL_NOT_FOUND",
        "id": "req-8",
        "method": "Chat",
        "face": "grpc",
        "key": "anonymous",
        "attempts": 0,
        "outcome": "NOT_FOUND",
        "error": "MODEL_NOT_FOUND",
        "duration_ms": 0.4,
    }
    assert line(refused(), "text")[8:] == " WARNING Chat - MODEL_NOT_FOUND  0.4 ms  req-8"


def test_a_caller_who_left_is_no_warning() -> None:
    call = streamed()
    call.usage.outcome = "CANCELLED"
    assert told(call)["level"] == "info"


def test_sound_and_documents_are_told_and_zero_is_a_figure() -> None:
    """G10, G12."""
    sound, ranked = streamed(), streamed()
    sound.usage = UsageRecord(audio_seconds=2.5, source="upstream", outcome="OK")
    ranked.usage = UsageRecord(0, documents=3, source="upstream", outcome="OK")
    assert told(sound)["audio_seconds"] == 2.5
    assert "  audio 2.5 s  2 attempts" in line(sound, "text")
    assert (told(ranked)["prompt_tokens"], told(ranked)["documents"]) == (0, 3)
    assert "  in 0  documents 3  2 attempts" in line(ranked, "text")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_header_and_no_secret_stands_in_a_line(log_format: str) -> None:
    assert "sk-upstream" not in line(streamed(), log_format)


def test_other_lines_are_what_they_say_and_keep_their_trace() -> None:
    out = io.StringIO()
    logs.set_up("text", out)
    log = logging.getLogger("tetrad.other")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it %s", "broke", extra={"id": "hidden"})
    first, *_, last = out.getvalue().splitlines()
    assert first[8:] == " ERROR   it broke"
    assert last == "ValueError: why"


def test_auto_is_json_where_nobody_reads() -> None:
    assert json.loads(line(streamed(), "auto"))["id"] == "req-7"


def test_a_call_below_the_level_is_not_written() -> None:
    out = io.StringIO()
    logs.set_up("json", out)
    logging.getLogger("tetrad").setLevel(logging.WARNING)
    logs.log_call(streamed())
    assert out.getvalue() == ""


def test_a_bulk_has_one_line_and_only_items_that_failed_have_theirs() -> None:
    out = io.StringIO()
    logs.set_up("json", out)
    good = ended_item("OK")
    bad = ended_item("INVALID_ARGUMENT")
    logs.log_call(good)
    logs.log_call(bad)
    logs.log_bulk(Call("req-9", "BulkEmbed", "grpc", model="e"), "OK", items=2, failed=1)
    item, bulk = map(json.loads, out.getvalue().splitlines())
    assert (item["level"], item["message"]) == ("warning", "Embed e INVALID_ARGUMENT")
    assert (bulk["message"], bulk["items"], bulk["failed"]) == ("BulkEmbed e OK", 2, 1)
    assert bulk["level"] == "info"


def ended_item(outcome: str) -> Call:
    return Call("req-9", "Embed", "grpc", item=True, model="e", usage=UsageRecord(outcome=outcome))


class Written(io.StringIO):
    """Says when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def write(self, text: str) -> int:
        self.more.set()
        return super().write(text)


async def test_lines_of_calls_go_out_together_and_before_what_comes_after_them() -> None:
    out = Written()
    logs.set_up("json", out)
    logs.log_call(refused())
    logs.log_call(refused())
    assert out.getvalue() == ""
    logging.getLogger("tetrad").warning("something else")
    assert [json.loads(text)["message"] for text in out.getvalue().splitlines()] == [
        "Chat - MODEL_NOT_FOUND",
        "Chat - MODEL_NOT_FOUND",
        "something else",
    ]
    out.more.clear()
    logs.log_call(refused())
    async with asyncio.timeout(10):
        await out.more.wait()
    assert len(out.getvalue().splitlines()) == 4
