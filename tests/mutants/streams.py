"""Mutants of streams: events, finishes, usage, ends."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_STREAM = "tests/unit/test_upstream_stream.py::"
_CUT = "tests/faults/test_upstream_truncated.py::"
_SSE = "tests/unit/test_sse.py::"
_REST = "tests/unit/test_rest_streams.py::"
_LIVE = "tests/unit/test_rest_liveness.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "an-end-is-a-success",
        "G1",
        "services/upstream/states.py",
        find="""            Signal.FINISH: _FINISHED,
            Signal.MARK: State.TRUNCATED,
            Signal.ERROR: State.FAILED,
            Signal.END: State.TRUNCATED,
        },
        _FINISHED: {""",
        replace="""            Signal.FINISH: _FINISHED,
            Signal.MARK: State.TRUNCATED,
            Signal.ERROR: State.FAILED,
            Signal.END: State.COMPLETE,
        },
        _FINISHED: {""",
        tests=(
            _STREAM + "test_an_end_is_a_success_only_after_a_finish",
            _CUT + "test_a_stream_that_is_cut_is_a_success_only_after_its_finish[own-fin-close]",
        ),
        why="half an answer looks whole",
    ),
    Mutant(
        "truncation-is-not-raised",
        "G1",
        "services/upstream/stream.py",
        find="        if self.state is State.TRUNCATED:",
        replace="        if False:",
        tests=(
            _STREAM + "test_done_without_a_finish_is_truncated",
            _STREAM + "test_a_transcription_cut_at_any_byte_is_a_success_only_if_its_text_was"
            "_whole",
            _CUT + "test_a_stream_that_is_cut_is_a_success_only_after_its_finish[own-fin-close]",
        ),
        why="half an answer looks whole",
    ),
    Mutant(
        "rest-failure-ends-with-done",
        "G1",
        "gateway_http/calls.py",
        find="await answer.finish(sse.event(shown.sse_event(error, call.id, exchange.error_body)))",
        replace="await answer.finish(operation.ending)",
        tests=(
            _REST + "test_a_failure_after_the_first_chunk_is_the_last_event_and_closes_the"
            "_connection",
            "tests/unit/test_rest_openai_sdk.py::test_a_stream_that_fails_raises",
        ),
        why="a REST caller sees [DONE] after a failure",
    ),
    Mutant(
        "done-after-the-error-event",
        "G1",
        "gateway_http/calls.py",
        find="await answer.finish(sse.event(shown.sse_event(error, call.id, exchange.error_body)))",
        replace="""await answer.finish(
                    sse.event(shown.sse_event(error, call.id, exchange.error_body))
                    + operation.ending
                )""",
        tests=(
            _REST + "test_a_failure_after_the_first_chunk_is_the_last_event_and_closes_the"
            "_connection",
        ),
        why="[DONE] follows an error event",
    ),
    Mutant(
        "reset-is-an-orderly-end",
        "G1",
        "services/upstream/exchange.py",
        find="""            except errors.TetradError:
                if not stream.settled:
                    raise
                data = None""",
        replace="""            except errors.TetradError:
                stream._move(Signal.FINISH)
                data = None""",
        tests=(
            _CUT + "test_a_stream_that_is_cut_is_a_success_only_after_its_finish[own-rst-chunked]",
        ),
        why="a reset in the middle is taken for the end",
    ),
    Mutant(
        "finish-reasons-are-stop",
        "G3",
        "services/upstream/openai.py",
        find="                    Body.from_json(codec.CHUNK, c.data, c.value)\n",
        replace="                    Body.from_json("
        """codec.CHUNK, c.data.replace(b'"length"', b'"stop"'))\n""",
        tests=("tests/faces/test_chat.py::test_a_finish_reason_is_never_changed",),
        why="a cut answer claims that it ended by itself",
    ),
    Mutant(
        "one-finished-choice-is-enough",
        "G4",
        "services/upstream/stream.py",
        find="done = bool(self._finished) and all(self._finished.values())",
        replace="done = bool(self._finished) and any(self._finished.values())",
        tests=(_STREAM + "test_every_choice_must_finish",),
        why="with n > 1 the slower choices may be lost",
    ),
    Mutant(
        "done-proves-success",
        "G4",
        "services/upstream/states.py",
        find="""            Signal.PART: _RUNNING,
            Signal.FINISH: _FINISHED,
            Signal.MARK: State.TRUNCATED,
            Signal.ERROR: State.FAILED,
            Signal.END: State.TRUNCATED,
        },
        _RUNNING: {
            Signal.NEUTRAL: _RUNNING,
            Signal.PART: _RUNNING,
            Signal.FINISH: _FINISHED,
            Signal.MARK: State.TRUNCATED,""",
        replace="""            Signal.PART: _RUNNING,
            Signal.FINISH: _FINISHED,
            Signal.MARK: State.TRUNCATED,
            Signal.ERROR: State.FAILED,
            Signal.END: State.TRUNCATED,
        },
        _RUNNING: {
            Signal.NEUTRAL: _RUNNING,
            Signal.PART: _RUNNING,
            Signal.FINISH: _FINISHED,
            Signal.MARK: State.COMPLETE,""",
        tests=(
            _STREAM + "test_done_without_a_finish_is_truncated",
            _CUT + "test_a_200_that_is_no_stream_is_an_error[own-[DONE] without a finish]",
        ),
        why="[DONE] of a proxy hides a dead upstream",
    ),
    Mutant(
        "usage-is-not-awaited",
        "G4",
        "services/upstream/exchange.py",
        find="patience = asyncio.get_running_loop().time() + AWAIT_USAGE",
        replace="break",
        tests=(
            _CUT + "test_a_stream_without_done_waits_two_seconds_for_its_usage",
            "tests/faces/test_openai_sdk.py::test_a_chat_is_streamed_with_its_usage",
        ),
        why="usage after the finish is lost",
    ),
    Mutant(
        "usage-is-awaited-for-ever",
        "G4",
        "services/upstream/exchange.py",
        find="async with asyncio.timeout_at(until):",
        replace="async with asyncio.timeout_at(until + 5):",
        tests=(_CUT + "test_a_stream_without_done_waits_two_seconds_for_its_usage",),
        why="a server without [DONE] holds its caller up",
    ),
    Mutant(
        "usage-only-without-choices",
        "G10",
        "services/upstream/stream.py",
        find="        if usage is not None:\n            self._count(usage)",
        replace='        if usage is not None and not value.get("choices"):\n'
        "            self._count(usage)",
        tests=(_STREAM + "test_usage_is_counted_from_any_chunk_and_zero_is_a_value",),
        why="usage beside choices is not billed",
    ),
    Mutant(
        "zero-usage-is-none",
        "G10",
        "services/usage.py",
        find="if value.__class__ is int and 0 <= value <= _MOST:\n",
        replace="if value.__class__ is int and 0 < value <= _MOST:\n",
        tests=("tests/unit/test_usage.py::test_figures_are_taken_as_the_upstream_tells_them",),
        why="zero tokens become unknown",
    ),
    Mutant(
        "our-usage-chunk-is-shown",
        "usage",
        "services/upstream/stream.py",
        find='if self._usage_asked or choices != [] or value.get("usage") is None:',
        replace="if value:",
        tests=(
            _STREAM + "test_a_usage_chunk_that_only_we_asked_for_is_not_delivered",
            "tests/faces/test_openai_sdk.py::test_without_being_asked_no_usage_chunk_comes",
        ),
        why="callers meet a chunk without choices that they never asked for",
    ),
    Mutant(
        "usage-is-not-asked-for",
        "usage",
        "services/upstream/openai.py",
        find='return {**(options or {}), "include_usage": True}',
        replace="return options",
        tests=(
            "tests/unit/test_upstream_adapters.py::test_usage_is_always_asked_for_where_it_can_be",
        ),
        why="streams are not metered",
    ),
    Mutant(
        "error-frames-are-chunks",
        "G18",
        "services/upstream/stream.py",
        find="if is_error or errors.error_in_body(value):",
        replace="if is_error and not isinstance(value, dict):",
        tests=(_CUT + "test_an_error_inside_a_stream_ends_it_as_that_error",),
        why="an error inside a 200 is passed on as content",
    ),
    Mutant(
        "chunks-after-an-error",
        "G18",
        "services/upstream/stream.py",
        find="""        for event in events:
            if self.over:
                break
""",
        replace="        for event in events:\n",
        tests=(_STREAM + "test_what_comes_after_done_is_not_looked_at",),
        why="what follows the end is delivered",
    ),
    Mutant(
        "sse-line-cut-is-a-line",
        "G24",
        "services/sse.py",
        find="""            rest = data[cut + 1 :]
            if rest:
                self._line += rest""",
        replace="""            rest = data[cut + 1 :]
            if rest:
                self._take(rest)""",
        tests=(_SSE + "test_a_recorded_stream_is_the_same_at_every_split_point",),
        why="reads that cut a line garble events",
    ),
    Mutant(
        "sse-crlf-cut-is-two-ends",
        "G24",
        "services/sse.py",
        find="        if self._skip_lf and data[0] == _LF:\n            data = data[1:]\n",
        replace="",
        tests=(_SSE + "test_cutting_a_stream_anywhere_never_changes_its_events",),
        why="CRLF cut between two reads ends an event early",
    ),
    Mutant(
        "sse-space-is-needed",
        "G24",
        "services/sse.py",
        find='self._data = self._joined(self._data, line[6:] if line[5:6] == b" " else line[5:])',
        replace="self._data = self._joined(self._data, line[6:])",
        tests=(_SSE + "test_only_one_space_after_the_colon_is_framing",),
        why="`data:` without a space loses a byte",
    ),
    Mutant(
        "sse-cut-event-is-dispatched",
        "G24",
        "services/sse.py",
        find="        self._data = self._data if _is_whole(self._data) else None\n",
        replace="",
        tests=(_SSE + "test_a_truncated_event_is_not_dispatched",),
        why="half a JSON text is an event",
    ),
    Mutant(
        "sse-fast-path-too-wide",
        "G24",
        "services/sse.py",
        find='if data.count(b"\\n") == 2 * len(parts) and min(parts) > b"!":',
        replace="if parts:",
        tests=(
            "tests/unit/test_mutants_gap_sse.py"
            "::test_a_read_that_only_looks_plain_gives_the_events_of_the_rules",
        ),
        why="the fast path takes what the rules read otherwise",
    ),
    Mutant(
        "sse-line-ends-in-data",
        "G24",
        "services/sse.py",
        find='        data = _one_line_end(data).replace(b"\\n", b"\\ndata: ")\n',
        replace="        data = _one_line_end(data)\n",
        tests=(_SSE + "test_an_event_is_written_as_lines",),
        why="a pretty-printed chunk breaks our own framing",
    ),
    Mutant(
        "no-heartbeat-between-chunks",
        "G25",
        "gateway_http/stream.py",
        find="due = self._since + self._every if self.started else self._first",
        replace="due = self._since + 1e9 if self.started else self._first",
        tests=(_LIVE + "test_silence_between_chunks_is_broken_by_comments",),
        why="load balancers cut silent streams",
    ),
    Mutant(
        "no-heartbeat-before-the-first",
        "G25",
        "gateway_http/stream.py",
        find="due = self._since + self._every if self.started else self._first",
        replace="due = self._since + self._every if self.started else now + 1e9",
        tests=(
            _LIVE + "test_silence_before_the_first_chunk_ends_with_a_comment_and_comments_go_on",
        ),
        why="load balancers cut streams that wait for their first token",
    ),
    Mutant(
        "headers-before-the-first-event",
        "streams",
        "gateway_http/calls.py",
        find="            try:\n                await self._write(request, call, answer)",
        replace="            try:\n                await answer._start()\n"
        "                await self._write(request, call, answer)",
        tests=(
            _LIVE + "test_headers_wait_for_the_first_chunk",
            _REST + "test_a_failure_before_the_first_chunk_has_its_own_status",
        ),
        why="a refusal comes as 200",
    ),
    Mutant(
        "stalled-readers-are-kept",
        "streams",
        "gateway_http/stream.py",
        find="                self._stalled()\n                return\n",
        replace="                return\n",
        tests=(_LIVE + "test_a_caller_that_no_longer_reads_is_given_up",),
        why="a caller that reads no more holds an upstream",
    ),
    Mutant(
        "grpc-metadata-before-the-first-message",
        "streams",
        "services/server/bind.py",
        find="        started = False\n",
        replace="        await context.send_initial_metadata(outgoing(call))\n"
        "        started = True\n",
        tests=(
            "tests/unit/test_grpc_face.py"
            "::test_an_answer_that_cannot_be_read_is_the_upstream_s_fault",
        ),
        why="clients may no longer retry",
    ),
)
