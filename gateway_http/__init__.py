"""The REST face: OpenAI's paths, bodies and errors, served from the contract's REST options.

A bare ASGI application. It knows the services by the descriptors only, and must not import the
other face.
"""

from __future__ import annotations

from gateway_http.app import RestApp
from gateway_http.protocol import GatewayProtocol
from gateway_http.settings import Page, PageAnswer, RestSettings, State

__all__ = ["GatewayProtocol", "Page", "PageAnswer", "RestApp", "RestSettings", "State"]
