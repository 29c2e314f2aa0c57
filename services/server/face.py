"""The gRPC server: options, handlers, certificates, health and reflection, start and stop.

The options' reasons are beside them; all come from faults seen in production.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import cache
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from services import codec
from services.certificates import Certificates, Loaded
from services.config import Address
from services.server.bind import Settings, UnknownMethod, handlers
from services.server.health import Health

_OVER = 1024 * 1024
"""Our own size limit must strike before grpc's, whose error carries no details."""

_FOR_EVER = 2**31 - 1
"""Milliseconds that grpc takes for no limit."""

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class BindError(OSError):
    """The address cannot be listened on."""


def options(
    max_request_bytes: int, *, shared: bool = False, age: float | None = None
) -> list[tuple[str, int]]:
    """Channel arguments of the server; `shared` with other processes of ours. `age`: seconds after
    which a connection takes no further call, None for ever."""
    return [
        ("grpc.max_receive_message_length", max_request_bytes + _OVER),
        ("grpc.max_send_message_length", -1),
        # A second server on the port must fail to bind, not take half of the connections; a
        # worker is given the port by the supervisor, which has seen that nobody else has it.
        ("grpc.so_reuseport", int(shared)),
        # Clients may ping an idle connection every 10 s without GOAWAY too_many_pings.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Load balancers pin a connection to a replica: make clients come back now and then. The
        # grace is longer than any stream may be.
        ("grpc.max_connection_age_ms", _FOR_EVER if age is None else int(age * 1000)),
        ("grpc.max_connection_age_grace_ms", 61 * 60_000),
        ("grpc.max_concurrent_streams", 1000),
        # The window of a stream is not grown beyond need: an upload that an upstream does not take
        # is held back early, not kept here.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 1 << 20),
    ]


class GrpcFace:
    """The server for one address; `shared` with other processes of ours (SO_REUSEPORT).

    Without `certificates` it is plaintext; else each handshake takes the newest ones.
    """

    def __init__(
        self,
        services: Mapping[str, object],
        settings: Settings,
        *,
        shared: bool = False,
        age: float | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._credentials = _credentials(certificates) if certificates else None
        options_ = options(settings.max_request_bytes, shared=shared, age=age)
        self._server = grpc.aio.server(options=options_)
        names = [plan.name for plan in codec.service_plans()]
        self._health = Health(["", *names])
        self._server.add_generic_rpc_handlers(tuple(handlers(services, settings)))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        listed = [*names, health.SERVICE_NAME, reflection.SERVICE_NAME, _REFLECTION_V1]
        pool: Any = _Pool()
        reflection.enable_server_reflection(listed, self._server, pool)
        unknown = UnknownMethod(settings)
        self._server.add_generic_rpc_handlers((_reflection_v1(listed), unknown))

    def bind(self, address: Address) -> int:
        """Take the address; returns the port (0 for a socket file). Raises BindError."""
        target = f"unix:{address.path}" if address.path else _target(address)
        try:
            if address.path and _is_answered(address.path):
                raise RuntimeError("another server listens there")
            if self._credentials is None:
                port = self._server.add_insecure_port(target)
            else:
                port = self._server.add_secure_port(target, self._credentials)
        except RuntimeError as error:
            raise BindError(f"gRPC cannot listen on {address}: {_why(address, error)}") from None
        return 0 if address.path else port

    async def start(self) -> None:
        """Begin to answer; health says SERVING."""
        self._health.serving()
        await self._server.start()

    async def not_serving(self) -> None:
        """Health says NOT_SERVING from now on, and its watches end."""
        self._health.end()

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, give open ones `grace` seconds, then end them."""
        await self._server.stop(grace)


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Of grpc, which takes TLS 1.2 at least, and asks for news with each handshake."""
    given = certificates.loaded

    def news() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if certificates.loaded is given:
            return None
        given = certificates.loaded
        return _configuration(given)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        news,  # type: ignore[arg-type]  # None says that there is no news; the types forgot that
        require_client_authentication=certificates.demands_client,
    )


def _configuration(loaded: Loaded) -> grpc.ServerCertificateConfiguration:
    pairs = [(loaded.key, loaded.cert)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=loaded.client_ca)


class _Pool:
    """The pool of descriptors for reflection, which asks for methods, too: upb's finds none."""

    def __getattr__(self, name: str) -> Any:
        return getattr(descriptor_pool.Default(), name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """The file of a full name. Raises KeyError."""
        pool = descriptor_pool.Default()
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:
            owner, _, method = symbol.rpartition(".")
            service = pool.FindServiceByName(owner)
            return service.methods_by_name[method].containing_service.file


def _reflection_v1(names: list[str]) -> grpc.GenericRpcHandler:
    """The servicer of v1alpha under the name of v1: the messages are the same on the wire."""
    _describe_reflection_v1()
    servicer = reflection.aio.ReflectionServicer(names, _Pool())
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": method})


@cache
def _describe_reflection_v1() -> None:
    """Whoever resolves each service that is listed must find this one's descriptor too."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    old, file.package = f".{file.package}.", file.package.removesuffix("alpha")
    new = f".{file.package}."
    file.name = f"{file.package.replace('.', '/')}/reflection.proto"
    for field in (field for message in file.message_type for field in message.field):
        if field.type_name:
            field.type_name = field.type_name.replace(old, new)
    for method in (method for service in file.service for method in service.method):
        method.input_type = method.input_type.replace(old, new)
        method.output_type = method.output_type.replace(old, new)
    descriptor_pool.Default().Add(file)


def _target(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _is_answered(path: str) -> bool:
    """Whether somebody accepts connections on a socket file; grpc would take it from them."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == 0


def _why(address: Address, error: RuntimeError) -> str:
    """grpc's message names no cause; a plain bind does."""
    if address.path:
        return str(error)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((address.host, address.port))
        except OSError as cause:
            return (cause.strerror or str(cause)).lower()
    return str(error)
