"""A face's certificates: read from PEM files, judged, and watched for a change.

A change is taken whole or not at all, for handshakes to come; open connections keep what they have.
Knows no server: one takes `loaded` with each handshake, the other the context.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.config import Config, Fault, Tls

EVERY = 1.0
"""Seconds between two looks at the files."""

_SETTLED = 0.2
"""Seconds between two looks that must find the same: nobody is writing them any more."""

_PEM = "a PEM file holds lines of text between -----BEGIN and -----END"
_UTC_TIME = 0x17
_CONTEXT_0 = 0xA0

Files = dict[str, bytes | OSError]
"""What each file holds, by its key in the configuration; or why it cannot be read."""

_log = logging.getLogger("tetrad")


class CertificateError(Exception):
    """Certificates that cannot be used; `faults` are for the user."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Loaded:
    """Certificates that are good: the files, and a server's context made of them."""

    cert: bytes
    key: bytes
    client_ca: bytes | None
    expires: datetime
    context: ssl.SSLContext


class Certificates:
    """The certificates of one section (`grpc.tls`), read at once. Raises CertificateError."""

    def __init__(self, section: str, tls: Tls, source: str = "", *, every: float = EVERY) -> None:
        self._section, self._source, self._every = section, source, every
        paths = {"cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca}
        self._paths = {name: Path(path) for name, path in paths.items() if path is not None}
        self._seen = self._read()
        self.loaded = self._load(self._seen)
        self._tell_expired()
        # The listener has one context for ever; it hands each handshake to the newest one. The
        # certificates, and what clients' are checked against, change in one step this way.
        self.context = _context(demands_client=tls.client_ca is not None)
        self.context.sni_callback = self._newest

    @property
    def demands_client(self) -> bool:
        """Whether callers must show a certificate."""
        return "client_ca" in self._paths

    async def watch(self) -> None:
        """Take each good change of the files, for ever; a bad one is logged and not taken."""
        while True:
            await asyncio.sleep(self._every)
            try:
                found = await asyncio.to_thread(self._read)
                if _same(found, self._seen):
                    continue
                await asyncio.sleep(_SETTLED)
                if _same(found, await asyncio.to_thread(self._read)):
                    await self._take(found)
            except Exception:
                # A watch that died would leave every later change out.
                _log.exception("%s: reading the certificates failed", self._section)

    async def _take(self, files: Files) -> None:
        self._seen = files
        try:
            loaded = await asyncio.to_thread(self._load, files)
        except CertificateError as error:
            for fault in error.faults:
                _log.error("the certificates are not taken, those of before stay: %s", fault)
            return
        if _same(files, await asyncio.to_thread(self._read)):
            self.loaded = loaded
            _log.info("%s: new certificates are in use, until %s", self._section, loaded.expires)
            self._tell_expired()
        else:
            self._seen = {}  # they changed while they were loaded: to be looked at again

    def _newest(
        self, tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        """OpenSSL asks with every handshake, also when the client names no server."""
        tls.context = self.loaded.context

    def _read(self) -> Files:
        found: Files = {}
        for name, path in self._paths.items():
            try:
                found[name] = path.read_bytes()
            except OSError as error:
                found[name] = error
        return found

    def _load(self, files: Files) -> Loaded:
        """Raises CertificateError: every file that is bad by itself, or how they do not fit."""
        faults = [fault for name, data in files.items() if (fault := self._bad(name, data))]
        if faults:
            raise CertificateError(faults)
        texts = {name: data for name, data in files.items() if isinstance(data, bytes)}
        client_ca = texts.get("client_ca")
        context = _context(demands_client=client_ca is not None)
        try:
            # An encrypted key would ask for its password on the terminal.
            context.load_cert_chain(self._paths["cert"], self._paths["key"], password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            raise CertificateError([self._unfit(error)]) from None
        if client_ca is not None:
            try:
                context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
            except (ssl.SSLError, ValueError) as error:
                said = f"{self._paths['client_ca']} cannot be read: {_reason(error)}"
                raise CertificateError([self._fault("client_ca", said, _PEM)]) from None
        return Loaded(texts["cert"], texts["key"], client_ca, _expires(texts["cert"]), context)

    def _bad(self, name: str, data: bytes | OSError) -> Fault | None:
        """What is wrong with one file by itself."""
        path = self._paths[name]
        if isinstance(data, OSError):
            reason = (data.strerror or str(data)).lower()
            hint = "correct the path, and let this user read it"
            return self._fault(name, f"{path} cannot be read: {reason}", hint)
        if name != "key":
            if b"-----BEGIN CERTIFICATE-----" in data:
                return None
            return self._fault(name, f"{path} holds no certificate", _PEM)
        if b"ENCRYPTED" in data:
            hint = "store it without a password, such as with `openssl pkey -in OLD -out NEW`"
            return self._fault(name, f"{path} holds an encrypted key", hint)
        if b"PRIVATE KEY-----" not in data:
            return self._fault(name, f"{path} holds no private key", _PEM)
        return None

    def _unfit(self, error: Exception) -> Fault:
        cert, key = self._paths["cert"], self._paths["key"]
        if getattr(error, "reason", None) in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            hint = "give the key that this certificate was made with; the server's own stands first"
            return self._fault("key", f"{key} is not the key of {cert}", hint)
        said = f"{cert} and {key} cannot be used: {_reason(error)}"
        return self._fault("cert", said, "make both anew")

    def _fault(self, name: str, message: str, hint: str) -> Fault:
        return Fault(self._source, 0, 0, f"{self._section}.{name}", message, hint)

    def _tell_expired(self) -> None:
        if self.loaded.expires < datetime.now(UTC):
            said = f"{self._paths['cert']} has expired, on {self.loaded.expires:%Y-%m-%d}"
            hint = "callers will refuse it; put a new one in its place, which is taken at once"
            _log.warning("%s", self._fault("cert", said, hint))


@dataclass(frozen=True, slots=True)
class BothFaces:
    """The certificates of each face; None is plaintext."""

    grpc: Certificates | None
    http: Certificates | None

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Changes are taken while in the block."""
        watches = [asyncio.create_task(one.watch()) for one in (self.grpc, self.http) if one]
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            if watches:
                await asyncio.wait(watches)


def read(config: Config) -> BothFaces:
    """What a configuration asks for. Raises CertificateError, with the faults of both faces."""
    faults: list[Fault] = []
    found: dict[str, Certificates] = {}
    for section, face in (("grpc", config.grpc), ("http", config.http)):
        if face is not None and face.tls is not None:
            try:
                found[section] = Certificates(f"{section}.tls", face.tls, config.source)
            except CertificateError as error:
                faults += error.faults
    if faults:
        raise CertificateError(faults)
    return BothFaces(found.get("grpc"), found.get("http"))


def _context(*, demands_client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if demands_client:
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would spare its client the check against authorities that are new.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _same(one: Files, other: Files) -> bool:
    """Whether two looks found the same; two failures to read are the same."""
    return _texts(one) == _texts(other)


def _texts(files: Files) -> dict[str, bytes | None]:
    return {name: data if isinstance(data, bytes) else None for name, data in files.items()}


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error)
    return str(reason).replace("_", " ").lower()


def _expires(pem: bytes) -> datetime:
    """The end of the first certificate's validity, from its DER (RFC 5280, 4.1)."""
    first = pem[pem.index(b"-----BEGIN CERTIFICATE-----") :].decode("ascii", "replace")
    end = "-----END CERTIFICATE-----"
    der = ssl.PEM_cert_to_DER_cert(first[: first.index(end) + len(end)])
    _, certificate, _ = _element(der)
    _, body, _ = _element(certificate)
    tag, _, rest = _element(body)
    if tag == _CONTEXT_0:  # the version; the serial number is next
        _, _, rest = _element(rest)
    for _ in ("signature algorithm", "issuer"):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, after_begin = _element(validity)
    tag, text, _ = _element(after_begin)
    digits = text.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The first element of some DER: its tag, its content, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start])
    return der[0], der[start : start + length], der[start + length :]
