"""ModelService: which models there are, and what they can do."""

from __future__ import annotations

import base64
from typing import Any

from services import errors
from services.body import Body
from services.call import Call
from services.routing.table import RoutedModel, Router
from services.upstream.model_types import CAPABILITIES


class ModelService:
    """Lists models. Every method raises errors.TetradError only."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def list_models(self, request: Body, call: Call) -> Body:
        """ListModelsRequest to ListModelsResponse, by name; the caller's key decides which."""
        models = self._router.table.visible(call.principal)
        after = _name_of(request.get("page_token"))
        if after:
            models = [model for model in models if model.name > after]
        size = _page_size(request.get("page_size"))
        page = models[:size] if size else models
        answer: dict[str, Any] = {"object": "list", "data": [describe(model) for model in page]}
        if len(page) < len(models):
            answer["next_page_token"] = _token_of(page[-1].name)
        return Body.from_value("ListModelsResponse", answer)

    async def get_model(self, request: Body, call: Call) -> Body:
        """GetModelRequest to GetModelResponse; aliases count, the answer has the model's name."""
        model = self._router.table.find(request.get("model") or "", call.principal)
        call.model = call.out["x-tetrad-model"] = model.name
        return Body.from_value("GetModelResponse", {"model": describe(model)})


def describe(model: RoutedModel) -> dict[str, Any]:
    """A model as callers see it: the JSON of the message Model."""
    described = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "type": model.type,
        "aliases": list(model.aliases),
        "capabilities": list(CAPABILITIES[model.type]),
        "max_context_length": model.max_context_length,
        "dimension": model.dimension,
        "costs": {
            "prompt_tokens": model.cost_prompt_tokens,
            "completion_tokens": model.cost_completion_tokens,
        },
        "ready": model.ready,
    }
    # An empty list is no field's value on the wire: gRPC callers would find it in `extra`.
    return {name: value for name, value in described.items() if value is not None and value != []}


def _page_size(value: Any) -> int:
    if value in (None, 0):
        return 0
    if type(value) is not int or value < 0:
        problem = f"expected a whole number from 0, found {value!r}"
        raise errors.InvalidRequest(f"page_size: {problem}", param="page_size")
    return value


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of(token: Any) -> str:
    if not token:
        return ""
    try:
        return base64.b64decode(str(token), altchars=b"-_", validate=True).decode()
    except ValueError:  # no base64, or not UTF-8 inside
        raise errors.InvalidRequest(
            "page_token: not one that this server gave", param="page_token"
        ) from None
