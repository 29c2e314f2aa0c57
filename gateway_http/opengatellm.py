"""What OpenGateLLM's callers expect beyond ours: usage with its cost, both lists, ids.

Works on bodies of the contract, after they were read and before they are written. What no
upstream told is not made up. docs/opengatellm.md has the list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway_http.dialects import opengatellm_to_rerank
from gateway_http.request import Request
from services.body import Body
from services.call import Call

Value = dict[str, Any]

CHUNK: Final = "StreamChatResponse"
"""The events of the streams that end with a usage chunk."""

_ENVELOPE = ("id", "created", "model")


def asked(request: Request) -> Request:
    """The request as the services are to get it."""
    body = request.body
    match body.message:
        case "ChatRequest" if request.streamed:
            return replace(request, body=_usage_asked(body))
        case "TranscribeRequest":
            if body.get("language") == "":
                return replace(request, body=body.with_members(language=None))
        case "RerankRequest" if request.form is opengatellm_to_rerank.FORM:
            # Its callers get both lists, as all others do.
            return replace(request, converted=None)
    return request


def _usage_asked(body: Body) -> Body:
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        return body  # of no known type: the upstream judges it
    return body.with_members(stream_options={**(options or {}), "include_usage": True})


def answered(answer: Body, call: Call) -> Body:
    """A whole answer with the members that its callers expect; a document stays as it is."""
    shape = _SHAPES.get(answer.message)
    value = None if shape is None or answer.document is not None else answer.value()
    if shape is None or not isinstance(value, dict):
        return answer
    return shape(answer, value, call)


def _chat(answer: Body, value: Value, call: Call) -> Body:
    usage = value.get("usage")
    if not isinstance(usage, dict):
        return answer
    return answer.with_members(usage=_priced(usage, call))


def _embed(answer: Body, value: Value, call: Call) -> Body:
    return Body.from_value(answer.message, _named(value, call) | _input_usage(value, call))


def _rerank(answer: Body, value: Value, call: Call) -> Body:
    both = opengatellm_to_rerank.both_lists(_named(value, call))
    return Body.from_value(answer.message, both | _input_usage(value, call))


def _transcribe(answer: Body, value: Value, call: Call) -> Body:
    usage = value.get("usage")
    # Usage of speech is tokens or seconds; only tokens have a price.
    counted = isinstance(usage, dict) and "total_tokens" in usage
    more = {"usage": _priced(usage, call)} if isinstance(usage, dict) and counted else {}
    return Body.from_value(answer.message, _named(value, call) | more)


def _models(answer: Body, value: Value, call: Call) -> Body:
    data = value.get("data")
    models = [_model(one) for one in data] if isinstance(data, list) else data
    return Body.from_value(answer.message, value | {"data": models})


def _get_model(answer: Body, value: Value, call: Call) -> Body:
    return Body.from_value(answer.message, value | {"model": _model(value.get("model"))})


_SHAPES: Final[Mapping[str, Callable[[Body, Value, Call], Body]]] = {
    "ChatResponse": _chat,
    "EmbedResponse": _embed,
    "RerankResponse": _rerank,
    "TranscribeResponse": _transcribe,
    "ListModelsResponse": _models,
    "GetModelResponse": _get_model,
}
"""By the message of the answer."""


def _model(model: Any) -> Any:
    """A model with the members that OpenGateLLM always prints."""
    if not isinstance(model, dict):
        return model
    return {"aliases": [], "max_context_length": None} | model


def _named(value: Value, call: Call) -> Value:
    """With an id: the upstream's, else the request's."""
    return value if value.get("id") else value | {"id": call.id}


def _input_usage(value: Value, call: Call) -> Value:
    """The member `usage` of an operation that completes nothing; {} where nobody told it."""
    usage = value.get("usage")
    if not isinstance(usage, dict):
        return {}
    return {"usage": _priced({"completion_tokens": 0} | usage, call)}


def _priced(usage: Value, call: Call) -> Value:
    """Usage with its cost by the configured prices; without prices an upstream's own stays."""
    cost = call.cost
    if cost is None or (cost == 0 and "cost" in usage):
        return usage
    return usage | {"cost": cost}


class FinalUsage:
    """Sees the batches of one chat's stream, and ends it with a usage chunk if none came."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._told = False
        self._envelope: Value = {}
        self._usage: Value | None = None

    def seen(self, batch: list[Body]) -> list[Body]:
        """The batch, with the cost in a chunk that holds nothing but usage."""
        return [self._seen(body) for body in batch]

    def last(self) -> list[Body]:
        """The chunk that is still due: [] or one. Its usage is null if the upstream told none."""
        if self._told:
            return []
        usage = self._usage or self._recorded()
        chunk = {
            **self._envelope,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": None if usage is None else _priced(usage, self._call),
        }
        return [Body.from_value(CHUNK, chunk)]

    def _seen(self, body: Body) -> Body:
        value = body.value()
        if not isinstance(value, dict):
            return body
        self._envelope |= {name: value[name] for name in _ENVELOPE if value.get(name)}
        usage = value.get("usage")
        if not isinstance(usage, dict):
            return body
        self._usage = usage
        if value.get("choices") != []:
            return body
        self._told = True
        return body.with_members(usage=_priced(usage, self._call))

    def _recorded(self) -> Value | None:
        """What the upstream told under another name (Groq)."""
        record = self._call.usage
        if record.source != "upstream":
            return None
        told = {
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "total_tokens": record.total_tokens,
        }
        return {name: count for name, count in told.items() if count is not None} or None
