"""`compat: {opengatellm: true}`: what OpenGateLLM's callers expect, and nothing of it without."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.fakes import answers
from tests.fakes.replies import DONE, Cut, Json, Sse, event
from tests.lib import canonical, form, recordings
from tests.lib.faces import File, parts, sse_data
from tests.lib.gateway import Gateway, gateway
from tests.lib.sdk import Sdk
from tests.lib.world import CHAT, EMBED, RERANK, SPEECH, World

pytestmark = pytest.mark.asyncio(loop_scope="package")

HI = [{"role": "user", "content": "hi"}]
PRICES = {"cost_prompt_tokens": 0.5, "cost_completion_tokens": 1.5}
ID = {"x-request-id": "req-of-mine"}

# name: (type, fake, kind, the upstream's name, more)
SERVED: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "acme/chat": (CHAT, "vllm", "vllm", "qwen3-8b", {**PRICES, "aliases": ["chat"]}),
    "free": (CHAT, "vllm", "vllm", "qwen3-8b", {}),
    "scripted-chat": (CHAT, "scripted", "openai", "acme/upstream-1", PRICES),
    "scripted-free": (CHAT, "scripted", "openai", "acme/upstream-1", {}),
    "scripted-rerank": (RERANK, "scripted", "openai", "acme/upstream-1", PRICES),
    "e5": (EMBED, "tei", "tei", "", PRICES),
    "openai-embed": (EMBED, "openai", "openai", "text-embedding-3-small", PRICES),
    "whisper": (SPEECH, "whisper", "whisper", "Systran/faster-whisper-small", {}),
    "whispercpp": (SPEECH, "whispercpp", "auto", "", {}),
    "vllm-speech": (SPEECH, "vllm-transcription", "vllm", "whisper-large-v3", {}),
    "rerank": (RERANK, "tei-reranker", "tei", "", PRICES),
    "vllm-rerank": (RERANK, "vllm-score", "vllm", "bge-reranker-v2-m3", {}),
}


def config(world: World, **sections: Any) -> str:
    """The models above in front of the world's fakes."""
    models = [
        {
            "name": name,
            "type": type,
            **more,
            "providers": [{"type": kind, "url": world.fakes[fake].url, "model_name": upstream}],
        }
        for name, (type, fake, kind, upstream, more) in SERVED.items()
    ]
    return json.dumps({"models": models, "probes": {"interval": 3600}, **sections})


@pytest.fixture(scope="module", params=[True, False], ids=["relaying", "recoding"])
def relay(request: pytest.FixtureRequest) -> bool:
    """Whether the gateways relay bytes, or send all through the codec."""
    return bool(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def compat(relay: bool, world: World) -> AsyncIterator[Gateway]:
    """A gateway in the mode."""
    async with gateway(config(world, compat={"opengatellm": True}, relay=relay)) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def plain(relay: bool, world: World) -> AsyncIterator[Gateway]:
    """A gateway on the same models without it."""
    async with gateway(config(world, relay=relay)) as one:
        yield one


async def post(gate: Gateway, path: str, body: Any, **headers: str) -> httpx.Response:
    """The answer to JSON."""
    return await gate.rest.post(path, json=body, headers={**ID, **headers})


async def ask(gate: Gateway, path: str, body: Any) -> Any:
    """The JSON of a good answer."""
    answer = await post(gate, path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def stream(gate: Gateway, model: str, **members: Any) -> list[str]:
    """The data of a chat's events."""
    body = {"model": model, "messages": HI, "stream": True, **members}
    answer = await post(gate, "/v1/chat/completions", body)
    assert answer.status_code == 200
    return sse_data(answer.text)


async def speech(gate: Gateway, model: str, **members: Any) -> httpx.Response:
    """The answer to a sound."""
    content_type, body = form.build(parts({"model": model, **members}, File()))
    return await gate.rest.post(
        "/v1/audio/transcriptions", content=body, headers={"content-type": content_type, **ID}
    )


# Errors.

BAD = {
    "a model that is not there": ("/v1/chat/completions", {"model": "no", "messages": HI}, 404),
    "a model of another type": ("/v1/chat/completions", {"model": "e5", "messages": HI}, 501),
    "a member that is missing": ("/v1/chat/completions", {"model": "free"}, 400),
    "a body that is no object": ("/v1/embeddings", [], 400),
    "a path that is not there": ("/v1/nothing", {}, 404),
    "another verb": ("/v1/models", {}, 405),
    "what the upstream refuses": (
        "/v1/embeddings",
        {"model": "e5", "input": []},
        400,
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_an_error_has_its_message_once_more_as_detail(
    compat: Gateway, plain: Gateway, name: str
) -> None:
    path, body, status = BAD[name]
    usual, ours = await post(plain, path, body), await post(compat, path, body)
    assert usual.status_code == ours.status_code == status
    assert usual.json().keys() == {"error"}
    shown = ours.json()
    assert shown == {**usual.json(), "detail": shown["error"]["message"]}
    assert isinstance(shown["detail"], str)
    assert shown["detail"]


async def test_a_refused_key_has_a_detail(world: World) -> None:
    keys = {"keys": [{"name": "ada", "sha256": "ab" * 32}]}
    async with gateway(config(world, auth=keys, compat={"opengatellm": True})) as one:
        answer = await post(one, "/v1/chat/completions", {"messages": HI})
        assert answer.status_code == 401
        assert answer.json()["detail"] == answer.json()["error"]["message"]


async def test_a_stream_that_breaks_off_has_a_detail_and_no_usage_chunk(
    compat: Gateway, world: World
) -> None:
    """G1."""
    whole = recordings.get("chat/openai-usage-stream.sse").bytes
    world.script(Cut(Sse(whole), len(whole) // 3))
    *chunks, last = await stream(compat, "scripted-chat")
    failed = json.loads(last)
    assert failed["detail"] == failed["error"]["message"]
    assert all(json.loads(one)["choices"] for one in chunks)


# Chat.


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_usage": True}])
async def test_a_stream_always_ends_with_a_usage_chunk(
    compat: Gateway, world: World, options: Any
) -> None:
    asked = {} if options is None else {"stream_options": options}
    *chunks, usage, end = await stream(compat, "chat", **asked)
    assert end == "[DONE]"
    assert all(json.loads(one)["choices"] for one in chunks)
    last = json.loads(usage)
    assert last["choices"] == []
    counted = last["usage"]
    wanted = counted["prompt_tokens"] * 0.5 + counted["completion_tokens"] * 1.5
    assert counted["cost"] == pytest.approx(wanted / 1e6, rel=1e-9)
    assert counted["cost"] > 0


async def test_the_usage_chunk_is_the_upstream_s_where_it_sends_one(
    compat: Gateway, plain: Gateway, world: World
) -> None:
    world.script(Sse(recordings.get("chat/openai-usage-stream.sse").bytes))
    asked = await stream(plain, "scripted-chat", stream_options={"include_usage": True})
    wanted, shown = json.loads(asked[-2]), json.loads((await stream(compat, "scripted-chat"))[-2])
    assert shown["usage"].pop("cost") > 0
    assert shown == wanted
    assert shown["usage"].keys() > {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_a_stream_s_other_members_reach_the_upstream_as_without_the_mode(
    compat: Gateway, plain: Gateway, world: World
) -> None:
    fake = world.fakes["vllm"]
    options = {"continuous_usage_stats": False}
    sent = []
    for gate in (compat, plain):
        fake.forget()
        await stream(gate, "chat", stream_options=options, search=True, search_args={"k": 4})
        (one,) = [each for each in fake.requests if each.method == "POST"]
        sent.append(one.json())
    assert sent[0] == sent[1]
    assert sent[0]["search_args"] == {"k": 4}


async def test_a_usage_chunk_without_figures_comes_if_the_upstream_tells_none(
    compat: Gateway, world: World
) -> None:
    """G10: nothing is made up."""
    world.script(Sse(answers.chat_events("chat/openai-usage-stream.sse", "m", False)))
    *chunks, usage, end = await stream(compat, "scripted-chat")
    first, last = json.loads(chunks[0]), json.loads(usage)
    assert end == "[DONE]"
    assert last == {
        "id": first["id"],
        "created": first["created"],
        "model": "m",
        "object": "chat.completion.chunk",
        "choices": [],
        "usage": None,
    }


@pytest.mark.parametrize("where", ["usage", "x_groq"])
async def test_usage_that_came_with_the_last_words_is_told_again_at_the_end(
    compat: Gateway, world: World, where: str
) -> None:
    usage: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    if where == "usage":
        usage["prompt_tokens_details"] = {"cached_tokens": 2}
    told = {"usage": usage} if where == "usage" else {"x_groq": {"id": "g", "usage": usage}}
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    world.script(Sse(event(json.dumps({**chunk, "choices": [choice], **told})) + event(DONE)))
    *chunks, last, end = await stream(compat, "scripted-chat")
    assert (len(chunks), end) == (1, "[DONE]")
    assert json.loads(last) == {**chunk, "choices": [], "usage": {**usage, "cost": 3.5e-05}}


async def test_a_whole_answer_s_usage_has_its_cost(compat: Gateway, plain: Gateway) -> None:
    body = {"model": "chat", "messages": HI}
    usual = await ask(plain, "/v1/chat/completions", body)
    ours = await ask(compat, "/v1/chat/completions", body)
    usage = usual["usage"]
    cost = (usage["prompt_tokens"] * 0.5 + usage["completion_tokens"] * 1.5) / 1e6
    assert ours["usage"].pop("cost") == pytest.approx(cost, rel=1e-9)
    assert ours == usual
    assert cost > 0


async def test_a_model_without_prices_costs_nothing(compat: Gateway) -> None:
    answer = await ask(compat, "/v1/chat/completions", {"model": "free", "messages": HI})
    assert answer["usage"]["cost"] == 0


@pytest.mark.parametrize(("model", "cost"), [("scripted-free", 0.25), ("scripted-chat", 3.5e-05)])
async def test_an_upstream_s_own_cost_stays_where_no_prices_are_configured(
    compat: Gateway, world: World, model: str, cost: float
) -> None:
    recorded = recordings.get("chat/openai-text-response.json").json()
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "cost": 0.25}
    world.script(Json({**recorded, "usage": usage}))
    answer = await ask(compat, "/v1/chat/completions", {"model": model, "messages": HI})
    assert answer["usage"] == {**usage, "cost": cost}


async def test_an_answer_without_usage_gets_none(compat: Gateway, world: World) -> None:
    recorded = recordings.get("chat/openai-text-response.json").json()
    del recorded["usage"]
    world.script(Json(recorded))
    body = {"model": "scripted-chat", "messages": HI}
    assert "usage" not in await ask(compat, "/v1/chat/completions", body)


async def test_members_that_openai_lacks_pass_both_ways(compat: Gateway, world: World) -> None:
    """G23: `search_results` too, if the upstream sends it."""
    recorded = recordings.get("chat/openai-text-response.json").json()
    world.script(Json({**recorded, "search_results": [{"score": 1}]}))
    world.scripted.forget()
    more = {"search": True, "search_args": {"collections": [7], "k": 2}}
    body = {"model": "scripted-chat", "messages": HI, **more}
    answer = await ask(compat, "/v1/chat/completions", body)
    assert more.items() <= world.scripted.requests[0].json().items()
    assert answer["search_results"] == [{"score": 1}]


# The others.


@pytest.mark.parametrize("model", ["e5", "openai-embed"])
async def test_embeddings_have_an_id_and_a_cost(
    compat: Gateway, plain: Gateway, model: str
) -> None:
    body = {"model": model, "input": ["one two three", "four"]}
    usual, ours = (
        await ask(plain, "/v1/embeddings", body),
        await ask(compat, "/v1/embeddings", body),
    )
    assert ours["id"] == usual.get("id", ID["x-request-id"])
    canonical.assert_same({"data": ours["data"]}, {"data": usual["data"]})
    assert ours["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 0,
        "total_tokens": 4,
        "cost": 2e-06,
    }


RERANKS = {
    "0.2": {"prompt": "q", "input": ["a", "b", "c"]},
    "0.4": {"query": "q", "documents": ["a", "b", "c"]},
}


@pytest.mark.parametrize("model", ["rerank", "vllm-rerank"])
@pytest.mark.parametrize("version", RERANKS)
async def test_callers_of_both_versions_get_both_lists(
    compat: Gateway, version: str, model: str
) -> None:
    """G31."""
    answer = await ask(compat, "/v1/rerank", {"model": model, **RERANKS[version]})
    ranked = answers.ranking("q", ["a", "b", "c"])
    assert answer["data"] == [
        {"object": "rerank", "score": pytest.approx(score), "index": index}
        for index, score in ranked
    ]
    assert [(one["index"], one["relevance_score"]) for one in answer["results"]] == [
        (index, pytest.approx(score)) for index, score in ranked
    ]
    assert answer["object"] == "list"
    assert answer["id"]
    assert answer["model"]
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["cost"] == (2e-06 if model == "rerank" else 0)


async def test_a_total_alone_has_its_cost(compat: Gateway, world: World) -> None:
    """As Jina tells it."""
    results = [{"index": 0, "relevance_score": 0.5}]
    world.script(Json({"results": results, "usage": {"total_tokens": 4}}))
    body = {"model": "scripted-rerank", "query": "q", "documents": ["a"]}
    answer = await ask(compat, "/v1/rerank", body)
    assert answer["usage"] == {"completion_tokens": 0, "total_tokens": 4, "cost": 2e-06}


async def test_top_n_holds_for_both_lists(compat: Gateway) -> None:
    body = {"model": "rerank", "top_n": 1, **RERANKS["0.4"]}
    answer = await ask(compat, "/v1/rerank", body)
    assert len(answer["data"]) == len(answer["results"]) == 1


async def test_tei_s_own_forms_stay_bare(compat: Gateway, plain: Gateway) -> None:
    texts = {"model": "rerank", "query": "q", "texts": ["a", "b"]}
    inputs = {"model": "e5", "inputs": ["a", "b"]}
    for path, body in (("/rerank", texts), ("/embed", inputs)):
        assert await ask(compat, path, body) == await ask(plain, path, body)


@pytest.mark.parametrize(
    ("language", "sent"),
    [
        ("english", ["en"]),
        ("French", ["fr"]),
        ("Haitian Creole", ["ht"]),
        ("fr", ["fr"]),
        ("", []),
        ("klingon", ["klingon"]),
    ],
)
async def test_a_language_goes_by_its_name_or_its_code(
    compat: Gateway, world: World, language: str, sent: list[str]
) -> None:
    world.fakes["whisper"].forget()
    answer = await speech(compat, "whisper", language=language)
    assert answer.status_code == 200
    (received,) = [one for one in world.fakes["whisper"].requests if one.method == "POST"]
    assert received.form_values("language") == sent


async def test_a_transcript_has_an_id(compat: Gateway) -> None:
    answer = (await speech(compat, "whisper")).json()
    assert (answer["text"], answer["id"]) == ("Quay four.", ID["x-request-id"])


@pytest.mark.parametrize("model", ["whisper", "whispercpp", "vllm-speech"])
async def test_a_text_is_plain_whatever_the_upstream_calls_it(compat: Gateway, model: str) -> None:
    answer = await speech(compat, model, response_format="text")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.strip()
    assert not answer.text.startswith("{")


async def test_models_are_listed_with_all_that_opengatellm_prints(compat: Gateway) -> None:
    listed = {one["id"]: one for one in (await compat.rest.get("/v1/models")).json()["data"]}
    assert listed.keys() == SERVED.keys()
    for one in listed.values():
        assert one.keys() >= {
            "id",
            "object",
            "created",
            "owned_by",
            "type",
            "aliases",
            "max_context_length",
            "costs",
        }
    assert listed["acme/chat"]["aliases"] == ["chat"]
    assert listed["acme/chat"]["costs"] == {"prompt_tokens": 0.5, "completion_tokens": 1.5}
    assert listed["free"]["aliases"] == []
    single = (await compat.rest.get("/v1/models/acme/chat")).json()
    assert single == listed["acme/chat"]
    assert (await compat.rest.get("/v1/models/chat")).json() == single


# Nothing of it without the switch.


async def test_without_the_switch_nothing_of_it_is_seen(plain: Gateway, world: World) -> None:
    *chunks, end = await stream(plain, "chat")
    assert end == "[DONE]"
    assert all(json.loads(one)["choices"] for one in chunks)
    chat = await ask(plain, "/v1/chat/completions", {"model": "chat", "messages": HI})
    assert "cost" not in chat["usage"]
    embedded = await ask(plain, "/v1/embeddings", {"model": "e5", "input": "a"})
    assert "id" not in embedded
    assert embedded["usage"].keys() == {"prompt_tokens", "total_tokens"}
    new = await ask(plain, "/v1/rerank", {"model": "rerank", **RERANKS["0.4"]})
    old = await ask(plain, "/v1/rerank", {"model": "rerank", **RERANKS["0.2"]})
    assert "data" not in new
    assert "results" not in old
    world.fakes["whisper"].forget()
    transcript = await speech(plain, "whisper", language="")
    assert "id" not in transcript.json()
    (received,) = [one for one in world.fakes["whisper"].requests if one.method == "POST"]
    assert received.form_values("language") == [""]


# The official SDK.


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_official_sdk_works_in_the_mode(compat: Gateway, world: World, kind: str) -> None:
    """G42."""
    sdk = Sdk(kind, compat.url)
    try:
        chat = await sdk.call(
            lambda client: client.chat.completions.create(model="chat", messages=HI)
        )
        assert chat.choices[0].message.content
        assert chat.usage.cost > 0
        chunks = await sdk.stream(
            lambda client: client.chat.completions.create(model="chat", messages=HI, stream=True)
        )
        assert chunks[-1].choices == []
        assert chunks[-1].usage.total_tokens > 0
        world.script(Sse(answers.chat_events("chat/openai-usage-stream.sse", "m", False)))
        chunks = await sdk.stream(
            lambda client: client.chat.completions.create(
                model="scripted-chat", messages=HI, stream=True
            )
        )
        assert (chunks[-1].choices, chunks[-1].usage) == ([], None)
        vectors = await sdk.call(
            lambda client: client.embeddings.create(model="e5", input=["a", "b"])
        )
        assert [one.embedding for one in vectors.data] == [
            pytest.approx(answers.vector(text)) for text in ("a", "b")
        ]
        sound = ("four.wav", File().data, "audio/wav")
        heard = await sdk.call(
            lambda client: client.audio.transcriptions.create(
                model="whisper", file=sound, language="english"
            )
        )
        assert heard.text == "Quay four."
        listed = await sdk.call(lambda client: client.models.list())
        assert {one.id for one in listed.data} == SERVED.keys()
        with pytest.raises(openai.NotFoundError) as caught:
            await sdk.call(lambda client: client.chat.completions.create(model="no", messages=HI))
        assert caught.value.code == "model_not_found"
    finally:
        await sdk.close()
