"""The configuration file as data: one frozen model per section, with the defaults.

Only what can be judged within one value stands here; what compares values is in `checks`.
Every field has a description: reference pages are made from them. Times are seconds, sizes
bytes, costs per million tokens. Where a limit may be null, null is unlimited and 0 allows none.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.config.address import Address
from services.config.kinds import (
    MAX_GRPC_BYTES,
    BaseUrl,
    Bytes,
    Count,
    EmptyIsNull,
    HeaderName,
    LedgerUrl,
    Listen,
    LogFormat,
    ModelType,
    Name,
    Number,
    OptionalText,
    Origin,
    PathText,
    ProviderType,
    Says,
    Seconds,
    SecondsOrZero,
    Secret,
    Sha256,
    StateUrl,
    StoreFailure,
    Strategy,
    Switch,
    TransportKind,
    Whole,
)

# Hosted services whose URL may be left out.
DEFAULT_URLS: dict[str, str] = {
    "openai": "https://api.openai.com",
    "mistral": "https://api.mistral.ai",
    "albert": "https://albert.api.etalab.gouv.fr",
    "cohere": "https://api.cohere.com",
}

Identity = Annotated[
    PathText, Field(max_length=2048), Says("a SPIFFE URI, or a certificate's common name")
]
Batch = Annotated[Whole, Field(ge=1, le=10**9)]


class Section(BaseModel):
    """What all sections share: immutable, and no key beyond the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Tls(Section):
    """Certificates of a listener, as paths of PEM files."""

    cert: PathText = Field(description="Path of the certificate chain.")
    key: PathText = Field(description="Path of the certificate's private key.")
    client_ca: PathText | None = Field(
        default=None, description="Path of the authorities whose client certificates are demanded."
    )


class Grpc(Section):
    """The gRPC face."""

    address: Listen = Field(
        default=Address("127.0.0.1", 50051),
        description="Where gRPC listens: host:port, [IPv6]:port or unix:/path. "
        "Port 0 takes a free one.",
    )
    tls: Tls | None = Field(
        default=None, description="Certificates; without them the port is plaintext."
    )
    max_connection_age: Seconds | None = Field(
        default=1800.0,
        description="After so long a connection takes no further call and its client makes a new "
        "one, so that calls spread over replicas that joined later; null keeps connections.",
    )


class Http(Section):
    """The REST face."""

    address: Listen = Field(
        default=Address("127.0.0.1", 8080),
        description="Where REST listens: host:port, [IPv6]:port or unix:/path. "
        "Port 0 takes a free one.",
    )
    cors: tuple[Origin, ...] = Field(
        default=(),
        description="Origins of web pages that may call: scheme://host[:port], or * for any.",
    )
    playground: Switch = Field(
        default=True, description="Whether / is the playground and /docs the API reference."
    )
    tls: Tls | None = Field(
        default=None, description="Certificates; without them the port is plaintext."
    )


class Provider(Section):
    """One upstream server that answers for a model."""

    type: Annotated[ProviderType, Says("a provider type")] = Field(
        default="auto", description="The upstream's dialect; auto asks the server what it is."
    )
    url: BaseUrl = Field(
        description="Base URL, with or without /v1. The hosted services openai, mistral, albert "
        "and cohere have a default."
    )
    key: Secret = Field(
        default="", repr=False, description="Key that is sent to the upstream as a bearer token."
    )
    model_name: OptionalText = Field(
        default="", description="The upstream's name of the model; empty: the name it has here."
    )
    timeout: Seconds | None = Field(
        default=None,
        description="Seconds that one attempt may take in all, in place of timeouts.total and "
        "timeouts.stream_total.",
    )
    priority: Count = Field(
        default=0, description="Lower is tried first; providers of equal priority share the load."
    )
    weight: Annotated[Number, Field(gt=0, le=1_000_000)] = Field(
        default=1, description="Share of the load among providers of equal priority."
    )
    max_concurrency: Count | None = Field(
        default=None,
        description="Calls at the same time; null is unlimited, 0 takes the provider out.",
    )
    max_batch: Batch | None = Field(
        default=None,
        description="Inputs, or documents to rank, of one request at most; more are cut into "
        "several requests. TEI tells its own.",
    )
    max_batch_bytes: Batch | None = Field(
        default=None, description="Bytes of inputs of one request at most; null is unlimited."
    )
    transport: Annotated[TransportKind, Says("a transport")] = Field(
        default="own", description="HTTP client: own, or httpx (for proxies and HTTP/2)."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_url(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("url") in (None, ""):
            default = DEFAULT_URLS.get(str(data.get("type")))
            if default:
                return {**data, "url": default}
        return data


class Model(Section):
    """A model as callers see it: a name, a type, and who answers for it."""

    name: Name = Field(description="The name callers use.")
    type: Annotated[ModelType, Says("a model type")] = Field(
        description="What the model does: text-generation (chat), text-embeddings-inference, "
        "automatic-speech-recognition or text-classification (rerank)."
    )
    aliases: tuple[Name, ...] = Field(default=(), description="Further names.")
    default: Switch = Field(
        default=False, description="Whether it answers requests of its type that name no model."
    )
    owned_by: OptionalText = Field(default="", description="Owner shown in the list of models.")
    load_balancing_strategy: Annotated[Strategy, Says("a load balancing strategy")] = Field(
        default="least_busy", description="How calls are shared among providers of equal priority."
    )
    cost_prompt_tokens: Annotated[Number, Field(ge=0)] = Field(
        default=0, description="Cost of a million prompt tokens."
    )
    cost_completion_tokens: Annotated[Number, Field(ge=0)] = Field(
        default=0, description="Cost of a million completion tokens."
    )
    max_in_flight: Count | None = Field(
        default=None, description="Calls at its providers at the same time; null is unlimited."
    )
    max_queue: Count | None = Field(
        default=None, description="Calls that wait for it; null leaves it to limits.max_queue."
    )
    max_batch: Batch | None = Field(
        default=None, description="As a provider's, for all of them; the least one holds."
    )
    max_batch_bytes: Batch | None = Field(
        default=None, description="As a provider's, for all of them; the least one holds."
    )
    providers: Annotated[tuple[Provider, ...], Field(min_length=1)] = Field(
        description="The servers that answer for it."
    )


class OnStoreFailure(Section):
    """What each limit does while the shared store does not answer: let calls in, or refuse."""

    rpm: StoreFailure = Field(default="open", description="For requests a minute.")
    rpd: StoreFailure = Field(default="open", description="For requests a day.")
    tpm: StoreFailure = Field(default="open", description="For tokens a minute.")
    tpd: StoreFailure = Field(default="open", description="For tokens a day.")

    @model_validator(mode="before")
    @classmethod
    def _one_for_all(cls, data: Any) -> Any:
        return dict.fromkeys(cls.model_fields, data) if isinstance(data, str) else data


class KeyLimits(Section):
    """What one key may use; a limit left out is unlimited, 0 allows none."""

    rpm: Count | None = Field(default=None, description="Requests a minute.")
    rpd: Count | None = Field(default=None, description="Requests a day.")
    tpm: Count | None = Field(default=None, description="Tokens a minute.")
    tpd: Count | None = Field(default=None, description="Tokens a day.")
    on_store_failure: OnStoreFailure = Field(
        default=OnStoreFailure(),
        description="While state.url does not answer: open lets calls in, closed refuses them; "
        "one word for all limits, or one for each.",
    )


class Key(Section):
    """A caller: by the hash of its key, or by what its certificate says."""

    name: Name = Field(description="Who holds the key; stands in logs and in the ledger.")
    sha256: Sha256 | None = Field(
        default=None,
        repr=False,
        description="Hash of the key in hexadecimal, as `tetrad keys new` prints it. Either this "
        "or identity.",
    )
    identity: Identity | None = Field(
        default=None,
        description="SPIFFE URI of the client's certificate, or its common name where it has "
        "none; see tls.client_ca.",
    )
    models: tuple[Name, ...] | None = Field(
        default=None, description="Models it may use, by name or alias; null is all."
    )
    limits: KeyLimits = Field(default=KeyLimits(), description="What it may use.")


class Auth(Section):
    """Who may call."""

    keys: Annotated[tuple[Key, ...], BeforeValidator(lambda value: value or ())] = Field(
        default=(), description="Keys that are let in. Without any, the gateway is open to all."
    )
    open: Switch = Field(
        default=False,
        description="Says that a gateway without keys may listen on an address that is not "
        "loopback.",
    )


class Limits(Section):
    """What the whole gateway takes on at the same time, and how much in one request."""

    max_in_flight: Count | None = Field(
        default=1000,
        description="Calls at upstreams at the same time; null is unlimited. A model that has less "
        "than its equal share of them is still served while they are taken.",
    )
    max_queue: Count | None = Field(
        default=1000,
        description="Calls that wait for a free place; null is unlimited, 0 refuses at once.",
    )
    max_request_bytes: Annotated[Bytes, Field(le=MAX_GRPC_BYTES)] = Field(
        default=67_108_864, description="Largest request, in bytes, on both faces."
    )
    max_upload_bytes: Bytes = Field(
        default=536_870_912,
        description="Largest audio upload, in bytes, over REST and LiveTranscribe.",
    )


class Timeouts(Section):
    """Time limits of a call, in seconds. The caller's own deadline caps them all."""

    connect: Seconds = Field(default=5, description="Until an upstream has taken the connection.")
    first_byte: Seconds = Field(default=60, description="Until an upstream begins to answer.")
    idle: Seconds = Field(default=60, description="Between two pieces of an upstream's answer.")
    total: Seconds = Field(default=300, description="One attempt of a call with one answer.")
    stream_total: Seconds = Field(default=3600, description="One attempt of a streaming call.")
    queue: SecondsOrZero = Field(default=10, description="Waiting for a free slot.")


class Retry(Section):
    """Further attempts at other providers, before anything was answered."""

    attempts: Annotated[Whole, Field(ge=1, le=20)] = Field(
        default=2, description="Attempts in all; 1 never retries."
    )
    budget_ratio: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0.2, description="Retries as a share of all calls, beyond which there are none."
    )


class Breaker(Section):
    """When a failing provider is left alone."""

    failures: Annotated[Whole, Field(ge=1, le=10_000)] = Field(
        default=5, description="Failures in a row that open the breaker."
    )
    cooldown: Seconds = Field(default=10, description="Seconds until an open breaker tries again.")


class Probes(Section):
    """How providers are watched."""

    interval: Seconds = Field(
        default=10,
        description="Seconds within which a provider that dies, hangs or comes back is noticed; "
        "it is asked twice in that time, without cost.",
    )


class Heartbeat(Section):
    """Signs of life on silent REST streams."""

    first: Seconds = Field(default=15, description="Seconds of silence until the first comment.")
    every: Seconds = Field(default=15, description="Seconds between two comments.")


class Drain(Section):
    """How the gateway stops."""

    grace: SecondsOrZero = Field(default=60, description="Seconds that open calls get to finish.")


class Metadata(Section):
    """Headers that pass in addition to the known ones."""

    pass_in: tuple[HeaderName, ...] = Field(
        default=(), description="From the caller to the upstream."
    )
    pass_out: tuple[HeaderName, ...] = Field(
        default=(), description="From the upstream to the caller."
    )


class Ledger(Section):
    """Where usage is recorded."""

    url: Annotated[LedgerUrl | None, EmptyIsNull] = Field(
        default=None,
        repr=False,
        description="jsonl:PATH, sqlite:PATH or postgresql://...; null is none.",
    )
    max_queue: Annotated[Count, Field(ge=1, le=10_000_000)] = Field(
        default=10_000,
        description="Records that wait in memory while it cannot be written to; what does not "
        "fit is lost and counted.",
    )


class Telemetry(Section):
    """Logs and traces."""

    log_format: Annotated[LogFormat, Says("a log format")] = Field(
        default="auto", description="text, json, or auto: text on a terminal, else json."
    )
    otlp_endpoint: Annotated[BaseUrl | None, EmptyIsNull] = Field(
        default=None,
        repr=False,
        description="Receiver of traces by OTLP over HTTP, such as http://127.0.0.1:4318; null is "
        "none.",
    )
    trace_sample_ratio: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=1,
        description="Share of the traces that begin here and are sent; where a caller sends a "
        "trace's context, its own decision holds.",
    )


class State(Section):
    """Where counters of limits live."""

    url: StateUrl = Field(
        default="memory://",
        repr=False,
        description="memory:// (this process), or redis://, rediss:// or unix:// of a Redis or "
        "Valkey that all processes share.",
    )
    timeout: Annotated[Seconds, Field(le=10)] = Field(
        default=0.1, description="Seconds that a call waits for the store at most."
    )


class Compat(Section):
    """Habits of other gateways."""

    opengatellm: Switch = Field(
        default=False, description="OpenGateLLM's error bodies, final usage chunk and rerank lists."
    )


class Settings(Section):
    """The whole file."""

    grpc: Grpc = Field(default=Grpc(), description="The gRPC face.")
    http: Http | None = Field(default=Http(), description="The REST face; null is none.")
    workers: Annotated[Whole, Field(ge=0, le=1024)] = Field(
        default=1, description="Processes that share both ports; 0 is one per core."
    )
    required_types: tuple[Annotated[ModelType, Says("a model type")], ...] = Field(
        default=("text-embeddings-inference",),
        description="Model types without which the start is refused; [] lifts that.",
    )
    models: tuple[Model, ...] = Field(default=(), description="The models.")
    auth: Auth = Field(default=Auth(), description="Who may call.")
    limits: Limits = Field(default=Limits(), description="Limits of the whole gateway.")
    timeouts: Timeouts = Field(default=Timeouts(), description="Time limits of a call.")
    retry: Retry = Field(default=Retry(), description="Further attempts.")
    breaker: Breaker = Field(
        default=Breaker(), description="When a failing provider is left alone."
    )
    probes: Probes = Field(default=Probes(), description="How providers are watched.")
    heartbeat: Heartbeat = Field(
        default=Heartbeat(), description="Signs of life on silent streams."
    )
    drain: Drain = Field(default=Drain(), description="How the gateway stops.")
    relay: Switch = Field(
        default=True,
        description="Whether REST passes an OpenAI-style upstream's bytes on; false sends "
        "everything through the codec.",
    )
    metadata: Metadata = Field(default=Metadata(), description="Headers that pass.")
    ledger: Ledger = Field(default=Ledger(), description="Where usage is recorded.")
    telemetry: Telemetry = Field(default=Telemetry(), description="Logs and traces.")
    state: State = Field(default=State(), description="Where counters of limits live.")
    compat: Compat = Field(default=Compat(), description="Habits of other gateways.")
