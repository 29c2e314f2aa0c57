"""How busy a server says it is: requests that it runs and that wait, as its /metrics tells.

A tolerant reading of Prometheus' text, bounded in size. Figures that are none are not there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from services import errors
from services.upstream.asked import Asked
from services.upstream.base import Endpoint
from services.upstream.transport import Transport

METRICS: Final = "/metrics"

MAX_BYTES: Final = 2 * 1024 * 1024
"""So much of a page is read; what stands behind it is not seen."""

_TGI_AND_SGLANG = (
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "tgi_batch_current_size",
    "tgi_queue_size",
)

GAUGES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting"),
        "tei": ("te_queue_size",),
        "llamacpp": ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
        "openai": _TGI_AND_SGLANG,
    }
)
"""Kinds that tell, and the gauges that add up to their load."""

_MODEL = re.compile(rb'(?:^|,)\s*model_name="((?:[^"\\]|\\.)*)"')
_ESCAPED = {rb"\\": b"\\", rb"\"": b'"', rb"\n": b"\n"}


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at a server, running and waiting: `total`, and by the model's name where told."""

    total: float
    by_model: Mapping[str, float]

    def of(self, model: str) -> float:
        """The load that a request for this model meets; the server's if it tells no such name.

        Adapters (LoRA) and further names of a model share its queue without being named.
        """
        return self.by_model.get(model, self.total)


def parse(page: bytes, kind: str) -> Load | None:
    """The load on a page of a server of that kind; None if it has none of the gauges.

    Several engines of one server add up.
    """
    total, by_model, seen = 0.0, dict[str, float](), False
    for match in _LINES[kind].finditer(page):
        value = _number(match["value"])
        if value is None:
            continue
        seen = True
        total += value
        named = _MODEL.search(match["labels"] or b"")
        if named:
            name = re.sub(rb"\\.", _unescaped, named[1]).decode("utf-8", "replace")
            by_model[name] = by_model.get(name, 0.0) + value
    return Load(total, by_model) if seen else None


async def ask(transport: Transport, endpoint: Endpoint) -> Load | None:
    """What the server of an endpoint says; None if its kind or this server never does.

    Raises a TetradError for a server that fails to answer this time.
    """
    if endpoint.kind not in GAUGES:
        return None
    asked = Asked.at(transport, endpoint)
    status, page = await asked.text(METRICS, MAX_BYTES)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
        raise errors.UpstreamUnavailable(f"{asked.name} does not tell its load", reached=True)
    if status != HTTPStatus.OK:
        return None
    if len(page) >= MAX_BYTES:  # its last line may be cut in the middle of a number
        page = page[: page.rfind(b"\n") + 1]
    return parse(page, endpoint.kind)


def _compiled(names: tuple[str, ...]) -> re.Pattern[bytes]:
    wanted = b"|".join(re.escape(name.encode()) for name in names)
    # A label's value may hold anything, a brace too: the last one of the line closes.
    return re.compile(
        rb"^(?:" + wanted + rb")[ \t]*(?:\{(?P<labels>[^\n]*)\})?[ \t]*(?P<value>[^\s{}]+)"
        rb"(?:[ \t]+-?\d+)?[ \t]*\r?$",
        re.MULTILINE,
    )


_LINES = {kind: _compiled(names) for kind, names in GAUGES.items()}


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _unescaped(match: re.Match[bytes]) -> bytes:
    return _ESCAPED.get(match[0], match[0])
