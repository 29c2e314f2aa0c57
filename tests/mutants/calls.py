"""Mutants of calls: cancels, limits, leases, records, drain, metadata."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_CANCEL = "tests/faults/test_upstream_cancel.py::"
_TIMES = "tests/faults/test_upstream_timeouts.py::"
_GRPC = "tests/unit/test_grpc_face.py::"
_GONE = "tests/unit/test_rest_disconnect.py::"
_DISPATCH = "tests/unit/test_dispatch.py::"
_CALL = "tests/unit/test_call.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "unread-answers-keep-their-socket",
        "G5",
        "services/upstream/own_transport.py",
        find="""        else:
            connection.abort()
            if leaving""",
        replace="""        else:
            connection.rest(60.0)
            if leaving""",
        tests=(_CANCEL + "test_leaving_a_stream_closes_its_connection[own]",),
        why="the upstream generates for nobody",
    ),
    Mutant(
        "a-cancel-leaves-the-request-running",
        "G6",
        "services/upstream/own_transport.py",
        find="            self._left()\n            connection.abort()\n",
        replace="            self._left()\n",
        tests=(
            _CANCEL + "test_a_cancelled_call_closes_its_connection[own-chat-before the headers]",
        ),
        why="an upstream that never answers is kept busy",
    ),
    Mutant(
        "nobody-watches-the-rest-caller",
        "G5",
        "gateway_http/caller.py",
        find="            self._peer.watch(self.give_up)\n",
        replace="            pass\n",
        tests=(
            _GONE + "test_with_requests_in_a_row_on_one_connection_the_running_one_is_cancelled",
            _GONE + "test_a_caller_that_hangs_up_has_its_work_cancelled_at_once",
        ),
        why="work goes on for a REST caller that left",
    ),
    Mutant(
        "streams-are-not-closed-on-leaving",
        "G5",
        "services/dispatch.py",
        find="                    async with aclosing(stream) as batches:\n",
        replace="                    if batches := stream:\n",
        tests=(_DISPATCH + "test_leaving_a_stream_closes_the_adapter_s",),
        why="the upstream's stream lives until the garbage collector comes",
    ),
    Mutant(
        "cancelled-bulks-run-on",
        "G5",
        "services/bulk.py",
        find="""        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)""",
        replace="        reader.cancel()",
        tests=("tests/unit/test_embed_bulk.py::test_whoever_leaves_a_bulk_ends_every_item",),
        why="items of a bulk that nobody awaits go on",
    ),
    Mutant(
        "a-second-cancel-cuts-the-closing-short",
        "G7",
        "services/upstream/httpx_transport.py",
        find="                await asyncio.shield(closing)\n",
        replace="                closing.cancel()\n",
        tests=(_CANCEL + "test_two_cancels_in_a_row_leave_nothing_open",),
        why="sockets are left open",
    ),
    Mutant(
        "our-own-cancelled-error-hangs",
        "G8",
        "services/server/bind.py",
        find="if isinstance(error, asyncio.CancelledError) and task and task.cancelling():",
        replace="if isinstance(error, asyncio.CancelledError):",
        tests=(_GRPC + "test_a_fault_of_ours_is_internal_and_tells_nothing[Chat-error1]",),
        why="a gRPC client hangs until its deadline",
    ),
    Mutant(
        "cancellation-is-swallowed",
        "G8",
        "services/server/bind.py",
        find="            if error is not None:\n                await self._end(error)\n",
        replace="            if error is not None:\n                await self._end(error)\n"
        "                return True\n",
        tests=("tests/unit/test_mutants_gap_cancel.py::test_a_cancel_goes_on_its_way",),
        why="grpc.aio leaks for each cancelled stream",
    ),
    Mutant(
        "no-record-of-cancelled-calls",
        "G9",
        "services/dispatch.py",
        find="        if call.usage.close(outcome):",
        replace='        if outcome != "CANCELLED" and call.usage.close(outcome):',
        tests=(
            _DISPATCH + "test_leaving_a_stream_closes_the_adapter_s",
            _GRPC + "test_a_cancel_reaches_the_adapter",
        ),
        why="callers that leave early are not accounted for",
    ),
    Mutant(
        "records-close-twice",
        "G9",
        "services/usage.py",
        find="        if self.outcome:\n            return False\n",
        replace="",
        tests=("tests/unit/test_usage.py::test_a_record_is_closed_once",),
        why="a call is counted twice",
    ),
    Mutant(
        "audio-is-not-metered",
        "G12",
        "services/usage.py",
        find='            self.audio_seconds, self.source = float(seconds), "upstream"',
        replace="            pass",
        tests=("tests/unit/test_usage.py::test_figures_are_taken_as_the_upstream_tells_them",),
        why="transcriptions cost nothing",
    ),
    Mutant(
        "documents-are-not-metered",
        "G12",
        "services/rerank.py",
        find="call.usage.documents = len(documents) if isinstance(documents, list) else 1",
        replace="pass",
        tests=(_DISPATCH + "test_the_documents_of_a_rerank_are_counted",),
        why="rerankings cost nothing",
    ),
    Mutant(
        "failed-calls-keep-their-lease",
        "G13",
        "services/routing/admission.py",
        find="        route.in_flight -= 1\n        if verdict is True:\n",
        replace="        if verdict is True:\n            route.in_flight -= 1\n",
        tests=(_DISPATCH + "test_a_failed_call_has_one_record_and_no_lease",),
        why="a provider fills up with calls that have ended",
    ),
    Mutant(
        "no-limit-on-calls-in-flight",
        "G15",
        "services/inflight.py",
        find="if self.limit is not None and self.count >= self.limit:",
        replace="if False:",
        tests=(
            "tests/unit/test_inflight.py::test_at_the_limit_a_call_is_refused_and_costs_nothing",
            _GRPC + "test_too_many_calls_at_once_are_refused",
        ),
        why="overload takes everything down",
    ),
    Mutant(
        "max-concurrency-is-ignored",
        "G15",
        "services/routing/table.py",
        find="return self.max_concurrency is None or self.in_flight < self.max_concurrency",
        replace="return True",
        tests=(
            "tests/unit/test_routing.py::test_routes_at_their_limit_take_nothing",
            "tests/unit/test_routing.py::test_a_full_group_passes_on_to_the_next_priority",
        ),
        why="a provider gets more than it can bear",
    ),
    Mutant(
        "bulks-read-without-end",
        "G15",
        "services/bulk.py",
        find="                await self._take(size)\n",
        replace="",
        tests=(
            "tests/unit/test_embed_bulk.py::test_answers_that_nobody_reads_hold_back_further_items",
        ),
        why="one bulk floods an upstream",
    ),
    Mutant(
        "no-connect-limit",
        "G21",
        "services/upstream/own_transport.py",
        find="limit = asyncio.timeout(self._timeouts.connect)",
        replace="limit = asyncio.timeout(self._timeouts.connect + 30)",
        tests=(_TIMES + "test_connect_strikes_when_nobody_accepts",),
        why="a dead host holds calls",
    ),
    Mutant(
        "no-first-byte-limit",
        "G21",
        "services/upstream/connection.py",
        find='self._arm("first_byte", first_byte)',
        replace='self._arm("first_byte", first_byte + 30)',
        tests=(_TIMES + "test_first_byte_strikes_before_the_headers_are_complete",),
        why="a hung upstream holds calls",
    ),
    Mutant(
        "no-idle-limit",
        "G21",
        "services/upstream/connection.py",
        find='            self._arm("idle", idle)\n            await self._wait(_PIECE)',
        replace="            await self._wait(_PIECE)",
        tests=(_TIMES + "test_idle_strikes_in_a_stream",),
        why="no limit between tokens",
    ),
    Mutant(
        "no-total-limit",
        "G21",
        "services/dispatch.py",
        find='with call.limit(adapter.endpoint.timeouts.total, "total"):',
        replace='with call.limit(None, "total"):',
        tests=(_GRPC + "test_our_own_limit_is_told_with_its_name[Chat-timeouts0]",),
        why="a unary call may last for ever",
    ),
    Mutant(
        "no-total-limit-of-streams",
        "G21",
        "services/call.py",
        find="        if self._outer is not None and seconds is not None:\n"
        "            self._outer.tighten(seconds, which)",
        replace="        return",
        tests=(
            _GRPC + "test_our_own_limit_is_told_with_its_name[StreamChat-timeouts1]",
            _GRPC + "test_a_stream_s_limit_strikes_although_the_caller_does_not_read",
        ),
        why="a stream may last for ever",
    ),
    Mutant(
        "the-deadline-does-not-cap",
        "G21",
        "services/call.py",
        find="if seconds is None or (end is not None and end <= now + seconds):",
        replace="if seconds is None:",
        tests=(_CALL + "test_the_error_names_the_limit_that_struck",),
        why="our limits outlast the caller's deadline",
    ),
    Mutant(
        "rest-timeout-is-ignored",
        "G21",
        "gateway_http/request.py",
        find="    return asyncio.get_running_loop().time() + int(told) / 1000",
        replace="    return None",
        tests=(
            "tests/unit/test_rest_requests.py"
            "::test_a_caller_s_timeout_becomes_the_deadline_of_the_call",
            "tests/faces/test_refusals.py::test_the_caller_s_deadline_strikes_on_both_faces",
        ),
        why="x-request-timeout-ms does nothing",
    ),
    Mutant(
        "health-stays-serving",
        "G36",
        "services/server/health.py",
        find="        self._serving, self._ended = False, True\n",
        replace="        self._ended = True\n",
        tests=(_GRPC + "test_health_tells_of_every_service",),
        why="load balancers send calls to a process that leaves",
    ),
    Mutant(
        "watches-outlive-the-drain",
        "G36",
        "services/server/health.py",
        find="            elif self._ended:\n                return\n",
        replace="",
        tests=(_GRPC + "test_a_watch_ends_when_the_server_drains[tetrad.v1.ChatService]",),
        why="an open watch holds up the drain",
    ),
    Mutant(
        "a-draining-process-takes-calls",
        "G36",
        "services/inflight.py",
        find="        if self.draining:\n            raise errors.Draining\n",
        replace="",
        tests=(
            "tests/unit/test_inflight.py::test_a_drain_lets_nothing_more_in",
            _GRPC + "test_a_draining_server_lets_no_call_in",
        ),
        why="the drain never ends",
    ),
    Mutant(
        "no-grace-for-open-streams",
        "G36",
        "services/app.py",
        find="        grace = runtime.config.drain.grace\n",
        replace="        grace = 0.0\n",
        tests=(
            "tests/program/test_stop.py"
            "::test_an_open_stream_finishes_while_readiness_says_that_we_leave",
        ),
        why="streams are cut on a rolling deploy",
    ),
    Mutant(
        "ready-while-draining",
        "G36",
        "gateway_http/health.py",
        find='status = "draining" if state.draining else "ready" if good else "not ready"',
        replace='status = "ready" if good or state.draining else "not ready"',
        tests=(
            "tests/program/test_stop.py"
            "::test_an_open_stream_finishes_while_readiness_says_that_we_leave",
        ),
        why="load balancers send calls to a process that leaves",
    ),
    Mutant(
        "probes-ask-for-generation",
        "G39",
        "services/upstream/probe.py",
        find="        status = await asked.status(_HEALTH.get(endpoint.kind, MODELS))",
        replace='        status = (await asked.post("/v1/chat/completions", {})).status',
        tests=("tests/unit/test_upstream_probe.py::test_a_server_that_answers_is_alive",),
        why="probes cost tokens",
    ),
    Mutant(
        "traceparent-is-dropped",
        "G40",
        "services/metadata.py",
        find='PASS_IN = frozenset({"traceparent", "tracestate", "baggage"})',
        replace='PASS_IN = frozenset({"tracestate", "baggage"})',
        tests=(
            "tests/unit/test_metadata.py::test_tracing_passes_and_nothing_else",
            _GRPC + "test_the_caller_s_tracing_reaches_the_adapter",
            "tests/faces/test_metadata.py::test_only_known_and_allowed_names_pass",
        ),
        why="traces break at the gateway",
    ),
    Mutant(
        "the-caller-s-key-goes-upstream",
        "metadata",
        "services/metadata.py",
        find="if name == REQUEST_ID or name in NOT_PASSED or not isinstance(value, str):",
        replace="if name == REQUEST_ID or not isinstance(value, str):",
        tests=(
            "tests/unit/test_metadata.py"
            "::test_a_caller_s_key_never_passes_whatever_the_configuration_allows",
        ),
        why="an upstream learns our callers' keys",
    ),
    Mutant(
        "any-metadata-passes",
        "metadata",
        "services/metadata.py",
        find="        if name in PASS_IN or name in allowed:\n",
        replace="        if name:\n",
        tests=("tests/unit/test_metadata.py::test_tracing_passes_and_nothing_else",),
        why="callers reach into the upstream's headers",
    ),
    Mutant(
        "dead-routes-are-chosen",
        "routing",
        "services/routing/table.py",
        find="return self.ready and self.paused_until <= now and self.breaker.allows()",
        replace="return self.paused_until <= now and self.breaker.allows()",
        tests=("tests/unit/test_routing.py::test_routes_that_are_not_ready_are_left_out",),
        why="calls go to dead providers",
    ),
    Mutant(
        "once-readable-bodies-are-sent-twice",
        "G19",
        "services/upstream/own_transport.py",
        find="self._transport.pool.take(origin) if self._again else None",
        replace="self._transport.pool.take(origin)",
        tests=(
            "tests/unit/test_upstream_transport.py"
            "::test_a_body_that_can_be_read_once_is_not_sent_twice",
        ),
        why="an upload is repeated without its beginning",
    ),
    Mutant(
        "fresh-connections-are-retried",
        "G19",
        "services/upstream/own_transport.py",
        find="if kept and lost and",
        replace="if lost and",
        tests=(
            "tests/unit/test_upstream_transport.py"
            "::test_a_new_connection_that_dies_is_not_tried_again",
        ),
        why="requests that killed a server are sent again",
    ),
    Mutant(
        "an-idle-gateway-closes-at-once",
        "G36",
        "services/app.py",
        find="        await asyncio.sleep(min(STRAGGLERS, running.runtime.config.drain.grace))\n",
        replace="",
        tests=(
            "tests/program/test_stop.py"
            "::test_calls_on_their_way_to_an_idle_gateway_that_ends_are_refused_in_order",
        ),
        why="a rollout loses the calls of that moment",
    ),
)
