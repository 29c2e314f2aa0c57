"""Asks a server what it is, which models it has and whether it answers, without spending a token.

Reads lists, versions and health only. What the words in them mean stands in `model_types`, what
kinds tell elsewhere in `facts`. Knows no configuration: what an operator wrote wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from services import errors
from services.upstream import facts, model_types
from services.upstream.asked import Asked, Told
from services.upstream.base import Endpoint
from services.upstream.model_types import CAPABILITIES, SPEECH, Found
from services.upstream.transport import Transport

MODELS, INFO, HEALTH, OLLAMA = "/v1/models", "/info", "/health", "/api/version"

_OWNERS = {
    "vllm": "vllm",
    "llamacpp": "llamacpp",
    "library": "ollama",
    "mistralai": "mistral",
    "whisper-openai-api": "whisper",
}
"""Kinds by what their lists print as `owned_by`."""

_HEALTH: Final = {
    "tei": HEALTH,
    "vllm": HEALTH,
    "llamacpp": HEALTH,
    "whisper": HEALTH,
    "whispercpp": HEALTH,
    "ollama": OLLAMA,
}
"""Where a kind tells whether it is well; the others are asked for their models."""

_NAMELESS: Final = frozenset({"tei", "llamacpp"})
"""Kinds that serve one model whatever a request calls it."""

_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_UNTOLD = "whisper"
"""The name for the model of a server that tells none, and reads none."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a server is: its kind (a key of `kinds.KINDS`) and its models that we can serve."""

    kind: str
    models: tuple[Found, ...]

    def of(self, name: str) -> Found | None:
        """What it tells of a model of that name, which some kinds do not look at."""
        if self.kind in _NAMELESS and len(self.models) == 1:
            return self.models[0]
        return next((found for found in self.models if found.model == name), None)


async def recognise(transport: Transport, url: str, key: str = "", *, via: str = "") -> Recognised:
    """The kind and the models of the server at a URL, with or without `/v1`.

    Raises UpstreamUnavailable or DeadlineExceeded if nothing answers, UpstreamAuth for a key that
    is refused, and UpstreamProtocol for what is no model server.
    """
    base = url.rstrip("/").removesuffix("/v1").rstrip("/")
    asked = Asked(transport, base, key, via=via)
    models, info = await asyncio.gather(asked.get(MODELS), asked.get(INFO), return_exceptions=True)
    told: Any = info.value if isinstance(info, Told) else None
    listed = isinstance(models, Told) and bool(models.listed)
    # TEI itself has no list; a server that has one beside /info tells more by it.
    if model_types.is_tei(told) and not listed:
        return Recognised("tei", (model_types.from_info(told),))
    # TGI's list came late and names only the model.
    if model_types.is_tgi(told):
        return Recognised("openai", (model_types.from_tgi(told),))
    if isinstance(models, BaseException):
        raise models
    if models.listed is not None:
        kind = await _kind(asked, models)
        return Recognised(kind, await facts.found(asked, kind, models.listed))
    if isinstance(info, Told) and info.status in _REFUSED:
        models = info
    failed = models.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if models.status in _REFUSED or (failed and models.status != HTTPStatus.INTERNAL_SERVER_ERROR):
        raise _unknown(models, asked.name, key)
    paths = await _paths(asked)
    types = model_types.of_paths(paths)
    # faster-whisper-server began without a list of models.
    if types == {SPEECH}:
        return _speech("whisper")
    # transformers serve fails to list its models where it cannot reach their hub.
    if types:
        return Recognised("openai", ())
    if not failed and await _is_whispercpp(asked):
        return _speech("whispercpp")
    raise _unknown(models, asked.name, key, paths)


async def alive(transport: Transport, endpoint: Endpoint) -> bool:
    """Whether the endpoint answers and is well: no 5xx, and our key is not refused.

    A list of models that fails is no verdict where /health says that all is well.
    """
    asked = Asked.at(transport, endpoint)
    try:
        status = await asked.status(_HEALTH.get(endpoint.kind, MODELS))
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and endpoint.kind not in _HEALTH:
            return await asked.status(HEALTH) == HTTPStatus.OK
    except errors.TetradError:
        return False
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _REFUSED


async def learnt(transport: Transport, endpoint: Endpoint, names: Iterable[str]) -> Recognised:
    """What a server of a known kind tells of its models of these names; it may be nothing.

    Raises nothing: what cannot be read is not known.
    """
    asked = Asked.at(transport, endpoint)
    kind, wanted = endpoint.kind, set(names)
    try:
        if kind == "tei":
            info = (await asked.get(INFO)).object
            told = (model_types.from_info(info),) if model_types.is_tei(info) else ()
            return Recognised(kind, told)
        listed = (await asked.get(MODELS)).listed or []
    except errors.TetradError:
        return Recognised(kind, ())
    if not (kind in _NAMELESS and len(listed) == 1):
        # The others may be many, and some kinds are asked for each.
        wanted |= {str(one.get("parent")) for one in listed if one["id"] in wanted}
        listed = [one for one in listed if one["id"] in wanted]
    listed = await facts.detailed(asked, kind, listed)
    every = (model_types.from_list(kind, one, frozenset()) for one in listed)
    return Recognised(kind, tuple(one for one in every if one is not None))


async def _kind(asked: Asked, models: Told) -> str:
    listed = models.listed or []
    for model in listed:
        kind = _OWNERS.get(str(model.get("owned_by")))
        if kind is not None:
            return kind
    if "llama.cpp" in models.headers.get("server", "").lower():
        return "llamacpp"
    if any("endpoints" in model for model in listed):
        return "cohere"
    if listed and all(model_types.is_speech(model) for model in listed):
        return "whisper"
    if any("costs" in model and "capabilities" not in model for model in listed):
        return "albert"
    return "ollama" if "version" in await asked.object(OLLAMA) else "openai"


def _speech(kind: str) -> Recognised:
    return Recognised(kind, (Found(kind, _UNTOLD, SPEECH, capabilities=CAPABILITIES[SPEECH]),))


async def _is_whispercpp(asked: Asked) -> bool:
    return b"whisper.cpp" in (await asked.get("/")).body.lower()


async def _paths(asked: Asked) -> frozenset[str]:
    """The routes that a server describes."""
    paths = (await asked.object(facts.OPENAPI)).get("paths")
    return frozenset(paths if isinstance(paths, dict) else ())


def _unknown(
    told: Told, name: str, key: str, paths: frozenset[str] = frozenset()
) -> errors.TetradError:
    if told.status in _REFUSED or told.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return errors.from_upstream(
            told.status, told.headers, told.body, endpoint=name, secrets=(key,)
        )
    if paths & {"/models", "/embeddings", "/chat/completions"}:
        return errors.UpstreamProtocol(
            f"{name} has its routes without /v1 before them: start it with the prefix /v1 "
            "(infinity: --url-prefix /v1)",
            reached=True,
        )
    return errors.UpstreamProtocol(
        f"{name} is no model server that is known here: GET {MODELS} answered {told.status}"
        f"{'' if told.value is not None else ' without JSON'}, and there is no TEI nor whisper.cpp",
        reached=True,
    )
