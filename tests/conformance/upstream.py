"""What stands behind the gateway in the conformance cases: one fake, whose models are its faults.

Models of chats: "echo" says what it was told, "silent" nothing, "endless" never stops, "down" is
503, "picky" refuses, "cut" breaks off. Where "gone" is looked for, nobody listens.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fakes.connection import Reply, Responder
from tests.fakes.http1 import Received
from tests.fakes.replies import Cut, Json, Raw, Sse, Stall, event
from tests.fakes.upstream import FakeUpstream
from tests.lib.tetrad import configuration, model

CASES = sorted(Path(__file__).parent.glob("*.json"))
CHATS = ("echo", "silent", "endless", "down", "picky", "cut")
REFUSAL = {
    "message": "temperature is too high",
    "type": "invalid_request_error",
    "param": "temperature",
    "code": None,
}
WEBVTT = b"WEBVTT\n\n00:00.000 --> 00:01.000\nQuay four.\n"
DELTAS = (
    {"type": "transcript.text.delta", "delta": "Quay"},
    {"type": "transcript.text.delta", "delta": " four."},
    {"type": "transcript.text.done", "text": "Quay four."},
)


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def _usage(text: str) -> dict[str, int]:
    words = len(text.split())
    return {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words}


def _words(text: str) -> Iterator[dict[str, Any]]:
    for number, word in enumerate(text.split()):
        yield _chunk({"content": f" {word}" if number else word})


def _told(model: str, text: str, streamed: bool) -> Reply:
    if streamed:
        last = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(text)}
        return Sse([*_words(text), _chunk({}, "stop"), last])
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {"object": "chat.completion", "model": model, "choices": [choice]}
    return Json({**answer, "usage": _usage(text)})


class Upstream:
    """`fake` serves it; `asked` counts the chats by model, `left` those whose caller went away."""

    def __init__(self, fake: FakeUpstream) -> None:
        self.fake = fake
        self.asked: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        fake.on("GET", "/*", Json({"object": "list", "data": [{"id": name} for name in CHATS]}))
        fake.on("POST", "/v1/chat/completions", self._chat)
        fake.on("POST", "/v1/embeddings", self._embed)
        fake.on("POST", "/v1/rerank", self._rerank)
        fake.on("POST", "/v1/audio/transcriptions", self._transcribe)

    def configure(self, folder: Path, refusing: int) -> Path:
        """A configuration file of a gateway in front of it; nobody listens on port `refusing`."""
        url = self.fake.url
        chats = [
            model(
                name, "text-generation", "vllm", url, name, *(["parrot"] if name == "echo" else [])
            )
            for name in CHATS
        ]
        others = [
            model("gone", "text-generation", "vllm", f"http://127.0.0.1:{refusing}", "gone"),
            model("vectors", "text-embeddings-inference", "vllm", url, "vectors"),
            model("order", "text-classification", "vllm", url, "order"),
            model("speech", "automatic-speech-recognition", "whisper", url, "speech"),
        ]
        return configuration(folder, [*chats, *others], probes={"interval": 3600})

    async def _chat(self, received: Received, responder: Responder) -> None:
        body = received.json()
        name, text = body["model"], body["messages"][-1]["content"]
        self.asked[name] += 1
        reply = self._reply(name, text, bool(body.get("stream")))
        try:
            await reply(received, responder)
        finally:
            self.left[name] += received.disconnected.is_set()
            self.fake.notify()

    def _reply(self, name: str, text: str, streamed: bool) -> Reply:
        match name:
            case "silent":
                return Stall()
            case "endless":
                ticks = (_chunk({"content": "tick"}) for _ in itertools.count())
                return Sse(ticks, delay=0.02)
            case "down":
                return Json({"error": {"message": "closed"}}, 503)
            case "picky":
                return Json({"error": REFUSAL}, 400)
            case "cut":
                events = [event(word) for word in _words(text)]
                return Cut(Sse(events, done=False), sum(map(len, events)))
        return _told(name, text, streamed)

    async def _embed(self, received: Received, responder: Responder) -> None:
        given = received.json()["input"]
        texts = given if isinstance(given, list) else [given]
        data = [
            {"object": "embedding", "index": index, "embedding": [len(text), 0.5, -0.1]}
            for index, text in enumerate(texts)
        ]
        await Json({"object": "list", "data": data})(received, responder)

    async def _rerank(self, received: Received, responder: Responder) -> None:
        texts = received.json()["documents"]
        scores = {index: len(text) / (len(text) + 1) for index, text in enumerate(texts)}
        order = sorted(scores, key=lambda index: -scores[index])
        results = [{"index": index, "relevance_score": scores[index]} for index in order]
        await Json({"results": results})(received, responder)

    async def _transcribe(self, received: Received, responder: Responder) -> None:
        form = received.body
        if b'name="stream"\r\n\r\ntrue' in form:
            reply: Reply = Sse(DELTAS, done=False)
        elif b"\r\n\r\nvtt\r\n" in form:
            reply = Raw(WEBVTT, "text/vtt")
        else:
            reply = Json({"text": "Quay four."})
        await reply(received, responder)
