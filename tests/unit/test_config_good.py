"""Configurations that are right: what they mean, and the defaults of what they leave out."""

import pydantic
import pytest

from services.config import Address, Config, ConfigError, Settings, parse

SHA = "ab" * 32

FULL = """\
grpc: {address: "127.0.0.1:50051"}       # host:port or unix:/path; optional tls: {cert, key, client_ca}
http: {address: "127.0.0.1:8080", cors: [], playground: true}   # `http: null` = no REST face; optional tls
workers: 1                               # processes that share both ports; 0 = one per core
required_types: [text-embeddings-inference]   # start is refused without a model of each; [] lifts that
models:
  - name: guillaumetell-7b
    type: text-generation                # text-generation | text-embeddings-inference |
                                         # automatic-speech-recognition | text-classification
    aliases: [chat]
    default: true                        # answers requests of this type that name no model
    owned_by: my-team
    load_balancing_strategy: least_busy  # shuffle | round_robin | least_busy | power_of_two | prefix_affinity
    cost_prompt_tokens: 0.1              # per million
    cost_completion_tokens: 0.3
    providers:
      - type: vllm                       # auto | openai | vllm | tei | llamacpp | ollama | whisper | mistral | albert | cohere
        url: http://127.0.0.1:8000       # with or without /v1
        key: ${VLLM_KEY:-}
        model_name: AgentPublic/guillaumetell-7b
        timeout: 300                     # seconds, the total of one attempt
        priority: 0                      # lower is tried first; same priority is balanced
        weight: 1
        max_concurrency: 64
        transport: own                   # own | httpx (proxies, HTTP/2)
auth:
  keys:                                  # none = open; open on an address that is not loopback needs `open: true`
    - {name: indexer, sha256: "SHA", models: [guillaumetell-7b]}
limits: {max_in_flight: 1000, max_queue: 1000, max_request_bytes: 67108864, max_upload_bytes: 536870912}
timeouts: {connect: 5, first_byte: 60, idle: 60, total: 300, stream_total: 3600, queue: 10}   # seconds
retry: {attempts: 2, budget_ratio: 0.2}
breaker: {failures: 5, cooldown: 10}
probes: {interval: 10}
heartbeat: {first: 15, every: 15}
drain: {grace: 60}
relay: true                              # false = REST answers always go through the codec too
metadata: {pass_in: [], pass_out: []}
ledger: {url: null}                      # null = none; jsonl:PATH, sqlite:PATH, postgresql://...
telemetry: {log_format: auto, otlp_endpoint: null}
state: {url: "memory://"}                # or redis://...
compat: {opengatellm: false}             # its error bodies, final usage chunk, both rerank lists
""".replace("SHA", SHA)  # noqa: E501 - as the documentation prints it

SEED = """\
models:
  - name: guillaumetell-7b
    type: text-generation
    providers: [{type: vllm, url: "http://vllm:8000/v1", model_name: AgentPublic/guillaumetell-7b}]
  - name: multilingual-e5-large
    type: text-embeddings-inference
    providers: [{type: tei, url: "http://tei:8080/", model_name: intfloat/multilingual-e5-large}]
  - name: whisper-large-v3-turbo
    type: automatic-speech-recognition
    providers: [{type: whisper, url: "http://asr:9000", model_name: openai/whisper-large-v3-turbo}]
  - name: bge-reranker-v2-m3
    type: text-classification
    providers: [{type: tei, url: "http://rerank:8080", model_name: BAAI/bge-reranker-v2-m3}]
"""

ONE = 'models: [{name: e5, type: text-embeddings-inference, providers: [{url: "http://h"}]}]\n'


def good(text: str, **environ: str) -> Config:
    return parse(text, "tetrad.yaml", environ)


def test_the_documented_configuration_is_read_whole() -> None:
    config = good(FULL)
    model = config.models[0]
    provider = model.providers[0]
    assert (model.name, model.type, model.aliases) == (
        "guillaumetell-7b",
        "text-generation",
        ("chat",),
    )
    assert (model.default, model.owned_by) == (True, "my-team")
    assert (model.cost_prompt_tokens, model.cost_completion_tokens) == (0.1, 0.3)
    assert provider.model_dump() == {
        "type": "vllm",
        "url": "http://127.0.0.1:8000",
        "key": "",
        "model_name": "AgentPublic/guillaumetell-7b",
        "timeout": 300,
        "priority": 0,
        "weight": 1,
        "max_concurrency": 64,
        "max_batch": None,
        "max_batch_bytes": None,
        "transport": "own",
    }
    assert config.auth.keys[0].sha256 == SHA
    assert config.auth.keys[0].models == ("guillaumetell-7b",)
    assert config.warnings == ()
    assert config.source == "tetrad.yaml"


def test_what_is_left_out_has_the_documented_defaults() -> None:
    """The documented file writes every default out, but for its models and keys."""
    full, least = good(FULL), good(ONE)
    for section in set(Settings.model_fields) - {"models", "auth"}:
        assert getattr(least, section) == getattr(full, section), section
    assert least.auth.keys == ()
    assert least.auth.open is False
    provider = least.models[0].providers[0]
    assert (provider.type, provider.transport, provider.weight) == ("auto", "own", 1)
    assert (provider.timeout, provider.max_concurrency, provider.key) == (None, None, "")
    assert least.models[0].load_balancing_strategy == "least_busy"


def test_the_four_kinds_of_model_are_read_with_and_without_v1() -> None:
    config = good(SEED)
    assert [(model.name, model.type, model.providers[0].url) for model in config.models] == [
        ("guillaumetell-7b", "text-generation", "http://vllm:8000"),
        ("multilingual-e5-large", "text-embeddings-inference", "http://tei:8080"),
        ("whisper-large-v3-turbo", "automatic-speech-recognition", "http://asr:9000"),
        ("bge-reranker-v2-m3", "text-classification", "http://rerank:8080"),
    ]
    assert config.required_type_faults() == []


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ("http: null", "http", None),
        ("http: ~", "http", None),
        ("limits:", "limits.max_queue", 1000),
        ("auth: {keys: []}", "auth.keys", ()),
        ("auth: {keys: null}", "auth.keys", ()),
        ("required_types: []", "required_types", ()),
        ("required_types: [image-text-to-text]", "required_types", ("text-generation",)),
        ("limits: {max_in_flight: null}", "limits.max_in_flight", None),
        ("limits: {max_queue: 0}", "limits.max_queue", 0),
        ("limits: {max_request_bytes: 1_000_000}", "limits.max_request_bytes", 1_000_000),
        ("limits: {max_request_bytes: 0x100000}", "limits.max_request_bytes", 1 << 20),
        ("timeouts: {connect: .5}", "timeouts.connect", 0.5),
        ("timeouts: {connect: 1e3}", "timeouts.connect", 1000.0),
        ("timeouts: {queue: 0}", "timeouts.queue", 0),
        ("timeouts: {connect: 010}", "timeouts.connect", 10),
        ("relay: no", "relay", False),
        ("relay: Off", "relay", False),
        ("relay: !!bool TRUE", "relay", True),
        ("grpc: {address: 'unix:/run/tetrad.sock'}", "grpc.address.path", "/run/tetrad.sock"),
        ("grpc: {address: '[::1]:1'}", "grpc.address", Address("::1", 1)),
        ("grpc: {address: localhost:0}", "grpc.address", Address("localhost", 0)),
        ("grpc: {address: '0.0.0.0:1'}\nauth: {open: true}", "auth.open", True),
        (
            "grpc: {address: '0.0.0.0:1'}\nauth: {keys: [{name: a, sha256: '" + "AB" * 32 + "'}]}",
            "grpc.address.host",
            "0.0.0.0",  # noqa: S104
        ),
        (
            "http: {cors: ['*', 'https://Chat.example.org']}",
            "http.cors",
            ("*", "https://chat.example.org"),
        ),
        ("metadata: {pass_in: [X-Team]}", "metadata.pass_in", ("x-team",)),
        ("telemetry: {log_format: json, otlp_endpoint: ''}", "telemetry.otlp_endpoint", None),
        ("ledger: {url: ''}", "ledger.url", None),
    ],
)
def test_a_line_is_read(line: str, path: str, value: object) -> None:
    found: object = good(f"{ONE}{line}\n")
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("0123", "0123"),
        ("1.10", "1.10"),
        ("yes", "yes"),
        ("2024-01-31", "2024-01-31"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("${N}", "1e3"),
        ("a/b:c", "a/b:c"),
        ("été", "été"),
    ],
)
def test_a_name_is_the_text_as_it_was_written(written: str, name: str) -> None:
    text = f'models: [{{name: {written}, type: text-classification, providers: [{{url: "http://h"}}]}}]'
    assert good(text, N="1e3").models[0].name == name


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("openai", "https://api.openai.com"),
        ("mistral", "https://api.mistral.ai"),
        ("albert", "https://albert.api.etalab.gouv.fr"),
        ("cohere", "https://api.cohere.com"),
    ],
)
def test_a_hosted_service_needs_no_url(kind: str, url: str) -> None:
    text = f"models: [{{name: a, type: text-generation, providers: [{{type: {kind}, key: k}}]}}]"
    assert good(text).models[0].providers[0].url == url


def test_an_anchor_and_a_merge_share_what_providers_have_in_common() -> None:
    config = good(
        "models:\n"
        "  - name: a\n"
        "    type: text-generation\n"
        "    providers:\n"
        "      - &base {type: vllm, url: 'http://a', timeout: 7}\n"
        "      - {<<: *base, url: 'http://b'}\n"
        "      - <<: [{weight: 3}, *base]\n"
    )
    first, second, third = config.models[0].providers
    assert (first.url, second.url, third.url) == ("http://a", "http://b", "http://a")
    assert (second.timeout, third.timeout, third.weight) == (7, 7, 3)


def test_a_providers_timeout_replaces_both_totals_of_one_attempt() -> None:
    config = good(SEED.replace('url: "http://tei', 'timeout: 7, url: "http://tei'))
    own = config.timeouts_of(config.models[1].providers[0])
    assert (own.total, own.stream_total, own.idle) == (7, 7, 60)
    assert config.timeouts_of(config.models[0].providers[0]) == config.timeouts


def test_a_key_is_trimmed_and_in_no_printed_form() -> None:
    text = ONE.replace("{url:", "{key: '${K}', url:")
    config = good(text, K="sk-very-secret\n")
    assert config.models[0].providers[0].key == "sk-very-secret"
    assert "very-secret" not in repr(config) + str(config)


def test_a_configuration_cannot_be_changed() -> None:
    config = good(ONE)
    with pytest.raises(pydantic.ValidationError):
        config.relay = False
    assert hash(config) == hash(good(ONE))


def test_every_field_is_described() -> None:
    def fields(model: type[pydantic.BaseModel]) -> None:
        assert model.__doc__
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.description.endswith("."), f"{model.__name__}.{name}"

    def sections(model: type[pydantic.BaseModel]) -> list[type[pydantic.BaseModel]]:
        below = [one for child in model.__subclasses__() for one in sections(child)]
        return [model, *below]

    for model in sections(Settings.__mro__[1]):
        fields(model)


def test_a_byte_order_mark_is_not_part_of_the_first_key() -> None:
    assert good("\ufeff" + ONE).models[0].name == "e5"


def test_the_file_has_no_key_for_what_only_the_command_line_says() -> None:
    for key in ("upstreams", "source", "warnings"):
        with pytest.raises(ConfigError, match=f"{key}: unknown key"):
            good(f"{ONE}{key}: []\n")
