"""Chat with the demo, over HTTP: completions, streams, tools, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from demo.eliza import INTRODUCTION
from tests.lib.process import Program
from tests.unit.demo_process import CHAT, connected, error, running


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with running("--pace", "1") as started:
        yield started


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with connected(program) as opened:
        yield opened


def chat(client: httpx.Client, text: str = "I feel stuck", **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": CHAT, "messages": messages} | more
    return client.post("/v1/chat/completions", json=body)


def events(answer: httpx.Response) -> list[Any]:
    """The events of a complete stream, without [DONE]."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def test_a_chat_is_answered(client: httpx.Client) -> None:
    answer = chat(client).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == CHAT
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].startswith(INTRODUCTION)
    written = len(choice["message"]["content"].split())
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": written,
        "total_tokens": 3 + written,
    }


def test_content_may_come_in_parts(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "say"}, {"type": "text", "text": "hi"}]
    answer = chat(client, messages=[{"role": "user", "content": parts}]).json()
    assert answer["choices"][0]["message"]["content"].endswith("\n\nhi")
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    answer = chat(client, messages=[{"role": "user", "content": picture}]).json()
    assert "only read text" in answer["choices"][0]["message"]["content"]


def test_several_choices_differ_and_a_seed_repeats_them(client: httpx.Client) -> None:
    one, two = (chat(client, n=3, seed=5).json()["choices"] for _ in range(2))
    assert [choice["index"] for choice in one] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in one}) == 3
    assert one == two


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_answer(client: httpx.Client, name: str) -> None:
    answer = chat(client, "count to 100", **{name: 30}).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 30


@pytest.mark.parametrize("stop", [" 4", ["never", "4 5"]])
def test_a_stop_text_ends_the_answer_before_it(client: httpx.Client, stop: Any) -> None:
    (choice,) = chat(client, "count to 9", stop=stop).json()["choices"]
    assert choice["message"]["content"].split("\n\n")[1].strip() == "1 2 3"
    assert choice["finish_reason"] == "stop"


def test_a_stream_is_role_words_finish_usage_done(client: httpx.Client) -> None:
    usage_too = {"include_usage": True}
    chunks = events(chat(client, stream=True, seed=1, stream_options=usage_too))
    whole = chat(client, seed=1).json()
    *told, usage = chunks
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in told]
    assert deltas[0]["role"] == "assistant"
    assert all("role" not in delta for delta in deltas[1:])
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in told]
    assert finishes == [None] * (len(told) - 1) + ["stop"]
    assert all(chunk["usage"] is None for chunk in told)
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]
    assert len(deltas) == whole["usage"]["completion_tokens"] + 2


def test_usage_is_streamed_only_when_asked_for(client: httpx.Client) -> None:
    assert not any("usage" in chunk for chunk in events(chat(client, stream=True)))


def test_the_choices_of_a_stream_come_in_turns(client: httpx.Client) -> None:
    chunks = events(chat(client, stream=True, n=2))
    order = [chunk["choices"][0]["index"] for chunk in chunks]
    assert order[:6] == [0, 1, 0, 1, 0, 1]
    finished = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(finished) == [0, 1]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "kelvin"]}},
                "required": ["city"],
            },
        },
    }
    for name in ("book_flight", "get_weather")
]
QUESTION = "How is the weather in Paris?"
NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_tool_is_called_when_it_must_be(client: httpx.Client, choice: Any) -> None:
    (told,) = chat(client, QUESTION, tools=TOOLS, tool_choice=choice).json()["choices"]
    assert told["finish_reason"] == "tool_calls"
    assert told["message"]["content"] is None
    (call,) = told["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris", "unit": "celsius"}


def test_a_tool_call_is_streamed_in_fragments(client: httpx.Client) -> None:
    chunks = events(chat(client, QUESTION, tools=TOOLS, tool_choice="required", stream=True))
    calls = [
        call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["id"]
    assert calls[0]["function"]["name"] == "get_weather"
    assert len(calls) > 3
    text = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(text) == {"city": "Paris", "unit": "celsius"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_left_to_itself_it_calls_a_tool_only_by_name(client: httpx.Client) -> None:
    assert chat(client, QUESTION, tools=TOOLS).json()["choices"][0]["finish_reason"] == "stop"
    asked = chat(client, "Use get_weather for Rome", tools=TOOLS).json()["choices"][0]
    assert asked["finish_reason"] == "tool_calls"
    none = chat(client, "Use get_weather", tools=TOOLS, tool_choice="none").json()["choices"][0]
    assert none["finish_reason"] == "stop"


def test_a_tool_s_result_is_taken_up(client: httpx.Client) -> None:
    (told,) = chat(client, QUESTION, tools=TOOLS, tool_choice="required").json()["choices"]
    result = {
        "role": "tool",
        "tool_call_id": told["message"]["tool_calls"][0]["id"],
        "content": "22 degrees",
    }
    messages = [{"role": "user", "content": QUESTION}, told["message"], result]
    (told,) = chat(client, messages=messages, tools=TOOLS).json()["choices"]
    assert told["message"]["content"] == "The tool says: 22 degrees"


def test_a_custom_tool_gets_the_words_as_they_are(client: httpx.Client) -> None:
    tools = [{"type": "custom", "custom": {"name": "shout"}}]
    (told,) = chat(client, "be loud", tools=tools, tool_choice="required").json()["choices"]
    assert told["message"]["tool_calls"][0]["custom"] == {"name": "shout", "input": "be loud"}


def test_answers_are_json_when_asked_for(client: httpx.Client) -> None:
    free = chat(client, response_format={"type": "json_object"}).json()["choices"][0]
    assert json.loads(free["message"]["content"])["rule_based"] is True
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 4}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    chunks = events(chat(client, response_format=form, stream=True))
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert json.loads(text) == {"n": 4}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"seed": "x"}, "seed"),
        ({"stream_options": 5}, "stream_options"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"tools": [{}]}, "tools"),
        ({"tool_choice": "required"}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"response_format": {"type": "poem"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "response_format",
        ),
    ],
)
def test_a_chat_that_makes_no_sense_is_refused(
    client: httpx.Client, more: dict[str, Any], param: str
) -> None:
    found = error(chat(client, **more), 400)
    assert found["param"] == param
    assert found["type"] == "invalid_request_error"


def test_a_client_that_leaves_ends_the_stream(client: httpx.Client, program: Program) -> None:
    body = {"messages": [{"role": "user", "content": "count to 2000"}], "stream": True}
    with client.stream("POST", "/v1/chat/completions", json={"model": CHAT, **body}) as answer:
        next(answer.iter_lines())
    count = program.wait_for(r"chat stream given up after (\d+) events")[1]
    assert 0 < int(count) < 2000
