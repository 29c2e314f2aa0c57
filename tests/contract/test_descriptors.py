"""What holds for every message, field and method of the contract, read from the descriptors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import resources
from random import Random
from typing import Any

import grpc
import grpc_testing
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor as protobuf
from google.protobuf import descriptor_pb2
from tetrad.v1 import (
    chat_pb2,
    chat_service_pb2,
    chat_service_pb2_grpc,
    embed_service_pb2,
    embed_service_pb2_grpc,
    error_details_pb2,
    json_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    rerank_service_pb2,
    rerank_service_pb2_grpc,
    transcribe_service_pb2,
    transcribe_service_pb2_grpc,
    usage_pb2,
)

from services import codec, errors
from services.auth import Keyring
from services.chat import ChatService
from services.dispatch import Dispatch
from services.embed import EmbedService
from services.inflight import InFlight
from services.models import ModelService
from services.rerank import RerankService
from services.routing.table import Router, Table
from services.server import bind
from services.transcribe import TranscribeService

SERVICES = {
    chat_service_pb2: (chat_service_pb2_grpc, ChatService),
    embed_service_pb2: (embed_service_pb2_grpc, EmbedService),
    transcribe_service_pb2: (transcribe_service_pb2_grpc, TranscribeService),
    rerank_service_pb2: (rerank_service_pb2_grpc, RerankService),
    model_service_pb2: (model_service_pb2_grpc, ModelService),
}
FILES = [module.DESCRIPTOR for module in SERVICES] + [
    module.DESCRIPTOR for module in (chat_pb2, json_pb2, usage_pb2, error_details_pb2)
]
DESCRIPTORS = [service for file in FILES for service in file.services_by_name.values()]
METHODS = [method for service in DESCRIPTORS for method in service.methods]
MESSAGES = [message for file in FILES for message in file.message_types_by_name.values()]

IDEMPOTENCY = descriptor_pb2.MethodOptions.IdempotencyLevel

each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def test_the_contract_has_the_services_that_were_promised() -> None:
    assert {service.full_name: sorted(service.methods_by_name) for service in DESCRIPTORS} == {
        "tetrad.v1.ChatService": ["Chat", "StreamChat"],
        "tetrad.v1.EmbedService": ["BulkEmbed", "Embed"],
        "tetrad.v1.TranscribeService": ["LiveTranscribe", "StreamTranscribe", "Transcribe"],
        "tetrad.v1.RerankService": ["Rerank"],
        "tetrad.v1.ModelService": ["GetModel", "ListModels"],
    }


def test_the_plans_are_of_the_same_methods() -> None:
    planned = [
        f"{plan.name}.{method.name}" for plan in codec.service_plans() for method in plan.methods
    ]
    assert planned == [method.full_name for method in METHODS]


# --- methods -----------------------------------------------------------------------------------


def http_rule(method: protobuf.MethodDescriptor) -> tuple[str, str]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    assert not rule.additional_bindings
    verb = rule.WhichOneof("pattern") or ""
    return verb, getattr(rule, verb) if verb else ""


def test_native_paths_are_unique() -> None:
    paths = [http_rule(method) for method in METHODS if http_rule(method)[0]]
    assert len(paths) == len(set(paths)) == 8
    # A template with a variable must not swallow a plain path.
    assert Counter(re.sub(r"\{.*?\}", "*", path) for _, path in paths).most_common(1)[0][1] == 1


@each_method
def test_a_method_that_is_not_bidirectional_has_a_native_path(
    method: protobuf.MethodDescriptor,
) -> None:
    verb, path = http_rule(method)
    if method.client_streaming:
        assert not verb
        return
    assert path.startswith("/tetrad/v1")
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    reads = method.name.startswith(("Get", "List"))
    assert (verb, rule.body) == (("get", "") if reads else ("post", "*"))


@each_method
def test_a_method_s_name_tells_what_streams(method: protobuf.MethodDescriptor) -> None:
    service = method.containing_service
    if method.client_streaming:
        assert method.server_streaming
        noun = service.name.removesuffix("Service")
        assert method.name.endswith(noun)
        assert method.name not in (noun, f"Stream{noun}")
    elif method.server_streaming:
        twin = service.methods_by_name[method.name.removeprefix("Stream")]
        assert method.name == f"Stream{twin.name}"
        assert method.input_type is twin.input_type
        assert not twin.server_streaming
    else:
        assert not method.name.startswith("Stream")


@each_method
def test_messages_are_named_after_their_method(method: protobuf.MethodDescriptor) -> None:
    streams_one_way = method.server_streaming and not method.client_streaming
    asks = method.name.removeprefix("Stream") if streams_one_way else method.name
    assert method.input_type.full_name == f"tetrad.v1.{asks}Request"
    assert method.output_type.full_name == f"tetrad.v1.{method.name}Response"


def test_idempotency_is_told_where_a_retry_does_no_harm() -> None:
    levels = {
        method.name: IDEMPOTENCY.Name(method.GetOptions().idempotency_level) for method in METHODS
    }
    assert levels == {
        "Chat": "IDEMPOTENCY_UNKNOWN",
        "StreamChat": "IDEMPOTENCY_UNKNOWN",
        "Embed": "IDEMPOTENT",
        "BulkEmbed": "IDEMPOTENT",
        "Transcribe": "IDEMPOTENT",
        "StreamTranscribe": "IDEMPOTENCY_UNKNOWN",
        "LiveTranscribe": "IDEMPOTENCY_UNKNOWN",
        "Rerank": "IDEMPOTENT",
        "ListModels": "NO_SIDE_EFFECTS",
        "GetModel": "NO_SIDE_EFFECTS",
    }


def test_rest_routes_are_unique_and_their_twins_exist() -> None:
    routes = []
    for service in DESCRIPTORS:
        for method in service.methods:
            rest = method.GetOptions().Extensions[json_pb2.rest]
            routes += [(route.verb, route.path) for route in rest.routes]
            assert bool(rest.stream_member) == bool(rest.stream_method)
            if rest.stream_method:
                twin = service.methods_by_name[rest.stream_method]
                assert twin.server_streaming
                assert twin.input_type is method.input_type
                member = codec.plan(method.input_type.name).field(rest.stream_member)
                assert member.kind == "bool"
            if rest.response_member:
                assert rest.response_member in method.output_type.fields_by_name
            for route in rest.routes:
                known = {field.member for field in codec.plan(method.input_type.name).members}
                assert {constant.name for constant in route.constants} <= known
                assert set(re.findall(r"\{(\w+)", route.path)) <= known
            if rest.routes:
                assert rest.summary
    assert len(routes) == len(set(routes)) == 10


@each_method
def test_every_method_is_bound_to_a_coroutine_and_to_a_handler(
    method: protobuf.MethodDescriptor,
) -> None:
    owners = {f"tetrad.v1.{kind.__name__}": kind for _, kind in SERVICES.values()}
    assert callable(getattr(owners[method.containing_service.full_name], bind.snake(method.name)))
    handler = next(
        found
        for generic in bound()
        if (
            found := generic.service(
                _Details(f"/{method.containing_service.full_name}/{method.name}")
            )
        )
    )
    assert handler.request_streaming == method.client_streaming
    # Streams are written by the handler itself.
    assert handler.response_streaming == method.server_streaming
    assert handler.request_deserializer is None
    assert handler.response_serializer is None


def test_a_method_without_a_coroutine_is_refused_at_the_start() -> None:
    services = {**_services(), "tetrad.v1.RerankService": object()}
    with pytest.raises(AttributeError, match="rerank"):
        bind.handlers(services, _settings())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Chat", "chat"), ("StreamChat", "stream_chat"), ("GetModel", "get_model")],
)
def test_rpc_names_become_snake_case(name: str, expected: str) -> None:
    assert bind.snake(name) == expected


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def _settings() -> bind.Settings:
    return bind.Settings(Keyring([], open=True), InFlight(), 1024)


def _services() -> dict[str, object]:
    router = Router(Table([]), Random())  # noqa: S311
    dispatch = Dispatch(router, [])
    return {
        "tetrad.v1.ChatService": ChatService(dispatch),
        "tetrad.v1.EmbedService": EmbedService(dispatch, lambda error, id: b""),
        "tetrad.v1.TranscribeService": TranscribeService(dispatch, 1),
        "tetrad.v1.RerankService": RerankService(dispatch),
        "tetrad.v1.ModelService": ModelService(router),
    }


def bound() -> list[grpc.GenericRpcHandler]:
    return bind.handlers(_services(), _settings())


# --- fields --------------------------------------------------------------------------------------


def test_every_extra_is_number_100_and_a_remainder() -> None:
    found = 0
    for message in MESSAGES:
        for field in message.fields:
            shape = field.GetOptions().Extensions[json_pb2.json_field].shape
            if field.name == "extra" or field.number == 100:
                found += 1
                assert (field.name, field.number) == ("extra", 100), message.full_name
                assert field.message_type is json_pb2.JsonText.DESCRIPTOR
            assert (shape == json_pb2.FIELD_SHAPE_REMAINDER) == (field.name == "extra")
    assert found >= 70


def test_numbers_past_100_are_for_grpc_callers_only() -> None:
    ours = {
        json_pb2.FIELD_SHAPE_DATA_URL,
        json_pb2.FIELD_SHAPE_BASE64,
        json_pb2.FIELD_SHAPE_HIDDEN,
    }
    for message in MESSAGES:
        for field in message.fields:
            shape = field.GetOptions().Extensions[json_pb2.json_field].shape
            assert (field.number > 100) == (shape in ours), field.full_name
            assert field.number < 200


def test_every_open_union_has_an_arm_for_other_json() -> None:
    for message in MESSAGES:
        for oneof in message.oneofs:
            if oneof.GetOptions().Extensions[json_pb2.json_oneof].shape:
                (other,) = (field for field in oneof.fields if field.name == "other")
                assert other.message_type is json_pb2.JsonText.DESCRIPTOR
                assert other.number == max(field.number for field in oneof.fields)


def test_a_message_of_json_has_an_extra_a_union_or_one_list() -> None:
    # What gRPC alone knows, or what is a query and not a body.
    closed = {
        "AudioFile",
        "BulkEmbedRequest",
        "BulkEmbedResponse",
        "FloatVector",
        "GetModelRequest",
        "GetModelResponse",
        "ListModelsRequest",
        "LiveTranscribeRequest",
        "LiveTranscribeResponse",
        "PackedVector",
        "PlainDocument",
        "SparseVector",
        "UpstreamError",
    }
    without = {
        name
        for name in codec.message_names()
        if not ((plan := codec.plan(name)).remainder or plan.union or plan.flat)
    }
    assert without == closed


def test_scalars_of_json_messages_know_absent_from_zero() -> None:
    for name in codec.message_names():
        plan = codec.plan(name)
        if plan.remainder:
            for field in plan.members:
                assert field.presence or field.repeated or field.is_map, f"{name}.{field.name}"


def test_numbers_have_the_types_that_lose_nothing() -> None:
    for message in MESSAGES:
        if message.name in ("FloatVector", "SparseVector"):
            continue
        for field in message.fields:
            assert field.type != field.TYPE_FLOAT, (
                f"{field.full_name}: float turns 0.7 into 0.69999"
            )
            if field.name in ("created", "seed", "expires_at", "priority"):
                assert field.type == field.TYPE_INT64, field.full_name


def test_enums_are_ours_and_start_unspecified() -> None:
    for file in FILES:
        for enum in file.enum_types_by_name.values():
            zero = enum.values_by_number[0].name
            assert zero.endswith("_UNSPECIFIED")
            prefix = zero.removesuffix("UNSPECIFIED")
            assert all(value.name.startswith(prefix) for value in enum.values)
            assert sorted(enum.values_by_number) == list(range(len(enum.values)))


def test_options_have_one_number_for_all_kinds() -> None:
    numbers = {
        extension.number: extension.containing_type.name
        for extension in json_pb2.DESCRIPTOR.extensions_by_name.values()
    }
    (number,) = numbers
    assert len(json_pb2.DESCRIPTOR.extensions_by_name) == 3
    assert 50000 <= number <= 99999
    assert number != 50100  # another project's, which may share the process


def test_no_json_member_stands_for_two_fields() -> None:
    for name in codec.message_names():
        plan = codec.plan(name)
        arms = plan.union.arms if plan.union else ()
        names = [field.member for field in (*plan.members, *arms)]
        assert len(names) == len(set(names)), name


def test_files_carry_the_options_of_other_languages() -> None:
    for file in FILES:
        options = file.GetOptions()
        assert file.package == "tetrad.v1"
        assert options.java_package == "dev.tetrad.v1"
        assert options.java_multiple_files
        assert options.go_package == "tetrad.dev/gen/tetrad/v1;tetradv1"
        assert options.csharp_namespace == "Tetrad.V1"


def test_every_reason_of_ours_is_in_the_contract() -> None:
    names = [
        value.name.removeprefix("ERROR_REASON_")
        for value in error_details_pb2.ErrorReason.DESCRIPTOR.values
        if value.number
    ]
    assert sorted(names) == sorted(reason.value for reason in errors.Reason)


# --- the generated stubs, by grpcio-testing ----------------------------------------------------


def _answers(method: protobuf.MethodDescriptor) -> Iterator[Any]:
    kind = codec.message_class(method.output_type.name)
    yield kind()
    if method.server_streaming:
        yield kind()


def _stub_method(channel: grpc.Channel, method: protobuf.MethodDescriptor) -> Callable[..., Any]:
    module = next(
        stubs
        for file, (stubs, _) in SERVICES.items()
        if file.DESCRIPTOR is method.containing_service.file
    )
    stub = getattr(module, f"{method.containing_service.name}Stub")(channel)
    found: Callable[..., Any] = getattr(stub, method.name)
    return found


@each_method
def test_the_sync_stub_of_a_method_asks_what_the_descriptor_says(
    method: protobuf.MethodDescriptor,
) -> None:
    clock = grpc_testing.strict_fake_time(0)
    channel = grpc_testing.channel(DESCRIPTORS, clock)
    request = codec.message_class(method.input_type.name)()
    call = _stub_method(channel, method)
    given = iter([request]) if method.client_streaming else request
    start = call if method.server_streaming else call.future
    running = start(given, timeout=5.0)
    if method.client_streaming:
        _, sent = channel.take_stream_stream(method)
        assert sent.take_request() == request
    elif method.server_streaming:
        _, taken, sent = channel.take_unary_stream(method)
        assert taken == request
    else:
        _, taken, sent = channel.take_unary_unary(method)
        assert taken == request
        sent.send_initial_metadata(())
        sent.terminate(next(_answers(method)), (), grpc.StatusCode.OK, "")
        assert running.result() == next(_answers(method))
        return
    sent.send_initial_metadata(())
    for answer in _answers(method):
        sent.send_response(answer)
    sent.terminate((), grpc.StatusCode.OK, "")
    assert list(running) == list(_answers(method))
    assert running.code() is grpc.StatusCode.OK


@each_method
def test_the_sync_servicer_of_a_method_answers_what_the_descriptor_says(
    method: protobuf.MethodDescriptor,
) -> None:
    service = method.containing_service
    module = next(stubs for file, (stubs, _) in SERVICES.items() if file.DESCRIPTOR is service.file)
    servicer = getattr(module, f"{service.name}Servicer")()

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if method.client_streaming:
            list(request)
        return iter(_answers(method)) if method.server_streaming else next(_answers(method))

    setattr(servicer, method.name, answer)
    server = grpc_testing.server_from_dictionary(
        {service: servicer}, grpc_testing.strict_fake_time(0)
    )
    request = codec.message_class(method.input_type.name)()
    if method.client_streaming:
        running = server.invoke_stream_stream(method, (), None)
        running.send_request(request)
        running.requests_closed()
    elif method.server_streaming:
        running = server.invoke_unary_stream(method, (), request, None)
    else:
        response, _, code, _ = server.invoke_unary_unary(method, (), request, None).termination()
        assert (response, code) == (next(_answers(method)), grpc.StatusCode.OK)
        return
    assert [running.take_response() for _ in _answers(method)] == list(_answers(method))
    assert running.termination()[1] is grpc.StatusCode.OK


def test_the_retry_policy_for_clients_retries_what_is_unavailable_only() -> None:
    path = resources.files("tetrad.v1") / "service_config.json"
    policy = json.loads(path.read_text(encoding="utf-8"))
    names = {entry["service"] for each in policy["methodConfig"] for entry in each["name"]}
    assert names <= {service.full_name for service in DESCRIPTORS}
    for each in policy["methodConfig"]:
        if "retryPolicy" in each:
            assert each["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
