"""Conversions between dialects: vectors, rerank in every shape, TEI's requests, words for types."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Any

import pytest

from services import codec, errors
from services.body import Body
from services.transcript import whole_to_done
from services.upstream import embed_to_tei, model_types, rerank_to_tei, vectors
from services.upstream.any_to_rerank import to_rerank, usage_of
from tests.lib import recordings

FLOATS = [0.5, -0.25, 3.0]
PACKED = b64encode(struct.pack("<3f", *FLOATS)).decode()


def answer(vector: Any, **members: Any) -> dict[str, Any]:
    item = {"object": "embedding", "index": 0, "embedding": vector, **members}
    return {"object": "list", "data": [item], "model": "m"}


def printed(value: Any) -> Any:
    """What a caller of REST gets of it."""
    return json.loads(codec.dumps(value))


@pytest.mark.parametrize(
    ("asked", "came"),
    [
        ({}, FLOATS), ({"encoding_format": "float"}, FLOATS), ({"encoding_format": None}, FLOATS),
        ({"encoding_format": "base64"}, PACKED), ({"encoding_format": "BASE64"}, PACKED),
        ({"encoding_format": "bytes"}, PACKED), ({"encoding_format": "bytes"}, FLOATS),
        ({"embed_dtype": "float16"}, PACKED), ({"output_dtype": "int8"}, [1, 2]),
    ],
)  # fmt: skip
def test_vectors_that_are_as_asked_are_left_alone(asked: dict[str, Any], came: Any) -> None:
    given = answer(came)
    assert vectors.value_as_asked(given, asked) is given


def test_floats_become_base64_where_that_was_asked_for() -> None:
    """G27."""
    given = answer(FLOATS)
    assert printed(vectors.value_as_asked(given, {"encoding_format": "base64"})) == answer(PACKED)
    assert given == answer(FLOATS)


@pytest.mark.parametrize("asked", [{}, {"encoding_format": "float"}])
def test_base64_becomes_floats_where_that_was_asked_for(asked: dict[str, Any]) -> None:
    """G27."""
    given = answer(PACKED, encoding_format="base64")
    assert printed(vectors.value_as_asked(given, asked)) == answer(FLOATS)


@pytest.mark.parametrize(
    "vector", [[{"index": 1, "value": 0.5}], [[0.1], [0.2]], "not base64!", "AAA=", None, 5]
)
@pytest.mark.parametrize("format", ["float", "base64"])
def test_vectors_of_another_kind_are_left_alone(vector: Any, format: str) -> None:
    given = answer(vector)
    assert vectors.value_as_asked(given, {"encoding_format": format}) is given


def test_numbers_beyond_float32_are_infinite_in_base64() -> None:
    asked = vectors.value_as_asked(answer([1e300]), {"encoding_format": "base64"})
    (item,) = printed(asked)["data"]
    assert item["embedding"] == b64encode(struct.pack("<f", float("inf"))).decode()


REQUEST = {"query": "q", "documents": ["Rope of hemp", {"text": "Steel cable", "id": 7}, "Chain"]}
UNSORTED = [{"index": 0, "score": 0.1}, {"index": 2, "score": 0.9}, {"index": 1, "score": 0.5}]


@pytest.mark.parametrize(
    "file",
    [
        "rerank/vllm-response.json", "rerank/jina-response.json", "rerank/llamacpp-response.json",
        "rerank/cohere-v1-response.json", "rerank/cohere-v2-response.json",
        "rerank/together-response.json",
    ],
)  # fmt: skip
def test_answers_of_our_shape_are_left_alone(file: str) -> None:
    """G31."""
    came = recordings.get(file).json()
    assert to_rerank(came, REQUEST) is came


def test_teis_bare_list_becomes_results() -> None:
    """G31."""
    came = recordings.get("rerank/tei-response.json").json()
    assert to_rerank(came, REQUEST) == {
        "results": [
            {"index": 2, "relevance_score": 0.9971542, "document": {"text": "Anchor chain"}},
            {"index": 0, "relevance_score": 3.1e-05, "document": {"text": "Rope of hemp"}},
        ]
    }


def test_opengatellms_older_answer_becomes_results() -> None:
    came = {"object": "list", "id": "x", "data": [{"object": "rerank", "score": 0.4, "index": 1}]}
    expected = {
        "results": [{"index": 1, "relevance_score": 0.4}], "object": "list", "id": "x",
    }  # fmt: skip
    assert to_rerank(came, REQUEST) == expected


def test_results_are_sorted_and_carry_their_index() -> None:
    """G32."""
    shaped = to_rerank(UNSORTED, REQUEST)
    assert shaped is not None
    assert [r["index"] for r in shaped["results"]] == [2, 1, 0]


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 3), (1, 1), (2, 2), (9, 3)])
def test_top_n_holds_after_sorting(top_n: Any, count: int) -> None:
    """G32."""
    shaped = to_rerank({"results": UNSORTED, "id": "x"}, REQUEST | {"top_n": top_n})
    assert shaped is not None
    assert [r["index"] for r in shaped["results"]] == [2, 1, 0][:count]
    assert shaped["id"] == "x"


def test_a_score_of_null_comes_last() -> None:
    """TEI prints NaN so."""
    shaped = to_rerank([{"index": 0, "score": None}, {"index": 1, "score": -5}], REQUEST)
    assert shaped is not None
    assert [r["relevance_score"] for r in shaped["results"]] == [-5, None]


def test_documents_are_taken_away_from_callers_who_want_none() -> None:
    came = recordings.get("rerank/vllm-response.json").json()
    shaped = to_rerank(came, REQUEST | {"return_documents": False})
    assert shaped is not None
    assert all("document" not in result for result in shaped["results"])


def test_documents_are_given_to_callers_who_want_them() -> None:
    shaped = to_rerank(UNSORTED, REQUEST | {"return_documents": True})
    assert shaped is not None
    assert [r["document"] for r in shaped["results"]] == [
        {"text": "Chain"}, {"text": "Steel cable", "id": 7}, {"text": "Rope of hemp"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "came",
    [
        None, "x", {}, {"results": None}, [1], [{"index": 3, "score": 1}], [{"score": 1}],
        [{"index": -1, "score": 1}], [{"index": "0", "score": 1}], [{"index": True, "score": 1}],
        [{"index": 0}],
    ],
)  # fmt: skip
def test_what_is_no_reranking_of_these_documents_is_refused(came: Any) -> None:
    assert to_rerank(came, REQUEST) is None


def test_usage_is_found_in_coheres_meta() -> None:
    assert usage_of(recordings.get("rerank/cohere-v2-response.json").json()) == {"input_tokens": 81}
    assert usage_of({"usage": {"total_tokens": 1}, "meta": {}}) == {"total_tokens": 1}
    assert usage_of({}) is None


def test_tei_gets_texts() -> None:
    asked = REQUEST | {
        "model": "m", "top_n": 2, "return_documents": True, "raw_scores": True, "x": 1,
    }  # fmt: skip
    assert rerank_to_tei.to_tei(asked) == {
        "query": "q", "texts": ["Rope of hemp", "Steel cable", "Chain"], "raw_scores": True, "x": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"query": "q", "documents": ["a", {"image": "x"}]}, "documents[1]"),
        ({"query": "q", "documents": [5]}, "documents[0]"),
        ({"query": "q", "documents": [{"text": None}]}, "documents[0]"),
        ({"query": "q", "documents": "a"}, "documents"),
        ({"query": {"content": []}, "documents": ["a"]}, "query"),
    ],
)
def test_what_tei_cannot_read_is_refused_by_name(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as raised:
        rerank_to_tei.to_tei(asked)
    assert raised.value.param == field
    assert raised.value.violations[0].field == field


@pytest.mark.parametrize("member", embed_to_tei.ONLY_NATIVE)
def test_members_that_only_embed_knows_are_seen(member: str) -> None:
    assert embed_to_tei.needs_native({"input": "a", member: False})
    assert not embed_to_tei.needs_native({"input": "a", member: None, "dimensions": 3})


def test_tei_gets_inputs() -> None:
    asked = {
        "input": [1, 2], "model": "m", "encoding_format": "base64", "user": "u",
        "normalize": False, "dimensions": 3, "x": 1,
    }  # fmt: skip
    expected = {"inputs": [1, 2], "normalize": False, "dimensions": 3, "x": 1}
    assert embed_to_tei.to_tei(asked) == expected


def test_teis_rows_become_embeddings() -> None:
    rows = recordings.get("embeddings/tei-native-embed-response.json").json()
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    value = embed_to_tei.from_tei(rows, {}, "m", usage)
    assert value is not None
    assert [item["embedding"] for item in value["data"]] == rows
    assert [item["index"] for item in value["data"]] == list(range(len(rows)))
    assert (value["model"], value["usage"]) == ("m", usage)
    packed = embed_to_tei.from_tei([FLOATS], {"encoding_format": "base64"}, "m", None)
    assert printed(packed) == answer(PACKED)
    assert Body.from_value("EmbedResponse", packed).wire()


@pytest.mark.parametrize("rows", [{}, None, [1], ["x"], [[1], None]])
def test_what_is_no_list_of_vectors_is_refused(rows: Any) -> None:
    assert embed_to_tei.from_tei(rows, {}, "m", None) is None


def test_a_whole_transcription_becomes_the_done_event() -> None:
    came = recordings.get("transcriptions/llamacpp-json-response.json").json()
    assert whole_to_done(came) == came
    assert whole_to_done({"text": "a", "usage": None}) == {
        "type": "transcript.text.done", "text": "a", "usage": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("whisper-1", model_types.SPEECH), ("openai/whisper-large-v3-turbo", model_types.SPEECH),
        ("gpt-4o-mini-transcribe", model_types.SPEECH), ("nvidia/canary-asr", model_types.SPEECH),
        ("BAAI/bge-reranker-v2-m3", model_types.RERANK),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", model_types.RERANK),
        ("Qwen/Qwen3-Reranker-8B", model_types.RERANK),
        ("text-embedding-3-small", model_types.EMBED), ("nomic-embed-text", model_types.EMBED),
        ("intfloat/multilingual-e5-large", model_types.EMBED), ("e5", model_types.EMBED),
        ("BAAI/bge-m3", model_types.EMBED), ("thenlper/gte-base", model_types.EMBED),
        ("all-MiniLM-L6-v2", model_types.EMBED), ("qwen3-8b", model_types.CHAT),
        ("../models/m.gguf", model_types.CHAT), ("o3", model_types.CHAT),
        ("integer-base5", model_types.CHAT), ("tts-1-hd", ""), ("dall-e-3", ""),
        ("omni-moderation-latest", ""), ("gpt-image-1", ""), ("sora-2", ""),
    ],
)  # fmt: skip
def test_a_name_suggests_a_type(name: str, type: str) -> None:
    assert model_types.type_named(name) == type


@pytest.mark.parametrize(
    ("told", "type"),
    [
        ({"type": "automatic-speech-recognition"}, model_types.SPEECH),
        ({"type": "image-text-to-text"}, model_types.CHAT),
        ({"type": "model", "task": "text-to-speech"}, ""),
        ({"task": "automatic-speech-recognition"}, model_types.SPEECH),
        ({"capabilities": ["embed", "image_embed"]}, model_types.EMBED),
        ({"capabilities": ["classify", "rerank"]}, model_types.RERANK),
        ({"capabilities": {"completion_chat": True, "vision": True}}, model_types.CHAT),
        ({"capabilities": {"completion_chat": False, "classification": True}}, None),
        ({"endpoints": ["rerank"]}, model_types.RERANK),
        ({"type": "model", "architecture": {}}, None),
        ({"type": 5, "capabilities": [1]}, None),
        ({}, None),
    ],
)
def test_a_lists_words_tell_a_type(told: dict[str, Any], type: str | None) -> None:
    assert model_types.type_said(told) == type
