"""Callers' keys: a key or a certificate to a principal, and which models a principal may use.

Only hashes are held. A key never gets into a message, a log line or an exception. Knows
nothing of faces: it is handed the text of the `authorization` header.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from services import errors
from services.config import Config, Key, KeyLimits

PREFIX = "tk-"
KEY_BYTES = 32

_SPIFFE = "spiffe://"
_SHOWN = 300


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
        self._certified: dict[str, Principal] = {}
        for key in keys:
            models = None if key.models is None else frozenset(key.models)
            principal = Principal(key.name, models, _limits(key))
            if key.sha256 is not None:
                digest = bytes.fromhex(key.sha256)
                self._known[digest] = (digest, principal)
            if key.identity is not None:
                self._certified[key.identity] = principal

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

    def identify(self, authorization: str | None, identity: str = "") -> Principal:
        """The principal of an `authorization` header (None: there was none) or, without one, of
        the `identity` that a client's certificate has.

        Raises errors.Unauthenticated: no key, not a bearer key, or one that is not known.
        An open gateway looks at no header, since clients that must send a key send any.
        """
        if self._open:
            return Principal(identity) if identity else ANONYMOUS
        if identity and not (authorization or "").strip():
            return self._certified_as(identity)
        digest = hashlib.sha256(_bearer(authorization)).digest()
        # Found by a hash, which no caller can steer towards a known one; then compared in a time
        # that does not depend on where they differ.
        known, principal = self._known.get(digest, (bytes(len(digest)), ANONYMOUS))
        if hmac.compare_digest(known, digest):
            return principal
        raise errors.Unauthenticated("the API key is not known to this gateway")

    def _certified_as(self, identity: str) -> Principal:
        principal = self._certified.get(identity)
        if principal is None:
            raise errors.Unauthenticated(
                f"the certificate's identity `{identity[:_SHOWN]}` is not known to this gateway, "
                "and no API key was sent"
            )
        return principal

    def allows(self, principal: Principal, model_name: str) -> bool:
        """Whether the principal may use the model."""
        return principal.models is None or model_name in principal.models


def identity_of(uris: Sequence[str], common_name: str) -> str:
    """Whom a verified certificate names: its SPIFFE URI if it has any, else its common name.

    "" with several SPIFFE URIs, which the standard forbids, and for a common name that only looks
    like one: another check may have been made before it was signed.
    """
    ids = [uri for uri in uris if uri.startswith(_SPIFFE)]
    if ids:
        return ids[0] if len(ids) == 1 else ""
    return "" if common_name.lower().startswith(_SPIFFE) else common_name


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
