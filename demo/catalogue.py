"""The models by name: what lists tell of them, and the check that a request names the right one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from demo.wire import ApiError

CHAT: Final = "eliza"
EMBED: Final = "wordllama"
RERANK: Final = "wordllama-rerank"
SPEECH: Final = "pocketsphinx-en-us"

DIMENSION: Final = 256
MAX_TOKENS: Final = 8192
MAX_BATCH: Final = 16384

_CREATED: Final = 1764000000  # Only has to be the same each time; Unix seconds.


@dataclass(frozen=True, slots=True)
class Model:
    """A line of the list. `does` is what it is for, as a verb: "embed texts"."""

    name: str
    type: str
    owned_by: str
    capabilities: tuple[str, ...]
    does: str
    more: Mapping[str, Any]

    def listed(self) -> dict[str, Any]:
        """As /v1/models prints it."""
        return {
            "id": self.name,
            "object": "model",
            "created": _CREATED,
            "owned_by": self.owned_by,
            "type": self.type,
            "capabilities": list(self.capabilities),
            **self.more,
        }


_VECTORS: Final = {"max_context_length": MAX_TOKENS, "dimension": DIMENSION}

MODELS: Final[Mapping[str, Model]] = {
    model.name: model
    for model in (
        Model(
            CHAT,
            "text-generation",
            "tetrad-demo (rule-based, not a language model)",
            ("chat", "stream_chat"),
            "answer chats",
            {},
        ),
        Model(
            EMBED,
            "text-embeddings-inference",
            "WordLlama (MIT)",
            ("embed",),
            "embed texts",
            _VECTORS,
        ),
        Model(
            RERANK,
            "text-classification",
            "WordLlama (MIT), by cosine",
            ("rerank",),
            "rank documents",
            {"max_context_length": MAX_TOKENS},
        ),
        Model(
            SPEECH,
            "automatic-speech-recognition",
            "CMU PocketSphinx (BSD)",
            ("transcribe", "stream_transcribe"),
            "transcribe speech",
            {},
        ),
    )
}


def find(name: str) -> Model:
    """The model of that name; raises ApiError, 404, if there is none."""
    model = MODELS.get(name)
    if model is None:
        raise ApiError(
            f"The model `{name}` does not exist. There are: {', '.join(MODELS)}.",
            status=HTTPStatus.NOT_FOUND,
            param="model",
            code="model_not_found",
        )
    return model


def check(named: object, wanted: str, *, required: bool = True) -> None:
    """Raises ApiError unless `named` is the one model that serves this operation."""
    if named is None and not required:
        return
    if not isinstance(named, str) or not named:
        raise ApiError(f"`model` must be a name; here it is `{wanted}`.", param="model")
    if find(named).name != wanted:
        raise ApiError(
            f"The model `{named}` does not {MODELS[wanted].does}; `{wanted}` does.",
            param="model",
            code="model_not_supported",
        )
