"""Both faces over TLS: who is let in, as whom, and certificates that change under open streams."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from services import app
from services.auth import new_key
from services.config import parse
from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib import tls as made
from tests.lib.faces import Case, over_grpc, over_rest
from tests.lib.gateway import Gateway
from tests.lib.held import CHAT, REQUEST, Held
from tests.lib.tetrad import model, until

Pair = tuple[Path, Path]

KEY, HASH = new_key("by-key")
ASKED = Case("one", "Chat", REQUEST, None)
BY_KEY = {"authorization": f"Bearer {KEY}"}


@dataclass
class Secured:
    """A gateway with TLS on both faces; its files are in `folder`."""

    running: app.Running
    folder: Path

    @property
    def ports(self) -> tuple[int, int]:
        """Of gRPC and REST."""
        assert self.running.http is not None
        return self.running.grpc.port, self.running.http.port

    def put(self, pair: Pair) -> None:
        """Exchange the server's certificate and key on disk."""
        for path, name in zip(pair, ("cert.pem", "key.pem"), strict=True):
            shutil.copy(path, self.folder / name)

    @asynccontextmanager
    async def caller(
        self, show: Pair | None = None, trust: Path = made.CA
    ) -> AsyncIterator[Gateway]:
        """Clients of both faces that trust an authority, and may show a certificate."""
        context = ssl.create_default_context(cafile=trust)
        key = cert = None
        if show is not None:
            context.load_cert_chain(*show)
            cert, key = map(Path.read_bytes, show)
        credentials = grpc.ssl_channel_credentials(Path.read_bytes(trust), key, cert)
        options = [("grpc.use_local_subchannel_pool", 1)]
        at, (_, port) = str(self.running.grpc), self.ports
        url = f"https://127.0.0.1:{port}"
        async with (
            grpc.aio.secure_channel(at, credentials, options=options) as channel,
            httpx.AsyncClient(base_url=url, verify=context, timeout=30, trust_env=False) as rest,
        ):
            yield Gateway(channel, rest, url, at, self.running)

    async def failures(
        self, show: Pair | None = None, headers: dict[str, str] | None = None
    ) -> list[Any]:
        """How a call fails on each face; None where it does not."""
        async with self.caller(show) as gate:
            return [(await run(gate, ASKED, headers)).failure for run in (over_rest, over_grpc)]


@asynccontextmanager
async def secured(
    upstream: FakeUpstream, folder: Path, client_ca: Path | None = None, *keys: dict[str, Any]
) -> AsyncIterator[Secured]:
    profiles.vllm(upstream)
    certificates = {"cert": f"{folder}/cert.pem", "key": f"{folder}/key.pem"}
    if client_ca is not None:
        shutil.copy(client_ca, folder / "clients.pem")
        certificates["client_ca"] = f"{folder}/clients.pem"
    face = {"address": "127.0.0.1:0", "tls": certificates}
    text = {
        "grpc": face,
        "http": face,
        "required_types": [],
        "models": [
            model(name, CHAT, "vllm", upstream.url, "qwen3-8b") for name in ("chatty", "other")
        ],
        "auth": {"keys": keys},
    }
    for path, name in zip(made.SERVER, ("cert.pem", "key.pem"), strict=True):
        shutil.copy(path, folder / name)
    async with app.gateway(parse(json.dumps(text), "t.yaml", {})) as running:
        yield Secured(running, folder)


async def refused(gate: Gateway) -> None:
    """Fails unless neither face lets the caller in; nothing is said that was not encrypted."""
    with pytest.raises(httpx.TransportError):
        await gate.rest.get("/health")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gate.call("ModelService", "ListModels", {}, timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_both_faces_answer_over_tls(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with secured(upstream, tmp_path) as gate:
        assert await gate.failures() == [None, None]


async def test_a_server_of_another_authority_is_not_trusted(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with secured(upstream, tmp_path) as gate, gate.caller(trust=made.OTHER_CA) as caller:
        await refused(caller)


async def test_plaintext_is_refused(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with secured(upstream, tmp_path) as gate:
        at, url = str(gate.running.grpc), f"http://127.0.0.1:{gate.ports[1]}"
        async with (
            grpc.aio.insecure_channel(at) as channel,
            httpx.AsyncClient(base_url=url, trust_env=False) as rest,
        ):
            await refused(Gateway(channel, rest, url, at, gate.running))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
async def test_tls_1_2_is_the_least_that_is_spoken(
    upstream: FakeUpstream, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    def speak(port: int, alpn: str) -> str | None:
        context = made.client_context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server who refuses
        context.set_alpn_protocols([alpn])
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as spoken:
                    assert spoken.selected_alpn_protocol() == alpn
                    return spoken.version()
            except ssl.SSLError as error:
                return error.reason

    # grpc's library closes without a word.
    refusals = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNEXPECTED_EOF_WHILE_READING"}
    wanted = {"TLSv1.2"} if version is ssl.TLSVersion.TLSv1_2 else refusals
    async with secured(upstream, tmp_path) as gate:
        for port, alpn in zip(gate.ports, ("h2", "http/1.1"), strict=True):
            assert await asyncio.to_thread(speak, port, alpn) in wanted


# --- certificates of clients ---------------------------------------------------------------------


@pytest.mark.parametrize("show", [None, made.STRANGER])
async def test_who_shows_no_certificate_of_the_authority_is_refused(
    upstream: FakeUpstream, tmp_path: Path, show: Pair | None
) -> None:
    async with secured(upstream, tmp_path, made.CA) as gate:
        async with gate.caller(show) as caller:
            await refused(caller)
        assert await gate.failures(made.CLIENT) == [None, None]


async def test_an_open_gateway_knows_its_callers_by_their_certificates(
    upstream: FakeUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with secured(upstream, tmp_path, made.OTHER_CA) as gate:
        assert await gate.failures(made.SPIFFE) == [None, None]
        assert await gate.failures(made.STRANGER) == [None, None]
    told = [vars(one)["key"] for one in caplog.records if "key" in vars(one)]
    assert told == [made.SPIFFE_ID] * 2 + ["stranger.test"] * 2


def limited(name: str, **entry: Any) -> dict[str, Any]:
    return {"name": name, "models": ["other"], **entry}


@pytest.mark.parametrize(
    ("authority", "show", "identity"),
    [(made.OTHER_CA, made.SPIFFE, made.SPIFFE_ID), (made.CA, made.CLIENT, "client.test")],
)
async def test_a_certificate_s_entry_says_which_models_it_may_use(
    upstream: FakeUpstream, tmp_path: Path, authority: Path, show: Pair, identity: str
) -> None:
    other = Case("two", "Chat", {**REQUEST, "model": "other"}, None)
    async with secured(upstream, tmp_path, authority, limited("a", identity=identity)) as gate:
        rest, rpc = await gate.failures(show)
        assert rest["status"] == 403
        assert (rpc["code"], rpc["reason"]) == ("PERMISSION_DENIED", "MODEL_FORBIDDEN")
        async with gate.caller(show) as caller:
            for run in (over_rest, over_grpc):
                assert (await run(caller, other)).failure is None


async def test_a_certificate_s_entry_says_how_often_it_may_call(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    entry = {"name": "a", "identity": "client.test", "limits": {"rpm": 1}}
    async with secured(upstream, tmp_path, made.CA, entry) as gate:
        first, second = await gate.failures(made.CLIENT)
    assert first is None
    assert second["code"] == "RESOURCE_EXHAUSTED"


async def test_a_key_goes_before_a_certificate(upstream: FakeUpstream, tmp_path: Path) -> None:
    keys = limited("a", identity="client.test"), {"name": "b", "sha256": HASH}
    async with secured(upstream, tmp_path, made.CA, *keys) as gate:
        assert await gate.failures(made.CLIENT, BY_KEY) == [None, None]
        rest, rpc = await gate.failures(made.CLIENT, {"authorization": "Bearer tk-wrong"})
    assert (rest["status"], rpc["code"]) == (401, "UNAUTHENTICATED")


async def test_a_certificate_that_no_entry_names_needs_a_key(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with secured(upstream, tmp_path, made.CA, {"name": "b", "sha256": HASH}) as gate:
        rest, rpc = await gate.failures(made.CLIENT)
        assert await gate.failures(made.CLIENT, BY_KEY) == [None, None]
    assert (rest["status"], rpc["code"]) == (401, "UNAUTHENTICATED")
    for failure in (rest, rpc):
        assert failure["message"] == (
            "the certificate's identity `client.test` is not known to this gateway, "
            "and no API key was sent"
        )


# --- changes -------------------------------------------------------------------------------------


async def shown(port: int, alpn: str) -> bytes:
    """The certificate that a new connection is shown, as DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
        return certificate
    finally:
        writer.transport.abort()


async def until_shown(gate: Secured, pair: Pair) -> None:
    """Wait until both faces show new connections that certificate."""
    wanted = ssl.PEM_cert_to_DER_cert(pair[0].read_text())

    async def both() -> bool:
        found = [
            await shown(port, alpn)
            for port, alpn in zip(gate.ports, ("h2", "http/1.1"), strict=True)
        ]
        return found == [wanted, wanted]

    await until(both)


async def test_a_new_certificate_is_shown_while_open_streams_go_on(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with secured(upstream, tmp_path) as gate, gate.caller() as before:
        await until_shown(gate, made.SERVER)
        held = Held()
        upstream.on("POST", "/v1/chat/completions", held)
        stream = before.stream("ChatService", "StreamChat", REQUEST)
        async with before.rest.stream(
            "POST", "/v1/chat/completions", json={**REQUEST, "stream": True}
        ) as answer:
            lines = answer.aiter_lines()
            assert '"a"' in await anext(lines)
            assert (await anext(stream))["choices"][0]["delta"]["content"] == "a"

            gate.put(made.OTHER_SERVER)
            await until_shown(gate, made.OTHER_SERVER)

            held.go_on.set()
            assert [one["choices"][0]["finish_reason"] async for one in stream] == ["stop"]
            assert [line async for line in lines if line][-1] == "data: [DONE]"
        profiles.vllm(upstream)
        for run in (over_rest, over_grpc):  # on the connections of before
            assert (await run(before, ASKED)).failure is None
        async with gate.caller(trust=made.OTHER_CA) as after:
            for run in (over_rest, over_grpc):
                assert (await run(after, ASKED)).failure is None


async def test_new_authorities_of_clients_are_asked_for_from_then_on(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with secured(upstream, tmp_path, made.CA) as gate:
        assert await gate.failures(made.CLIENT) == [None, None]
        shutil.copy(made.OTHER_CA, gate.folder / "clients.pem")
        gate.put(made.EXPIRED)  # its coming tells that all of them were taken
        await until_shown(gate, made.EXPIRED)
        gate.put(made.SERVER)
        await until_shown(gate, made.SERVER)
        assert await gate.failures(made.STRANGER) == [None, None]
        async with gate.caller(made.CLIENT) as caller:
            await refused(caller)


async def test_a_bad_new_file_keeps_the_old_certificates(
    upstream: FakeUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [one for one in caplog.messages if "are not taken, those of before stay" in one]

    async def both() -> bool:
        return len(told()) == 2

    async with secured(upstream, tmp_path) as gate:
        shutil.copy(made.CLIENT[1], tmp_path / "key.pem")
        await until(both)
        assert ["grpc.tls.key" in told()[0] or "grpc.tls.key" in told()[1]] == [True]
        await until_shown(gate, made.SERVER)
        assert await gate.failures() == [None, None]


async def test_a_bad_file_stops_the_start(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(app.StartError, match=r"t\.yaml: http\.tls\.cert: .* cannot be read"):
            await stack.enter_async_context(
                app.gateway(
                    parse(
                        json.dumps(
                            {
                                "http": {"tls": {"cert": f"{tmp_path}/a", "key": f"{tmp_path}/b"}},
                                "required_types": [],
                                "models": [model("m", CHAT, "vllm", upstream.url)],
                            }
                        ),
                        "t.yaml",
                        {},
                    )
                )
            )
