"""Which adapter a kind of upstream takes, and what differs between kinds: a table.

The kinds are the `type` of a configured provider, less `auto`, which `probe` resolves before.
`whispercpp` is told apart by the probe only; a configured `whisper` finds its path itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from services.upstream.base import Adapter, Endpoint
from services.upstream.openai import Dialect, OpenAIAdapter
from services.upstream.speech import SpeechDialect
from services.upstream.tei import TeiAdapter
from services.upstream.transport import Transport
from services.upstream.whisper import WHISPER_CPP, WhisperAdapter

Build = Callable[[Endpoint, Transport], Adapter]


def _openai(dialect: Dialect) -> Build:
    return lambda endpoint, transport: OpenAIAdapter(endpoint, transport, dialect)


KINDS: Final[Mapping[str, Build]] = MappingProxyType(
    {
        "openai": _openai(Dialect(speech=SpeechDialect(realtime="openai"))),
        "vllm": _openai(
            Dialect(
                speech=SpeechDialect(
                    ask_usage=True, lacks=frozenset({"srt", "vtt"}), realtime="vllm"
                )
            )
        ),
        "llamacpp": _openai(Dialect(text_documents=True)),
        "ollama": _openai(Dialect(only_max_tokens=True)),
        "mistral": _openai(Dialect(stream_options=False, base64=False)),
        "albert": _openai(Dialect(base64=False)),
        "cohere": _openai(
            Dialect(
                chat=("/v1/chat/completions", "/compatibility/v1/chat/completions"),
                embed=("/v1/embeddings", "/compatibility/v1/embeddings"),
                rerank=("/v2/rerank", "/v1/rerank", "/rerank"),
                text_documents=True,
                base64=False,
            )
        ),
        "tei": TeiAdapter,
        "whisper": WhisperAdapter,
        "whispercpp": lambda endpoint, transport: WhisperAdapter(endpoint, transport, WHISPER_CPP),
    }
)


def build(endpoint: Endpoint, transport: Transport) -> Adapter:
    """The adapter for an endpoint. KeyError for a kind that is none, `auto` among them."""
    return KINDS[endpoint.kind](endpoint, transport)
