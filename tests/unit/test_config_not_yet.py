"""What this version does not have is refused by name, and never ignored."""

import pytest

from services.config import NOT_YET, ConfigError, parse

SHA = "ab" * 32
MODEL = """\
models:
  - name: a
    type: text-generation
    providers:
      - url: http://h
"""


def faults(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "t.yaml", environ)
    return [str(fault) for fault in caught.value.faults]


def above(line: str) -> str:
    """The line, and after it a model that is right."""
    return f"{line}\n{MODEL}"


def test_all_that_is_documented_is_there() -> None:
    assert NOT_YET == {}


def test_a_feature_that_is_not_there_yet_is_refused_and_not_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = (lambda value: value == "json", "take text")
    monkeypatch.setitem(NOT_YET, "telemetry.log_format", missing)
    assert faults(above("telemetry: {log_format: json}")) == [
        "t.yaml:1:25: telemetry.log_format: this version does not have this yet; take text"
    ]
    assert parse(above("telemetry: {log_format: text}"), "t.yaml", {}).models


@pytest.mark.parametrize(
    "line",
    [
        "workers: 0",
        "grpc: {tls: null}",
        "grpc: {tls: {cert: a, key: b}}",
        "http: {tls: {cert: a, key: b, client_ca: c}}",
        f"auth: {{keys: [{{name: a, sha256: {SHA}, limits: {{rpm: 5, tpd: 0}}}}]}}",
        "ledger: {url: 'sqlite:usage.db'}",
        "telemetry: {otlp_endpoint: null}",
        "telemetry: {otlp_endpoint: 'http://h:4318', trace_sample_ratio: 0.05}",
        "state: {url: 'memory://'}",
        "state: {url: 'redis://h'}",
        "compat: {opengatellm: true}",
    ],
)
def test_what_asks_for_nothing_new_is_taken(line: str) -> None:
    assert parse(above(line), "t.yaml", {}).models
