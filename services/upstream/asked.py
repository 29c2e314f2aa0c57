"""One server, asked for what it tells for free: lists, versions, health, figures.

Answers come back whatever their status; none is larger than its bound. Knows no kind of server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self

from services import codec, errors
from services.upstream.base import Endpoint, Timeouts, endpoint_name
from services.upstream.transport import Request, Transport

TIMEOUTS: Final = Timeouts(connect=3.0, first_byte=5.0, idle=5.0)

_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """One answer: `value` is its JSON, None if it is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    value: Any

    @property
    def object(self) -> dict[str, Any]:
        """The JSON object of a good answer; {} for anything else."""
        good = self.status == HTTPStatus.OK and isinstance(self.value, dict)
        return self.value if good else {}

    @property
    def listed(self) -> list[dict[str, Any]] | None:
        """The models of a list as OpenAI prints it (Together leaves the frame out), or Cohere."""
        value = self.value
        models = value.get("data", value.get("models")) if isinstance(value, dict) else value
        if self.status != HTTPStatus.OK or not isinstance(models, list):
            return None
        named = [{"id": m.get("name")} | m for m in models if isinstance(m, dict)]
        return [one for one in named if isinstance(one["id"], str)]


class Asked:
    """A server by its URL without `/v1`; `key` is sent as a bearer token.

    `via` is the HTTP client, as in `Transport.request`.
    """

    def __init__(
        self,
        transport: Transport,
        url: str,
        key: str,
        headers: Mapping[str, str] | None = None,
        via: str = "",
    ) -> None:
        self._transport = transport
        self._url = url
        self._via = via
        self._headers = {"accept": "*/*", **(headers or {})}
        self.name = endpoint_name("the server at", url)
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    @classmethod
    def at(cls, transport: Transport, endpoint: Endpoint) -> Self:
        """The server of an endpoint, asked as its calls are."""
        return cls(transport, endpoint.url, endpoint.key, endpoint.headers, endpoint.transport)

    async def status(self, path: str) -> int:
        """The status of a GET; its body is not looked at. Raises the transport's errors."""
        async with self._request("GET", path) as response:
            response.release()
            return response.status

    async def get(self, path: str) -> Told:
        """The answer to a GET, whatever its status. Raises the transport's errors."""
        return await self._told("GET", path, b"")

    async def post(self, path: str, value: Any) -> Told:
        """The answer to a POST, whatever its status. Raises the transport's errors."""
        return await self._told("POST", path, codec.dumps(value))

    async def object(self, path: str) -> dict[str, Any]:
        """The JSON object that a GET is answered with; {} for any other answer and any failure."""
        try:
            return (await self.get(path)).object
        except errors.TetradError:
            return {}

    async def text(self, path: str, limit: int) -> tuple[int, bytes]:
        """The status of a GET and its body, of a larger one the first `limit` bytes.

        Raises the transport's errors.
        """
        async with self._request("GET", path) as response:
            pieces: list[bytes] = []
            size = 0
            async for piece in response.chunks():
                pieces.append(piece)
                size += len(piece)
                if size >= limit:
                    break
            return response.status, b"".join(pieces)[:limit]

    async def _told(self, method: str, path: str, body: bytes) -> Told:
        async with self._request(method, path, body) as response:
            told = await response.read(_LIMIT)
            try:
                value = codec.loads(told)
            except codec.JsonError:
                value = None
            return Told(response.status, response.headers, told, value)

    def _request(self, method: str, path: str, body: bytes = b"") -> Request:
        headers = self._headers | ({"content-type": "application/json"} if body else {})
        return self._transport.request(
            method, self._url + path, headers, body, TIMEOUTS, endpoint=self.name, via=self._via
        )
