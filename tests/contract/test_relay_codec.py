"""Relay and codec agree: what REST passes on as bytes, and the same with the codec forced.

Every REST case of tests/faces and every recorded body runs once each way, one after the other, and
the two are held against each other: the answer, the events, the error, what the upstream was sent,
the usage record and the metrics. Covers G9, G10, G11, G12, G22 for both ways.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from services import codec, runtime
from services.call import Call
from services.inflight import InFlight
from services.telemetry.metrics import Metrics
from tests.contract import test_lossless_answers as own_answers
from tests.contract import test_lossless_errors as own_errors
from tests.contract import test_lossless_faces as own_requests
from tests.faces import (
    test_chat,
    test_cut_streams,
    test_embed,
    test_recorded,
    test_refusals,
    test_rerank,
    test_transcribe,
    test_upstream_failures,
)
from tests.fakes.upstream import FakeUpstream, Raw, Received, Record, Sse
from tests.lib import canonical, form
from tests.lib.faces import REQUEST_ID, Case, over_rest
from tests.lib.gateway import Gateway
from tests.lib.lossless import (
    ANSWERS,
    OPERATIONS,
    RECODING,
    REST,
    TEI,
    Got,
    Lab,
    Way,
    form_members,
    lab,
    mended,
)
from tests.lib.recordings import Recording
from tests.lib.world import World, world

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES: list[Case] = [
    *test_chat.CASES,
    *test_cut_streams.BAD_ENDS,
    *test_embed.CASES,
    *test_recorded.CASES,
    *test_refusals.REFUSED,
    *test_rerank.CASES,
    *test_transcribe.CASES,
    *test_upstream_failures.ANSWERED,
    *test_upstream_failures.IN_A_GOOD_ANSWER,
]
RECORDED: list[Recording] = [
    *own_requests.REQUESTS,
    *own_requests.FORMS,
    *own_answers.OFFERED,
    *own_answers.STREAMS,
]
HI = {"messages": [{"role": "user", "content": "hi"}]}


# What came of one way, and how two of them differ.


@dataclass
class Side:
    """What one way gave: to the caller, to the upstream, and to those who count."""

    texts: Sequence[bytes] = ()
    document: tuple[str, str] | None = None
    failure: Any = None
    done: bool = False
    told: Mapping[str, str] = field(default_factory=dict)
    requests: Sequence[Received] = ()
    records: Sequence[Mapping[str, Any]] = ()
    counts: Mapping[str, float] = field(default_factory=dict)


def apart(relay: Side, forced: Side, compare: Mapping[str, Any]) -> list[str]:
    """How two sides differ, one line each; [] if they are equal.

    Half of a UTF-16 pair, which is no character and no protobuf holds, equals U+FFFD.
    """
    rules = {k: v for k, v in compare.items() if k not in ("mode", "events", "end")}
    found = canonical.event_differences([*map(mended, relay.texts)], forced.texts, rules)
    for name in ("document", "failure", "done", "told", "records", "counts"):
        one, other = getattr(relay, name), getattr(forced, name)
        if one != other:
            found.append(f"{name}: relayed {one}, with the codec {other}")
    if len(relay.requests) != len(forced.requests):
        found.append(f"the upstream got {len(relay.requests)} and {len(forced.requests)} requests")
    for one, other in zip(relay.requests, forced.requests, strict=False):
        found += [f"upstream {line}" for line in _sent_apart(one, other, rules)]
    return found


def _sent_apart(one: Received, other: Received, rules: Mapping[str, Any]) -> list[str]:
    if one.path != other.path:
        return [f"at {one.path} and {other.path}"]
    if one.headers.get("content-type", "").startswith("multipart/"):
        return form.differences(one.form(), other.form())
    return canonical.differences(one.body, other.body, rules)


def record(call: Call) -> dict[str, Any]:
    """What the ledger is given of a call, but for the times."""
    names = ("id", "method", "face", "type", "model", "endpoint", "error", "attempts", "chunks")
    usage = dataclasses.asdict(call.usage)
    del usage["characters"]  # counted only until the upstream's own figures are there
    return {name: getattr(call, name) for name in names} | usage


def counts(calls: Sequence[Call]) -> dict[str, float]:
    """The samples of metrics that were fed these calls, but for those that are times."""
    metrics = Metrics()
    for call in calls:
        metrics.call_ended(call)
    _, page = metrics.page()
    samples = [line.rpartition(" ") for line in page.decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in samples if _is_count(name)}


def _is_count(sample: str) -> bool:
    name = sample.partition("{")[0]
    if name.startswith("gen_ai_client_token_usage"):
        return True
    return name.endswith(("_total", "_count")) and not name.startswith("process_")


# Both ways, one after the other.


@dataclass
class Pair:
    """Two gateways, relaying and not, and the calls that end in either."""

    in_flight: Sequence[InFlight]
    ended: list[Call]

    async def compare(
        self,
        run: Callable[[Way], Awaitable[Side]],
        upstreams: Sequence[FakeUpstream],
        compare: Mapping[str, Any],
    ) -> tuple[Side, Side]:
        """Run it both ways; fails with what differs."""
        sides = []
        for way, in_flight in zip((REST, RECODING), self.in_flight, strict=True):
            for upstream in upstreams:
                upstream.forget()
            self.ended.clear()
            side = await run(way)
            assert await in_flight.idle(10)
            received = [one for upstream in upstreams for one in upstream.requests]
            side.requests = [one for one in received if one.method == "POST"]
            side.records = [record(call) for call in self.ended]
            side.counts = counts(self.ended)
            sides.append(side)
        relay, forced = sides
        found = apart(relay, forced, compare)
        assert not found, "\n".join(found)
        assert len(relay.records) == 1 or not relay.requests
        return relay, forced


@asynccontextmanager
async def paired() -> AsyncIterator[Pair]:
    """What is begun inside, relaying gateway first, is watched."""
    pair = Pair([], [])

    def counted(limit: int | None = None) -> InFlight:
        made.append(InFlight(limit))
        return made[-1]

    made: list[InFlight] = []
    pair.in_flight = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "log_call", pair.ended.append)
        patch.setattr(runtime, "InFlight", counted)
        yield pair


def name_calls(*gates: Gateway) -> None:
    """Every call over REST has the same id: errors tell it, and records hold it."""
    for gate in gates:
        gate.rest.headers["x-request-id"] = REQUEST_ID


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="faces")
async def _faces() -> AsyncIterator[tuple[Pair, World]]:
    async with paired() as pair, world() as one:
        yield pair, one


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="bodies")
async def _bodies() -> AsyncIterator[tuple[Pair, Lab]]:
    async with paired() as pair, lab() as one:
        name_calls(one.relaying, one.recoding)
        yield pair, one


# The cases of the faces.


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_case_ends_alike_relayed_and_with_the_codec_forced(
    faces: tuple[Pair, World], case: Case
) -> None:
    pair, one = faces
    if case.reply is not None:
        one.script(case.reply)

    async def run(way: Way) -> Side:
        got = await over_rest(one.relaying if way.relays else one.recoding, case)
        texts = [one if isinstance(one, bytes) else one.encode() for one in got.answers]
        return Side(texts, got.document, got.failure, got.done, got.told)

    upstream = one.behind(str(case.request.get("model") or case.default))
    relay, _ = await pair.compare(run, [upstream], case.compare)
    assert (relay.failure is None) == (case.failure is None)
    assert len(relay.records) == 1 or case.sent is None


async def test_the_two_ways_are_two_ways(faces: tuple[Pair, World]) -> None:
    """The codec prints its own bytes; if it did not, all of this would compare one with itself."""
    pair, one = faces
    text = b'{"x":1.50,"id":"c","choices":[]}'
    one.script(Raw(text, "application/json"))

    async def run(way: Way) -> Side:
        gate = one.relaying if way.relays else one.recoding
        answer = await gate.rest.post(
            "/v1/chat/completions",
            json={**HI, "model": "scripted-chat"},
            headers={"x-request-id": REQUEST_ID},
        )
        return Side([answer.content])

    relay, forced = await pair.compare(run, [one.scripted], {})
    assert relay.texts == [text]
    assert forced.texts != [text]


# Recorded bodies: requests, answers, streams and errors.

by_file = pytest.mark.parametrize("one", RECORDED, ids=lambda one: f"{one.direction} {one.file}")


@by_file
async def test_a_recorded_body_goes_alike_relayed_and_with_the_codec_forced(
    bodies: tuple[Pair, Lab], one: Recording
) -> None:
    pair, rig = bodies
    await pair.compare(lambda way: _through(rig, way, one), [rig.upstream, rig.tei], one.compare)


async def _through(rig: Lab, way: Way, one: Recording) -> Side:
    if one.direction == "request":
        return side(await _asked(rig, way, one))
    rig.script(Record(one.file))
    if one.operation in TEI:
        texts = {"query": "", "texts": ["", "b", "c", "d"], "return_text": True}
        native = texts if "rerank" in one.operation else {"inputs": ["", "a", "b"]}
        body = codec.dumps({"model": TEI[one.operation], **native})
        return side(await rig.ask(way, OPERATIONS[one.operation], body))
    return side(await own_answers.answered(rig, way, one))


async def _asked(rig: Lab, way: Way, one: Recording) -> Got:
    operation = OPERATIONS[one.operation]
    is_form = one.mode == "multipart"
    members = form_members(one) if is_form else json.loads(one.bytes)
    streamed = members.get("stream") is True
    stream = own_requests.DONE if is_form else Sse([own_requests.CHUNK])
    rig.script(stream if streamed else ANSWERS[one.operation])
    if is_form:
        return await rig.submit(way, operation, one.parts(), streamed=streamed)
    return await rig.ask(way, operation, own_requests.asked(one, way), streamed=streamed)


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("one", own_errors.SHAPES, ids=own_errors.name)
async def test_a_recorded_error_is_told_alike_relayed_and_with_the_codec_forced(
    bodies: tuple[Pair, Lab], one: Recording, streamed: bool
) -> None:
    """G22."""
    pair, rig = bodies
    body = codec.dumps({**HI, "stream": streamed})

    async def run(way: Way) -> Side:
        rig.script(Record(one.file))
        return side(await rig.ask(way, OPERATIONS["chat.completions"], body, streamed=streamed))

    relay, _ = await pair.compare(run, [rig.upstream], {})
    assert relay.records[0]["outcome"] != "OK"


ODD: Mapping[str, bytes] = {
    "600 levels": b'{"choices":[],"x":' + b"[" * 600 + b"]" * 600 + b"}",
    "a member twice": b'{"choices":[],"id":"a","id":"b"}',
    "a list": b"[1]",
    "a text": b'"x"',
    "null": b"null",
    "NaN": b'{"choices":[],"x":NaN}',
    "a byte order mark": b'\xef\xbb\xbf{"choices":[]}',
    "members of other types": b'{"choices":{"a":1},"id":5,"usage":[]}',
    "no UTF-8": b'{"choices":[],"id":"\xff"}',
    "numbers past all types": b'{"choices":[],"created":1e400,"x":-123456789012345678901234567890}',
    "usage past all types": b'{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1e30}}',
    "words after the end": b'{"choices":[]} x',
}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
async def test_an_odd_answer_is_taken_or_refused_alike_relayed_and_with_the_codec_forced(
    bodies: tuple[Pair, Lab], text: bytes, streamed: bool
) -> None:
    """G2."""
    pair, rig = bodies
    body = codec.dumps({**HI, "stream": streamed})
    whole = Raw(text, "application/json")

    async def run(way: Way) -> Side:
        rig.script(Sse([b"data: " + text + b"\n\n", END]) if streamed else whole)
        return side(await rig.ask(way, OPERATIONS["chat.completions"], body, streamed=streamed))

    await pair.compare(run, [rig.upstream], {})


def side(got: Got) -> Side:
    """What a caller got."""
    return Side(got.texts, got.document, got.failure, got.done)


# That a difference is found.

USED: dict[str, Any] = {"prompt_tokens": 3, "source": "upstream", "outcome": "OK"}
GOOD = Side(
    [b'{"a":1}', b'{"b":[]}'],
    failure={"status": None, "message": "m"},
    done=True,
    told={"x-tetrad-model": "m"},
    records=[USED],
    counts={"tetrad_calls_total": 1.0},
)
BAD: Mapping[str, dict[str, Any]] = {
    "another value": {"texts": [b'{"a":2}', b'{"b":[]}']},
    "an event less": {"texts": [b'{"a":1}']},
    "a member more": {"texts": [b'{"a":1}', b'{"b":[],"c":""}']},
    "no error": {"failure": None},
    "another error": {"failure": {"status": None, "message": "n"}},
    "no [DONE]": {"done": False},
    "a document": {"document": ("text/plain", "")},
    "another model": {"told": {"x-tetrad-model": "n"}},
    "other usage": {"records": [USED | {"prompt_tokens": None}]},
    "a record more": {"records": [USED, USED]},
    "another count": {"counts": {"tetrad_calls_total": 2.0}},
}


async def test_equal_sides_are_equal_but_for_nulls() -> None:
    texts = [b'{"a":1.0,"n":null}', b'{"b":[]}']
    assert apart(GOOD, dataclasses.replace(GOOD, texts=texts), {}) == []


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
async def test_a_difference_is_found(changes: dict[str, Any]) -> None:
    assert apart(GOOD, dataclasses.replace(GOOD, **changes), {}) != []


async def test_counts_leave_out_what_is_time_and_see_usage() -> None:
    calls = [Call("1", "Chat", "rest", model="m", attempts=1) for _ in range(3)]
    for call, tokens in zip(calls, (5, 5, 6), strict=True):
        call.usage.tokens({"prompt_tokens": tokens})
        call.usage.close("OK")
    one, again, other = (counts([call]) for call in calls)
    assert one == again
    assert one != other
