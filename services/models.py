"""ModelService: which models there are, what they can do, and what bounds the caller there."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from services import errors
from services.auth import Principal
from services.body import Body
from services.call import Call
from services.routing.table import RoutedModel, Router
from services.upstream.model_types import CAPABILITIES, FINAL_ONLY, LIVE, SPEECH


class ModelService:
    """Lists models. Every method raises errors.TetradError only.

    rates: a caller's limits by the names `rpm`, `rpd`, `tpm`, `tpd`; None is unlimited.
    max_upload_bytes: of an audio upload. Both may be replaced at any time.
    """

    def __init__(
        self,
        router: Router,
        rates: Callable[[Principal], Mapping[str, int | None]] = lambda principal: {},
        max_upload_bytes: int | None = None,
    ) -> None:
        self._router = router
        self.rates = rates
        self.max_upload_bytes = max_upload_bytes

    async def list_models(self, request: Body, call: Call) -> Body:
        """ListModelsRequest to ListModelsResponse, by name; the caller's key decides which."""
        models = self._router.table.visible(call.principal)
        after = _name_of(request.get("page_token"))
        if after:
            models = [model for model in models if model.name > after]
        size = _page_size(request.get("page_size"))
        page = models[:size] if size else models
        data = [self._describe(model, call.principal) for model in page]
        answer: dict[str, Any] = {"object": "list", "data": data}
        if len(page) < len(models):
            answer["next_page_token"] = _token_of(page[-1].name)
        return Body.from_value("ListModelsResponse", answer)

    async def get_model(self, request: Body, call: Call) -> Body:
        """GetModelRequest to GetModelResponse; aliases count, the answer has the model's name."""
        model = self._router.table.find(request.get("model") or "", call.principal)
        call.model = call.out["x-tetrad-model"] = model.name
        described = self._describe(model, call.principal)
        return Body.from_value("GetModelResponse", {"model": described})

    def _describe(self, model: RoutedModel, principal: Principal) -> dict[str, Any]:
        limits = {
            **self.rates(principal),
            "max_batch": model.max_batch,
            "max_upload_bytes": self.max_upload_bytes if model.type == SPEECH else None,
        }
        return describe(model, limits)


def describe(model: RoutedModel, limits: Mapping[str, int | None]) -> dict[str, Any]:
    """A model as callers see it: the JSON of the message Model, and of ModelLimits in it."""
    described = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "type": model.type,
        "aliases": list(model.aliases),
        "capabilities": _capabilities(model),
        "max_context_length": model.max_context_length,
        "dimension": model.dimension,
        "costs": {
            "prompt_tokens": model.cost_prompt_tokens,
            "completion_tokens": model.cost_completion_tokens,
        },
        "ready": model.ready,
        "limits": {name: value for name, value in limits.items() if value is not None},
    }
    # An empty list is no field's value on the wire: gRPC callers would find it in `extra`.
    return {name: value for name, value in described.items() if value not in (None, [], {})}


def _capabilities(model: RoutedModel) -> list[str]:
    """What it can do; as live as its least live provider, since any may be asked."""
    ways = [getattr(route.adapter, "live", FINAL_ONLY) for route in model.routes]
    live = min(ways, key=LIVE.index, default=FINAL_ONLY)
    return [live if name == FINAL_ONLY else name for name in CAPABILITIES[model.type]]


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
