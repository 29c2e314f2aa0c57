"""Whatever stands in a configuration: it is taken, or refused with faults that name places."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.config import Config, ConfigError, parse

GOOD: dict[str, Any] = {
    "grpc": {"address": "127.0.0.1:50051"},
    "http": {"address": "127.0.0.1:8080", "cors": ["https://a.example"], "playground": True},
    "workers": 2,
    "required_types": ["text-embeddings-inference"],
    "models": [
        {
            "name": "e5",
            "type": "text-embeddings-inference",
            "aliases": ["e"],
            "default": True,
            "load_balancing_strategy": "prefix_affinity",
            "cost_prompt_tokens": 0.1,
            "max_in_flight": 10,
            "providers": [
                {"type": "tei", "url": "http://127.0.0.1:1", "weight": 2, "timeout": 3},
                {"type": "openai", "url": "http://127.0.0.1:2/v1", "key": "k", "priority": 1},
            ],
        }
    ],
    "auth": {"keys": [{"name": "a", "sha256": "0" * 64, "models": ["e"], "limits": {"rpm": 1}}]},
    "limits": {"max_in_flight": 5, "max_queue": None, "max_upload_bytes": 1},
    "timeouts": {"connect": 1, "queue": 0},
    "retry": {"attempts": 3, "budget_ratio": 0.1},
    "breaker": {"failures": 1, "cooldown": 1},
    "probes": {"interval": 1},
    "heartbeat": {"first": 1},
    "drain": {"grace": 0},
    "relay": False,
    "metadata": {"pass_in": ["x-a"]},
    "ledger": {"url": "jsonl:/tmp/x"},
    "telemetry": {"log_format": "json"},
    "state": {"url": "redis://127.0.0.1:1/0"},
    "compat": {"opengatellm": True},
}

words = st.sampled_from(
    [
        "",
        " ",
        "~",
        "null",
        "yes",
        "1e9",
        "0x1f",
        "${X}",
        "${X:-",
        "${}",
        "é\u2028",
        "a: b",
        "- ",
        "*a",
    ]
) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into a configuration."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


PLACES = list(places(GOOD))


@st.composite
def configurations(draw: st.DrawFn) -> Any:
    """The good one with up to four places changed, removed, or given a stranger."""
    made = copy.deepcopy(GOOD)
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=4)):
        home: Any = made
        try:
            for key in place[:-1]:
                home = home[key]
            match draw(st.sampled_from(["change", "remove", "add", "double"])):
                case "change":
                    home[place[-1]] = draw(values)
                case "remove":
                    del home[place[-1]]
                case "add" if isinstance(home, dict):
                    home[draw(words)] = draw(values)
                case "double" if isinstance(home, list):
                    home.append(copy.deepcopy(home[place[-1]]))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return made


def judged(text: str) -> None:
    faults: list[Any] = []
    try:
        config: Config | None = parse(text, "fuzz.yaml", {"X": "\n: ["})
    except ConfigError as error:
        config, faults = None, error.faults
    assert (config is None) == bool(faults)
    assert all(fault.message and str(fault).startswith("fuzz.yaml") for fault in faults)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(configurations())
@example(GOOD)
def test_a_changed_configuration_is_taken_or_refused_with_its_faults(made: Any) -> None:
    judged(yaml.safe_dump(made, allow_unicode=True))


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
@example("models: &a [*a]")
@example("? [a]\n: b")
@example("a: !!python/object:os.system x")
@example("<<: {a: 1}")
@example("{" * 500)
def test_any_text_is_taken_or_refused_with_its_faults(text: str) -> None:
    judged(text)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_text_with_characters_lost_or_doubled_is_judged_too(data: st.DataObject) -> None:
    text = yaml.safe_dump(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 20))
        text = text[:at] + data.draw(words) + text[at + cut :]
    judged(text)
