"""One case over one face: the request as that face is sent it, the outcome as its caller sees it.

Knows nothing of the gateway's code but the codec, which makes gRPC messages of the cases' JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx

from services import codec
from tests.fakes.upstream import Received, Reply
from tests.lib import form
from tests.lib.gateway import Gateway, details

REQUEST_ID = "req-under-test"


@dataclass(frozen=True)
class Operation:
    """Where a method is on both faces. `streamed` needs `stream: true` over REST."""

    service: str
    method: str
    path: str
    streamed: bool = False
    form: bool = False


OPERATIONS: Mapping[str, Operation] = {
    one.method: one
    for one in (
        Operation("ChatService", "Chat", "/v1/chat/completions"),
        Operation("ChatService", "StreamChat", "/v1/chat/completions", streamed=True),
        Operation("EmbedService", "Embed", "/v1/embeddings"),
        Operation("TranscribeService", "Transcribe", "/v1/audio/transcriptions", form=True),
        Operation(
            "TranscribeService",
            "StreamTranscribe",
            "/v1/audio/transcriptions",
            streamed=True,
            form=True,
        ),
        Operation("RerankService", "Rerank", "/v1/rerank"),
    )
}


@dataclass(frozen=True)
class File:
    """A sound that goes with a request."""

    data: bytes = b"RIFF\x24\x00\x00\x00WAVEfmt \r\n--not-a-boundary\r\n" + bytes(range(256))
    name: str = "four.wav"
    media_type: str = "audio/wav"


@dataclass(frozen=True)
class Failure:
    """How a call must fail. `status` None: as a stream's last event, after a good status.

    wait: seconds told by retry-after or RetryInfo. again: whether clients may try again by their
    own policy. fields: members named in BadRequest. message may be a part if it starts with "...".
    """

    reason: str
    code: str
    status: int | None
    message: str
    type: str = "invalid_request_error"
    error_code: Any = None
    param: str | None = None
    wait: float | None = None
    again: bool = True
    fields: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """What the upstream must have received: a path, and JSON or a form's members."""

    path: str
    body: Any


@dataclass(frozen=True)
class Case:
    """One request. `request` names the model; what REST takes or gives otherwise (another path,
    another system's JSON) stands in `rest_*`. `sent` None: nothing may reach the upstream.
    `default`: the model that answers if the request names none.
    """

    name: str
    operation: str
    request: Mapping[str, Any]
    sent: Sent | None
    answers: Sequence[Any] = ()
    document: tuple[str, str] | None = None
    failure: Failure | None = None
    reply: Reply | None = None
    file: File | None = None
    compare: Mapping[str, Any] = field(default_factory=dict)
    default: str = ""
    rest_path: str = ""
    rest_request: Any = None
    rest_answer: Any = None

    def __str__(self) -> str:
        return self.name


@dataclass
class Outcome:
    """What a caller got, and what the upstream was sent meanwhile."""

    face: str
    answers: list[Any] = field(default_factory=list)
    document: tuple[str, str] | None = None
    failure: Mapping[str, Any] | None = None
    told: dict[str, str] = field(default_factory=dict)
    requests: list[Received] = field(default_factory=list)
    done: bool = False


async def over_rest(gate: Gateway, case: Case, headers: Mapping[str, str] | None = None) -> Outcome:
    """The case over REST."""
    operation = OPERATIONS[case.operation]
    request = dict(case.request if case.rest_request is None else case.rest_request)
    if operation.streamed:
        request["stream"] = True
    if operation.form:
        content_type, body = form.build(parts(request, case.file))
    else:
        content_type, body = "application/json", json.dumps(request).encode()
    answer = await gate.rest.post(
        case.rest_path or operation.path,
        content=body,
        headers={"content-type": content_type, "x-request-id": REQUEST_ID, **(headers or {})},
    )
    return read_rest(answer)


def read_rest(answer: httpx.Response) -> Outcome:
    """What an HTTP answer says."""
    outcome = Outcome("REST", told=_told(dict(answer.headers)))
    media_type = answer.headers.get("content-type", "")
    if answer.status_code != 200:
        outcome.failure = _rest_failure(answer.status_code, answer.json()["error"], answer.headers)
    elif media_type.startswith("text/event-stream"):
        for data in sse_data(answer.text):
            if data == "[DONE]":
                outcome.done = True
            elif (event := json.loads(data)).keys() == {"error"}:
                outcome.failure = _rest_failure(None, event["error"], {})
            else:
                outcome.answers.append(data)
    elif media_type.startswith("application/json"):
        outcome.answers.append(answer.content)
    else:
        outcome.document = media_type, answer.text
    return outcome


def sse_data(text: str) -> list[str]:
    """The data of each event of a stream as we write it; comments are left out."""
    blocks = text.split("\n\n")
    assert blocks.pop() == "", "a stream ends with a blank line"
    events = [block for block in blocks if not block.startswith(":")]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [event.removeprefix("data: ") for event in events]


def parts(request: Mapping[str, Any], file: File | None) -> list[form.Part]:
    """A request as OpenAI's SDK writes it into a form: lists as name[], objects as name[member]."""
    found = []
    for name, value in request.items():
        if isinstance(value, list):
            found += [form.Part(f"{name}[]", _text(one)) for one in value]
        elif isinstance(value, dict):
            found += [form.Part(f"{name}[{key}]", _text(one)) for key, one in value.items()]
        else:
            found.append(form.Part(name, _text(value)))
    if file is not None:
        found.append(form.Part("file", file.data, file.name, file.media_type))
    return found


def _text(value: Any) -> bytes:
    return (value if isinstance(value, str) else json.dumps(value)).encode()


async def over_grpc(gate: Gateway, case: Case, headers: Mapping[str, str] | None = None) -> Outcome:
    """The case over gRPC."""
    operation = OPERATIONS[case.operation]
    rpc = plan(operation)
    outcome = Outcome("gRPC")
    metadata = tuple({"x-request-id": REQUEST_ID, **(headers or {})}.items())
    try:
        request = message(rpc.request, case.request, case.file)
    except codec.CodecError as error:
        raise AssertionError(f"{case.name}: the codec refuses the request: {error}") from None
    call = gate.stub(operation.service, operation.method)(request, metadata=metadata)
    try:
        if operation.streamed:
            options = case.request.get("stream_options") or {}
            asked = options.get("include_usage") is True
            async for event in call:
                outcome.answers.append(codec.to_json(rpc.response, event, usage_asked=asked))
        else:
            _take(outcome, rpc.response, await call)
        told = call.initial_metadata() if operation.streamed else call.trailing_metadata()
        outcome.told = _told(dict(await told))
    except grpc.aio.AioRpcError as error:
        outcome.failure = grpc_failure(error)
        trailers = {k: v for k, v in error.trailing_metadata() or () if isinstance(v, str)}
        outcome.told = _told({**dict(await call.initial_metadata()), **trailers})
    finally:
        call.cancel()
    return outcome


def plan(operation: Operation) -> codec.MethodPlan:
    """The contract's words on a method."""
    services = {one.name: one for one in codec.service_plans()}
    return services[f"tetrad.v1.{operation.service}"].method(operation.method)


def message(name: str, request: Mapping[str, Any], file: File | None = None) -> Any:
    """The message of a request in JSON, with its file."""
    made: Any = codec.message_class(name)()
    made.MergeFromString(unchecked(name, request))
    if file is not None:
        made.file.data, made.file.filename = file.data, file.name
        made.file.media_type = file.media_type
    return made


def unchecked(name: str, request: Mapping[str, Any]) -> bytes:
    """The wire bytes of a request, also of one that lacks members which must be there."""
    missing = {one.field for one in codec.check(name, dict(request))}
    fillers = {"messages": [{"role": "user", "content": ""}], "query": ""}
    whole = {**request, **{member: fillers[member] for member in missing if member in fillers}}
    made: Any = codec.message_class(name).FromString(codec.encode(name, json.dumps(whole).encode()))
    for member in missing:
        made.ClearField(member)
    return bytes(made.SerializeToString())


def _take(outcome: Outcome, name: str, answer: Any) -> None:
    if name == "TranscribeResponse" and answer.HasField("document"):
        outcome.document = answer.document.media_type, answer.document.text
    else:
        outcome.answers.append(codec.to_json(name, answer))


def grpc_failure(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """What a failed call tells."""
    told = details(error)
    info = told["ErrorInfo"]
    assert info.domain == "gateway.tetrad.dev"
    assert told["RequestInfo"].request_id == REQUEST_ID
    trailers = dict(error.trailing_metadata() or ())
    assert _size(trailers) < 8192
    retry, bad = told.get("RetryInfo"), told.get("BadRequest")
    return {
        "code": error.code().name,
        "reason": info.reason,
        "message": error.details(),
        "wait": retry and retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9,
        "again": trailers.get("grpc-retry-pushback-ms") != "-1",
        "fields": tuple(one.field for one in bad.field_violations) if bad else (),
    }


def _size(trailers: Mapping[str, Any]) -> int:
    return sum(len(name) + len(value) for name, value in trailers.items())


def _rest_failure(
    status: int | None, error: Mapping[str, Any], headers: Mapping[str, str]
) -> dict[str, Any]:
    wait = headers.get("retry-after-ms")
    known = ("message", "type", "param", "code")
    return {
        "status": status,
        **{name: error[name] for name in known},
        "more": {k: v for k, v in error.items() if k not in known},
        "wait": None if wait is None else int(wait) / 1000,
        "again": headers.get("x-should-retry") != "false",
    }


def _told(headers: Mapping[str, Any]) -> dict[str, str]:
    names = ("x-request-id", "x-tetrad-model", "x-tetrad-endpoint")
    return {name: headers[name] for name in names if name in headers}
