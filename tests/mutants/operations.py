"""Mutants of running the gateway: figures, probes, reloads, the ledger, stores."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_ESTIMATE = "tests/unit/test_estimate.py::"
_METRICS = "tests/unit/test_metrics.py::"
_WATCH = "tests/unit/test_watch.py::"
_RELOAD = "tests/unit/test_reload.py::"
_RELOADED = "tests/program/test_reload.py::"
_ATTEMPTS = "tests/unit/test_attempts.py::"
_STORE = "tests/faults/test_limit_store.py::"
_LEDGER = "tests/unit/test_ledger.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "figures-are-replaced-by-estimates",
        "G9",
        "services/estimate.py",
        find=' or usage.source != "none" or prompt is None:',
        replace=" or prompt is None:",
        tests=(_ESTIMATE + "test_what_the_upstream_said_is_never_replaced",),
        why="bills show guesses where the upstream told the figures",
    ),
    Mutant(
        "who-leaves-pays-nothing",
        "G9",
        "services/estimate.py",
        find='worked = outcome == "OK" or call.chunks > 0 or',
        replace='worked = outcome == "OK" or call.chunks < 0 and',
        tests=(_ESTIMATE + "test_who_left_while_an_upstream_worked_used_at_least_the_prompt",),
        why="a caller who always leaves early is served for nothing",
    ),
    Mutant(
        "metrics-count-good-calls-only",
        "G11",
        "services/telemetry/metrics.py",
        find="        self._used(usage, bound, call.model)\n",
        replace='        if usage.outcome == "OK":\n'
        "            self._used(usage, bound, call.model)\n",
        tests=(_METRICS + "test_tokens_count_whatever_the_call_s_end",),
        why="metrics and ledger disagree by those who left",
    ),
    Mutant(
        "audio-and-documents-are-not-measured",
        "G12",
        "services/telemetry/metrics.py",
        find="        if _sane(seconds := usage.audio_seconds):\n",
        replace="        if _sane(seconds := usage.audio_seconds) and seconds < 0:\n",
        tests=(_METRICS + "test_all_four_operations_are_metered",),
        why="transcription is not seen on any dashboard",
    ),
    Mutant(
        "a-dead-server-stays-ready",
        "G20",
        "services/routing/attempts.py",
        find="            route.ready = False  # the next probe",
        replace="            route.ready = True  # the next probe",
        tests=(
            _ATTEMPTS + "test_a_provider_that_cannot_be_reached_is_left_alone_until_a_probe_says"
            "_otherwise",
        ),
        why="every call finds out anew that a server is gone",
    ),
    Mutant(
        "a-breaker-stays-open-for-a-new-server",
        "G20",
        "services/watch.py",
        find="                one.route.breaker.reset()\n",
        replace="                pass\n",
        tests=(
            _WATCH + "test_what_a_call_found_dead_the_next_probe_brings_back_with_a_clean_breaker",
        ),
        why="a server that was started anew waits for its cooldown",
    ),
    Mutant(
        "every-good-probe-closes-the-breaker",
        "G20",
        "services/watch.py",
        find="            if ready and not one.route.ready:\n",
        replace="            if ready:\n",
        tests=(
            _WATCH + "test_what_a_call_found_dead_the_next_probe_brings_back_with_a_clean_breaker",
        ),
        why="a server that is healthy and fails all calls is never left alone",
    ),
    Mutant(
        "probes-have-no-time-limit",
        "G20",
        "services/watch.py",
        find="            async with asyncio.timeout(self._limit):\n"
        "                ready = await self._answers(server)\n",
        replace="            if server:\n                ready = await self._answers(server)\n",
        tests=(_WATCH + "test_a_server_that_hangs_is_out",),
        why="calls go on to a server that hangs",
    ),
    Mutant(
        "a-load-is-believed-for-ever",
        "G20",
        "services/watch.py",
        find="            if clock() - server.load_at > STALE_AFTER * self._interval:\n",
        replace="            if clock() < 0:\n",
        tests=(_WATCH + "test_a_load_that_is_not_told_again_goes_stale",),
        why="a server is spared for a crowd that left long ago",
    ),
    Mutant(
        "vectors-of-any-length",
        "G30",
        "services/embed.py",
        find="        if other is not None:\n",
        replace="        if other is not None and not other:\n",
        tests=(
            _ATTEMPTS + "test_vectors_of_another_length_are_refused_and_another_provider_is_asked",
        ),
        why="an index is filled with vectors of two models",
    ),
    Mutant(
        "asked-for-dimensions-are-judged",
        "G30",
        "services/embed.py",
        find='None if request.get("dimensions") else _dimension(answer, request)',
        replace="_dimension(answer, request)",
        tests=(_ATTEMPTS + "test_a_shorter_vector_that_was_asked_for_is_no_fault",),
        why="callers that ask for short vectors make providers look wrong",
    ),
    Mutant(
        "a-bad-file-is-a-generation",
        "G37",
        "services/reload.py",
        find="            return Change(self._generation, None, tuple(error.faults))\n",
        replace="            return Change(self._generation + 1, None, tuple(error.faults))\n",
        tests=(_RELOAD + "test_a_bad_file_keeps_the_generation_and_says_why",),
        why="the number says that instances agree when they do not",
    ),
    Mutant(
        "fixed-settings-seem-to-change",
        "G37",
        "services/reload.py",
        find="        if faults:\n            return Change(",
        replace="        if not faults and faults:\n            return Change(",
        tests=(
            _RELOAD + "test_a_change_of_what_is_fixed_keeps_the_old_configuration",
            _RELOADED + "test_a_bad_file_keeps_the_old_configuration_and_says_why",
        ),
        why="a reload says that it took what it cannot take",
    ),
    Mutant(
        "half-a-file-is-read",
        "G37",
        "services/reload.py",
        find="            if content == first:\n",
        replace="            if content:\n",
        tests=(_RELOAD + "test_a_file_is_not_read_while_it_is_being_written",),
        why="a configuration that was still being written",
    ),
    Mutant(
        "the-generation-is-not-told",
        "G37",
        "services/life.py",
        find='"generation": table.generation}',
        replace='"generation": 1}',
        tests=(_RELOADED + "test_a_hang_up_takes_a_file_that_did_not_change",),
        why="nobody can tell which configuration an instance runs on",
    ),
    Mutant(
        "a-reload-changes-nothing",
        "G37",
        "services/runtime.py",
        find="        self.router.table = Table(present, generation)\n",
        replace="        self.router.table.generation = generation\n",
        tests=(
            _RELOADED + "test_a_changed_file_is_taken_while_open_streams_finish_on_the_old_one",
        ),
        why="a reload that is told and did not happen",
    ),
    Mutant(
        "a-frozen-store-holds-up-every-call",
        "G38",
        "services/limits/shared.py",
        find="        if self.away:\n            raise StoreAway\n        keys",
        replace="        keys",
        tests=(_STORE + "test_a_frozen_store_holds_calls_up_once_and_then_not_at_all",),
        why="every call waits for a Redis that is gone",
    ),
    Mutant(
        "a-frozen-store-counts-afterwards",
        "G14",
        "services/limits/shared.py",
        find="if latest > 0 and now > latest then",
        replace="if latest < 0 then",
        tests=(_STORE + "test_a_frozen_store_holds_calls_up_once_and_then_not_at_all",),
        why="calls that were let in without the store are counted when it is back",
    ),
    Mutant(
        "a-call-refused-by-all-processes-costs",
        "G14",
        "services/limits/shared.py",
        find="if room then\n",
        replace="if room or #KEYS > 0 then\n",
        tests=(_STORE + "test_four_processes_let_in_exactly_as_many_as_the_limit",),
        why="a client that retries never gets out of its limit",
    ),
    Mutant(
        "every-probe-asks-for-figures",
        "G39",
        "services/watch.py",
        find="        server.load_in = PROBES_AN_INTERVAL\n        try",
        replace="        try",
        tests=(_WATCH + "test_a_load_is_asked_for_at_most_once_an_interval",),
        why="large pages of metrics are fetched over and over",
    ),
    Mutant(
        "each-provider-is-probed",
        "G39",
        "services/watch.py",
        find="        server = found.setdefault(same, _Server",
        replace="        server = found.setdefault((same, id(one)), _Server",
        tests=(_WATCH + "test_providers_of_one_server_share_its_probe",),
        why="a server of twenty models is asked twenty times as often",
    ),
    Mutant(
        "records-wait-without-end",
        "G38",
        "services/ledger/ledger.py",
        find="        if len(self._queue) >= self._max_queue:\n",
        replace="        if self._max_queue < 0:\n",
        tests=(_LEDGER + "test_a_store_that_is_down_holds_up_nobody_and_takes_no_memory",),
        why="a database that is down fills the memory",
    ),
    Mutant(
        "lost-records-are-not-counted",
        "G38",
        "services/ledger/ledger.py",
        find="    def _drop(self) -> None:\n        self.dropped += 1\n",
        replace="    def _drop(self) -> None:\n",
        tests=(_LEDGER + "test_a_store_that_is_down_holds_up_nobody_and_takes_no_memory",),
        why="nobody knows that the ledger lacks calls",
    ),
    Mutant(
        "a-fault-of-the-ledger-fails-calls",
        "G38",
        "services/ledger/ledger.py",
        find="        except Exception:\n            self.dropped += 1\n",
        replace="        except ZeroDivisionError:\n            self.dropped += 1\n",
        tests=(_LEDGER + "test_a_call_that_cannot_be_recorded_fails_nobody",),
        why="callers fail since a call could not be recorded",
    ),
    Mutant(
        "written-records-are-written-again",
        "G11",
        "services/ledger/ledger.py",
        find="            for _ in range(done):\n                self._queue.popleft()\n",
        replace="            for _ in range(done - 1):\n                self._queue.popleft()\n",
        tests=(_LEDGER + "test_totals_are_the_sums_over_the_calls",),
        why="the ledger and the metrics disagree",
    ),
)
