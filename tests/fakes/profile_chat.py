"""OpenAI itself, llama.cpp and Ollama: three dialects of the same paths."""

from __future__ import annotations

from typing import Any, Literal

from tests.fakes import answers
from tests.fakes.connection import Reply
from tests.fakes.http1 import Received
from tests.fakes.replies import Json, Record, Sse
from tests.fakes.routes import Refusal, Site, Upload, plain, renamed, text_of, truthy
from tests.fakes.upstream import FakeUpstream
from tests.lib import recordings

_AUDIO = {
    "json": "transcriptions/openai-json-duration-response.json",
    "verbose_json": "transcriptions/openai-verbose-response.json",
    "diarized_json": "transcriptions/openai-diarized-response.json",
    "text": "transcriptions/openai-text-response.json",
    "srt": "transcriptions/openai-srt-response.json",
    "vtt": "transcriptions/openai-vtt-response.json",
}


class OpenAiShape:
    """{"error": {message, type, param, code}}, all four always there."""

    def unknown_path(self, received: Received) -> Reply:
        return self._error(404, f"Invalid URL ({received.method} {received.path})")

    def unknown_model(self, model: str) -> Reply:
        message = f"The model `{model}` does not exist or you do not have access to it."
        return self._error(404, message, None, "model_not_found")

    def invalid(self, message: str, param: str | None = None) -> Reply:
        return self._error(400, message, param)

    def unauthorized(self) -> Reply:
        return self._error(401, "Incorrect API key provided.", None, "invalid_api_key")

    def _error(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> Reply:
        kind = "invalid_request_error"
        error = {"message": message, "type": kind, "param": param, "code": code}
        return Json({"error": error}, status)


def openai(
    up: FakeUpstream,
    *,
    chat: str = "gpt-5.5",
    embedding: str = "text-embedding-3-small",
    audio: str = "whisper-1",
    key: str | None = None,
) -> str:
    """OpenAI's own API with a model of each type; returns the chat model's name."""
    site = Site(up, OpenAiShape(), key)
    listing = recordings.get("models/openai-list-response.json").json()
    card = listing["data"][0]
    listing["data"] = [{**card, "id": name} for name in (chat, embedding, audio)]
    site.get("/v1/models", Json(listing))
    for item in listing["data"]:
        site.get(f"/v1/models/{item['id']}", Json(item))
    headers = {
        "x-request-id": "req_7f3a",
        "openai-processing-ms": "12",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "6ms",
    }

    def complete(body: dict[str, Any]) -> Reply:
        site.check_model(body, chat)
        if body.get("stream"):
            options = body.get("stream_options") or {}
            usage = bool(options.get("include_usage"))
            events = answers.chat_events("chat/openai-usage-stream.sse", chat, usage)
            return Sse(events, headers=headers)
        return Json(answers.chat("chat/openai-text-response.json", chat), headers=headers)

    def embed(body: dict[str, Any]) -> Reply:
        site.check_model(body, embedding)
        file = "embeddings/openai-float-response.json"
        return Json(answers.embeddings(file, body, embedding), headers=headers)

    def transcribe(form: Upload) -> Reply:
        wanted = form.first("response_format", "json")
        if wanted not in _AUDIO:
            raise Refusal(site.shape.invalid(f"Invalid value: '{wanted}'.", "response_format"))
        if truthy(form.first("stream")):
            return Sse(recordings.get("transcriptions/openai-deltas-stream.sse").bytes)
        return Record(_AUDIO[wanted], headers=headers)

    def translate(form: Upload) -> Reply:
        if form.first("response_format") == "verbose_json":
            return Record("translations/openai-verbose-response.json", headers=headers)
        return Json({"text": "Quay four."}, headers=headers)

    site.post("/v1/chat/completions", complete, "model", "messages")
    site.post("/v1/embeddings", embed, "model", "input")
    site.upload("/v1/audio/transcriptions", transcribe, "model", model=audio)
    site.upload("/v1/audio/translations", translate, "model", model=audio)
    return chat


class LlamaCppShape:
    """{"error": {code, message, type}}, no param."""

    def unknown_path(self, received: Received) -> Reply:
        return self.error(404, "File Not Found", "not_found_error")

    def unknown_model(self, model: str) -> Reply:
        raise AssertionError("llama.cpp ignores the model's name")

    def invalid(self, message: str, param: str | None = None) -> Reply:
        return self.error(400, message, "invalid_request_error")

    def unauthorized(self) -> Reply:
        return self.error(401, "Invalid API Key", "authentication_error")

    def error(self, status: int, message: str, kind: str) -> Reply:
        """An error of that status."""
        return Json({"error": {"code": status, "message": message, "type": kind}}, status)


def llamacpp(
    up: FakeUpstream,
    *,
    model: str = "../models/m.gguf",
    mode: Literal["chat", "embedding", "rerank"] = "chat",
    key: str | None = None,
) -> str:
    """llama.cpp's server; an operation that its mode lacks is 501 not_supported_error."""
    shape = LlamaCppShape()
    site = Site(up, shape, key)
    models = renamed(recordings.get("models/llamacpp-list-response.json").json(), model)
    for path in ("/v1/models", "/models"):
        site.open(path, models)
    site.open("/health", Json({"status": "ok"}))
    settings = {"default_generation_settings": {"n_ctx": 8192}, "total_slots": 4}
    build = {"model_path": model, "build_info": "b9465-23e6dab86"}
    site.get("/props", Json({**settings, **build}))
    site.get("/slots", Json([{"id": n, "n_ctx": 8192, "is_processing": False} for n in range(4)]))

    def need(wanted: str, thing: str) -> None:
        if mode != wanted:
            message = f"This server does not support {thing}."
            raise Refusal(shape.error(501, message, "not_supported_error"))

    def complete(body: dict[str, Any]) -> Reply:
        need("chat", "chat completions")
        if body.get("stream"):
            file = "chat/llamacpp-ping-timings-stream.sse"
            return Sse(recordings.get(file).bytes)
        return Json(answers.chat("chat/llamacpp-timings-response.json", model))

    def embed(body: dict[str, Any]) -> Reply:
        need("embedding", "embeddings")
        answer = answers.embeddings("embeddings/llamacpp-base64-response.json", body, model)
        if body.get("encoding_format") != "base64":
            for item in answer["data"]:
                del item["encoding_format"]
        return Json(answer)

    def rerank(body: dict[str, Any]) -> Reply:
        need("rerank", "reranking")
        given = body.get("texts") or body.get("documents")
        if not given or not all(isinstance(one, str) for one in given):
            raise Refusal(shape.invalid('"documents" must be a non-empty string array'))
        texts = [text_of(one) for one in given]
        ranked = answers.ranking(body["query"], texts, body.get("top_n") or 0)
        if "texts" in body:
            back = body.get("return_text")
            rows = [(i, s, {"text": texts[i]} if back else {}) for i, s in ranked]
            return Json([{"index": i, "score": s, **text} for i, s, text in rows])
        answer = recordings.get("rerank/llamacpp-response.json").json()
        results = [{"index": index, "relevance_score": score} for index, score in ranked]
        return Json({**answer, "model": model, "results": results})

    site.post("/v1/chat/completions", complete, "messages")
    site.post("/v1/embeddings", embed, "input")
    for path in ("/v1/rerank", "/rerank", "/reranking", "/v1/reranking"):
        site.post(path, rerank, "query")
    return model


class OllamaShape:
    """{"error": {message, type, param, code}} with nulls; wrong paths are plain text."""

    def unknown_path(self, received: Received) -> Reply:
        return plain("404 page not found", 404, "text/plain")

    def unknown_model(self, model: str) -> Reply:
        return self._error(404, f'model "{model}" not found', "not_found_error")

    def invalid(self, message: str, param: str | None = None) -> Reply:
        return self._error(400, message, "invalid_request_error")

    def unauthorized(self) -> Reply:
        return self._error(401, "unauthorized", "api_error")

    def _error(self, status: int, message: str, kind: str) -> Reply:
        error = {"message": message, "type": kind, "param": None, "code": None}
        return Json({"error": error}, status)


def ollama(up: FakeUpstream, *, chat: str = "qwen3:4b", embedding: str = "nomic-embed-text") -> str:
    """Ollama with a chat and an embedding model; returns the chat model's name."""
    site = Site(up, OllamaShape())
    names = (chat, embedding)
    items = [
        {"id": name, "object": "model", "created": 1795000000, "owned_by": "library"}
        for name in names
    ]
    tags = [{"name": name, "model": name, "size": 2600000000} for name in names]
    site.open("/", plain("Ollama is running"))
    site.open("/api/version", Json({"version": "0.21.0"}))
    site.open("/api/tags", Json({"models": tags}))
    site.open("/api/ps", Json({"models": tags[:1]}))
    site.open("/v1/models", Json({"object": "list", "data": items}))
    for item in items:
        site.open(f"/v1/models/{item['id']}", Json(item))

    def show(body: dict[str, Any]) -> Reply:
        site.check_model(body, *names)
        capability = "completion" if body.get("model") == chat else "embedding"
        details = {"format": "gguf", "family": "qwen3", "parameter_size": "4B"}
        return Json({"details": details, "capabilities": [capability]})

    def complete(body: dict[str, Any]) -> Reply:
        site.check_model(body, *names)
        if body.get("stream"):
            options = body.get("stream_options") or {}
            usage = bool(options.get("include_usage"))
            return Sse(answers.chat_events("chat/ollama-reasoning-stream.sse", chat, usage))
        return Json(answers.chat("chat/ollama-response.json", chat))

    def embed(body: dict[str, Any]) -> Reply:
        site.check_model(body, *names)
        return Json(answers.embeddings("embeddings/ollama-response.json", body, embedding))

    site.post("/api/show", show, "model")
    site.post("/v1/chat/completions", complete, "model", "messages")
    site.post("/v1/embeddings", embed, "model", "input")
    return chat
