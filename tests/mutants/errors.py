"""Mutants of errors: the table, what callers may see, budgets, retries."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_TABLE = "tests/contract/test_error_table.py::"
_STATUS = "tests/unit/test_status.py::"
_WORDS = "tests/unit/test_error_text.py::"
_CUT = "tests/faults/test_upstream_truncated.py::"

MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "an-unparsable-200-is-an-answer",
        "G2",
        "services/upstream/openai.py",
        find='        if "choices" not in value:\n'
        "            raise self._exchange.unreadable(answer, answer.body)\n",
        replace="",
        tests=(_CUT + "test_a_200_that_is_no_answer_is_an_error[own-chat-another object]",),
        why="a 200 that is no answer is passed on",
    ),
    Mutant(
        "a-short-body-is-an-answer",
        "G2",
        "services/upstream/exchange.py",
        find="            if answer.delimited and answer.body.strip():\n"
        "                raise self.unreadable(answer, answer.body) from None\n",
        replace='            return {"choices": []}\n',
        tests=(_CUT + "test_a_200_that_is_no_answer_is_an_error[own-chat-half an object]",),
        why="half an answer is a 200",
    ),
    Mutant(
        "a-body-that-breaks-off-is-whole",
        "G2",
        "services/upstream/connection.py",
        find="        if self.error is None and not reader.complete:\n",
        replace="        reader.complete = reader.has_head\n"
        "        if self.error is None and not reader.complete:\n",
        tests=(
            _CUT + "test_an_answer_that_lacks_only_its_last_chunk_is_an_error",
            "tests/unit/test_upstream_transport.py::test_a_short_body_is_truncated",
        ),
        why="a reset is a regular end",
    ),
    Mutant(
        "an-error-in-a-200-is-an-answer",
        "G2",
        "services/upstream/exchange.py",
        find="        if errors.error_in_body(value):\n            raise self.error(value)\n",
        replace="",
        tests=(
            _CUT + "test_a_200_that_is_no_answer_is_an_error[own-chat-an error beside an answer]",
        ),
        why="an error object is passed on as 200",
    ),
    Mutant(
        "a-200-of-rest-without-json",
        "G2",
        "services/body.py",
        find="""            return codec.encode_value(self.message, self._value)
        except (codec.CodecError, codec.JsonError) as error:
            raise self._fault(error) from None
""",
        replace="""            return codec.encode_value(self.message, self._value)
        except (codec.CodecError, codec.JsonError):
            return b""
""",
        tests=(
            "tests/unit/test_rest_answers.py"
            "::test_an_answer_that_has_no_json_is_the_upstream_s_fault_and_not_the_caller_s",
        ),
        why="an unreadable answer is a 200",
    ),
    Mutant(
        "404-is-our-fault",
        "G22",
        "services/error_table.py",
        find="        404: Reason.MODEL_NOT_FOUND,",
        replace="        404: Reason.UPSTREAM_PROTOCOL,",
        tests=(
            _TABLE + "test_every_upstream_status_gives_the_contracts_code_reason_and_rest_status",
        ),
        why="the table is not the contract's",
    ),
    Mutant(
        "401-of-the-upstream-is-the-caller-s",
        "G22",
        "services/error_table.py",
        find="        401: Reason.UPSTREAM_AUTH,",
        replace="        401: Reason.UNAUTHENTICATED,",
        tests=(
            _TABLE + "test_every_upstream_status_gives_the_contracts_code_reason_and_rest_status",
        ),
        why="callers are told that their key is wrong when ours is",
    ),
    Mutant(
        "unlisted-5xx-are-protocol-errors",
        "G22",
        "services/error_table.py",
        find="        5: Reason.UPSTREAM_UNAVAILABLE,",
        replace="        5: Reason.UPSTREAM_PROTOCOL,",
        tests=(
            _TABLE + "test_every_upstream_status_gives_the_contracts_code_reason_and_rest_status",
        ),
        why="the table is not total",
    ),
    Mutant(
        "a-row-of-the-table-changes",
        "G22",
        "services/error_table.py",
        find='"UNAVAILABLE", _S.SERVICE_UNAVAILABLE, _SERVER, "upstream_truncated",',
        replace='"UNAVAILABLE", _S.BAD_GATEWAY, _SERVER, "upstream_truncated",',
        tests=(_TABLE + "test_every_reason_has_the_contracts_row",),
        why="REST status of a truncated answer",
    ),
    Mutant(
        "context-length-is-any-refusal",
        "G22",
        "services/upstream_error.py",
        find="        return Reason.CONTEXT_LENGTH_EXCEEDED\n",
        replace="        return reason\n",
        tests=(
            "tests/unit/test_upstream_error.py"
            "::test_a_context_overflow_is_told_apart_and_its_figures_are_metadata",
            "tests/faces/test_openai_sdk_errors.py::test_too_long_a_prompt_has_its_code",
        ),
        why="clients cannot shorten their prompts by themselves",
    ),
    Mutant(
        "upstream-error-members-are-lost",
        "G22",
        "services/error_base.py",
        find='            "code": code,\n        } | own',
        replace='            "code": code,\n        }',
        tests=(
            _TABLE + "test_a_recorded_error_body_reaches_rest_callers_as_the_upstream_meant_it",
            "tests/unit/test_rest_answers.py"
            "::test_an_upstream_s_own_error_object_reaches_the_caller",
        ),
        why="the upstream's own words do not arrive",
    ),
    Mutant(
        "our-keys-are-shown",
        "G22",
        "services/error_text.py",
        find="        text = whole.sub(REDACTED, text)\n",
        replace="",
        tests=(
            _WORDS + "test_our_keys_never_reach_a_caller",
            "tests/faces/test_upstream_failures.py"
            "::test_an_upstream_s_body_is_told_to_grpc_callers_without_the_key",
        ),
        why="an upstream that repeats our key gives it to callers",
    ),
    Mutant(
        "secrets-are-not-handed-on",
        "G22",
        "services/upstream/exchange.py",
        find="        self._secrets = (endpoint.key,) if endpoint.key else ()\n",
        replace="        self._secrets: tuple[str, ...] = ()\n",
        tests=(
            "tests/faces/test_upstream_failures.py"
            "::test_an_upstream_s_body_is_told_to_grpc_callers_without_the_key",
        ),
        why="an upstream that repeats our key gives it to callers",
    ),
    Mutant(
        "pages-are-quoted",
        "G22",
        "services/error_text.py",
        find="    return excerpt(text, redact) if _PAGE.search(text) else _without_trace(text)\n",
        replace="    return _without_trace(text)\n",
        tests=(_WORDS + "test_html_inside_json_never_reaches_a_caller",),
        why="HTML reaches callers",
    ),
    Mutant(
        "traces-are-shown",
        "G22",
        "services/error_text.py",
        find="    trace = _TRACE.search(text)\n",
        replace="    trace = None if text else _TRACE.search(text)\n",
        tests=(_WORDS + "test_stack_traces_never_reach_a_caller",),
        why="stack traces reach callers",
    ),
    Mutant(
        "our-faults-are-told",
        "G22",
        "services/server/bind.py",
        find="        await self._abort(errors.Internal())",
        replace="        await self._abort(errors.Internal(repr(error)))",
        tests=(
            "tests/unit/test_grpc_face.py"
            "::test_a_fault_of_ours_is_internal_and_tells_nothing[Chat-error0]",
        ),
        why="our own exceptions reach callers",
    ),
    Mutant(
        "no-trailer-budget",
        "trailers",
        "services/server/status.py",
        find="    if cost(status) <= budget:\n        return status\n",
        replace="    if budget:\n        return status\n",
        tests=(
            _STATUS + "test_the_body_is_cut_before_the_message",
            _STATUS + "test_the_message_is_cut_when_no_body_is_left",
            _STATUS + "test_no_error_is_too_big_for_the_trailers",
        ),
        why="proxies drop the whole status",
    ),
    Mutant(
        "budget-without-base64",
        "trailers",
        "services/server/status.py",
        find="math.ceil(int(status.ByteSize()) * 4 / 3)",
        replace="int(status.ByteSize())",
        tests=(_STATUS + "test_the_body_is_cut_before_the_message",),
        why="the budget is a third too large",
    ),
    Mutant(
        "percent-encoding-is-free",
        "trailers",
        "services/server/status.py",
        find="    return 3 * len(encoded) - 2 * plain",
        replace="    return len(encoded) + 0 * plain",
        tests=(_STATUS + "test_the_message_is_cut_when_no_body_is_left",),
        why="a message in Greek is dropped on its way",
    ),
    Mutant(
        "no-error-info",
        "details",
        "services/server/status.py",
        find="    yield rpc.ErrorInfo(reason=error.reason.value, domain=DOMAIN, "
        "metadata=_metadata(error))\n",
        replace="",
        tests=(
            _STATUS + "test_every_error_says_its_domain_reason_and_figures",
            "tests/unit/test_grpc_face.py::test_unknown_methods_are_answered_with_details",
        ),
        why="clients cannot tell errors apart",
    ),
    Mutant(
        "no-pushback",
        "G19",
        "services/server/status.py",
        find='        trailers.append(("grpc-retry-pushback-ms", "-1"))',
        replace="        pass",
        tests=(_STATUS + "test_pushback_is_sent_exactly_where_the_table_or_the_path_says",),
        why="retries of client and gateway multiply",
    ),
    Mutant(
        "should-retry-is-not-told",
        "G19",
        "gateway_http/errors.py",
        find='        headers.append((b"x-should-retry", b"false"))',
        replace="        pass",
        tests=(
            _STATUS + "test_should_retry_false_is_sent_where_grpc_sends_its_pushback",
            "tests/faces/test_openai_sdk_errors.py"
            "::test_the_sdk_s_own_retries_leave_a_call_alone_that_reached_an_upstream",
        ),
        why="retries of client and gateway multiply",
    ),
    Mutant(
        "reached-calls-are-retried",
        "G19",
        "services/error_base.py",
        find="return not (self.row.retry is Retry.NEVER or self.reached or self.gave_up)",
        replace="return self.row.retry is not Retry.NEVER",
        tests=(
            "tests/unit/test_errors.py::test_a_client_may_retry_only_what_reached_no_upstream",
            _STATUS + "test_pushback_is_sent_exactly_where_the_table_or_the_path_says",
        ),
        why="work that an upstream began is done twice",
    ),
    Mutant(
        "no-retry-info",
        "G19",
        "services/server/status.py",
        find="        yield rpc.RetryInfo(retry_delay=_duration(error.wait))",
        replace="        pass",
        tests=(_STATUS + "test_a_wait_is_retry_info",),
        why="clients come back at once",
    ),
    Mutant(
        "no-retry-after",
        "G19",
        "gateway_http/errors.py",
        find='        headers.append((b"retry-after", b"%d" % math.ceil(error.wait)))\n',
        replace="",
        tests=(
            _STATUS + "test_a_wait_is_whole_seconds_rounded_up_and_exact_milliseconds",
            "tests/unit/test_rest_answers.py"
            "::test_a_time_to_wait_is_told_in_seconds_and_milliseconds",
        ),
        why="clients come back at once",
    ),
    Mutant(
        "the-upstream-s-wait-is-lost",
        "G19",
        "services/upstream_error.py",
        find='    milliseconds = headers.get("retry-after-ms", "").strip()\n',
        replace='    return None\n    milliseconds = ""\n',
        tests=(
            "tests/unit/test_upstream_error.py::test_an_upstreams_wait_is_read_in_every_form",
            "tests/faults/test_upstream_statuses.py"
            "::test_a_wait_that_the_upstream_asks_for_is_kept",
        ),
        why="clients come back before the upstream has recovered",
    ),
)
