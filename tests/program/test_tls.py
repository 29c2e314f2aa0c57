"""TLS of `tetrad serve`, with one process and several; faults, warnings, client commands."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib import tls as made
from tests.lib.held import CHAT
from tests.lib.process import Program
from tests.lib.tetrad import FREE, LISTENS, configuration, done, model, tetrad, until

Pair = tuple[Path, Path]

SHA = "ab" * 32
KEYS = {"keys": [{"name": "a", "sha256": SHA}]}


def put(folder: Path, pair: Pair) -> dict[str, str]:
    """Put a certificate and its key into the folder; the section that names them."""
    for path, name in zip(pair, ("cert.pem", "key.pem"), strict=True):
        shutil.copy(path, folder / name)
    return {"cert": f"{folder}/cert.pem", "key": f"{folder}/key.pem"}


def written(folder: Path, url: str = "http://127.0.0.1:9", **sections: Any) -> Path:
    models = [model("chatty", CHAT, "vllm", url, "qwen3-8b")]
    return configuration(folder, models, required_types=[], **sections)


@asynccontextmanager
async def serving(*arguments: str | Path) -> AsyncIterator[tuple[Program, str, str]]:
    """The program, and what it says of where gRPC and REST are."""
    async with tetrad("serve", *FREE, *arguments) as program:
        listens = await program.line(LISTENS)
        yield program, listens[1], listens[2]


async def shown(url: str) -> bytes:
    """The certificate that a new connection is shown, as DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = url.removeprefix("https://").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
        return certificate
    finally:
        writer.transport.abort()


async def test_the_command_line_s_client_speaks_tls_and_shows_its_certificate(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    profiles.vllm(upstream)
    tls = {**put(tmp_path, made.SERVER), "client_ca": str(made.OTHER_CA)}
    entry = {"name": "indexer", "identity": made.SPIFFE_ID}
    config = written(tmp_path, upstream.url, grpc={"tls": tls}, auth={"keys": [entry]})
    async with serving("--config", config) as (program, address, _):
        show = ("--cert", made.SPIFFE[0], "--key-file", made.SPIFFE[1])
        known = ("models", "--address", f"https://{address}", "--ca", made.CA)
        listed = await done(tetrad(*known, *show))
        assert (listed.code, listed.stderr) == (0, "")
        assert "chatty" in listed.stdout
        strange = await done(tetrad(*known, "--timeout", "20"))
        assert strange.code == 1
        assert "UNAVAILABLE" in strange.stderr
        half = await done(tetrad(*known, "--cert", made.SPIFFE[0]))
        assert (half.code, half.stderr) == (2, "tetrad: --cert and --key-file go together")
        lost = await done(tetrad(*known[:-1], tmp_path / "none.pem"))
        assert (lost.code, lost.stderr) == (
            2,
            f"tetrad: {tmp_path}/none.pem: no such file or directory",
        )
        assert await program.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_every_process_takes_new_certificates(tmp_path: Path, workers: str) -> None:
    tls = put(tmp_path, made.SERVER)
    config = written(tmp_path, grpc={"tls": tls}, http={"tls": tls})
    async with serving("--config", config, "--workers", workers) as (program, address, url):
        assert url.startswith("https://")

        async def shows(pair: Pair) -> bool:
            wanted = ssl.PEM_cert_to_DER_cert(pair[0].read_text())
            # The kernel shares connections out: so many that each process gets some.
            found = [await shown(at) for at in (address, url) for _ in range(12)]
            return set(found) == {wanted}

        assert await shows(made.SERVER)
        put(tmp_path, made.OTHER_SERVER)
        await until(lambda: shows(made.OTHER_SERVER), 20)
        assert await program.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_bad_certificate_stops_the_start_and_is_named(tmp_path: Path, workers: str) -> None:
    tls = put(tmp_path, (made.SERVER[0], made.CLIENT[1]))
    config = written(tmp_path, http={"tls": tls})
    for ended in (
        await done(tetrad("serve", *FREE, "--config", config, "--workers", workers)),
        await done(tetrad("check", "--config", config)),
    ):
        assert ended.code == 1
        assert (
            f"{config}: http.tls.key: {tls['key']} is not the key of {tls['cert']}; give the key"
        ) in ended.stderr


@pytest.mark.parametrize(
    ("sections", "warned"),
    [
        ({"grpc": {"address": "0.0.0.0:50051"}, "auth": KEYS}, ["grpc.address"]),
        ({"http": {"address": "[::]:8080"}, "auth": KEYS}, ["http.address"]),
        ({"grpc": {"address": "unix:/run/tetrad.sock"}, "http": None}, []),
        ({"grpc": {"address": "localhost:1"}, "http": {"address": "[::1]:1"}}, []),
        ({"grpc": {"address": "0.0.0.0:50051", "tls": "put"}, "auth": KEYS}, []),
        ({"auth": {"keys": [{"name": "a", "identity": "b"}]}}, ["auth.keys[0].identity"]),
    ],
)
async def test_plaintext_that_others_reach_is_warned_of(
    tmp_path: Path, sections: dict[str, Any], warned: list[str]
) -> None:
    for section in sections.values():
        if section and section.get("tls") == "put":
            section["tls"] = put(tmp_path, made.SERVER)
    ended = await done(tetrad("check", "--config", written(tmp_path, **sections)))
    assert ended.code == 0
    assert re.findall(r"^warning: .*tetrad\.yaml: (\S+): ", ended.stderr, re.MULTILINE) == warned
    if warned == ["grpc.address"]:
        assert ended.stderr.endswith(
            "0.0.0.0:50051 is plaintext: who is on the way can read keys and texts; "
            "set grpc.tls: {cert, key}, or leave it so behind a proxy that ends TLS"
        )


async def test_the_start_warns_of_plaintext_that_the_command_line_asks_for(
    tmp_path: Path,
) -> None:
    config = written(tmp_path, auth=KEYS)
    async with serving("--config", config, "--grpc", "0.0.0.0:0") as (program, _, _):
        warnings = [line for line in program.stderr if line.startswith("warning: ")]
        assert len(warnings) == 1
        assert "grpc.address: 0.0.0.0:0 is plaintext" in warnings[0]
        assert await program.stop() == 0
