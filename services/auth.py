"""Callers' keys: a presented key to a principal, and which models a principal may use.

Only hashes are held. A key never gets into a message, a log line or an exception. Knows
nothing of faces: it is handed the text of the `authorization` header.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from services import errors
from services.config import Config, Key, KeyLimits

PREFIX = "tk-"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `models` are the names that may be used; None is all. `limits`: None is none."""

    name: str
    models: frozenset[str] | None = None
    limits: KeyLimits | None = None


ANONYMOUS = Principal("anonymous")


class Keyring:
    """The keys of a configuration. With `open`, everyone is let in as ANONYMOUS."""

    def __init__(self, keys: Iterable[Key], open: bool) -> None:
        self._open = open
        self._known: dict[bytes, tuple[bytes, Principal]] = {}
        for key in keys:
            digest = bytes.fromhex(key.sha256)
            models = None if key.models is None else frozenset(key.models)
            self._known[digest] = (digest, Principal(key.name, models, _limits(key)))

    @classmethod
    def of(cls, config: Config) -> Self:
        """The keyring of a configuration: a key's models hold under all of their names."""
        names = {
            name: (model.name, *model.aliases)
            for model in config.models
            for name in (model.name, *model.aliases)
        }
        keys = [
            key
            if key.models is None
            else key.model_copy(
                update={"models": tuple(n for m in key.models for n in names.get(m, (m,)))}
            )
            for key in config.auth.keys
        ]
        return cls(keys, open=not keys)

    def identify(self, authorization: str | None) -> Principal:
        """The principal of an `authorization` header (None: there was none).

        Raises errors.Unauthenticated: no key, not a bearer key, or a key that is not known.
        An open gateway looks at no header, since clients that must send a key send any.
        """
        if self._open:
            return ANONYMOUS
        digest = hashlib.sha256(_bearer(authorization)).digest()
        # Found by a hash, which no caller can steer towards a known one; then compared in a time
        # that does not depend on where they differ.
        known, principal = self._known.get(digest, (bytes(len(digest)), ANONYMOUS))
        if hmac.compare_digest(known, digest):
            return principal
        raise errors.Unauthenticated("the API key is not known to this gateway")

    def allows(self, principal: Principal, model_name: str) -> bool:
        """Whether the principal may use the model."""
        return principal.models is None or model_name in principal.models


def new_key(name: str, randbytes: Callable[[int], bytes] = secrets.token_bytes) -> tuple[str, str]:
    """A new key for `name`, and its SHA-256 in hexadecimal for `auth.keys[].sha256`.

    The key is shown once and kept nowhere. Raises ValueError for a name that a configuration
    would not take.
    """
    key = PREFIX + base64.urlsafe_b64encode(randbytes(KEY_BYTES)).rstrip(b"=").decode()
    digest = hashlib.sha256(key.encode()).hexdigest()
    Key(name=name, sha256=digest)
    return key, digest


def _limits(key: Key) -> KeyLimits | None:
    limits = key.limits
    told = (limits.rpm, limits.rpd, limits.tpm, limits.tpd)
    return None if told == (None,) * len(told) else limits


def _bearer(authorization: str | None) -> bytes:
    """The key of a header. Raises errors.Unauthenticated."""
    text = (authorization or "").strip()
    if not text:
        raise errors.Unauthenticated(
            "no API key was sent; send it as the header 'authorization: Bearer KEY'"
        )
    scheme, _, key = text.partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or " " in key:
        raise errors.Unauthenticated(
            "the authorization header cannot be read; it must be 'Bearer KEY'"
        )
    return key.encode("utf-8", "surrogatepass")
