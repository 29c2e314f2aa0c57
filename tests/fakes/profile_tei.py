"""Text Embeddings Inference, and Cohere: the servers whose bodies are not OpenAI's."""

from __future__ import annotations

from typing import Any, Literal

from tests.fakes import answers
from tests.fakes.connection import Reply
from tests.fakes.http1 import Received
from tests.fakes.replies import Json, Record
from tests.fakes.routes import EMPTY, Refusal, Site, plain
from tests.fakes.upstream import FakeUpstream
from tests.lib import recordings

_TEI_METRICS = """\
# TYPE te_queue_size gauge
te_queue_size 0
# TYPE te_request_count counter
te_request_count{method="batch"} 0
"""


class TeiShape:
    """Plain text for what the framework refuses; wrong paths have an empty body."""

    def unknown_path(self, received: Received) -> Reply:
        return plain("", 404)

    def unknown_model(self, model: str) -> Reply:
        raise AssertionError("TEI ignores the model's name")

    def invalid(self, message: str, param: str | None = None) -> Reply:
        if param is None:
            return plain(f"Failed to parse the request body as JSON: {message}", 400)
        text = "Failed to deserialize the JSON body into the target type"
        return plain(f"{text}: {message} at line 1 column 2", 422)

    def unauthorized(self) -> Reply:
        return plain("", 401)


def native_error(status: int, message: str, kind: str) -> Reply:
    """An error of TEI's own routes."""
    return Json({"error": message, "error_type": kind}, status)


def openai_error(status: int, message: str, kind: str) -> Reply:
    """An error of TEI's /v1/embeddings: flat."""
    return Json({"message": message, "code": status, "type": kind}, status)


def tei(
    up: FakeUpstream,
    *,
    kind: Literal["embedding", "reranker"] = "embedding",
    model: str | None = None,
    key: str | None = None,
    max_client_batch_size: int = 32,
) -> str:
    """TEI with one model; a batch larger than `max_client_batch_size` is refused with 422."""
    info = recordings.get(f"models/tei-info-{kind}-response.json").json()
    name = model or str(info["model_id"])
    info |= {"model_id": name, "served_model_name": name}
    info["max_client_batch_size"] = max_client_batch_size
    site = Site(up, TeiShape(), key)
    site.get("/info", Json(info))
    site.open("/metrics", plain(_TEI_METRICS))
    for path in ("/health", "/ping", "/"):
        site.open(path, EMPTY)
    model_of = _Tei(site, name, kind, max_client_batch_size)
    site.post("/embed", model_of.embed, "inputs")
    site.post("/v1/embeddings", model_of.embeddings, "input")
    site.post("/embeddings", model_of.embeddings, "input")
    site.post("/rerank", model_of.rerank, "query", "texts")
    if kind == "embedding":
        site.post("/", model_of.embed, "inputs")
    else:
        site.post("/", model_of.rerank, "query", "texts")
    return name


class _Tei:
    def __init__(self, site: Site, model: str, kind: str, limit: int) -> None:
        self._site, self._model, self._kind, self._limit = site, model, kind, limit

    def embed(self, body: dict[str, Any]) -> Reply:
        given = answers.inputs(body["inputs"])
        self._check(len(given), "embedding", native_error)
        dimension = body.get("dimensions") or answers.DIMENSION
        vectors = [answers.vector(one, dimension) for one in given]
        return Json(vectors, headers=self._costs(given))

    def embeddings(self, body: dict[str, Any]) -> Reply:
        given = answers.inputs(body["input"])
        self._check(len(given), "embedding", openai_error)
        file = "embeddings/tei-openai-response.json"
        return Json(answers.embeddings(file, body, self._model), headers=self._costs(given))

    def rerank(self, body: dict[str, Any]) -> Reply:
        query, texts = body["query"], body["texts"]
        self._check(len(texts), "reranker", native_error)
        results = []
        for index, score in answers.ranking(query, texts):
            text = {"text": texts[index]} if body.get("return_text") else {}
            results.append({"index": index, **text, "score": score})
        return Json(results, headers=self._costs([query, *texts]))

    def _check(self, size: int, needed: str, error: Any) -> None:
        if self._kind != needed:
            thing = "an embedding" if needed == "embedding" else "a re-ranker"
            raise Refusal(error(424, f"model is not {thing} model", "Backend"))
        if size == 0:
            raise Refusal(error(400, "batch size 0 must be at least 1", "Empty"))
        if size > self._limit:
            message = f"batch size {size} > maximum allowed batch size {self._limit}"
            raise Refusal(error(422, message, "Validation"))

    def _costs(self, given: list[Any]) -> dict[str, str]:
        return {
            "x-compute-type": "cpu",
            "x-compute-time": "3",
            "x-compute-characters": str(sum(len(one) for one in given)),
            "x-compute-tokens": str(answers.tokens(given)),
            "x-total-time": "4",
            "x-tokenization-time": "0",
            "x-queue-time": "1",
            "x-inference-time": "3",
        }


class CohereShape:
    """{"message", "id"?}."""

    def unknown_path(self, received: Received) -> Reply:
        return Json({"message": "404 page not found"}, 404)

    def unknown_model(self, model: str) -> Reply:
        return Json({"id": "e-2", "message": f"model '{model}' not found"}, 404)

    def invalid(self, message: str, param: str | None = None) -> Reply:
        return Json({"id": "e-3", "message": f"invalid request: {message}"}, 400)

    def unauthorized(self) -> Reply:
        return Record("errors/cohere-error.json")


def cohere(up: FakeUpstream, *, model: str = "rerank-v4.0-pro", key: str | None = None) -> str:
    """Cohere's rerank in both versions."""
    site = Site(up, CohereShape(), key)
    described = {"name": model, "endpoints": ["rerank"], "context_length": 4096}
    site.get("/v1/models", Json({"models": [described]}))

    def results(body: dict[str, Any]) -> list[dict[str, Any]]:
        site.check_model(body, model)
        texts = [one if isinstance(one, str) else one["text"] for one in body["documents"]]
        return [
            {"index": index, "relevance_score": score}
            for index, score in answers.ranking(body["query"], texts, body.get("top_n") or 0)
        ]

    def second(body: dict[str, Any]) -> Reply:
        meta = recordings.get("rerank/cohere-v2-response.json").json()["meta"]
        return Json({"id": "07734bd2", "results": results(body), "meta": meta})

    def first(body: dict[str, Any]) -> Reply:
        found = results(body)
        if body.get("return_documents"):
            for one in found:
                document = body["documents"][one["index"]]
                one["document"] = {"text": document} if isinstance(document, str) else document
        meta = recordings.get("rerank/cohere-v1-response.json").json()["meta"]
        return Json({"id": "x", "results": found, "meta": meta})

    site.post("/v2/rerank", second, "model", "query", "documents")
    site.post("/v1/rerank", first, "query", "documents")
    return model
