"""The same case through both faces: a request, what the caller must get, what the upstream must.

A case is run over REST (relaying, and with `relay: false`) and over gRPC, and each outcome is
held against what the case says under the canonical form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.fakes.upstream import Received
from tests.lib import canonical, form
from tests.lib.faces import (
    OPERATIONS,
    REQUEST_ID,
    Case,
    Failure,
    Outcome,
    over_grpc,
    over_rest,
    parts,
    plan,
)
from tests.lib.world import World


async def check(world: World, case: Case) -> None:
    """Run a case through both faces and hold every outcome against it."""
    if case.reply is not None:
        world.script(case.reply)
    upstream = world.behind(str(case.request.get("model") or case.default))
    outcomes = []
    for face, gate, run in (
        ("REST", world.relaying, over_rest),
        ("REST without relay", world.recoding, over_rest),
        ("gRPC", world.relaying, over_grpc),
    ):
        upstream.forget()
        outcome = await run(gate, case)
        outcome.face = face
        outcome.requests = [one for one in upstream.requests if one.method == "POST"]
        outcomes.append(outcome)
    found = [f"{one.face}: {line}" for one in outcomes for line in _faults(case, one)]
    found += _apart(outcomes)
    assert not found, "\n".join([case.name, *found])


def _faults(case: Case, outcome: Outcome) -> list[str]:
    found = _failure_faults(case.failure, outcome)
    wanted: Sequence[Any] = case.answers
    if outcome.face != "gRPC" and case.rest_answer is not None:
        wanted = [case.rest_answer]
    found += canonical.event_differences(wanted, outcome.answers, case.compare)
    if outcome.document != case.document:
        found.append(f"the document {case.document} expected, got {outcome.document}")
    chat_stream = case.operation == "StreamChat" and outcome.face != "gRPC"
    if outcome.done != (chat_stream and case.failure is None):
        found.append(f"[DONE] {'came' if outcome.done else 'is missing'}")
    if outcome.told.get("x-request-id") != REQUEST_ID:
        found.append(f"the request's id is lost: {outcome.told}")
    return found + _sent_faults(case, outcome)


def _failure_faults(wanted: Failure | None, outcome: Outcome) -> list[str]:
    got = outcome.failure
    if wanted is None or got is None:
        return [] if wanted is got else [f"{wanted or 'no failure'} expected, got {got}"]
    want: dict[str, Any] = {"wait": wanted.wait, "again": wanted.again}
    if outcome.face == "gRPC":
        want |= {"code": wanted.code, "reason": wanted.reason, "fields": wanted.fields}
    else:
        want |= {"status": wanted.status, "type": wanted.type, "param": wanted.param}
        want |= {"code": wanted.error_code, "more": dict(wanted.more)}
        if wanted.status is None:  # headers were sent long before
            want |= {"wait": None, "again": True}
            want["more"] = {"request_id": REQUEST_ID, **wanted.more}
    found = [
        f"{name}: {value!r} expected, got {got[name]!r}"
        for name, value in want.items()
        if got[name] != value
    ]
    part = wanted.message.removeprefix("...")
    if part not in got["message"] or (part == wanted.message and part != got["message"]):
        found.append(f"message: {wanted.message!r} expected, got {got['message']!r}")
    return found


def _sent_faults(case: Case, outcome: Outcome) -> list[str]:
    if case.sent is None:
        return [f"{one} reached the upstream" for one in outcome.requests]
    if len(outcome.requests) != 1:
        return [f"{len(outcome.requests)} requests reached the upstream: {outcome.requests}"]
    (request,) = outcome.requests
    found = []
    if request.path != case.sent.path:
        found.append(f"the upstream's path is {request.path}, not {case.sent.path}")
    if OPERATIONS[case.operation].form:
        found += form.differences(parts(case.sent.body, case.file), request.form())
    else:
        name = plan(OPERATIONS[case.operation]).request
        body = _as_asked(case, outcome, request.body)
        found += canonical.differences(case.sent.body, body, case.compare, name)
    return [f"upstream {line}" for line in found]


def _as_asked(case: Case, outcome: Outcome, body: bytes) -> Any:
    """What an upstream was sent, but for base64 that the gateway asked for itself: callers over
    gRPC get numbers as bytes whatever the upstream prints."""
    sent = canonical.loads(body)
    wanted = case.sent.body.get("encoding_format") if case.sent else None
    asked_itself = case.operation == "Embed" and outcome.face == "gRPC"
    if asked_itself and wanted in (None, "float") and sent.get("encoding_format") == "base64":
        sent["encoding_format"] = wanted
    return sent


def _apart(outcomes: Sequence[Outcome]) -> list[str]:
    """Differences between faces that no case describes: headers both ways."""
    first, *others = outcomes
    found = []
    for other in others:
        if other.told != first.told:
            found.append(f"{other.face} tells {other.told}, REST {first.told}")
        for one, two in zip(first.requests, other.requests, strict=False):
            if _headers(one) != _headers(two):
                found.append(f"{other.face} sends {_headers(two)}, REST {_headers(one)}")
    return found


def _headers(request: Received) -> dict[str, str]:
    """A request's headers but those that tell the body's size or a form's boundary."""
    headers = {k: v for k, v in request.headers.items() if k != "content-length"}
    headers["content-type"] = headers.get("content-type", "").partition(";")[0]
    return headers


def again(case: Case, name: str, **changes: Any) -> Case:
    """Another case that differs in some members."""
    return replace(case, name=name, **changes)
