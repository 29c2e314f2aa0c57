"""Callers' keys: who is let in, as whom, for which models, and what the refusals say."""

import hashlib

import pytest

from services import errors
from services.auth import ANONYMOUS, Keyring, Principal, new_key
from services.config import Key, parse

KEY, SHA = new_key("indexer", lambda size: bytes(range(size)))
OTHER, OTHER_SHA = new_key("chatter")
KEYS = (
    Key(name="indexer", sha256=SHA, models=("e5",)),
    Key(name="chatter", sha256=OTHER_SHA),
)
CLOSED = Keyring(KEYS, open=False)


def refusal(authorization: str | None) -> str:
    with pytest.raises(errors.Unauthenticated) as caught:
        CLOSED.identify(authorization)
    assert caught.value.grpc_code == "UNAUTHENTICATED"
    assert caught.value.http_status == 401
    return str(caught.value.message)


def test_a_key_leads_to_its_principal() -> None:
    assert CLOSED.identify(f"Bearer {KEY}") == Principal("indexer", frozenset({"e5"}))
    assert CLOSED.identify(f"Bearer {OTHER}") == Principal("chatter", None)


@pytest.mark.parametrize("form", ["bearer {}", "BEARER {}", "  Bearer   {}  "])
def test_the_scheme_is_read_in_any_case(form: str) -> None:
    assert CLOSED.identify(form.format(KEY)).name == "indexer"


@pytest.mark.parametrize("header", [None, "", "   "])
def test_no_key_is_told_apart(header: str | None) -> None:
    assert refusal(header) == (
        "no API key was sent; send it as the header 'authorization: Bearer KEY'"
    )


@pytest.mark.parametrize(
    "form", ["{}", "Basic {}", "Bearer", "Bearer ", "Bearer {} {}", "Bearer\t{}"]
)
def test_a_header_that_cannot_be_read_is_told_apart(form: str) -> None:
    message = refusal(form.format(KEY, KEY))
    assert message == "the authorization header cannot be read; it must be 'Bearer KEY'"


@pytest.mark.parametrize(
    "key", ["tk-wrong", KEY[:-1], KEY + "x", KEY.upper(), SHA, "é", "\udcff", "x" * 100_000]
)
def test_a_wrong_key_is_told_apart_and_not_repeated(key: str) -> None:
    """G22: no message holds a key."""
    message = refusal(f"Bearer {key}")
    assert message == "the API key is not known to this gateway"


def test_an_open_gateway_lets_everyone_in_as_anonymous() -> None:
    keyring = Keyring((), open=True)
    for header in (None, "", "Bearer sk-no-key-required", "Basic x"):
        assert keyring.identify(header) is ANONYMOUS
    assert keyring.allows(ANONYMOUS, "anything")


def test_a_keyring_without_keys_that_is_not_open_lets_no_one_in() -> None:
    keyring = Keyring((), open=False)
    for header in (None, f"Bearer {KEY}", "Bearer "):
        with pytest.raises(errors.Unauthenticated):
            keyring.identify(header)


def test_a_principal_may_use_its_models_only() -> None:
    indexer, chatter = CLOSED.identify(f"Bearer {KEY}"), CLOSED.identify(f"Bearer {OTHER}")
    assert CLOSED.allows(indexer, "e5")
    assert not CLOSED.allows(indexer, "E5")
    assert not CLOSED.allows(indexer, "chat")
    assert CLOSED.allows(chatter, "chat")
    assert not CLOSED.allows(Principal("nobody", frozenset()), "e5")


CONFIG = f"""\
models:
  - {{name: e5, type: text-embeddings-inference, aliases: [embed, vec], providers: [{{url: "http://h"}}]}}
  - {{name: chat, type: text-generation, aliases: [llm], providers: [{{url: "http://h"}}]}}
auth:
  keys:
    - {{name: indexer, sha256: {SHA}, models: [vec]}}
    - {{name: nobody, sha256: {OTHER_SHA}, models: []}}
"""


def test_a_model_may_be_used_under_all_of_its_names() -> None:
    keyring = Keyring.of(parse(CONFIG, "t.yaml", {}))
    indexer, nobody = keyring.identify(f"Bearer {KEY}"), keyring.identify(f"Bearer {OTHER}")
    assert indexer.models == frozenset({"e5", "embed", "vec"})
    assert not keyring.allows(indexer, "llm")
    assert nobody.models == frozenset()


def test_a_configuration_without_keys_is_open() -> None:
    config = parse(CONFIG.partition("auth:")[0], "t.yaml", {})
    assert Keyring.of(config).identify(None) is ANONYMOUS


def test_a_new_key_is_random_and_comes_with_its_hash() -> None:
    key, digest = new_key("a")
    assert key.startswith("tk-")
    assert len(key) == 3 + 43
    assert digest == hashlib.sha256(key.encode()).hexdigest()
    assert new_key("a")[0] != key
    assert new_key("a", lambda size: b"\0" * size)[0] == "tk-" + "A" * 43


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a" * 300])
def test_a_new_key_needs_a_name_that_a_configuration_takes(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        new_key(name)


def test_a_keyring_shows_no_key() -> None:
    assert SHA not in repr(KEYS)
    assert SHA not in repr(CLOSED)
