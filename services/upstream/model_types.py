"""What a server's words about a model mean: its type, its limits; by its name if there are none.

Tables and pure functions over what lists of models and TEI's /info print.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

CHAT, EMBED, SPEECH, RERANK = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)

FINAL_ONLY, AFTER, REALTIME = (
    "live_transcribe.final_only",
    "live_transcribe.after_half_close",
    "live_transcribe.realtime",
)
LIVE: Final = (FINAL_ONLY, AFTER, REALTIME)
"""How LiveTranscribe answers: once, after the last audio; in deltas, after it; while it comes."""

CAPABILITIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        CHAT: ("chat", "stream_chat"),
        EMBED: ("embed", "bulk_embed"),
        SPEECH: ("transcribe", "stream_transcribe", FINAL_ONLY),
        RERANK: ("rerank",),
    }
)
"""What a model of each type can do through the gateway."""

_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {word: type for type, words in {
        CHAT: "text-generation image-text-to-text chat completion_chat language completion "
        "generate llm vlm",
        EMBED: "text-embeddings-inference embedding embeddings embed feature-extraction "
        "sentence-similarity",
        SPEECH: "automatic-speech-recognition transcribe transcription audio_transcription "
        "speech-to-text stt",
        RERANK: "text-classification rerank reranker reranking text-ranking score",
        "": "text-to-speech tts speech image image-generation text-to-image video moderation "
        "classify ocr",
    }.items() for word in words.split()}
)  # fmt: skip
"""Words for a type in what lists tell of a model; "" is none of ours."""

_SAID = ("type", "task", "model_type", "pipeline_tag", "capabilities", "endpoints")

_NAMES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), type)
    for pattern, type in (
        (r"whisper|transcri|(?<![a-z])asr(?![a-z])|parakeet|moonshine", SPEECH),
        (r"rerank|cross-encoder", RERANK),
        (r"embed|(?<![a-z0-9])e5(?![a-z0-9])|bge|minilm|(?<![a-z])gte(?![a-z])", EMBED),
        (r"(?<![a-z])tts(?![a-z])|dall-e|moderation|gpt-image|(?<![a-z])sora(?![a-z])", ""),
        (r"stable-?diffusion|(?<![a-z])flux(?![a-z])", ""),
        (r"", CHAT),
    )
)
"""What names tell, first match."""

_PATHS: Final = (
    ("/v1/chat/completions", CHAT),
    ("/v1/audio/transcriptions", SPEECH),
    ("/v1/embeddings", EMBED),
    ("/rerank", RERANK),
)
"""Routes by which vLLM shows its model's tasks; an embedding model has the last one, too."""

_CONTEXT = (
    "n_ctx",
    "max_context_length",
    "max_model_len",
    "context_length",
    "context_window",
    "n_ctx_train",
)
_DIMENSION = ("dimension", "dimensions", "embedding_dimension")


@dataclass(frozen=True, slots=True)
class Found:
    """One model of a server. `model` is the name that the server gives it.

    max_context_length counts tokens, dimension numbers of a vector, max_batch inputs of one
    request; None is not told.
    """

    kind: str
    model: str
    type: str
    owned_by: str = ""
    capabilities: tuple[str, ...] = ()
    max_context_length: int | None = None
    dimension: int | None = None
    max_batch: int | None = None


def is_tei(info: Any) -> bool:
    """Whether this is TEI's /info."""
    return isinstance(info, dict) and isinstance(info.get("model_type"), dict)


def is_tgi(info: Any) -> bool:
    """Whether this is the /info of text-generation-inference: one model that writes text."""
    return (
        isinstance(info, dict)
        and isinstance(info.get("model_id"), str)
        and _count(info, ("max_total_tokens",)) is not None
    )


def from_tgi(info: Mapping[str, Any]) -> Found:
    """The model of a TGI server by its /info."""
    name = info["model_id"]
    return Found(
        kind="openai",
        model=name,
        type=CHAT,
        owned_by=name.partition("/")[0] if "/" in name else "",
        capabilities=CAPABILITIES[CHAT],
        max_context_length=_count(info, ("max_total_tokens",)),
    )


def from_info(info: Mapping[str, Any]) -> Found:
    """The model of a TEI server by its /info."""
    told = info["model_type"]
    type = EMBED if "embedding" in told else RERANK
    model_id = str(info.get("model_id") or "")
    return Found(
        kind="tei",
        model=str(info.get("served_model_name") or model_id),
        type=type,
        owned_by=model_id.partition("/")[0] if "/" in model_id else "",
        capabilities=CAPABILITIES[type],
        max_context_length=_count(info, ("max_input_length",)),
        max_batch=_count(info, ("max_client_batch_size",)),
    )


def from_list(kind: str, told: Mapping[str, Any], offered: frozenset[str]) -> Found | None:
    """A model of a list; None if it is for none of our operations.

    `offered` are the types that its server has routes for, empty if that is not known.
    """
    name = told["id"]
    type = type_said(told)
    if type is None:
        type = type_named(name)
        if offered and type not in offered:
            type = next(one for _, one in _PATHS if one in offered)
    if not type:
        return None
    meta = told.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    dimension = None
    if type == EMBED:
        dimension = _count(told, _DIMENSION) or _count(meta, ("n_embd",))
    context = _count(told, _CONTEXT)
    owner = told.get("owned_by")
    return Found(
        kind=kind,
        model=name,
        type=type,
        owned_by=owner if isinstance(owner, str) else "",
        capabilities=CAPABILITIES[type],
        max_context_length=_count(meta, _CONTEXT) if context is None else context,
        dimension=dimension,
        max_batch=_count(told, ("max_batch", "max_client_batch_size")),
    )


def type_said(told: Mapping[str, Any]) -> str | None:
    """The type that the server tells in words; "" for none of ours, None if it tells nothing."""
    for member in _SAID:
        known = [_WORDS[word] for word in _words(told.get(member)) if word in _WORDS]
        if known:
            return next(filter(None, known), "")
    return None


def type_named(name: str) -> str:
    """The type that a model's name suggests; "" for none of ours."""
    return next(type for pattern, type in _NAMES if pattern.search(name))


def is_speech(told: Mapping[str, Any]) -> bool:
    """Whether a server that lists this model, and no other sort, is one for speech."""
    said = type_said(told)
    return said in (SPEECH, "") if said is not None else type_named(told["id"]) == SPEECH


def of_paths(paths: Iterable[str]) -> frozenset[str]:
    """The types for whose operations there are routes."""
    known = set(paths)
    return frozenset(type for path, type in _PATHS if path in known)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.lower()
    elif isinstance(value, list):
        yield from (word.lower() for word in value if isinstance(word, str))
    elif isinstance(value, dict):  # Mistral: each capability with true or false
        yield from (word for word, is_so in value.items() if is_so is True)


def _count(told: Mapping[str, Any], names: Iterable[str]) -> int | None:
    for name in names:
        value = told.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
