"""How both faces show an error: gRPC's status and trailers, REST's status, headers and body."""

from __future__ import annotations

import asyncio
import json
import math
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from tetrad.v1 import error_details_pb2 as tetrad

from gateway_http.errors import response, sse_event
from services import errors
from services.errors import DeadlineExceeded, TetradError, UpstreamFault, Violation
from services.server.status import BUDGET, cost, details, rpc_status

BIN = "grpc-status-details-bin"
FAULT = UpstreamFault(
    "vllm 127.0.0.1:8000", 400, "BadRequestError", "400", "max_tokens", '{"error":{}}', {}
)


def trailers_of(error: TetradError, request_id: str = "r-1") -> dict[str, str | bytes]:
    trailers = details(error, request_id)[2]
    assert len(dict(trailers)) == len(trailers)
    return dict(trailers)


def decoded(error: TetradError, request_id: str = "r-1") -> dict[str, Any]:
    """The details by their message's name."""
    value = trailers_of(error, request_id)[BIN]
    assert isinstance(value, bytes)
    return unpacked(Status.FromString(value))


def unpacked(status: Status) -> dict[str, Any]:
    kinds = (rpc.ErrorInfo, rpc.RetryInfo, rpc.QuotaFailure, rpc.BadRequest, rpc.RequestInfo,
             tetrad.UpstreamError)  # fmt: skip
    found: dict[str, Any] = {}
    for detail in status.details:
        (kind,) = (kind for kind in kinds if detail.TypeName() == kind.DESCRIPTOR.full_name)
        message = kind()
        assert detail.Unpack(message)
        assert kind.__name__ not in found
        found[kind.__name__] = message
    return found


def size(
    code_message_trailers: tuple[grpc.StatusCode, str, Iterable[tuple[str, str | bytes]]],
) -> int:
    """The contract's sum: percent-encoded message, 4/3 of the details, the other trailers."""
    _, message, trailers = code_message_trailers
    quoted = urllib.parse.quote(message, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    total = len(quoted) + len("grpc-message") + len("grpc-status") + 1
    for name, value in trailers:
        total += len(name)
        total += math.ceil(len(value) * 4 / 3) if isinstance(value, bytes) else len(value)
    return total


def test_every_error_says_its_domain_reason_and_figures() -> None:
    for reason, kind in errors.CLASSES.items():
        facts = errors.Facts(metadata={"limit": "5"})
        error = (
            kind("idle", "m", **facts) if issubclass(kind, DeadlineExceeded) else kind("m", **facts)
        )
        code, message, _ = details(error, "r-1")
        assert (code.name, message) == (errors.TABLE[reason].grpc, "m")
        info = decoded(error)["ErrorInfo"]
        assert (info.domain, info.reason) == ("gateway.tetrad.dev", reason)
        assert info.metadata["limit"] == "5"
        assert decoded(error)["RequestInfo"].request_id == "r-1"


def test_a_reason_is_a_name_of_the_contracts_enum() -> None:
    for kind in errors.CLASSES.values():
        error = kind("idle") if issubclass(kind, DeadlineExceeded) else kind()
        name = f"ERROR_REASON_{decoded(error)['ErrorInfo'].reason}"
        assert tetrad.ErrorReason.Value(name) > 0


def test_the_status_in_the_details_has_the_same_code_and_message() -> None:
    error = errors.NotOffered("no é %")
    code, message, trailers = details(error, "r-1")
    value = dict(trailers)[BIN]
    assert isinstance(value, bytes)
    status = Status.FromString(value)
    assert (status.code, status.message) == (12, message) == (code.value[0], "no é %")


def test_a_wait_is_retry_info() -> None:
    """G19."""
    delay = decoded(errors.RateLimited(retry_after=2.25))["RetryInfo"].retry_delay
    assert (delay.seconds, delay.nanos) == (2, 250_000_000)
    assert decoded(errors.Overloaded())["RetryInfo"].retry_delay.seconds == 1
    assert "RetryInfo" not in decoded(errors.UpstreamUnavailable())
    assert decoded(errors.UpstreamUnavailable(retry_after=0))["RetryInfo"].retry_delay.nanos == 0


def test_a_quota_is_a_quota_failure_and_never_retry_info() -> None:
    found = decoded(errors.QuotaExhausted("spent", quota="key indexer: rpd", retry_after=5))
    (violation,) = found["QuotaFailure"].violations
    assert (violation.subject, violation.description) == ("key indexer: rpd", "spent")
    assert "RetryInfo" not in found
    assert "QuotaFailure" not in decoded(errors.RateLimited(quota="q"))


def test_violations_are_a_bad_request() -> None:
    error = errors.InvalidRequest(violations=[Violation("a[0].b", "why"), Violation("c", "and")])
    found = [(v.field, v.description) for v in decoded(error)["BadRequest"].field_violations]
    assert found == [("a[0].b", "why"), ("c", "and")]


def test_a_param_alone_is_a_bad_request_of_its_own() -> None:
    found = decoded(errors.InvalidRequest("too many", param="n"))["BadRequest"].field_violations
    assert [(v.field, v.description) for v in found] == [("n", "too many")]
    assert "BadRequest" not in decoded(errors.ModelNotFound.named("x"))


def test_what_the_upstream_said_is_an_upstream_error() -> None:
    found = decoded(errors.UpstreamInvalidRequest("m", upstream=FAULT))["UpstreamError"]
    assert found == tetrad.UpstreamError(
        endpoint="vllm 127.0.0.1:8000", http_status=400, type="BadRequestError", code="400",
        param="max_tokens", body='{"error":{}}',
    )  # fmt: skip
    assert "UpstreamError" not in decoded(errors.Internal())


def test_pushback_is_sent_exactly_where_the_table_or_the_path_says() -> None:
    """G19: layers of retries never multiply."""
    assert trailers_of(errors.UpstreamTruncated())["grpc-retry-pushback-ms"] == "-1"
    assert trailers_of(errors.ModelNotFound(upstream=FAULT))["grpc-retry-pushback-ms"] == "-1"
    assert "grpc-retry-pushback-ms" not in trailers_of(errors.UpstreamUnavailable())
    assert "grpc-retry-pushback-ms" not in trailers_of(errors.Draining())
    spent = errors.UpstreamUnavailable()
    spent.gave_up = True
    assert trailers_of(spent)["grpc-retry-pushback-ms"] == "-1"


def test_other_trailers_go_along_in_order() -> None:
    others = [("x-tetrad-model", "m"), ("x-odd", "é"), ("x-ratelimit-limit-requests", "5")]
    assert [name for name, _ in details(errors.Draining(), "r", others)[2]] == [
        "x-request-id", "x-tetrad-model", "x-ratelimit-limit-requests", BIN,
    ]  # fmt: skip


def test_a_request_id_that_no_trailer_can_hold_is_made_fit() -> None:
    assert (
        trailers_of(errors.Internal(), "a\r\nb\u00e9" + "c" * 500)["x-request-id"]
        == "ab" + "c" * 123
    )
    assert "x-request-id" not in trailers_of(errors.Internal(), "\n")
    assert "RequestInfo" not in decoded(errors.Internal(), "")


def test_the_body_is_cut_before_the_message() -> None:
    fault = UpstreamFault("e", 400, body="b" * 50_000)
    error = errors.UpstreamInvalidRequest("m" * 400, upstream=fault)
    found = details(error, "r-1")
    assert found[1] == "m" * 400
    body = decoded(error)["UpstreamError"].body
    assert body == "b" * (len(body) - 3) + "..."
    assert BUDGET - 8 <= size(found) <= BUDGET


def test_the_message_is_cut_when_no_body_is_left() -> None:
    fault = UpstreamFault("e", 400, body="b" * 50_000)
    error = errors.UpstreamInvalidRequest("é" * 5000, upstream=fault)
    found = details(error, "r-1")
    assert found[1] == "é" * (len(found[1]) - 3) + "..."
    assert decoded(error)["UpstreamError"].body == ""
    assert BUDGET - 16 <= size(found) <= BUDGET


def test_what_is_bounded_leaves_room_for_the_message() -> None:
    error = errors.UpstreamInvalidRequest(
        "m" * 300,
        metadata={f"figure_{n}": "9" * 500 for n in range(50)},
        violations=[Violation("f" * 500, "d" * 500)] * 100,
        upstream=UpstreamFault("e" * 999, 400, "t" * 999, "c" * 999, "p" * 999, "b" * 9999),
    )
    others = [(f"x-other-{n}", "v" * 60) for n in range(50)]
    found = details(error, "r" * 200, others)
    assert found[1] == "m" * 300
    assert size(found) <= BUDGET


def test_bounded_details_are_cut_on_a_character_boundary() -> None:
    fault = UpstreamFault("é" * 200, 400, body="")
    found = decoded(errors.UpstreamFailed(metadata={"a": "é" * 200}, upstream=fault))
    assert found["UpstreamError"].endpoint == "é" * 64
    assert found["ErrorInfo"].metadata["a"] == "é" * 64


def test_an_item_of_a_stream_has_the_same_details_without_trailers() -> None:
    error = errors.ModelNotFound.named("x")
    status = rpc_status(error, "r-1")
    assert unpacked(status) == decoded(error)
    assert status.code == 5


odd = st.sampled_from(["\ud800", "\udfff", "%", "\x00", "\r\n", "é", "😀"])
wild = st.lists(odd | st.text(max_size=600), max_size=12).map("".join)


@settings(deadline=None)
@given(
    message=wild,
    body=wild | st.text(max_size=3).map(lambda text: text * 9000),
    metadata=st.dictionaries(wild, wild, max_size=4),
    violations=st.lists(st.builds(Violation, wild, wild), max_size=4),
    repeats=st.integers(1, 40),
    request_id=wild,
    others=st.lists(st.tuples(st.sampled_from(["x-a", "x-b"]), wild), max_size=5),
    fields=st.lists(wild, min_size=4, max_size=4),
    wait=st.none() | st.floats(),
    kind=st.sampled_from(
        [kind for kind in errors.CLASSES.values() if kind is not DeadlineExceeded]
    ),
)
def test_no_error_is_too_big_for_the_trailers(
    message: str,
    body: str,
    metadata: dict[str, str],
    violations: list[Violation],
    repeats: int,
    request_id: str,
    others: list[tuple[str, str]],
    fields: list[str],
    wait: float | None,
    kind: type[TetradError],
) -> None:
    """Measured: 7000 bytes of trailers are never lost, 8000 sometimes, 17000 always."""
    endpoint, type_, code, param = fields
    error = kind(
        message * repeats,
        param=param,
        metadata=metadata,
        violations=violations * repeats,
        retry_after=wait,
        quota=endpoint,
        upstream=UpstreamFault(endpoint, 400, type_, code, param, body),
    )
    found = details(error, request_id, others)
    assert size(found) <= BUDGET
    found[1].encode()
    for name, value in found[2]:
        if isinstance(value, bytes):
            assert name == BIN
            status = Status.FromString(value)
            assert status.message == found[1]
            assert cost(status) <= BUDGET
            assert "ErrorInfo" in unpacked(status)
        else:
            assert value.isascii()
            assert value.isprintable()
    assert cost(rpc_status(error, request_id)) <= BUDGET


async def test_a_real_client_gets_code_message_and_details_at_the_budgets_edge(
    tmp_path: Path,
) -> None:
    """The trailers arrive whole over a socket, with whatever characters the message has."""
    raised = [
        errors.UpstreamInvalidRequest("a%b\n\x00é😀", upstream=FAULT),
        errors.UpstreamFailed("é%" * 4000, upstream=UpstreamFault("e", 500, body="x" * 99_999)),
        errors.Overloaded(retry_after=2),
    ]

    async def fail(number: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(*details(raised[int(number)], "r-1"))
        raise AssertionError("abort raises")

    handler = grpc.method_handlers_generic_handler(
        "t.T", {"Fail": grpc.unary_unary_rpc_method_handler(fail)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(20):
            for number, error in enumerate(raised):
                call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
                call = channel.unary_unary("/t.T/Fail")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(str(number).encode())
                sent = details(error, "r-1")
                assert (caught.value.code(), caught.value.details()) == sent[:2]
                got = dict(caught.value.trailing_metadata() or ())
                assert got == dict(sent[2])
    finally:
        await server.stop(None)


# --- REST ---------------------------------------------------------------------------------------


def headers_of(error: TetradError, request_id: str = "r-1") -> dict[bytes, bytes]:
    headers = response(error, request_id)[1]
    assert len(dict(headers)) == len(headers)
    return dict(headers)


def test_a_rest_error_has_openais_body() -> None:
    status, _, body = response(errors.ModelNotFound.named("né"), "r-1")
    assert status == 404
    assert body.decode() == (
        '{"error":{"message":"the model `né` does not exist","type":"not_found_error",'
        '"param":"model","code":"model_not_found"}}'
    )


def test_a_plain_rest_error_has_exactly_two_headers() -> None:
    assert headers_of(errors.InvalidRequest("m")) == {
        b"content-type": b"application/json", b"x-request-id": b"r-1",
    }  # fmt: skip


def test_a_wait_is_whole_seconds_rounded_up_and_exact_milliseconds() -> None:
    """G19."""
    headers = headers_of(errors.RateLimited(retry_after=1.0201))
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"2", b"1021")
    headers = headers_of(errors.Overloaded())
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"1", b"1000")
    assert b"retry-after" not in headers_of(errors.QuotaExhausted(retry_after=3))


def test_should_retry_false_is_sent_where_grpc_sends_its_pushback() -> None:
    """G19: both faces say the same of every class, whether or not an upstream was reached."""
    for kind in errors.CLASSES.values():
        for fault in (None, FAULT):
            facts = errors.Facts(upstream=fault)
            error = kind("idle", **facts) if issubclass(kind, DeadlineExceeded) else kind(**facts)
            pushed = "grpc-retry-pushback-ms" in trailers_of(error)
            assert pushed == (headers_of(error).get(b"x-should-retry") == b"false")
            assert pushed == (not error.retryable_by_client)


@pytest.mark.parametrize(("asked", "said"), [
    (math.nan, 0), (-5.0, 0), (math.inf, 365 * 24 * 3600),
])  # fmt: skip
def test_a_wait_out_of_range_is_brought_into_it(asked: float, said: int) -> None:
    error = errors.RateLimited(retry_after=asked)
    assert headers_of(error)[b"retry-after"] == str(said).encode()
    assert decoded(error)["RetryInfo"].retry_delay.seconds == said


def test_a_401_asks_for_a_bearer_key() -> None:
    status, headers, _ = response(errors.Unauthenticated(), "r-1")
    assert (status, dict(headers)[b"www-authenticate"]) == (401, b"Bearer")
    assert b"www-authenticate" not in headers_of(errors.ModelForbidden())


def test_no_request_id_can_split_the_headers() -> None:
    assert (
        headers_of(errors.Internal(), "a\r\nset-cookie: x\u00e9")[b"x-request-id"]
        == b"aset-cookie: x"
    )
    assert b"x-request-id" not in headers_of(errors.Internal(), "\r\n")


def test_the_last_event_of_a_stream_is_the_error_with_the_requests_id() -> None:
    data = sse_event(errors.UpstreamTruncated("line\nbreak"), "r-1")
    assert b"\n" not in data
    assert json.loads(data) == {"error": {
        "message": "line\nbreak", "type": "server_error", "param": None,
        "code": "upstream_truncated", "request_id": "r-1",
    }}  # fmt: skip


def test_an_upstreams_own_request_id_stays_in_the_last_event() -> None:
    error = errors.from_error_body({"error": {"message": "m", "request_id": "up"}}, endpoint="e")
    assert json.loads(sse_event(error, "r-1"))["error"]["request_id"] == "up"


@settings(deadline=None)
@given(message=wild, param=wild, request_id=wild)
def test_any_text_is_printed_as_valid_json(message: str, param: str, request_id: str) -> None:
    error = errors.InvalidRequest(message, param=param)
    _, headers, body = response(error, request_id)
    assert set(json.loads(body.decode())["error"]) == {"message", "type", "param", "code"}
    assert (
        json.loads(sse_event(error, request_id).decode())["error"]["type"]
        == "invalid_request_error"
    )
    assert all(value.isascii() and b"\n" not in value for _, value in headers)
