"""Upstream servers: adapters for what they speak, one HTTP transport, and a probe.

Imports of others go through here. Knows neither names of models and their routes nor the faces.
"""

from services.upstream.base import Adapter, Endpoint, Timeouts, endpoint_name
from services.upstream.kinds import KINDS, build
from services.upstream.model_types import Found
from services.upstream.probe import Recognised, alive, recognise
from services.upstream.transport import Transport

__all__ = [
    "KINDS",
    "Adapter",
    "Endpoint",
    "Found",
    "Recognised",
    "Timeouts",
    "Transport",
    "alive",
    "build",
    "endpoint_name",
    "recognise",
]
