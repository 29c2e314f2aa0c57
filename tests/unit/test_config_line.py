"""What the command line adds to a configuration, and the rule of required types."""

import pytest

from services.config import Address, Config, ConfigError, Malformed, base_url, parse

CHAT = "models: [{name: a, type: text-generation, providers: [{url: 'http://h'}]}]\n"


def lines(error: ConfigError) -> list[str]:
    return [str(fault) for fault in error.faults]


def test_upstreams_need_no_file() -> None:
    config = Config.for_upstreams(["http://a:8000/v1/", "https://b", "http://a:8000"])
    assert config.upstreams == ("http://a:8000", "https://b")
    assert config.models == ()
    assert config.grpc.address == Address("127.0.0.1", 50051)


def test_a_bad_upstream_names_the_option() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.for_upstreams(["a:8000", "http://b", "http://"])
    assert lines(caught.value) == [
        "--upstream: a URL begins with http:// or https://; write http://a:8000",
        "--upstream: the URL has no host",
    ]


def test_with_upstreams_a_file_may_list_no_models() -> None:
    config = parse("required_types: []\n", "t.yaml", {}, upstreams=["http://h"])
    assert (config.upstreams, config.models) == (("http://h",), ())
    with pytest.raises(ConfigError, match=r"--upstream: the URL is empty"):
        parse(CHAT, "t.yaml", {}, upstreams=[""])


def test_overrides_make_a_changed_copy() -> None:
    config = parse(CHAT, "t.yaml", {})
    changed = config.with_overrides(
        grpc="[::1]:1", http=Address("localhost", 2), workers=1, required_types=["text-generation"]
    )
    assert changed.grpc.address == Address("::1", 1)
    assert changed.http is not None
    assert changed.http.address == Address("localhost", 2)
    assert changed.required_types == ("text-generation",)
    assert (changed.models, changed.source) == (config.models, "t.yaml")
    assert config.grpc.address == Address("127.0.0.1", 50051)
    assert config.with_overrides() == config


def test_none_turns_off_rest_and_the_required_types() -> None:
    config = Config.for_upstreams(["http://h"]).with_overrides(http="none", required_types=["none"])
    assert config.http is None
    assert config.required_types == ()
    assert config.with_overrides(http="127.0.0.1:5").http is not None


def test_a_bad_override_names_its_option() -> None:
    config = Config.for_upstreams(["http://h"])
    with pytest.raises(ConfigError) as caught:
        config.with_overrides(grpc="50051", http="h", workers=-1, required_types=["chat"])
    assert sorted(line.split(";")[0] for line in lines(caught.value)) == [
        "--grpc: no host",
        "--http: no port",
        "--require: expected a model type (text-generation, text-embeddings-inference, "
        "automatic-speech-recognition, text-classification), found text 'chat'",
        "--workers: must be at least 0, found -1",
    ]


def test_an_open_gateway_may_not_listen_to_everyone_unless_it_says_so() -> None:
    config = Config.for_upstreams(["http://h"])
    with pytest.raises(ConfigError) as caught:
        config.with_overrides(grpc="0.0.0.0:50051")
    (line,) = lines(caught.value)
    assert line.startswith("--grpc: without keys the gateway would be open to everyone")
    assert "auth.keys" in line
    assert "auth: {open: true}" in line
    assert config.with_overrides(grpc="0.0.0.0:50051", auth_open=True).auth.open


def test_both_faces_cannot_share_an_address() -> None:
    config = Config.for_upstreams(["http://h"])
    with pytest.raises(ConfigError, match=r"^--http: gRPC and REST cannot share an address"):
        config.with_overrides(http="127.0.0.1:50051")
    assert config.with_overrides(grpc="127.0.0.1:0", http="127.0.0.1:0")


def test_a_missing_required_type_says_both_ways_out() -> None:
    config = parse(CHAT, "t.yaml", {})
    (fault,) = config.required_type_faults()
    assert str(fault) == (
        "t.yaml: required_types: there is no model of the required type "
        "text-embeddings-inference; either add one, as models: [{name: e5, "
        "type: text-embeddings-inference, providers: [{type: tei, "
        'url: "http://127.0.0.1:8080"}]}] or with --upstream http://127.0.0.1:8080; '
        "or start without, by required_types: [] or with --require none"
    )


def test_the_way_out_that_a_missing_type_shows_works() -> None:
    (fault,) = parse(CHAT, "t.yaml", {}).required_type_faults()
    shown = fault.hint.removeprefix("either add one, as ").split(" or with --upstream")[0]
    assert parse(shown, "t.yaml", {}).required_type_faults() == []


def test_what_upstreams_turn_out_to_serve_counts() -> None:
    config = Config.for_upstreams(["http://h"])
    assert len(config.required_type_faults()) == 1
    assert config.required_type_faults(found={"text-embeddings-inference"}) == []
    strict = config.with_overrides(required_types=["text-generation", "text-classification"])
    assert len(strict.required_type_faults(found=["text-classification"])) == 1
    assert config.with_overrides(required_types=[]).required_type_faults() == []


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:50051", Address("127.0.0.1", 50051), True),
        ("127.8.9.1:1", Address("127.8.9.1", 1), True),
        ("0.0.0.0:0", Address("0.0.0.0", 0), False),  # noqa: S104
        ("localhost:65535", Address("localhost", 65535), True),
        ("tetrad.example.org:1", Address("tetrad.example.org", 1), False),
        ("[::1]:1", Address("::1", 1), True),
        ("[0:0::0:1]:1", Address("::1", 1), True),
        ("[::ffff:127.0.0.1]:1", Address("::ffff:7f00:1", 1), True),
        ("[::]:1", Address("::", 1), False),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1), False),
        ("unix:/run/t.sock", Address(path="/run/t.sock"), True),
        ("unix:///run/t.sock", Address(path="/run/t.sock"), True),
    ],
)
def test_an_address_round_trips(text: str, address: Address, loopback: bool) -> None:
    parsed = Address.parse(text)
    assert parsed == address
    assert Address.parse(str(parsed)) == parsed
    assert parsed.is_loopback is loopback
    assert parsed.is_unix is text.startswith("unix")


def test_an_address_takes_the_port_that_was_bound() -> None:
    assert str(Address.parse("[::1]:0").with_port(7)) == "[::1]:7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "*:8080",
        "h",
        "h:",
        "h:http",
        "h:-1",
        "h:65536",
        "h:٣",
        "::1:80",
        "[::1:80",
        "[::1]",
        "[h]:80",
        "256.1.1.1:80",
        "1.2.3:80",
        "h h:80",
        "é:80",
        "http://h:80",
        "unix:",
        "unix:run.sock",
        "unix:/",
        "unix:/a\nb",
        "unix:/" + "a" * 107,
    ],
)
def test_what_is_no_address_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://H:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        ("http://h:8000/v1", "http://h:8000"),
        ("http://h:8000/v1/", "http://h:8000"),
        ("https://h/openai/v1", "https://h/openai"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai"),
        ("HTTP://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_a_base_url_has_neither_v1_nor_a_slash_at_its_end(text: str, url: str) -> None:
    assert base_url(text) == url
    assert base_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "h:8000",
        "ftp://h",
        "http://",
        "http://:80",
        "http://h:",
        "http://h:0",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
        "http://[h]",
        "http://256.0.0.1",
        "http://u:p@h",
        "http://h?x=1",
        "http://h#x",
        "http://h/v1/embeddings",
        "http://h/rerank/",
        "http://h h",
        "http://h\n",
        "http://é",
    ],
)
def test_what_is_no_base_url_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        base_url(text)
