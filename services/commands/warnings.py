"""What a configuration says that is not used, or not safe: told once, by `serve` and `check`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from services.config import Config, Fault


def print_all(config: Config) -> None:
    """One line a warning, on standard error."""
    for warning in (*config.warnings, *_unsafe(config)):
        print(f"warning: {warning}", file=sys.stderr)


def _unsafe(config: Config) -> Iterator[Fault]:
    """Addresses that others reach in plaintext, and identities that nobody can show."""
    demands = False
    for section, face in (("grpc", config.grpc), ("http", config.http)):
        if face is None:
            continue
        demands = demands or (face.tls is not None and face.tls.client_ca is not None)
        if face.tls is None and not face.address.is_loopback:
            said = f"{face.address} is plaintext: who is on the way can read keys and texts"
            hint = f"set {section}.tls: {{cert, key}}, or leave it so behind a proxy that ends TLS"
            yield Fault(config.source, 0, 0, f"{section}.address", said, hint)
    for index, key in enumerate(config.auth.keys):
        if key.identity is not None and not demands:
            said = "no caller is asked for a certificate"
            hint = "set grpc.tls.client_ca or http.tls.client_ca"
            yield Fault(config.source, 0, 0, f"auth.keys[{index}].identity", said, hint)
