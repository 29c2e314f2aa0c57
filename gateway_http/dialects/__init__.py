"""Other systems' JSON on our paths: named converters, one file each, that the REST option names.

A dialect works on parsed JSON. Its errors name the caller's own members.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway_http.dialects import opengatellm_to_rerank, tei_to_embed, tei_to_rerank
from gateway_http.dialects.base import Converted, Dialect

DIALECTS: Mapping[str, Dialect] = {
    "rerank": Dialect((tei_to_rerank.FORM, opengatellm_to_rerank.FORM), also_ours=True),
    "tei_embed": Dialect((tei_to_embed.FORM,), also_ours=False),
}
"""By the name in the REST option."""

__all__ = ["DIALECTS", "Converted", "Dialect"]
