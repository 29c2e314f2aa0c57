"""One of every kind of upstream, and two gateways in front of them all: relaying, and not.

The fakes of PROFILES answer as their servers do. The one called "scripted" serves a model of each
type and answers whatever a test tells it to.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream, Raw, Reply
from tests.lib.gateway import Gateway, gateway
from tests.lib.refusing import refusing_port

CHAT, EMBED, SPEECH, RERANK = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)

KEY = "sk-upstream-71c0de"
"""The key that the scripted upstream's provider has; no caller may ever see it."""

SCRIPTED = {
    "scripted-chat": CHAT,
    "scripted-embed": EMBED,
    "scripted-speech": SPEECH,
    "scripted-rerank": RERANK,
}
UPSTREAM_NAME = "acme/upstream-1"
"""What the scripted upstream calls each of its models."""


@dataclass(frozen=True)
class Served:
    """A model of the gateways: what it is here, and what stands behind it."""

    type: str
    fake: str
    kind: str
    upstream_name: str = ""
    aliases: tuple[str, ...] = ()
    more: Mapping[str, Any] | None = None


MODELS: Mapping[str, Served] = {
    "vllm": Served(CHAT, "vllm", "vllm", "qwen3-8b", ("chat",), {"default": True}),
    "openai": Served(CHAT, "openai", "openai", "gpt-5.5"),
    "llamacpp": Served(CHAT, "llamacpp", "llamacpp", "../models/m.gguf"),
    "ollama": Served(CHAT, "ollama", "ollama", "qwen3:4b"),
    "acme/lab/tei": Served(
        EMBED, "tei", "tei", "", ("embeddings", "acme/e5"), {"default": True, "owned_by": "acme"}
    ),
    "vllm-embed": Served(EMBED, "vllm-embed", "vllm", "bge-m3"),
    "openai-embed": Served(EMBED, "openai", "openai", "text-embedding-3-small"),
    "whisper": Served(
        SPEECH, "whisper", "whisper", "Systran/faster-whisper-small", ("speech",), {"default": True}
    ),
    "vllm-speech": Served(SPEECH, "vllm-transcription", "vllm", "whisper-large-v3"),
    "openai-speech": Served(SPEECH, "openai", "openai", "whisper-1"),
    "whispercpp": Served(SPEECH, "whispercpp", "auto"),
    "etalab": Served(SPEECH, "etalab", "whisper", "openai/whisper-large-v3"),
    "tei-rerank": Served(RERANK, "tei-reranker", "tei", "", ("rerank",), {"default": True}),
    "vllm-rerank": Served(RERANK, "vllm-score", "vllm", "bge-reranker-v2-m3"),
    "cohere": Served(RERANK, "cohere", "cohere", "rerank-v4.0-pro"),
    **{name: Served(type, "scripted", "openai", UPSTREAM_NAME) for name, type in SCRIPTED.items()},
    "gone": Served(CHAT, "gone", "openai"),
}
"""By name. Nobody listens where "gone" is looked for."""


@dataclass
class World:
    """The gateways and the fakes behind them, by the names in MODELS."""

    relaying: Gateway
    recoding: Gateway
    fakes: Mapping[str, FakeUpstream]

    @property
    def scripted(self) -> FakeUpstream:
        """The fake that answers as it is told."""
        return self.fakes["scripted"]

    def behind(self, model: str) -> FakeUpstream:
        """The fake behind a model, by name or alias; the scripted one where there is none."""
        served = MODELS.get(model) or next(
            (one for one in MODELS.values() if model in one.aliases), MODELS["scripted-chat"]
        )
        return self.fakes.get(served.fake, self.scripted)

    def script(self, reply: Reply) -> None:
        """What the scripted upstream answers to every POST from now on."""
        self.scripted.on("POST", "/*", reply)


def configuration(urls: Mapping[str, str], **sections: Any) -> str:
    """MODELS as configuration text; `urls` are those of the fakes, `sections` stand beside."""
    models = [
        {
            "name": name,
            "type": served.type,
            "aliases": list(served.aliases),
            **(served.more or {}),
            "providers": [
                {
                    "type": served.kind,
                    "url": urls[served.fake],
                    "model_name": served.upstream_name,
                    "key": KEY if served.fake == "scripted" else "",
                }
            ],
        }
        for name, served in MODELS.items()
        if served.fake in urls
    ]
    # What a test counts is its own requests: no probe comes in between.
    return json.dumps({"probes": {"interval": 3600}, "models": models, **sections})


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """All fakes and both gateways, running."""
    async with AsyncExitStack() as stack:
        fakes = {
            name: await stack.enter_async_context(FakeUpstream())
            for name in dict.fromkeys(served.fake for served in MODELS.values())
            if name != "gone"
        }
        for name, fake in fakes.items():
            if name != "scripted":
                profiles.PROFILES[name](fake)
        fakes["scripted"].on("GET", "/*", Raw(b"{}", "application/json"))
        urls = {name: fake.url for name, fake in fakes.items()}
        urls["gone"] = f"http://127.0.0.1:{stack.enter_context(refusing_port())}"
        relaying = await stack.enter_async_context(gateway(configuration(urls)))
        recoding = await stack.enter_async_context(gateway(configuration(urls, relay=False)))
        yield World(relaying, recoding, fakes)
