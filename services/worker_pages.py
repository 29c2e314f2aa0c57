"""/ready and /metrics of processes that share their ports: whichever is asked answers for all.

The merging is pure; the bytes of /metrics are somebody else's to merge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from gateway_http.settings import PageAnswer
from services import codec
from services.worker_channel import METRICS, STATE
from services.worker_seat import Seat, Told

_JSON = "application/json"


def ready(
    seat: Seat, own: Callable[[], tuple[bool, dict[str, Any]]]
) -> Callable[[], Awaitable[PageAnswer]]:
    """The page /ready; `own` is this process's state as the REST face asks for it."""

    def answer() -> bytes:
        good, details = own()
        return codec.dumps({"good": good, **details})

    async def page() -> PageAnswer:
        merged = merge_ready(await seat.ask(STATE))
        good = merged["status"] == "ready"
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return PageAnswer(_JSON, codec.dumps(merged), status)

    seat.answers(STATE, answer)
    return page


def metrics(
    seat: Seat,
    own: Callable[[], bytes],
    merge: Callable[[list[bytes]], PageAnswer],
) -> Callable[[], Awaitable[PageAnswer]]:
    """The page /metrics; `own` is this process's snapshot, `merge` makes the page of all."""

    async def page() -> PageAnswer:
        told = await seat.ask(METRICS)
        return merge([one.body for one in told if one.body is not None])

    seat.answers(METRICS, own)
    return page


def merge_ready(told: Sequence[Told]) -> dict[str, Any]:
    """One answer of all workers' answers.

    Ready when at least one worker is: the kernel gives connections only to those that listen. A
    model or provider is ready when one worker can reach it. Whatever else they say is the newest
    generation's.
    """
    states = [(one, codec.loads(one.body)) for one in told if one.body is not None]
    states.sort(key=lambda pair: (-pair[0].generation, pair[0].number))
    merged: dict[str, Any] = {"status": "not ready"}
    if any(state["good"] and one.state != "draining" for one, state in states):
        merged["status"] = "ready"
    elif any(state.get("draining") or one.state == "draining" for one, state in states):
        merged["status"] = "draining"
    for _, state in reversed(states):
        models = {**merged.get("models", {})}
        for name, model in state.get("models", {}).items():
            models[name] = _either(models[name], model) if name in models else model
        merged |= {key: value for key, value in state.items() if key != "good"}
        merged["models"] = models
    if states:  # what the newest generation does not serve is gone
        newest = states[0][1].get("models", {})
        merged["models"] = {name: merged["models"][name] for name in newest}
    merged["workers"] = [
        {"number": one.number, "pid": one.pid, "state": one.state, "generation": one.generation}
        for one in sorted(told, key=lambda one: one.number)
    ]
    return merged


def _either(one: Any, other: Any) -> Any:
    """A model's states in two workers: true in either is true; of the rest, the other's."""
    if isinstance(other, bool):
        return other or one is True
    if isinstance(other, Mapping) and isinstance(one, Mapping):
        return {key: _either(one.get(key), value) for key, value in other.items()}
    return other
