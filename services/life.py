"""What the REST face sees of the process: readiness, calls that begin and end, drain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.inflight import InFlight
from services.routing.table import Router


@dataclass(slots=True)
class Life:
    """`refused`: why a newer configuration was not taken."""

    in_flight: InFlight
    router: Router
    refused: Callable[[], Sequence[str]]

    @property
    def draining(self) -> bool:
        """Whether no further call is let in."""
        return self.in_flight.draining

    def enter(self) -> None:
        """A call begins. Raises errors.Draining and errors.Overloaded."""
        self.in_flight.__enter__()

    def leave(self) -> None:
        """A call that had entered has ended."""
        self.in_flight.__exit__(None, None, None)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready unless draining; the generation, why a newer one was not taken, each model."""
        table = self.router.table
        models = {
            model.name: {
                "type": model.type,
                "ready": model.ready,
                "providers": {route.name: route.ready for route in model.routes},
            }
            for model in table.models
        }
        details: dict[str, Any] = {"draining": self.draining, "generation": table.generation}
        refused = self.refused()
        if refused:
            details["not_taken"] = refused
        return not self.draining, {**details, "models": models}
