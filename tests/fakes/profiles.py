"""Ready-made fakes: `vllm(up)`, `tei(up)`, ... install a server's routes on a fake upstream.

Each answers its probes (/health, /v1/models, /info, /version) as that server does, the calls
with plausible bodies, and wrong paths in its own error shape. Each returns the served model's
name.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.profile_audio import etalab, whisper, whispercpp
from tests.fakes.profile_chat import llamacpp, ollama, openai
from tests.fakes.profile_tei import cohere, tei
from tests.fakes.profile_vllm import vllm
from tests.fakes.upstream import FakeUpstream

__all__ = [
    "PROFILES",
    "cohere",
    "etalab",
    "llamacpp",
    "ollama",
    "openai",
    "tei",
    "vllm",
    "whisper",
    "whispercpp",
]

PROFILES: dict[str, Callable[[FakeUpstream], str]] = {
    "vllm": vllm,
    "vllm-embed": lambda up: vllm(up, model="bge-m3", task="embed"),
    "vllm-score": lambda up: vllm(up, model="bge-reranker-v2-m3", task="score"),
    "vllm-transcription": lambda up: vllm(up, model="whisper-large-v3", task="transcription"),
    "tei": tei,
    "tei-reranker": lambda up: tei(up, kind="reranker"),
    "whisper": whisper,
    "whispercpp": whispercpp,
    "etalab": etalab,
    "openai": openai,
    "llamacpp": llamacpp,
    "llamacpp-embedding": lambda up: llamacpp(up, mode="embedding"),
    "llamacpp-rerank": lambda up: llamacpp(up, mode="rerank"),
    "ollama": ollama,
    "cohere": cohere,
}
