"""What servers say of their load: read from their pages of metrics, whatever else stands there."""

from __future__ import annotations

import pytest

from services import errors
from services.upstream import Endpoint
from services.upstream.load import GAUGES, MAX_BYTES, Load, ask, parse
from tests.fakes import profiles
from tests.fakes.replies import CloseConnection, Json, Raw
from tests.fakes.upstream import FakeUpstream
from tests.lib.adapters import transport

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"


def page(*lines: str, end: str = "\n") -> bytes:
    return "\n".join(lines).encode() + end.encode()


VLLM = page(
    "# HELP vllm:num_requests_running Number of requests in model execution batches.",
    "# TYPE vllm:num_requests_running gauge",
    'vllm:num_requests_running{engine="0",model_name="a"} 3.0',
    'vllm:num_requests_running{engine="1",model_name="a"} 1.0',
    'vllm:num_requests_waiting{engine="0",model_name="a"} 2.0',
    'vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 7.0',
    'vllm:num_requests_waiting{engine="0",model_name="b"} 1e1',
    'vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.5',
)


def test_what_runs_and_what_waits_add_up_over_engines_by_model() -> None:
    told = parse(VLLM, "vllm")
    assert told == Load(16.0, {"a": 6.0, "b": 10.0})
    assert told.of("a") == 6.0
    assert told.of("b") == 10.0


def test_a_name_that_is_not_told_meets_the_load_of_the_server() -> None:
    """Adapters share the queue of their model."""
    told = parse(VLLM, "vllm")
    assert told is not None
    assert told.of("lora-a") == 16.0


@pytest.mark.parametrize(
    ("kind", "text", "total"),
    [
        ("tei", "# TYPE te_queue_size gauge\nte_queue_size 4\nte_request_count 9\n", 4.0),
        ("llamacpp", "llamacpp:requests_processing 2\nllamacpp:requests_deferred 5\n", 7.0),
        ("openai", "tgi_batch_current_size 3\ntgi_queue_size 1\n", 4.0),
        (
            "openai",
            'sglang:num_running_reqs{model_name="m"} 3.0\n'
            'sglang:num_queue_reqs{model_name="m"} 1.0\n',
            4.0,
        ),
    ],
)
def test_each_kind_has_gauges_of_its_own(kind: str, text: str, total: float) -> None:
    told = parse(text.encode(), kind)
    assert told is not None
    assert told.total == total


def test_idle_is_a_load_and_silence_is_none() -> None:
    assert parse(b"te_queue_size 0\n", "tei") == Load(0.0, {})
    for text in (b"", b"# te_queue_size 4\n", b"te_queue_size_bucket 4\n", b"my_te_queue_size 4\n"):
        assert parse(text, "tei") is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"te_queue_size 3", 3.0),  # without the last line's end
        (b"te_queue_size 3\r\n", 3.0),
        (b"te_queue_size\t 3 1795000000000\n", 3.0),
        (b"te_queue_size{} 3\n", 3.0),
        (b'te_queue_size{a="}",b="x} 9"} 3\n', 3.0),
        (b"te_queue_size NaN\n", None),
        (b"te_queue_size +Inf\n", None),
        (b"te_queue_size -1\n", None),
        (b"te_queue_size three\n", None),
        (b"te_queue_size\n", None),
        (b"te_queue_size{a=\n", None),
        (b"\xff\xfe\nte_queue_size 3\n\xff", 3.0),
    ],
)
def test_odd_lines_are_read_or_passed_over(line: bytes, told: float | None) -> None:
    found = parse(line, "tei")
    assert (found and found.total) == told


def test_a_model_s_name_may_hold_what_must_be_escaped() -> None:
    line = b'vllm:num_requests_running{x="y",model_name="a\\"b\\\\c, \xc3\xa9"} 2\n'
    assert parse(line, "vllm") == Load(2.0, {'a"b\\c, \u00e9': 2.0})


async def test_a_server_is_asked_for_its_page_and_nothing_else(upstream: FakeUpstream) -> None:
    """G39."""
    profiles.vllm(upstream)
    upstream.on("GET", "/metrics", Raw(VLLM, "text/plain"))
    async with transport() as one:
        told = await ask(one, Endpoint("fake", upstream.url, "vllm"))
    assert told == Load(16.0, {"a": 6.0, "b": 10.0})
    assert [(r.method, r.path) for r in upstream.requests] == [("GET", "/metrics")]


@pytest.mark.parametrize("profile", ["vllm", "tei"])
async def test_a_server_that_idles_says_so(upstream: FakeUpstream, profile: str) -> None:
    model = profiles.PROFILES[profile](upstream)
    async with transport() as one:
        told = await ask(one, Endpoint("fake", upstream.url, profile))
    assert told is not None
    assert told.of(model) == 0.0


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
async def test_a_server_without_metrics_tells_none(upstream: FakeUpstream, status: int) -> None:
    upstream.on("GET", "/metrics", Json({"error": "not supported"}, status))
    async with transport() as one:
        assert await ask(one, Endpoint("fake", upstream.url, "llamacpp")) is None


async def test_a_kind_that_never_tells_is_not_asked(upstream: FakeUpstream) -> None:
    kinds = {"ollama", "mistral", "albert", "cohere", "whisper", "whispercpp"}
    assert kinds.isdisjoint(GAUGES)
    async with transport() as one:
        for kind in kinds:
            assert await ask(one, Endpoint("fake", upstream.url, kind)) is None
    assert upstream.requests == []


async def test_a_page_that_fails_this_time_is_an_error(upstream: FakeUpstream) -> None:
    for reply in (Json({}, 500), CloseConnection()):
        upstream.on("GET", "/metrics", reply)
        async with transport() as one:
            with pytest.raises(errors.UpstreamUnavailable):
                await ask(one, Endpoint("fake", upstream.url, "tei"))


async def test_of_a_page_without_end_only_the_beginning_is_read(upstream: FakeUpstream) -> None:
    """What stands in the bound counts, the number that it cuts does not, and the rest is left."""
    filler = b"x_total 1\n" * 1000
    begin = b"te_queue_size 5\n"
    cut = b'te_queue_size{a="b"} 12345678'
    head = begin + filler * ((MAX_BYTES - len(begin) - len(cut)) // len(filler))
    head += b"#" * (MAX_BYTES - len(head) - len(cut) - 1) + b"\n" + cut
    assert len(head) == MAX_BYTES
    body = head + b"9\n" + b"te_queue_size 7\n" + filler * 500
    upstream.on("GET", "/metrics", Raw(body, "text/plain", chunking=[MAX_BYTES]))
    async with transport() as one:
        told = await ask(one, Endpoint("fake", upstream.url, "tei"))
    assert told == Load(5.0, {})
