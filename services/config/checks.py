"""What must hold between the values of a configuration, and what this version does not have.

Works on plain data in the shape of the file, so that the file and the command line are judged
alike, and so that a file with other faults is still judged as far as it can be read.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.config.address import Address, Malformed
from services.config.explain import nearest
from services.config.fault import Loc, quoted
from services.config.kinds import ModelType
from services.config.sections import Grpc, Http

_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_SUBJECT = re.compile(r"[A-Za-z]{1,2}=")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at `loc`; `other` is the first of two values that do not go together."""

    loc: Loc
    message: str
    hint: str = ""
    other: Loc | None = None


# What would be accepted and then ignored: the key, when it is set so, and what to do instead.
# `[*]` is every item of a list. An entry goes when the feature comes.
NOT_YET: dict[str, tuple[Callable[[Any], bool], str]] = {}

# What makes a missing type come true: a name, the provider's type, its usual URL.
_EXAMPLES: dict[ModelType, tuple[str, str, str]] = {
    "text-generation": ("chat", "vllm", "http://127.0.0.1:8000"),
    "text-embeddings-inference": ("e5", "tei", "http://127.0.0.1:8080"),
    "automatic-speech-recognition": ("whisper", "whisper", "http://127.0.0.1:8000"),
    "text-classification": ("reranker", "tei", "http://127.0.0.1:8080"),
}


def problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Every problem of a file's data, in no particular order."""
    for check in (
        _not_yet,
        _same_names,
        _two_defaults,
        _same_keys,
        _key_or_identity,
        _open_to_all,
        _same_address,
        _shared_socket_file,
    ):
        yield from check(data)


def missing_type(model_type: ModelType) -> tuple[str, str]:
    """Message and hint for a required type without a model: both ways out."""
    name, provider, url = _EXAMPLES[model_type]
    return (
        f"there is no model of the required type {model_type}",
        f"either add one, as models: [{{name: {name}, type: {model_type}, "
        f'providers: [{{type: {provider}, url: "{url}"}}]}}] or with --upstream {url}; '
        "or start without, by required_types: [] or with --require none",
    )


def unknown_models(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Names that a key may use and no model has: such a key is refused more than was meant."""
    known = [str(value) for _, value in _names(data)]
    for loc, key in matches("auth.keys[*]", data):
        for index, name in enumerate(_list(_dict(key).get("models"))):
            if name not in known:
                near = nearest(str(name), known)
                hint = f"did you mean '{near}'?" if near else ""
                yield Problem((*loc, "models", index), "no model has this name", hint)


def matches(pattern: str, data: Any) -> Iterator[tuple[Loc, Any]]:
    """Every (place, value) that a dotted pattern names in the data; absent ones are none."""
    found: list[tuple[Loc, Any]] = [((), data)]
    for part in pattern.replace("[*]", ".*").split("."):
        if part == "*":
            found = [((*loc, i), item) for loc, v in found for i, item in enumerate(_list(v))]
        else:
            found = [((*loc, part), _dict(v)[part]) for loc, v in found if part in _dict(v)]
    yield from found


def _not_yet(data: Mapping[str, Any]) -> Iterator[Problem]:
    for pattern, (is_set, instead) in NOT_YET.items():
        for loc, value in matches(pattern, data):
            if is_set(value):
                yield Problem(loc, "this version does not have this yet", instead)


def _names(data: Mapping[str, Any]) -> Iterator[tuple[Loc, Any]]:
    for loc, model in matches("models[*]", data):
        if "name" in _dict(model):
            yield (*loc, "name"), _dict(model)["name"]
        for index, alias in enumerate(_list(_dict(model).get("aliases"))):
            yield (*loc, "aliases", index), alias


def _same_names(data: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _twice(_names(data), "duplicate name{}", "names and aliases must differ")


def _same_keys(data: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _twice(matches("auth.keys[*].name", data), "duplicate name{}", "rename one")
    hashes = ((loc, str(value).lower()) for loc, value in matches("auth.keys[*].sha256", data))
    yield from _twice(hashes, "duplicate hash", "remove one of the keys")
    identities = matches("auth.keys[*].identity", data)
    yield from _twice(identities, "duplicate identity{}", "remove one of the entries")


def _key_or_identity(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Each entry is known by one of the two, and by an identity that a certificate can have."""
    for loc, key in matches("auth.keys[*]", data):
        if not isinstance(key, Mapping):
            continue
        identity = key.get("identity")
        if (key.get("sha256") is None) is (identity is None):
            which = "neither" if identity is None else "both"
            hint = (
                "add sha256 (`tetrad keys new NAME` makes a key), or the identity that the "
                "caller's certificate has"
                if identity is None
                else "keep one, and give the other an entry of its own"
            )
            said = f"an entry has either sha256 or identity, and this one has {which}"
            yield Problem(loc, said, hint)
        if not isinstance(identity, str):
            continue
        if identity.lower().startswith("spiffe:") and not _SPIFFE.fullmatch(identity):
            hint = "such as spiffe://example.org/ns/prod/sa/indexer"
            yield Problem((*loc, "identity"), "not a SPIFFE URI", hint)
        elif _SUBJECT.match(identity):
            hint = "write what stands after CN= alone"
            yield Problem((*loc, "identity"), "expected a common name, found a subject", hint)


def _twice(values: Iterator[tuple[Loc, Any]], message: str, hint: str) -> Iterator[Problem]:
    first: dict[str, Loc] = {}
    for loc, value in values:
        if not isinstance(value, str):
            continue
        if value in first:
            yield Problem(loc, message.format(quoted(value)), hint, first[value])
        else:
            first[value] = loc


def _two_defaults(data: Mapping[str, Any]) -> Iterator[Problem]:
    first: dict[str, Loc] = {}
    for loc, model in matches("models[*]", data):
        kind, here = _dict(model).get("type"), (*loc, "default")
        if _dict(model).get("default") is not True or not isinstance(kind, str):
            continue
        if kind in first:
            message = f"a second default of the type {kind}"
            yield Problem(here, message, "keep one", first[kind])
        else:
            first[kind] = here


def _open_to_all(data: Mapping[str, Any]) -> Iterator[Problem]:
    auth = _dict(data.get("auth"))
    keys, is_open = auth.get("keys"), auth.get("open")
    if keys:
        if is_open is True:
            message = "an open gateway has no keys"
            yield Problem(("auth", "open"), message, "remove either auth.open or auth.keys")
        return
    if is_open is True or keys not in (None, [], ()):
        return
    for section, address in _addresses(data):
        if not address.is_loopback:
            yield Problem(
                (section, "address"),
                "without keys the gateway would be open to everyone who reaches this address",
                "either add auth.keys (`tetrad keys new NAME` makes one) or say so with "
                "auth: {open: true}; or listen on 127.0.0.1",
            )


def _same_address(data: Mapping[str, Any]) -> Iterator[Problem]:
    addresses = dict(_addresses(data))
    grpc, http = addresses.get("grpc"), addresses.get("http")
    if grpc is not None and grpc == http and (grpc.port or grpc.path):
        message = "gRPC and REST cannot share an address"
        yield Problem(("http", "address"), message, "give each its own", ("grpc", "address"))


def _shared_socket_file(data: Mapping[str, Any]) -> Iterator[Problem]:
    """The kernel shares a port out among processes, and a socket file not."""
    grpc = dict(_addresses(data)).get("grpc")
    if data.get("workers", 1) != 1 and grpc is not None and grpc.is_unix:
        message = "several workers cannot share a gRPC socket file"
        hint = "either listen on host:port, or leave out workers"
        yield Problem(("grpc", "address"), message, hint)


def _addresses(data: Mapping[str, Any]) -> Iterator[tuple[str, Address]]:
    """The faces' addresses as far as they can be read."""
    for section, default in (("grpc", Grpc().address), ("http", Http().address)):
        value = data.get(section, {})
        if section == "http" and value is None:
            continue
        text = _dict(value).get("address", str(default))
        try:
            yield section, Address.parse(str(text))
        except Malformed:
            continue  # reported where the value itself is judged


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
