"""/health: this process lives. /ready: it should be sent calls, and how each model stands."""

from __future__ import annotations

from http import HTTPStatus

from gateway_http.settings import PageAnswer, State
from services import codec

_JSON = "application/json"


def alive() -> PageAnswer:
    """Always good: who can answer is alive."""
    return PageAnswer(_JSON, b'{"status":"ok"}')


def ready(state: State) -> PageAnswer:
    """503 while the process drains or has no valid configuration; the state's details beside."""
    good, details = state.ready()
    status = "draining" if state.draining else "ready" if good else "not ready"
    body = codec.dumps({"status": status, **details})
    if status == "ready":
        return PageAnswer(_JSON, body)
    return PageAnswer(_JSON, body, HTTPStatus.SERVICE_UNAVAILABLE)
