"""Certificates as files: what is refused and how it is said, what is taken when they change."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.auth import identity_of
from services.certificates import CertificateError, Certificates, read
from services.config import Config, ConfigError, Tls, parse
from tests.lib import tls as made
from tests.unit.rest_server import until

MODEL = "models: [{name: a, type: text-generation, providers: [{url: 'http://h'}]}]\n"
ENCRYPTED = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
EMPTY = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a server's certificate, and authorities."""
    put(tmp_path, made.SERVER)
    shutil.copy(made.CA, tmp_path / "ca.pem")
    return tmp_path


def put(folder: Path, pair: tuple[Path, Path]) -> None:
    """Put a certificate and its key where the gateway looks for its own."""
    for path, name in zip(pair, ("cert.pem", "key.pem"), strict=True):
        shutil.copy(path, folder / name)


def section(folder: Path) -> Tls:
    paths = {"cert": "cert.pem", "key": "key.pem", "client_ca": "ca.pem"}
    return Tls(**{name: str(folder / path) for name, path in paths.items()})


def faults(folder: Path) -> list[str]:
    with pytest.raises(CertificateError) as caught:
        Certificates("grpc.tls", section(folder), "t.yaml")
    return [str(fault).replace(f"{folder}/", "") for fault in caught.value.faults]


PEM = "a PEM file holds lines of text between -----BEGIN and -----END"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        (
            "cert.pem",
            None,
            "cert: cert.pem cannot be read: no such file or directory; "
            "correct the path, and let this user read it",
        ),
        ("cert.pem", "", f"cert: cert.pem holds no certificate; {PEM}"),
        ("cert.pem", EMPTY, "cert: cert.pem and key.pem cannot be used: "),
        ("key.pem", EMPTY, f"key: key.pem holds no private key; {PEM}"),
        ("key.pem", ENCRYPTED, "key: key.pem holds an encrypted key; store it without a password"),
        ("key.pem", made.CLIENT[1], "key: key.pem is not the key of cert.pem; give the key that"),
        ("ca.pem", "x", f"client_ca: ca.pem holds no certificate; {PEM}"),
        ("ca.pem", EMPTY, "client_ca: ca.pem cannot be read: "),
    ],
)
def test_a_bad_file_is_named_with_its_key_and_what_to_do(
    files: Path, name: str, content: str | Path | None, fault: str
) -> None:
    if content is None:
        (files / name).unlink()
    else:
        text = content.read_text() if isinstance(content, Path) else content
        (files / name).write_text(text)
    (found,) = faults(files)
    assert found.startswith(f"t.yaml: grpc.tls.{fault}")


def test_every_bad_file_of_both_faces_is_named_at_once(tmp_path: Path) -> None:
    tls = f"{{tls: {{cert: {tmp_path}/cert, key: {tmp_path}/key}}}}"
    with pytest.raises(CertificateError) as caught:
        read(parse(f"grpc: {tls}\nhttp: {tls}\n{MODEL}", "t.yaml", {}))
    keys = [fault.key for fault in caught.value.faults]
    assert keys == ["grpc.tls.cert", "grpc.tls.key", "http.tls.cert", "http.tls.key"]


def test_without_certificates_there_is_nothing_to_read() -> None:
    both = read(Config())
    assert (both.grpc, both.http) == (None, None)


def test_an_expired_certificate_is_taken_with_a_warning(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(files, made.EXPIRED)
    assert str(Certificates("http.tls", section(files)).loaded.expires) == (
        "2024-02-01 00:00:00+00:00"
    )
    (warning,) = caplog.messages
    assert "http.tls.cert" in warning
    assert "has expired, on 2024-02-01; callers will refuse it" in warning


def test_a_good_certificate_is_taken_without_a_word(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = Certificates("http.tls", section(files))
    assert one.loaded.expires.year == 2120
    assert one.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert one.context.verify_mode is one.loaded.context.verify_mode is ssl.CERT_REQUIRED
    assert caplog.messages == []


# --- changes -------------------------------------------------------------------------------------


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Certificates]:
    one = Certificates("grpc.tls", section(folder), every=0.01)
    watch = asyncio.create_task(one.watch())
    try:
        yield one
    finally:
        watch.cancel()
        await asyncio.wait([watch])


async def test_new_files_are_taken(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with watched(files) as one:
        put(files, made.OTHER_SERVER)
        shutil.copy(made.OTHER_CA, files / "ca.pem")
        await until(lambda: one.loaded.cert == made.OTHER_SERVER[0].read_bytes())
        assert one.loaded.key == made.OTHER_SERVER[1].read_bytes()
        assert one.loaded.client_ca == made.OTHER_CA.read_bytes()
    assert "grpc.tls: new certificates are in use, until 2120" in caplog.messages[-1]


async def test_bad_new_files_are_told_once_and_change_nothing(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(files) as one:
        before = one.loaded
        shutil.copy(made.OTHER_SERVER[0], files / "cert.pem")
        await until(lambda: caplog.messages)
        await asyncio.sleep(0.3)  # many looks, none of which may tell it again
        (told,) = caplog.messages
        assert told.startswith("the certificates are not taken, those of before stay: ")
        assert "key.pem is not the key of" in told
        assert one.loaded is before
        shutil.copy(made.OTHER_SERVER[1], files / "key.pem")
        await until(lambda: one.loaded is not before)


async def test_a_file_that_is_gone_is_told_and_may_come_back(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(files) as one:
        before = one.loaded
        (files / "key.pem").unlink()
        await until(lambda: caplog.messages)
        assert "grpc.tls.key: " in caplog.messages[0]
        assert one.loaded is before
        put(files, made.OTHER_SERVER)
        await until(lambda: one.loaded.cert == made.OTHER_SERVER[0].read_bytes())


async def test_files_that_change_while_they_are_loaded_are_looked_at_again(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of one pair must never be used with the certificate of another."""
    load = Certificates._load
    async with watched(files) as one:
        first = one.loaded

        def slow(self: Certificates, found: dict[str, bytes | OSError]) -> object:
            monkeypatch.undo()
            loaded = load(self, found)
            put(files, made.EXPIRED)
            return loaded

        monkeypatch.setattr(Certificates, "_load", slow)
        put(files, made.OTHER_SERVER)
        await until(lambda: one.loaded is not first)
        assert one.loaded.cert == made.EXPIRED[0].read_bytes()


# --- identities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uris", "common_name", "identity"),
    [
        (["spiffe://a/b"], "x", "spiffe://a/b"),
        (["https://a/b", "spiffe://a/b"], "x", "spiffe://a/b"),
        (["https://a/b"], "x", "x"),
        ([], "", ""),
        (["spiffe://a/b", "spiffe://a/c"], "x", ""),
        ([], "spiffe://a/b", ""),
        ([], "SPIFFE://a/b", ""),
    ],
)
def test_a_certificate_names_its_spiffe_uri_or_its_common_name(
    uris: list[str], common_name: str, identity: str
) -> None:
    assert identity_of(uris, common_name) == identity


def entries(*keys: str) -> str:
    return f"auth: {{keys: [{', '.join(keys)}]}}\n{MODEL}"


SHA = f"sha256: {'ab' * 32}"
EITHER = "an entry has either sha256 or identity, and this one has"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (entries("{name: a}"), f"1:15: auth.keys[0]: {EITHER} neither; add sha256 (`tetrad keys "),
        (entries(f"{{name: a, {SHA}, identity: b}}"), f"1:15: auth.keys[0]: {EITHER} both; keep"),
        (
            entries("{name: a, identity: CN=b}"),
            "1:35: auth.keys[0].identity: expected a common name, found a subject; write what",
        ),
        (
            entries("{name: a, identity: 'spiffe://Example.org/b'}"),
            "1:35: auth.keys[0].identity: not a SPIFFE URI; such as spiffe://example.org/ns/prod",
        ),
        (
            entries("{name: a, identity: b}", "{name: c, identity: b}"),
            "1:59: auth.keys[1].identity: duplicate identity 'b', first on line 1; remove one",
        ),
    ],
)
def test_an_entry_is_a_key_or_an_identity_that_a_certificate_can_have(
    text: str, fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "t.yaml", {})
    (found,) = caught.value.faults
    assert str(found).startswith(f"t.yaml:{fault}")
