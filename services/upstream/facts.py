"""What each kind of server tells of its models beside its list: routes, context, dimension.

Whatever is missing or cannot be read is simply not known; nothing here raises. No model is run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from services import errors
from services.upstream import model_types
from services.upstream.asked import Asked
from services.upstream.model_types import Found

OPENAPI, SHOW, PROPS, LMSTUDIO = "/openapi.json", "/api/show", "/props", "/api/v0/models"
SGLANG = "/get_model_info"

Listed = list[dict[str, Any]]

_MOST_SHOWN = 64
_NUM_CTX = re.compile(r"^num_ctx\s+(\d+)\s*$", re.MULTILINE)


async def found(asked: Asked, kind: str, listed: Listed) -> tuple[Found, ...]:
    """The models of a list that we can serve, with what this kind tells beside the list."""
    offered: frozenset[str] = frozenset()
    match kind:
        case "vllm":
            # It registers the routes of its model's tasks.
            paths = (await asked.object(OPENAPI)).get("paths")
            offered = model_types.of_paths(paths if isinstance(paths, dict) else ())
        case "llamacpp":
            offered = await _llamacpp_offered(asked)
    listed = await detailed(asked, kind, listed)
    known = (model_types.from_list(kind, one, offered) for one in listed)
    return tuple(one for one in known if one is not None)


async def detailed(asked: Asked, kind: str, listed: Listed) -> Listed:
    """The list with the members that this kind tells elsewhere."""
    detail = _DETAILS.get(kind)
    return listed if detail is None else await detail(asked, listed)


async def _vllm(asked: Asked, listed: Listed) -> Listed:
    """Adapters (LoRA) of a model have its context length, which their own lines leave null."""
    lengths = {one["id"]: one.get("max_model_len") for one in listed}
    return [
        one | {"max_model_len": lengths.get(one.get("parent"))}
        if one.get("max_model_len") is None and one.get("parent") in lengths
        else one
        for one in listed
    ]


async def _llamacpp(asked: Asked, listed: Listed) -> Listed:
    """A slot's context is what a request gets; the list has only what the model was made for."""
    settings = (await asked.object(PROPS)).get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    if context is None or len(listed) != 1:
        return listed
    return [one | {"n_ctx": context} for one in listed]


async def _ollama(asked: Asked, listed: Listed) -> Listed:
    shown = await asyncio.gather(*(_shown(asked, one) for one in listed[:_MOST_SHOWN]))
    return [*shown, *listed[_MOST_SHOWN:]]


async def _shown(asked: Asked, model: dict[str, Any]) -> dict[str, Any]:
    """A model of Ollama's list with its capabilities, context length and dimension."""
    try:
        told = (await asked.post(SHOW, {"model": model["id"]})).object
    except errors.TetradError:
        return model
    info = told.get("model_info")
    info = info if isinstance(info, dict) else {}
    parameters = told.get("parameters")
    set_to = _NUM_CTX.search(parameters) if isinstance(parameters, str) else None
    return model | {
        "capabilities": told.get("capabilities"),
        "context_length": int(set_to[1]) if set_to else _ending(info, ".context_length"),
        "embedding_dimension": _ending(info, ".embedding_length"),
    }


async def _openai(asked: Asked, listed: Listed) -> Listed:
    """Servers that have no kind of their own, by whom they print as the models' owner."""
    owners = {str(one.get("owned_by")).replace("-", "_") for one in listed}
    if "organization_owner" in owners:
        more = (await asked.object(LMSTUDIO)).get("data")
        more = more if isinstance(more, list) else []
        by_id = {one.get("id"): one for one in more if isinstance(one, dict)}
        return [one | _of_lmstudio(by_id.get(one["id"], {})) for one in listed]
    if "sglang" in owners:
        told = await asked.object(SGLANG)
        if told.get("is_generation") is False:
            return [one | {"type": _no_generation(one["id"])} for one in listed]
    return listed


def _of_lmstudio(told: Mapping[str, Any]) -> dict[str, Any]:
    loaded = told.get("loaded_context_length")
    members = {"type": told.get("type"), "max_context_length": told.get("max_context_length")}
    return {**members, **({"max_context_length": loaded} if loaded else {})}


def _no_generation(name: str) -> str:
    """The type of a model that SGLang says writes no text: it tells no more than that."""
    is_reranker = model_types.type_named(name) == model_types.RERANK
    return model_types.RERANK if is_reranker else model_types.EMBED


_DETAILS: Final[Mapping[str, Callable[[Asked, Listed], Awaitable[Listed]]]] = MappingProxyType(
    {"vllm": _vllm, "llamacpp": _llamacpp, "ollama": _ollama, "openai": _openai}
)


async def _llamacpp_offered(asked: Asked) -> frozenset[str]:
    """What llama.cpp was started for: it refuses all else with 501, before it looks at a body."""
    for path, body, type in (
        ("/v1/rerank", {"query": "", "documents": []}, model_types.RERANK),
        ("/v1/embeddings", {"input": []}, model_types.EMBED),
    ):
        try:
            status = (await asked.post(path, body)).status
        except errors.TetradError:
            return frozenset()
        if status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST):
            return frozenset({type})
    return frozenset({model_types.CHAT})


def _ending(info: Mapping[str, Any], tail: str) -> Any:
    return next((value for name, value in info.items() if name.endswith(tail)), None)
