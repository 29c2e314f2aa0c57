"""What the profiles share: JSON routes with the refusals that a real server makes.

An error shape says how one kind of server prints its refusals; everything else is common.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from tests.fakes.connection import Reply, Responder
from tests.fakes.http1 import Received
from tests.fakes.replies import Json, Raw
from tests.fakes.upstream import FakeUpstream
from tests.lib.form import FormError, Part

Answer = Callable[[dict[str, Any]], Reply]


class Refusal(Exception):
    """Raised by a route to answer with a refusal of this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("refused")
        self.reply = reply


class Shape(Protocol):
    """How one kind of server prints its errors."""

    def unknown_path(self, received: Received) -> Reply:
        """A path that the server does not have."""

    def unknown_model(self, model: str) -> Reply:
        """A model that it does not serve."""

    def invalid(self, message: str, param: str | None = None) -> Reply:
        """A body that it cannot take."""

    def unauthorized(self) -> Reply:
        """A wrong or missing key."""


class Upload(NamedTuple):
    """A form as a route sees it: its texts by name without brackets, and its file."""

    values: dict[str, list[str]]
    file: Part

    def first(self, name: str, default: str = "") -> str:
        """The first text of that name."""
        return self.values.get(name, [default])[0]


class Site:
    """A kind of server on a fake upstream: routes behind an optional key, errors in its shape."""

    def __init__(self, up: FakeUpstream, shape: Shape, key: str | None = None) -> None:
        self.up = up
        self.shape = shape
        self._key = key
        up.default = self._unknown

    def get(self, path: str, reply: Reply) -> None:
        """A reply that needs the key, if there is one."""
        self.up.on("GET", path, self._guarded(reply))

    def open(self, path: str, reply: Reply) -> None:
        """A reply for everybody, such as a health check."""
        self.up.on("GET", path, reply)

    def post(self, path: str, answer: Answer, *required: str) -> None:
        """A JSON route: `answer` gets the body, an object that has the required members."""

        async def route(received: Received, responder: Responder) -> None:
            await self._json(received, answer, required)(received, responder)

        self.up.on("POST", path, self._guarded(route))

    def upload(
        self, path: str, answer: Callable[[Upload], Reply], *required: str, model: str | None
    ) -> None:
        """A form route: a file, the required members, and the model if it is named."""

        async def route(received: Received, responder: Responder) -> None:
            await self._form(received, answer, required, model)(received, responder)

        self.up.on("POST", path, self._guarded(route))

    def check_model(self, body: dict[str, Any], *served: str) -> None:
        """Refuses a body that names a model which is not among those served."""
        model = body.get("model")
        if model is not None and model not in served:
            raise Refusal(self.shape.unknown_model(str(model)))

    def _json(self, received: Received, answer: Answer, required: tuple[str, ...]) -> Reply:
        media_type = received.headers.get("content-type", "").partition(";")[0]
        if media_type != "application/json":
            return self.shape.invalid(f"Unsupported media type {media_type!r}")
        try:
            body = received.json()
        except ValueError as error:
            return self.shape.invalid(f"JSON decode error: {error}")
        if not isinstance(body, dict):
            return self.shape.invalid("Input should be a valid dictionary")
        for name in required:
            if body.get(name) is None:
                return self.shape.invalid(f"missing field `{name}`", name)
        try:
            return answer(body)
        except Refusal as refusal:
            return refusal.reply

    def _form(
        self,
        received: Received,
        answer: Callable[[Upload], Reply],
        required: tuple[str, ...],
        model: str | None,
    ) -> Reply:
        try:
            parts = received.form()
        except FormError as error:
            return self.shape.invalid(f"There was an error parsing the body: {error}")
        values: dict[str, list[str]] = {}
        files = [part for part in parts if part.name == "file" and part.filename is not None]
        for part in parts:
            if part.filename is None:
                values.setdefault(part.plain_name, []).append(part.text)
        for name in required:
            if name not in values:
                return self.shape.invalid("Field required", name)
        if not files:
            return self.shape.invalid("Field required", "file")
        try:
            if model is not None and "model" in values:
                self.check_model({"model": values["model"][0]}, model)
            return answer(Upload(values, files[0]))
        except Refusal as refusal:
            return refusal.reply

    def _guarded(self, reply: Reply) -> Reply:
        if self._key is None:
            return reply

        async def guard(received: Received, responder: Responder) -> None:
            right = received.headers.get("authorization") == f"Bearer {self._key}"
            await (reply if right else self.shape.unauthorized())(received, responder)

        return guard

    def _unknown(self, received: Received, responder: Responder) -> Awaitable[None]:
        return self.shape.unknown_path(received)(received, responder)


EMPTY = Raw(b"", None)


def plain(text: str, status: int = 200, media_type: str = "text/plain; charset=utf-8") -> Reply:
    """A text answer."""
    return Raw(text.encode(), media_type, status)


def truthy(text: str) -> bool:
    """Whether a form's text says yes, as pydantic reads it."""
    return text.lower() in ("true", "1", "yes", "on", "t", "y")


def text_of(document: Any) -> str:
    """The text of a rerank document, a string or an object."""
    if isinstance(document, str):
        return document
    return str(document.get("text", json.dumps(document)))


def renamed(listing: dict[str, Any], model: str) -> Reply:
    """A recorded model list whose first item carries another id."""
    first, *rest = listing["data"]
    return Json({**listing, "data": [{**first, "id": model}, *rest]})
