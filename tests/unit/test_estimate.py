"""services/estimate.py: what a call used where its upstream does not say."""

from __future__ import annotations

from typing import Any

import pytest

from services import estimate
from services.body import Body
from services.call import Call

CHAT, EMBED = "text-generation", "text-embeddings-inference"
RERANK, SPEECH = "text-classification", "automatic-speech-recognition"
HI = {"messages": [{"role": "user", "content": "x" * 8}]}


def chunk(**choice: Any) -> Body:
    return Body.from_value("StreamChatResponse", {"choices": [{"index": 0, **choice}]})


def a_call(type: str = CHAT, attempts: int = 1) -> Call:
    call = Call("id", "Chat", "rest")
    call.type, call.attempts = type, attempts
    return call


def completed(call: Call, request: dict[str, Any], outcome: str = "OK") -> tuple[Any, ...]:
    estimate.complete(call, Body.from_value("ChatRequest", request), outcome)
    usage = call.usage
    return usage.source, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"role": "assistant"}},
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"role": "assistant", "content": None, "tool_calls": []}},
        {"delta": {}},
        {"delta": None, "finish_reason": None},
    ],
)
def test_a_chunk_with_no_more_than_a_role_says_nothing(choice: dict[str, Any]) -> None:
    assert estimate.says_nothing(chunk(**choice))


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": "a"}},
        {"delta": {"reasoning_content": "a"}},
        {"delta": {"tool_calls": [{"index": 0}]}},
        {"delta": {}, "finish_reason": "stop"},
    ],
)
def test_content_a_tool_call_and_a_finish_say_something(choice: dict[str, Any]) -> None:
    assert not estimate.says_nothing(chunk(**choice))


def test_usage_and_other_streams_say_something() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 1}}
    assert not estimate.says_nothing(Body.from_value("StreamChatResponse", usage))
    event = {"type": "transcript.text.delta", "delta": ""}
    assert not estimate.says_nothing(Body.from_value("StreamTranscribeResponse", event))


def test_a_chat_s_tokens_are_a_quarter_of_its_characters() -> None:
    call = a_call()
    estimate.delivered(call, chunk(delta={"content": "abcdefgh"}), chunk(delta={"content": "i"}))
    tool = {"function": {"name": "f", "arguments": '{"a":1}'}}
    estimate.delivered(call, chunk(delta={"tool_calls": [tool]}))
    assert completed(call, HI) == ("estimated", 2, 5, 7)


@pytest.mark.parametrize(
    ("type", "request_", "tokens"),
    [
        (EMBED, {"input": "x" * 9}, 3),
        (EMBED, {"input": ["x" * 8, "x" * 8]}, 4),
        (EMBED, {"input": [1, 2, 3]}, 3),
        (EMBED, {"input": [[1, 2], [3]]}, 3),
        (
            EMBED,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 8}]}]},
            2,
        ),
        (RERANK, {"query": "x" * 4, "documents": ["x" * 4, {"text": "x" * 8}]}, 5),
    ],
)
def test_inputs_are_counted_in_all_their_forms(
    type: str, request_: dict[str, Any], tokens: int
) -> None:
    assert completed(a_call(type), request_) == ("estimated", tokens, None, tokens)


def test_what_the_upstream_said_is_never_replaced() -> None:
    """G10: zero is a value."""
    call = a_call()
    call.usage.tokens({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    estimate.delivered(call, chunk(delta={"content": "abcdefgh"}))
    assert completed(call, HI) == ("upstream", 0, 0, 0)


@pytest.mark.parametrize("outcome", ["CANCELLED", "DEADLINE_EXCEEDED"])
def test_who_left_while_an_upstream_worked_used_at_least_the_prompt(outcome: str) -> None:
    """G9."""
    assert completed(a_call(), HI, outcome) == ("estimated", 2, 0, 2)
    assert completed(a_call(attempts=0), HI, outcome) == ("none", None, None, None)


def test_a_failure_before_any_answer_used_nothing() -> None:
    assert completed(a_call(), HI, "UNAVAILABLE") == ("none", None, None, None)
    call = a_call()
    call.chunks = 1
    assert completed(call, HI, "UNAVAILABLE")[0] == "estimated"


def test_seconds_of_audio_are_not_guessed() -> None:
    assert completed(a_call(SPEECH), {}) == ("none", None, None, None)
