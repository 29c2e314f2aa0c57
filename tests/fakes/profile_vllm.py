"""vLLM as it answers: one model per server, its task decides which routes exist."""

from __future__ import annotations

from typing import Any, Literal

from tests.fakes import answers
from tests.fakes.connection import Reply
from tests.fakes.http1 import Received
from tests.fakes.replies import Json, Record, Sse
from tests.fakes.routes import EMPTY, Refusal, Site, Upload, plain, text_of, truthy
from tests.fakes.upstream import FakeUpstream
from tests.lib import recordings

VERSION = "0.33.0"

_METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="{0}"}} 0.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="{0}"}} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="{0}"}} 0.0
"""


class VllmShape:
    """{"error": {message, type, param, code}} with the status as code."""

    def unknown_path(self, received: Received) -> Reply:
        return self._error(404, "Not Found", "Not Found")

    def unknown_model(self, model: str) -> Reply:
        message = f"The model `{model}` does not exist."
        return self._error(404, message, "NotFoundError", "model")

    def invalid(self, message: str, param: str | None = None) -> Reply:
        return self._error(400, message, "BadRequestError", param)

    def unauthorized(self) -> Reply:
        return Record("errors/vllm-unauthorized.json")

    def _error(self, status: int, message: str, kind: str, param: str | None = None) -> Reply:
        error = {"message": message, "type": kind, "param": param, "code": status}
        return Json({"error": error}, status)


def vllm(
    up: FakeUpstream,
    *,
    model: str = "qwen3-8b",
    task: Literal["generate", "embed", "score", "transcription"] = "generate",
    key: str | None = None,
    max_model_len: int = 40960,
) -> str:
    """vLLM that serves one model for one task; `key` guards everything under /v1."""
    site = Site(up, VllmShape(), key)
    card = recordings.get("models/vllm-list-response.json").json()["data"][0]
    listing = [{**card, "id": model, "root": model, "max_model_len": max_model_len}]
    site.get("/v1/models", Json({"object": "list", "data": listing}))
    site.open("/version", Json({"version": VERSION}))
    site.open("/metrics", plain(_METRICS.format(model)))
    site.open("/load", Json({"server_load": 0}))
    for path in ("/health", "/ping"):
        site.open(path, EMPTY)
    {
        "generate": _generate,
        "embed": _embed,
        "score": _score,
        "transcription": _transcription,
    }[task](site, model)
    return model


def _generate(site: Site, model: str) -> None:
    def chat(body: dict[str, Any]) -> Reply:
        site.check_model(body, model)
        if body.get("stream"):
            options = body.get("stream_options") or {}
            file = "chat/vllm-reasoning-stream.sse"
            return Sse(answers.chat_events(file, model, bool(options.get("include_usage"))))
        return Json(answers.chat("chat/vllm-reasoning-response.json", model))

    def tokenize(body: dict[str, Any]) -> Reply:
        count = answers.tokens(body.get("prompt") or str(body.get("messages")))
        ids = list(range(count))
        return Json({"count": count, "max_model_len": 40960, "tokens": ids, "token_strs": None})

    site.post("/v1/chat/completions", chat, "messages")
    site.post("/tokenize", tokenize)


def _embed(site: Site, model: str) -> None:
    def embed(body: dict[str, Any]) -> Reply:
        site.check_model(body, model)
        if "normalize" in body:
            raise Refusal(site.shape.invalid("`normalize` was removed", "normalize"))
        return Json(answers.embeddings("embeddings/vllm-response.json", body, model))

    site.post("/v1/embeddings", embed, "input")


def _score(site: Site, model: str) -> None:
    def rerank(body: dict[str, Any]) -> Reply:
        site.check_model(body, model)
        given = body["documents"]
        texts = [text_of(one) for one in (given if isinstance(given, list) else [given])]
        query = text_of(body["query"])
        results = [
            {
                "index": index,
                "document": {"text": texts[index], "multi_modal": None},
                "relevance_score": score,
            }
            for index, score in answers.ranking(query, texts, body.get("top_n") or 0)
        ]
        used = answers.tokens([query, *texts])
        usage = {"prompt_tokens": used, "total_tokens": used}
        return Json({"id": "rerank-1", "model": model, "usage": usage, "results": results})

    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        site.post(path, rerank, "query", "documents")


def _transcription(site: Site, model: str) -> None:
    def refuse_formats(form: Upload, *allowed: str) -> None:
        wanted = form.first("response_format", "json")
        if wanted not in allowed:
            raise Refusal(site.shape.invalid(f"unsupported response_format {wanted!r}"))

    def transcribe(form: Upload) -> Reply:
        refuse_formats(form, "json", "text", "verbose_json")
        if truthy(form.first("stream")):
            recorded = recordings.get("transcriptions/vllm-chunk-stream.sse").bytes
            return Sse(recorded.replace(b'"model":"w"', f'"model":"{model}"'.encode()))
        if form.first("response_format") == "verbose_json":
            return Record("transcriptions/speaches-verbose-response.json")
        return Record("transcriptions/vllm-json-response.json")

    def translate(form: Upload) -> Reply:
        refuse_formats(form, "json", "text", "verbose_json")
        return Record("translations/vllm-response.json")

    site.upload("/v1/audio/transcriptions", transcribe, model=model)
    site.upload("/v1/audio/translations", translate, model=model)
