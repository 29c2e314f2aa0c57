"""Secrets in wrong places: the faults that they cause do not repeat them."""

import pytest

from services.config import ConfigError, parse

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


def provider(line: str) -> str:
    """A model whose provider has one more line."""
    return f"{MODEL}        {line}\n"


SECRET = "hunter2-hunter2"
LEAKS = [
    provider(f"key: ['{SECRET}']"),
    provider(f"key: {{a: {SECRET}}}"),
    provider(f"key: 'é{SECRET}'"),
    provider("timeout: ${S}"),
    provider("type: ${S}"),
    provider("weight: ${N}"),
    MODEL.replace("http://h", "${S}"),
    MODEL.replace("http://h", f"http://{SECRET}@h"),
    MODEL.replace("http://h", f"http://h?key={SECRET}"),
    MODEL.replace("http://h", f"http://h:{SECRET}"),
    above(f"auth: {SECRET}"),
    above(f"auth: {{keys: ['{SECRET}']}}"),
    above(f"auth: {{keys: {SECRET}}}"),
    above(f"auth: {{keys: [{{name: a, sha256: {SECRET}}}]}}"),
    above(f"auth: {{keys: [{{name: a, sha256: [{SECRET}]}}]}}"),
    above("auth: {keys: [sk-hunter2-hunter2]}"),
    above("auth: {keys: [{sk-hunter2-hunter2: x}]}"),
    above(f"ledger: {{url: 'postgresql://me:{SECRET}@h', max_queue: 0}}"),
    above(f"ledger: {{url: 'mysql://me:{SECRET}@h'}}"),
    above(f"state: {{url: 'redis://:{SECRET}@h', timeout: 0}}"),
    above(f"state: {{url: 'rediss+odd://:{SECRET}@h'}}"),
    above(f"telemetry: {{otlp_endpoint: 'http://{SECRET}@h'}}"),
    above(f"workers: 'postgresql://me:{SECRET}@h'"),
    above("workers: sk-hunter2-hunter2"),
    above(f"workers: Bearer {SECRET}"),
    provider(f"key: *{SECRET}"),
    provider(f"key: !{SECRET} x"),
    provider(f"key: &{SECRET} x\n        key: &{SECRET} y"),
    provider(f'key: "\\x{SECRET}"'),
    provider(f"key: '{SECRET}"),
    provider(f"key: {SECRET}: x"),
    provider(f"key: @{SECRET}"),
    provider(f"key: ${{{SECRET}"),
    f"%{SECRET}\n---\n{MODEL}relay: 5",
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_secret_is_in_a_message(text: str) -> None:
    """G22: what the file keeps secret reaches no message."""
    for line in faults(text, S=SECRET, N="99999999999"):
        assert "hunter2" not in line
        assert "99999999999" not in line
