"""Settings that are read and not acted on are told, never ignored in silence."""

from __future__ import annotations

import pytest

from services.commands.warnings import unused
from services.config import parse

MODEL = """
models:
  - {name: e, type: text-embeddings-inference, providers: [{type: tei, url: "http://127.0.0.1:1"}]}
"""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("retry: {attempts: 5}", "retry"),
        ("breaker: {failures: 2}", "breaker"),
        ("limits: {max_queue: 3}", "limits.max_queue"),
        ("timeouts: {queue: 3}", "timeouts.queue"),
    ],
)
def test_a_setting_without_effect_is_told(text: str, key: str) -> None:
    (told,) = unused(parse(MODEL + text, "t.yaml", {}))
    assert told.startswith(f"t.yaml: {key}: ")


def test_defaults_tell_nothing() -> None:
    assert unused(parse(MODEL, "t.yaml", {})) == []
