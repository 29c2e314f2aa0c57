"""Mutants of rules: layers, guards of the contract, configuration."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_LAYERS = "tests/test_layers.py::test_our_sources_keep_to_it"
_GUARDS = "tests/contract/test_guards.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "the-codec-knows-errors",
        "layers",
        "services/codec/splice.py",
        find="import json\nimport re\n",
        replace="import json\nimport re\nfrom contextlib import suppress\n\n"
        "with suppress(ImportError):\n    from services import errors  # noqa: F401\n",
        tests=(f"{_LAYERS}[order]",),
        why="an import that points upwards",
    ),
    Mutant(
        "faces-import-each-other",
        "layers",
        "gateway_http/errors.py",
        find="from services.error_base import TetradError\n",
        replace="from services.error_base import TetradError\n"
        "from services.server import status as _status  # noqa: F401\n",
        tests=(f"{_LAYERS}[strangers]",),
        why="one face needs the other",
    ),
    Mutant(
        "grpc-in-a-service",
        "layers",
        "services/bulk.py",
        find="import asyncio\nimport logging\n",
        replace="import asyncio\nimport logging\n\nimport grpc  # noqa: F401\n",
        tests=(f"{_LAYERS}[engines]",),
        why="services depend on an engine",
    ),
    Mutant(
        "bare-status-numbers",
        "layers",
        "services/upstream/facts.py",
        find="        if status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST):",
        replace="        if status in (200, 400):",
        tests=(f"{_LAYERS}[statuses]",),
        why="errors by number",
    ),
    Mutant(
        "a-handler-swallows-cancellation",
        "G8",
        "services/upstream/own_transport.py",
        find="            await self._stop_sending()\n            raise\n",
        replace="            await self._stop_sending()\n",
        tests=(f"{_LAYERS}[cancellations]",),
        why="native memory leaks, tasks cannot be stopped",
    ),
    Mutant(
        "breaking-is-not-checked",
        "guards",
        "tools/guards.py",
        find='    return missing(root, DESCRIPTORS) or buf(root, "breaking", "proto", "--against", '
        "against)",
        replace="    return missing(root, DESCRIPTORS) and [against]",
        tests=(
            _GUARDS + "test_a_removed_field_fails_both_guards",
            _GUARDS + "test_a_removed_method_fails_both_guards",
        ),
        why="a removed field goes unseen",
    ),
    Mutant(
        "the-surface-may-shrink",
        "guards",
        "tools/guards.py",
        find="for line in before if line not in now]",
        replace="for line in before if not now]",
        tests=(
            _GUARDS + "test_a_removed_field_fails_both_guards",
            _GUARDS + "test_a_changed_option_fails_the_listing_alone",
        ),
        why="REST JSON changes unseen",
    ),
    Mutant(
        "a-missing-baseline-is-fine",
        "guards",
        "tools/guards.py",
        find="    if (root / BASELINE / name).is_file():\n        return []\n",
        replace="    if root:\n        return []\n",
        tests=(_GUARDS + "test_a_missing_baseline_is_a_fault",),
        why="without a baseline nothing is compared",
    ),
    Mutant(
        "lint-is-not-run",
        "guards",
        "tools/guards.py",
        find='    return buf(root, "lint")',
        replace='    return buf(root, "--version")',
        tests=(_GUARDS + "test_a_field_without_a_comment_fails_the_lint",),
        why="fields without comments",
    ),
    Mutant(
        "a-field-changes-its-number",
        "guards",
        "gen/json_surface.txt",
        find="ChatMessage.tool_call_id string\n",
        replace="",
        tests=(
            _GUARDS + "test_a_guard_is_content_with_the_contract_as_it_is",
            _GUARDS + "test_the_listing_in_gen_is_the_one_that_the_descriptors_make",
        ),
        why="gen/ and the contract part ways",
    ),
    Mutant(
        "unknown-keys-are-ignored",
        "config",
        "services/config/sections.py",
        find='extra="forbid"',
        replace='extra="ignore"',
        tests=("tests/unit/test_config_faults.py::test_a_fault_is_one_line_at_its_place",),
        why="a misspelt key does nothing",
    ),
    Mutant(
        "misspelt-keys-get-no-hint",
        "config",
        "services/config/explain.py",
        find="        return f\"did you mean '{near}'?\"\n    elsewhere",
        replace='        return ""\n    elsewhere',
        tests=("tests/unit/test_config_faults.py::test_a_fault_is_one_line_at_its_place",),
        why="a fault does not say what would be right",
    ),
    Mutant(
        "an-open-gateway-may-listen-to-all",
        "config",
        "services/config/checks.py",
        find="        if not address.is_loopback:\n",
        replace="        if False:\n",
        tests=(
            "tests/unit/test_config_line.py"
            "::test_an_open_gateway_may_not_listen_to_everyone_unless_it_says_so",
        ),
        why="a gateway without keys on the internet",
    ),
    Mutant(
        "features-to-come-are-ignored",
        "config",
        "services/config/checks.py",
        find="            if is_set(value):\n",
        replace="            if False:\n",
        tests=(
            "tests/unit/test_config_not_yet.py"
            "::test_a_feature_that_is_not_there_yet_is_refused_and_not_ignored",
        ),
        why="a limit that is configured and does not hold",
    ),
    Mutant(
        "secrets-stand-in-messages",
        "G22",
        "services/config/explain.py",
        find="hidden = bool(source) or (known is not None and known.secret) or "
        'loc[:1] == ("auth",)',
        replace="hidden = False and known is not None",
        tests=("tests/unit/test_config_secrets.py::test_no_secret_is_in_a_message",),
        why="a key is printed beside its fault",
    ),
    Mutant(
        "required-types-are-not-checked",
        "G37",
        "services/runtime.py",
        find="        if faults:\n            raise StartError(faults)\n",
        replace="",
        tests=(
            "tests/program/test_start.py"
            "::test_a_missing_required_type_refuses_the_start_and_shows_both_ways_out",
        ),
        why="a gateway that starts without its models",
    ),
)
