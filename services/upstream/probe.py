"""Asks a server what it is, which models it has and whether it answers, without spending a token.

Reads lists, versions and health only. What the words in them mean stands in `model_types`. Knows
no configuration: what an operator wrote wins over what is found here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from services import codec, errors
from services.upstream import model_types
from services.upstream.base import Endpoint, Timeouts, endpoint_name
from services.upstream.model_types import CAPABILITIES, Found
from services.upstream.transport import Transport

TIMEOUTS: Final = Timeouts(connect=3.0, first_byte=5.0, idle=5.0)

MODELS, INFO, OPENAPI = "/v1/models", "/info", "/openapi.json"
OLLAMA, SHOW = "/api/version", "/api/show"

_LIMIT = 16 * 1024 * 1024
_OWNERS = {
    "vllm": "vllm",
    "llamacpp": "llamacpp",
    "library": "ollama",
    "mistralai": "mistral",
    "whisper-openai-api": "whisper",
}
"""Kinds by what their lists print as `owned_by`."""

_HEALTH = {
    "tei": "/health",
    "vllm": "/health",
    "llamacpp": "/health",
    "whisper": "/health",
    "whispercpp": "/health",
    "ollama": OLLAMA,
}
"""Where a kind tells whether it is well; the others are asked for their models."""

_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


_ASR = "automatic-speech-recognition"
_WHISPER_CPP = Found("whispercpp", "whisper", _ASR, capabilities=CAPABILITIES[_ASR])
"""It does not tell which model it has loaded, and reads no name."""

_MOST_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a server is: its kind (a key of `kinds.KINDS`) and its models that we can serve."""

    kind: str
    models: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """One answer to a GET: `value` is its JSON, None if it is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    value: Any

    @property
    def listed(self) -> list[dict[str, Any]] | None:
        """The models of a list as OpenAI prints it (Together leaves the frame out), or Cohere."""
        value = self.value
        models = value.get("data", value.get("models")) if isinstance(value, dict) else value
        if self.status != HTTPStatus.OK or not isinstance(models, list):
            return None
        named = [{"id": m.get("name")} | m for m in models if isinstance(m, dict)]
        return [one for one in named if isinstance(one["id"], str)]


async def recognise(transport: Transport, url: str, key: str = "") -> Recognised:
    """The kind and the models of the server at a URL, with or without `/v1`.

    Raises UpstreamUnavailable or DeadlineExceeded if nothing answers, UpstreamAuth for a key that
    is refused, and UpstreamProtocol for what is no model server.
    """
    base = url.rstrip("/").removesuffix("/v1").rstrip("/")
    asked = _Asked(transport, base, key)
    models, info = await asyncio.gather(asked.get(MODELS), asked.get(INFO), return_exceptions=True)
    listed = isinstance(models, _Told) and bool(models.listed)
    # TEI itself has no list; a server that has one beside /info tells more by it.
    if isinstance(info, _Told) and _is_tei(info.value) and not listed:
        return Recognised("tei", (model_types.from_info(info.value),))
    if isinstance(models, BaseException):
        raise models
    if models.listed is not None:
        kind = await _kind(asked, models)
        return Recognised(kind, await _found(asked, kind, models.listed))
    if isinstance(info, _Told) and info.status in _REFUSED:
        models = info
    if models.status not in _REFUSED and await _is_whispercpp(asked):
        return Recognised("whispercpp", (_WHISPER_CPP,))
    raise _unknown(models, endpoint_name("the server at", base), key)


async def alive(transport: Transport, endpoint: Endpoint) -> bool:
    """Whether the endpoint answers and is well: no 5xx, and our key is not refused."""
    asked = _Asked(transport, endpoint.url, endpoint.key, endpoint.headers)
    try:
        status = (await asked.get(_HEALTH.get(endpoint.kind, MODELS))).status
    except errors.TetradError:
        return False
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _REFUSED


class _Asked:
    """One server, to be asked by GET."""

    def __init__(
        self, transport: Transport, url: str, key: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._transport = transport
        self._url = url
        self._headers = {"accept": "*/*", **(headers or {})}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    async def get(self, path: str) -> _Told:
        """The answer to a GET, whatever its status. Raises the transport's errors."""
        return await self._told("GET", path, b"")

    async def post(self, path: str, value: Any) -> _Told:
        """The answer to a POST, whatever its status. Raises the transport's errors."""
        return await self._told("POST", path, codec.dumps(value))

    async def object(self, path: str) -> dict[str, Any]:
        """The JSON object that a GET is answered with; {} for any other answer and any failure."""
        try:
            told = await self.get(path)
        except errors.TetradError:
            return {}
        return told.value if told.status == HTTPStatus.OK and isinstance(told.value, dict) else {}

    async def _told(self, method: str, path: str, body: bytes) -> _Told:
        headers = self._headers | ({"content-type": "application/json"} if body else {})
        name = endpoint_name("the server at", self._url)
        async with self._transport.request(
            method, self._url + path, headers, body, TIMEOUTS, endpoint=name
        ) as response:
            told = await response.read(_LIMIT)
            try:
                value = codec.loads(told)
            except codec.JsonError:
                value = None
            return _Told(response.status, response.headers, told, value)


def _is_tei(info: Any) -> bool:
    return isinstance(info, dict) and isinstance(info.get("model_type"), dict)


async def _kind(asked: _Asked, models: _Told) -> str:
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


async def _found(asked: _Asked, kind: str, listed: list[dict[str, Any]]) -> tuple[Found, ...]:
    """The models of a list that we can serve, with what this kind tells beside the list."""
    offered: frozenset[str] = frozenset()
    match kind:
        case "vllm":
            # It registers the routes of its model's tasks.
            paths = (await asked.object(OPENAPI)).get("paths")
            offered = model_types.of_paths(paths if isinstance(paths, dict) else ())
        case "llamacpp":
            offered = await _llamacpp_offered(asked)
        case "ollama":
            shown = await asyncio.gather(*(_shown(asked, m) for m in listed[:_MOST_SHOWN]))
            listed = [*shown, *listed[_MOST_SHOWN:]]
    found = (model_types.from_list(kind, one, offered) for one in listed)
    return tuple(one for one in found if one is not None)


async def _llamacpp_offered(asked: _Asked) -> frozenset[str]:
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


async def _shown(asked: _Asked, model: dict[str, Any]) -> dict[str, Any]:
    """A model of Ollama's list with its capabilities and context length."""
    try:
        told = (await asked.post(SHOW, {"model": model["id"]})).value
    except errors.TetradError:
        return model
    if not isinstance(told, dict):
        return model
    info = told.get("model_info")
    info = info if isinstance(info, dict) else {}
    lengths = (value for name, value in info.items() if name.endswith(".context_length"))
    return model | {
        "capabilities": told.get("capabilities"),
        "context_length": next(lengths, None),
    }


async def _is_whispercpp(asked: _Asked) -> bool:
    return b"whisper.cpp" in (await asked.get("/")).body.lower()


def _unknown(told: _Told, name: str, key: str) -> errors.TetradError:
    if told.status in _REFUSED or told.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return errors.from_upstream(
            told.status, told.headers, told.body, endpoint=name, secrets=(key,)
        )
    return errors.UpstreamProtocol(
        f"{name} is no model server that is known here: GET {MODELS} answered {told.status}"
        f"{'' if told.value is not None else ' without JSON'}, and there is no TEI nor whisper.cpp",
        reached=True,
    )
