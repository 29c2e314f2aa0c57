"""What OpenTelemetry's environment variables say of the spans' sender, and to whom they go.

Pure: it is given the environment. Where spans go stands in the configuration alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

SERVICE: Final = "tetrad"
HEADERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
"""Names of what holds headers for the receiver, such as its key; the first that is set holds."""
ATTRIBUTES: Final = "OTEL_RESOURCE_ATTRIBUTES"
NAME: Final = "OTEL_SERVICE_NAME"


def headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Headers to send with every request; names in lower case."""
    told = next((environ[name] for name in HEADERS if environ.get(name)), "")
    return {name.lower(): value for name, value in _pairs(told).items()}


def resource(environ: Mapping[str, str], instance: str, version: str = "") -> dict[str, str]:
    """Attributes of the process; what the environment says holds. instance: its own id."""
    found = {"service.name": SERVICE, "service.instance.id": instance}
    if version:
        found["service.version"] = version
    found |= _pairs(environ.get(ATTRIBUTES, ""))
    if environ.get(NAME):
        found["service.name"] = environ[NAME]
    return found


def _pairs(text: str) -> dict[str, str]:
    """name=value,name=value, percent-encoded; what is no pair is left out."""
    found = {}
    for pair in text.split(","):
        name, sign, value = pair.partition("=")
        if sign and name.strip():
            found[unquote(name.strip())] = unquote(value.strip())
    return found
