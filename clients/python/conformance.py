"""Runs conformance cases against a gateway: python conformance.py address service_config case...

What a case says is told in tests/conformance/README.md. Needs the contract's wheel, no more.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2, status_pb2
from tetrad.v1 import (
    chat_service_pb2_grpc,
    embed_service_pb2_grpc,
    model_service_pb2_grpc,
    rerank_service_pb2_grpc,
    transcribe_service_pb2_grpc,
)
from tetrad.v1 import (
    error_details_pb2 as tetrad_details_pb2,
)

STUBS = {
    "tetrad.v1.ChatService": chat_service_pb2_grpc.ChatServiceStub,
    "tetrad.v1.EmbedService": embed_service_pb2_grpc.EmbedServiceStub,
    "tetrad.v1.ModelService": model_service_pb2_grpc.ModelServiceStub,
    "tetrad.v1.RerankService": rerank_service_pb2_grpc.RerankServiceStub,
    "tetrad.v1.TranscribeService": transcribe_service_pb2_grpc.TranscribeServiceStub,
}
# Importing them is what lets details be decoded to their types.
DETAILS = (error_details_pb2, tetrad_details_pb2)
COMPRESSION = {"gzip": grpc.Compression.Gzip}


def filled(value: Any, letters: int) -> Any:
    """The value with every "$FILL" in it replaced."""
    if isinstance(value, dict):
        return {name: filled(one, letters) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, letters) for one in value]
    return "x" * letters if value == "$FILL" else value


def matches(pattern: Any, value: Any) -> bool:
    """Whether a message in JSON has at least what the pattern has."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and matches(one, value[name]) for name, one in pattern.items()
        )
    if isinstance(pattern, list):
        return (
            isinstance(value, list)
            and len(pattern) == len(value)
            and all(map(matches, pattern, value))
        )
    if isinstance(pattern, int | float) and not isinstance(pattern, bool):
        return isinstance(value, int | float) and math.isclose(pattern, value, rel_tol=1e-6)
    return bool(pattern == value)


def called(channel: grpc.Channel, case: dict[str, Any]) -> dict[str, Any]:
    """Makes the call; what came, under the names that `expect` has."""
    service, name = case["method"].split("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    kind = message_factory.GetMessageClass(method.input_type)
    requests = [json_format.ParseDict(one, kind()) for one in case["requests"]]
    given = {
        "metadata": tuple(case.get("metadata", {}).items()),
        "timeout": case.get("deadline_ms", 30_000) / 1000,
        "compression": COMPRESSION.get(case.get("compression", "")),
    }
    invoke = getattr(STUBS[service](channel), name)
    first: Any = iter(requests) if method.client_streaming else requests[0]
    if method.server_streaming:
        call = invoke(first, **given)
        answers: Iterator[Any] = call
    else:
        call = invoke.future(first, **given)
        answers = (future.result() for future in (call,))
    cancel = case.get("cancel", {})
    timer = threading.Timer(cancel.get("after_ms", 0) / 1000, call.cancel)
    if "after_ms" in cancel:
        timer.start()
    responses: list[Any] = []
    try:
        for answer in answers:
            responses.append(json_format.MessageToDict(answer))
            if len(responses) == cancel.get("after_messages"):
                call.cancel()
    except (grpc.RpcError, grpc.FutureCancelledError):
        pass  # the call itself tells its status
    finally:
        timer.cancel()
    trailers = dict(call.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    return {
        "status": call.code().name,
        "message": call.details(),
        "responses": responses,
        "headers": dict(call.initial_metadata() or ()),
        "trailers": trailers,
        "details": [json_format.MessageToDict(detail) for detail in status.details],
    }


def wrong(expect: dict[str, Any], got: dict[str, Any]) -> str:
    """What is not as expected; "" = nothing."""
    patterns, responses = expect["responses"], list(got["responses"])
    if expect.get("any_order") and len(patterns) == len(responses):
        responses = [next((r for r in responses if matches(p, r)), None) for p in patterns]
    details = [
        detail
        for detail in expect.get("details", [])
        if not any(matches(detail, one) for one in got["details"])
    ]
    checks = {
        "status": expect["status"] == got["status"],
        "message": expect.get("message", got["message"]) == got["message"],
        "responses": matches(patterns, responses),
        "headers": matches(expect.get("headers", {}), got["headers"]),
        "trailers": matches(expect.get("trailers", {}), got["trailers"]),
        "details": not details,
    }
    faults = [f"{name}: {got[name]!r:.1000}" for name, good in checks.items() if not good]
    return f"{'; '.join(faults)} (status {got['status']}: {got['message']})" if faults else ""


def main(address: str, config: str, *files: str) -> int:
    """Exit status: 0 if all cases came out as expected."""
    options = [
        ("grpc.service_config", Path(config).read_text()),
        ("grpc.max_receive_message_length", 64 << 20),
    ]
    failed = 0
    with grpc.insecure_channel(address, options) as channel:
        for file in files:
            for raw in json.loads(Path(file).read_text()):
                case = filled(raw, raw.get("fill", 0))
                fault = wrong(case["expect"], called(channel, case))
                failed += bool(fault)
                print(
                    f"FAILED {case['name']}: {fault}" if fault else f"ok {case['name']}", flush=True
                )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
