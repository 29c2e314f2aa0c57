"""OpenGateLLM's files, of both generations and of the older form, read as they are."""

import pytest

from services.config import Config, ConfigError, parse

FIRST = """\
dependencies:
  postgres: {url: "postgresql+asyncpg://${POSTGRES_USER}@postgres/api"}
  redis: {host: redis}
models:
  - name: albert-small
    type: image-text-to-text
    aliases: [mistralai/Ministral]
    owned_by: etalab
    routing_strategy: round_robin
    providers:
      - type: vllm
        url: ${VLLM_URL:-http://vllm:8000}
        key: ${VLLM_KEY:-}
        timeout: 120
        model_name: mistralai/Ministral-8B
        model_cost_prompt_tokens: 0.1
        model_cost_completion_tokens: 0.3
        model_carbon_footprint_zone: WOR
        model_carbon_footprint_total_params: 8
        model_carbon_footprint_active_params: 8
      - type: albert
        key: k
        model_name: albert-small
        model_cost_prompt_tokens: 0.2
  - name: embeddings-small
    type: text-embeddings-inference
    providers:
      - type: tei
        url: http://tei:80
        model_name: BAAI/bge-m3
settings:
  auth_master_key: changeme
  disabled_routers: [admin]
  routing_max_retries: 3
"""

SECOND = """\
models:
  - name: chat
    type: text-generation
    load_balancing_strategy: least_busy
    cost_prompt_tokens: 0.1
    cost_completion_tokens: 0.3
    providers:
      - type: mistral
        url: https://api.mistral.ai
        key: k
        model_name: mistral-small
        model_hosting_zone: FRA
        model_total_params: 24
        model_active_params: 24
        qos_metric: inflight
        qos_limit: 8
      - type: vllm
        url: http://vllm:8000
        model_hosting_zone: WOR
        qos_metric: ttft
        qos_limit: 0.5
"""

LEGACY = """\
models:
  - id: embeddings
    type: text-embeddings-inference
    clients:
      - model: BAAI/bge-m3
        type: tei
        args:
          api_url: http://tei:80
          api_key: k
          timeout: 60
"""


def read(text: str) -> Config:
    return parse(text, "config.yml", {})


OLDER = """\
general: {log_level: DEBUG}
databases: [{type: sql, args: {url: "postgresql://${DATABASE_HOST}/api"}}]
auth: {master_key: changeme}
models:
  - id: embeddings
    type: text-embeddings-inference
    default_internet: true
    clients:
      - model: BAAI/bge-m3
        type: tei
        costs: {prompt_tokens: 1, completion_tokens: 3}
        carbon: {total_params: 24}
        args: {api_url: "http://tei:80"}
      - model: BAAI/bge-m3
        type: tei
        costs: {prompt_tokens: 2}
        args: {api_url: "http://tei2:80"}
"""


def fault(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [str(one) for one in caught.value.faults]


def test_a_file_of_the_first_generation_is_read() -> None:
    config = read(FIRST)
    model = config.models[0]
    assert (model.name, model.type) == ("albert-small", "text-generation")
    assert model.load_balancing_strategy == "round_robin"
    assert [(p.type, p.url, p.timeout, p.model_name) for p in model.providers] == [
        ("vllm", "http://vllm:8000", 120, "mistralai/Ministral-8B"),
        ("albert", "https://albert.api.etalab.gouv.fr", None, "albert-small"),
    ]
    assert config.required_type_faults() == []


def test_of_the_providers_costs_the_highest_is_the_models() -> None:
    model = read(FIRST).models[0]
    assert (model.cost_prompt_tokens, model.cost_completion_tokens) == (0.2, 0.3)


def test_what_is_not_used_of_the_first_generation_is_said_once_each() -> None:
    assert read(FIRST).warnings == (
        "config.yml:1:1: dependencies: this section is not used (postgres, redis); "
        "no database or other service is needed",
        "config.yml:18:9: models[0].providers[0].model_carbon_footprint_zone: this is not used",
        "config.yml:19:9: models[0].providers[0].model_carbon_footprint_total_params: "
        "this is not used",
        "config.yml:20:9: models[0].providers[0].model_carbon_footprint_active_params: "
        "this is not used",
        "config.yml:31:1: settings: this section is not used "
        "(auth_master_key, disabled_routers, routing_max_retries); "
        "auth_master_key: see auth.keys, routing_max_retries: see timeouts.queue",
    )


def test_a_file_of_the_second_generation_is_read() -> None:
    config = read(SECOND)
    model = config.models[0]
    assert (model.cost_prompt_tokens, model.cost_completion_tokens) == (0.1, 0.3)
    assert [provider.max_concurrency for provider in model.providers] == [8, None]
    assert config.warnings == (
        "config.yml:12:9: models[0].providers[0].model_hosting_zone: this is not used; "
        "also on line 19",
        "config.yml:13:9: models[0].providers[0].model_total_params: this is not used",
        "config.yml:14:9: models[0].providers[0].model_active_params: this is not used",
        "config.yml:20:9: models[0].providers[1].qos_metric: this is not used",
        "config.yml:21:9: models[0].providers[1].qos_limit: this is not used",
    )


def test_the_older_form_with_clients_and_args_is_read() -> None:
    config = read(LEGACY)
    model = config.models[0]
    provider = model.providers[0]
    assert (model.name, provider.type, provider.url) == ("embeddings", "tei", "http://tei:80")
    assert (provider.key, provider.timeout, provider.model_name) == ("k", 60, "BAAI/bge-m3")
    assert config.warnings == (
        "config.yml:2:5: models[0].id: an older name of 'name'",
        "config.yml:4:5: models[0].clients: an older name of 'providers'",
        "config.yml:7:9: models[0].providers[0].args: an older form: its members now stand "
        "beside 'type'",
    )


def test_the_older_form_s_costs_and_sections_are_read() -> None:
    config = read(OLDER)
    model = config.models[0]
    assert (model.cost_prompt_tokens, model.cost_completion_tokens) == (2, 3)
    assert config.auth.keys == ()
    told = [warning.split(": ", 1)[1] for warning in config.warnings]
    assert told[:4] == [
        "general: this section is not used (log_level)",
        "databases: this section is not used; no database or other service is needed",
        "auth.master_key: this is not used; see auth.keys",
        "models[0].id: an older name of 'name'",
    ]
    assert "models[0].default_internet: this is not used" in told
    assert "models[0].providers[0].carbon: this is not used" in told


def test_the_older_form_s_sections_are_faults_in_a_file_without_clients() -> None:
    text = OLDER.replace("id:", "name:").replace("clients:", "providers:")
    faulty = {one.split(": ")[1] for one in fault(text)}
    assert {"general", "auth.master_key"} <= faulty


@pytest.mark.parametrize(
    ("limit", "concurrency"),
    [("qos_limit: 8", 8), ("qos_limit: 8.0", 8), ("qos_limit: 2.5", 2), ("qos_limit: 0", 0)],
)
def test_a_limit_on_calls_in_flight_is_max_concurrency(limit: str, concurrency: int) -> None:
    config = read(SECOND.replace("qos_limit: 8", limit))
    assert config.models[0].providers[0].max_concurrency == concurrency
    assert "providers[0].qos" not in "".join(config.warnings)


def test_a_limit_on_calls_in_flight_beside_max_concurrency_is_not_used() -> None:
    config = read(SECOND.replace("qos_limit: 8", "qos_limit: 8\n        max_concurrency: 3"))
    assert config.models[0].providers[0].max_concurrency == 3
    assert "providers[0].qos_limit: this is not used" in "".join(config.warnings)


def test_max_parallel_requests_is_max_concurrency() -> None:
    config = read(SECOND.replace("qos_metric: ttft", "max_parallel_requests: 5"))
    assert config.models[0].providers[1].max_concurrency == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            LEGACY.replace("http://tei:80", "tei:80"),
            "8:20: models[0].clients[0].args.api_url: a URL begins with http:// or https://; "
            "write http://tei:80",
        ),
        (
            LEGACY.replace("timeout:", "timeuot:"),
            "10:11: models[0].clients[0].args.timeuot: unknown key; did you mean 'timeout'?",
        ),
        (
            LEGACY + "        key: k2\n",
            "9:11: models[0].providers[0].args.api_key: this is set twice",
        ),
        (
            OLDER.replace("prompt_tokens: 2", "prompt_tokens: two"),
            "16:32: models[0].providers[1].costs.prompt_tokens: expected a number, "
            "found text 'two'",
        ),
        (
            OLDER.replace("{prompt_tokens: 2}", "{prompts: 2}"),
            "16:9: models[0].clients[1].costs: unknown key; known here: type, url, key, "
            "model_name, timeout, priority, weight, max_concurrency, max_batch, "
            "max_batch_bytes, transport",
        ),
        (
            SECOND.replace("qos_limit: 8", "qos_limit: -1"),
            "16:20: models[0].providers[0].qos_limit: must be at least 0, found -1",
        ),
        (
            FIRST.replace("round_robin", "robin"),
            "9:23: models[0].routing_strategy: expected a load balancing strategy "
            "(shuffle, round_robin, least_busy, power_of_two, prefix_affinity), "
            "found text 'robin'; did you mean 'round_robin'?",
        ),
        (
            FIRST.replace("round_robin", "shuffle\n    load_balancing_strategy: shuffle"),
            "9:5: models[0].routing_strategy: another name of 'load_balancing_strategy', "
            "which is set on line 10; remove one",
        ),
        (
            FIRST.replace("model_cost_completion_tokens: 0.3", "model_cost_completion_tokens: x"),
            "17:39: models[0].providers[0].model_cost_completion_tokens: expected a number, "
            "found text 'x'",
        ),
    ],
)
def test_a_fault_names_the_key_that_the_file_has(text: str, expected: str) -> None:
    assert fault(text) == [f"config.yml:{expected}"]


def test_a_variable_that_only_an_unused_section_needs_may_be_unset() -> None:
    assert "POSTGRES_USER" in FIRST
    assert read(FIRST).models


def test_strategies_that_stand_at_a_provider_hold_for_its_model() -> None:
    text = SECOND.replace("    load_balancing_strategy: least_busy\n", "").replace(
        "        key: k\n", "        key: k\n        routing_strategy: shuffle\n"
    )
    assert read(text).models[0].load_balancing_strategy == "shuffle"


def test_any_other_key_is_a_fault() -> None:
    assert fault(FIRST.replace("settings:", "setings:"))[-1].startswith(
        "config.yml:31:1: setings: unknown key"
    )


def test_a_key_for_a_model_that_is_not_there_is_a_warning() -> None:
    sha = "ab" * 32
    text = f"{SECOND}auth: {{keys: [{{name: a, sha256: {sha}, models: [chat, chta]}}]}}\n"
    assert read(text).warnings[-1] == (
        "config.yml:22:114: auth.keys[0].models[1]: no model has this name; did you mean 'chat'?"
    )
