"""Certificates for tests: two authorities, each with a server at 127.0.0.1 and with clients.

Made once, good for a hundred years, of no use to anybody: the authorities' keys are gone.
"""

from __future__ import annotations

import ssl
from pathlib import Path

_FOLDER = Path(__file__).with_name("certificates")

CA = _FOLDER / "ca.pem"
SERVER = (_FOLDER / "server.pem", _FOLDER / "server.key")
CLIENT = (_FOLDER / "client.pem", _FOLDER / "client.key")
"""Its common name is client.test."""

OTHER_CA = _FOLDER / "other-ca.pem"
OTHER_SERVER = (_FOLDER / "other-server.pem", _FOLDER / "other-server.key")
EXPIRED = (_FOLDER / "expired.pem", _FOLDER / "expired.key")
"""A server's, until the first of February 2024."""
STRANGER = (_FOLDER / "stranger.pem", _FOLDER / "stranger.key")
"""Its common name is stranger.test."""
SPIFFE = (_FOLDER / "spiffe.pem", _FOLDER / "spiffe.key")
"""Its URI is SPIFFE_ID; its common name says something else."""
SPIFFE_ID = "spiffe://example.org/ns/prod/sa/indexer"


def server_context(*, require_client: bool = False) -> ssl.SSLContext:
    """A server's context; with `require_client` only CLIENT may connect."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=CA)
    context.load_cert_chain(*SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_NONE
    return context


def client_context(*, with_certificate: bool = False) -> ssl.SSLContext:
    """A client's context that trusts the authority, and shows CLIENT if asked to."""
    context = ssl.create_default_context(cafile=CA)
    if with_certificate:
        context.load_cert_chain(*CLIENT)
    return context
