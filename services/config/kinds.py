"""The kinds of scalar that a configuration holds: what is accepted, and what faults call it.

Scalars are strict (a quoted number is text, a boolean is no number). `Says` carries the words of
"expected ...". A check that fails raises Malformed, which never repeats a secret.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, Strict
from pydantic_core import PydanticCustomError

from services.config.address import Address, Malformed, base_url

ModelType = Literal[
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
]
ProviderType = Literal[
    "auto", "openai", "vllm", "tei", "llamacpp", "ollama", "whisper", "mistral", "albert", "cohere"
]
Strategy = Literal["shuffle", "round_robin", "least_busy", "power_of_two", "prefix_affinity"]
LogFormat = Literal["auto", "text", "json"]
TransportKind = Literal["own", "httpx"]

DAY = 86_400
MAX_GRPC_BYTES = (1 << 31) - 1 - (1 << 20)  # an int32 to gRPC, whose limit is ours + 1 MiB

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESERVED_HEADERS = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True, slots=True)
class Says:
    """What a fault calls this kind: "expected a number of seconds, found ..."."""

    what: str
    secret: bool = False


def _null_is_empty(value: Any) -> Any:
    return "" if value is None else value


def _empty_is_null(value: Any) -> Any:
    return None if value == "" else value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise Malformed("control characters and line breaks cannot stand here")
    return text


def _name(text: str) -> str:
    if not text.strip():
        raise Malformed("must not be empty")
    if text != text.strip():
        raise Malformed("must not begin or end with a space")
    return _printable(text)


def _secret(text: str) -> str:
    # A key read from a mounted file ends in a line break more often than not.
    text = text.strip()
    if not (text.isascii() and text.isprintable()):
        raise Malformed("a key has only printable ASCII characters")
    return text


def _sha256(text: str) -> str:
    text = text.strip().lower()
    if not _SHA256.fullmatch(text):
        raise Malformed(
            "expected a hash of 64 hexadecimal digits", "`tetrad keys new NAME` prints a key's hash"
        )
    return text


def _header(text: str) -> str:
    name = text.lower()
    if not _TOKEN.fullmatch(name):
        raise Malformed("not a header name")
    if name in _RESERVED_HEADERS or name.startswith(("grpc-", "x-tetrad-")):
        raise Malformed(f"the gateway itself sets or reads {name}; it cannot be passed on")
    if name.endswith("-bin"):
        raise Malformed("binary metadata (-bin) has no HTTP form and cannot be passed on")
    return name


def _origin(text: str) -> str:
    if text == "*":
        return text
    if not re.fullmatch(r"https?://[^\s/?#@]+", text):
        raise Malformed(
            "an origin is * or scheme://host[:port]", "such as https://chat.example.org"
        )
    return text.lower()


def _scheme(schemes: tuple[str, ...]) -> AfterValidator:
    def check(text: str) -> str:
        _printable(text)
        if not text.startswith(schemes):
            raise Malformed("a URL that is not known here", f"write {', '.join(schemes)}...")
        return text

    return AfterValidator(check)


def _ledger_file(text: str) -> str:
    kind, _, path = text.partition(":")
    if kind != "postgresql" and (not path or path.startswith(("//", ":"))):
        raise Malformed("expected the path of a file", f"such as {kind}:usage or {kind}:/var/usage")
    return text


def _address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "expected host:port")
    return Address.parse(value)


Text = Annotated[str, Strict(), AfterValidator(_printable), Says("text")]
OptionalText = Annotated[Text, BeforeValidator(_null_is_empty)]
Name = Annotated[str, Strict(), Field(max_length=256), AfterValidator(_name), Says("a name")]
PathText = Annotated[str, Strict(), AfterValidator(_name), Says("the path of a file")]
Secret = Annotated[
    str,
    Strict(),
    AfterValidator(_secret),
    BeforeValidator(_null_is_empty),
    Says("text", secret=True),
]
Sha256 = Annotated[str, Strict(), AfterValidator(_sha256), Says("a hash", secret=True)]
HeaderName = Annotated[str, Strict(), AfterValidator(_header), Says("a header name")]
Origin = Annotated[str, Strict(), AfterValidator(_origin), Says("an origin")]
BaseUrl = Annotated[str, Strict(), AfterValidator(base_url), Says("a URL", secret=True)]
LedgerUrl = Annotated[
    str,
    Strict(),
    _scheme(("jsonl:", "sqlite:", "postgresql://")),
    AfterValidator(_ledger_file),
    Says("a URL", secret=True),
]
StateUrl = Annotated[
    str,
    Strict(),
    _scheme(("memory://", "redis://", "rediss://", "unix://", "valkey://", "valkeys://")),
    Says("a URL", secret=True),
]
StoreFailure = Annotated[Literal["open", "closed"], Says("open or closed")]
Listen = Annotated[
    Address, BeforeValidator(_address), PlainSerializer(str), Says("host:port or unix:/path")
]

Switch = Annotated[bool, Strict(), Says("true or false")]
Whole = Annotated[int, Strict(), Says("a whole number")]
Count = Annotated[Whole, Field(ge=0, le=10**12)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False), Says("a number")]
Seconds = Annotated[
    float,
    Strict(),
    Field(gt=0, le=30 * DAY, allow_inf_nan=False),
    Says("a number of seconds"),
]
SecondsOrZero = Annotated[
    float,
    Strict(),
    Field(ge=0, le=30 * DAY, allow_inf_nan=False),
    Says("a number of seconds"),
]
Bytes = Annotated[int, Strict(), Field(ge=0, le=1 << 50), Says("a number of bytes")]

EmptyIsNull = BeforeValidator(_empty_is_null)
