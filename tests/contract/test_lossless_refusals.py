"""What one face refuses, the other refuses, in the same words; nothing of it reaches an upstream.

Covers G23: a body is carried whole or refused by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from services import codec
from tests.fakes.upstream import Json
from tests.lib import canonical, recordings
from tests.lib.lossless import ANSWERS, NOT_OFFERED, OPERATIONS, WAYS, Lab, lab

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="rig")
async def _rig() -> AsyncIterator[Lab]:
    async with lab() as one:
        yield one


@pytest.mark.parametrize("operation", NOT_OFFERED)
async def test_an_operation_that_is_not_offered_has_no_path(rig: Lab, operation: str) -> None:
    rig.script(Json({}))
    assert recordings.own(operation=operation)
    for path in NOT_OFFERED[operation]:
        answer = await rig.relaying.rest.post(path, json={})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    assert rig.upstream.requests == rig.tei.requests == []


NESTED = b"[" * 513 + b"]" * 513
NO_REQUESTS: Mapping[str, bytes] = {
    "half of a UTF-16 pair": rb'{"messages": [{"role": "user"}], "x": "\ud800"}',
    "half of a UTF-16 pair in a name": rb'{"messages": [{"role": "user"}], "x": {"\udc00": 1}}',
    "513 levels": b'{"messages": [{"role": "user"}], "x": ' + NESTED[1:-1] + b"}",
    "NaN": b'{"messages": [{"role": "user"}], "x": NaN}',
    "Infinity": b'{"messages": [{"role": "user"}], "x": [-Infinity]}',
    "a number with a zero before it": b'{"messages": [{"role": "user"}], "x": 01}',
    "a comma too many": b'{"messages": [{"role": "user"}], "x": [1,]}',
    "a control character in a text": b'{"messages": [{"role": "user"}], "x": "\n"}',
    "no UTF-8": b'{"messages": [{"role": "user"}], "x": "\xff"}',
    "nothing": b'{"messages": [{"role": "user"}], "x": }',
}


@pytest.mark.parametrize("name", NO_REQUESTS)
async def test_what_is_no_json_is_refused_on_both_faces(rig: Lab, name: str) -> None:
    body = NO_REQUESTS[name]
    rig.script(ANSWERS["chat.completions"])
    operation = OPERATIONS["chat.completions"]
    for way in (way for way in WAYS if not way.is_grpc):
        got = await rig.ask(way, operation, body)
        assert got.failure is not None
        assert got.failure[0] == 400
    message: Any = codec.message_class("ChatRequest")()
    message.messages.add(role="user")
    try:
        message.extra.json = b"{" + body.partition(b"], ")[2]
    except ValueError:
        assert name == "no UTF-8"  # no protobuf string holds it
    else:
        got = await rig.call(operation, message)
        assert got.failure is not None
        assert got.failure[0] == "INVALID_ARGUMENT"
        assert got.failure[1]["BadRequest"].field_violations[0].field == "extra"
    assert rig.upstream.requests == []


ODD_REQUIRED = ["null", "[]", "5", '"text"', "{}", "[null]", '["a"]', "[[]]"]
REQUIRED = [
    ("chat.completions", "messages"),
    ("rerank", "query"),
    ("rerank", "documents"),
    ("embeddings", "input"),
    ("embeddings", "messages"),
]


@pytest.mark.parametrize("value", ODD_REQUIRED)
@pytest.mark.parametrize(("operation", "name"), REQUIRED)
async def test_a_required_member_of_any_type_is_judged_alike_on_both_faces(
    rig: Lab, operation: str, name: str, value: str
) -> None:
    others = {"query": '"q"', "documents": '["a"]'} if operation == "rerank" else {}
    members = {**others, name: value}
    body = b"{" + ", ".join(f'"{k}": {v}' for k, v in members.items()).encode() + b"}"
    one = OPERATIONS[operation]
    rig.script(ANSWERS[operation])
    outcomes = []
    for way in WAYS:
        try:
            got = await rig.ask(way, one, body)
        except codec.CodecError as error:
            outcomes.append(str(error))  # gRPC callers cannot even say it
            continue
        outcomes.append(got.said or "passed on")
        assert got.failure is None or got.failure[0] in (400, "INVALID_ARGUMENT")
        if not got.failure:
            assert canonical.loads(rig.received().body)[name] == canonical.loads(value)
    assert len(set(outcomes)) == 1, outcomes
