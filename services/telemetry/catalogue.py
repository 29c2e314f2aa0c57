"""Every metric: its name, what it counts, its labels and how those of several workers add up.

Names and buckets of `gen_ai_*` are OpenTelemetry's conventions for generative AI in Prometheus
spelling; what those lack is called `tetrad_*`. Knows nothing of a call. docs/metrics.md is this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
Across = Literal["sum", "max", "min"]

PROVIDER: Final = "tetrad"
"""gen_ai.provider.name, which the conventions demand of every one of theirs."""

_OPERATION = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_ENDPOINT = ("gen_ai_request_model", "endpoint")

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**power) for power in range(14))
_CHUNK_SECONDS = (0.001, 0.0025, 0.005, *_TOKEN_SECONDS, 5.0, 10.0)
_OVERHEAD = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 1.0)
_DELAY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_WAIT = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Instrument(NamedTuple):
    """One metric. `across`: what becomes of a gauge when several workers have one; what counts is
    always added up."""

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Across = "sum"


DURATION: Final = Instrument(
    "gen_ai_server_request_duration_seconds",
    "histogram",
    "From a call's begin to its end",
    (*_OPERATION, "error_type"),
    _SECONDS,
)
FIRST: Final = Instrument(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    "From a stream's begin to its first event",
    _OPERATION,
    _SECONDS,
)
PER_TOKEN: Final = Instrument(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    "Mean time per token after the first, of a stream that succeeded",
    _OPERATION,
    _TOKEN_SECONDS,
)
TOKENS: Final = Instrument(
    "gen_ai_client_token_usage",
    "histogram",
    "Tokens of a call, as the upstream told them or as they were estimated",
    (*_OPERATION, "gen_ai_token_type", "source"),
    _TOKENS,
)
CALLS: Final = Instrument(
    "tetrad_calls_total",
    "counter",
    "Calls that ended, by the endpoint that was asked last and the number of attempts",
    ("gen_ai_operation_name", *_ENDPOINT, "face", "attempts", "error_type"),
)
REFUSED: Final = Instrument(
    "tetrad_refused_calls_total",
    "counter",
    "Calls that were refused before any upstream was asked",
    ("face", "error_type"),
)
OVERHEAD: Final = Instrument(
    "tetrad_overhead_seconds",
    "histogram",
    "A call's duration without the time that it queued and waited for upstreams",
    ("gen_ai_operation_name", "face"),
    _OVERHEAD,
)
PER_CHUNK: Final = Instrument(
    "tetrad_time_per_output_chunk_seconds",
    "histogram",
    "Mean time between the events of a stream, noted once when it ends",
    ("gen_ai_operation_name", "gen_ai_request_model"),
    _CHUNK_SECONDS,
)
QUEUED: Final = Instrument(
    "tetrad_queued_seconds",
    "histogram",
    "Time that a call waited for a free provider; calls that did not wait are not counted",
    ("gen_ai_request_model",),
    _WAIT,
)
CANCEL: Final = Instrument(
    "tetrad_cancel_delay_seconds",
    "histogram",
    "From a caller's leaving, or a time limit, to the closed connection of the upstream",
    (),
    _DELAY,
)
AUDIO: Final = Instrument(
    "tetrad_audio_seconds_total",
    "counter",
    "Seconds of sound that were transcribed",
    ("gen_ai_operation_name", "gen_ai_request_model", "source"),
)
DOCUMENTS: Final = Instrument(
    "tetrad_rerank_documents_total",
    "counter",
    "Documents that were ranked",
    ("gen_ai_request_model",),
)
GENERATION: Final = Instrument(
    "tetrad_config_generation",
    "gauge",
    "Number of configurations that were taken; of several workers the highest",
    across="max",
)
OLDEST_GENERATION: Final = Instrument(
    "tetrad_config_generation_oldest",
    "gauge",
    "The same of the worker that lags most: it is lower only while a reload is under way",
    across="min",
)
RELOAD_OK: Final = Instrument(
    "tetrad_config_last_reload_successful",
    "gauge",
    "Whether the last configuration was taken (1) or refused (0)",
    across="min",
)
RELOADS_FAILED: Final = Instrument(
    "tetrad_config_reload_failures_total", "counter", "Reloads that kept the old configuration"
)
WORKERS: Final = Instrument("tetrad_workers", "gauge", "Processes that these figures speak for")
BUILD: Final = Instrument(
    "tetrad_build_info", "gauge", "Always 1", ("version", "python"), across="max"
)
MODEL_IN_FLIGHT: Final = Instrument(
    "tetrad_model_in_flight", "gauge", "Calls under way", ("gen_ai_request_model",)
)
MODEL_WAITING: Final = Instrument(
    "tetrad_model_waiting", "gauge", "Calls that wait for a provider", ("gen_ai_request_model",)
)
READY: Final = Instrument(
    "tetrad_endpoint_ready",
    "gauge",
    "Whether the endpoint answered its last probe (1); of several workers the lowest",
    _ENDPOINT,
    across="min",
)
IN_FLIGHT: Final = Instrument(
    "tetrad_endpoint_in_flight", "gauge", "Calls under way at the endpoint", _ENDPOINT
)
BREAKER: Final = Instrument(
    "tetrad_endpoint_breaker_state",
    "gauge",
    "Workers whose breaker of the endpoint is in that state: closed, half_open or open",
    (*_ENDPOINT, "state"),
)
LOAD: Final = Instrument(
    "tetrad_endpoint_upstream_load",
    "gauge",
    "Requests that the upstream's own metrics tell it runs and holds waiting",
    _ENDPOINT,
    across="max",
)
LIMITED: Final = Instrument(
    "tetrad_limit_rejections_total", "counter", "Calls that a limit rejected", ("limit",)
)
LEDGER_QUEUE: Final = Instrument(
    "tetrad_ledger_queue_length", "gauge", "Usage records that wait to be written"
)
LEDGER_DROPPED: Final = Instrument(
    "tetrad_ledger_dropped_records_total", "counter", "Usage records that were lost"
)
TRACES_QUEUE: Final = Instrument(
    "tetrad_traces_queue_length", "gauge", "Spans of traces that wait to be sent"
)
TRACES_DROPPED: Final = Instrument(
    "tetrad_traces_dropped_spans_total", "counter", "Spans of traces that were lost"
)

NOTED: Final = (
    *(DURATION, FIRST, PER_TOKEN, TOKENS, CALLS, REFUSED, OVERHEAD, PER_CHUNK, QUEUED, CANCEL),
    *(AUDIO, DOCUMENTS, GENERATION, OLDEST_GENERATION, RELOAD_OK, RELOADS_FAILED, WORKERS, BUILD),
)
"""What is counted when it happens."""

READ: Final = (
    *(MODEL_IN_FLIGHT, MODEL_WAITING, READY, IN_FLIGHT, BREAKER, LOAD),
    *(LIMITED, LEDGER_QUEUE, LEDGER_DROPPED, TRACES_QUEUE, TRACES_DROPPED),
)
"""What is looked up when the page is asked for."""

PROCESS: Final = (
    Instrument("process_cpu_seconds_total", "counter", "CPU time of the workers"),
    Instrument("process_resident_memory_bytes", "gauge", "Memory in use"),
    Instrument("process_virtual_memory_bytes", "gauge", "Memory mapped"),
    Instrument("process_open_fds", "gauge", "Open files and sockets"),
    Instrument("process_max_fds", "gauge", "How many a worker may have open", across="min"),
    Instrument("process_start_time_seconds", "gauge", "Start of the oldest worker", across="min"),
)
"""What the library tells of a process, on Linux."""

ALL: Final = (*NOTED, *READ, *PROCESS)
ACROSS: Final[Mapping[str, Across]] = {one.name: one.across for one in ALL}
"""By name; a name that is not there is added up."""
