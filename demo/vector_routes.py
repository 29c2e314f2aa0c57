"""Embeddings and rerank, as OpenAI, TEI and Cohere/Jina shape them.

Scores are cosines of the two vectors, so from -1 to 1; TEI's `raw_scores` changes nothing here.
"""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from demo import catalogue, wire
from demo.catalogue import DIMENSION, EMBED, MAX_BATCH, MAX_TOKENS, RERANK
from demo.vectors import DIMENSIONS, Embedder, TooLongError, Vectors
from demo.wire import ApiError, Reply, Request

_SLICE_TEXTS: Final = 256
_SLICE_CHARACTERS: Final = 262_144
"""One turn in the model's thread: a call that is given up ends after its slice."""


@dataclass(frozen=True, slots=True)
class _Embedded:
    vectors: Vectors
    tokens: int
    characters: int
    seconds: float

    def headers(self) -> dict[str, str]:
        """What TEI tells in headers."""
        milliseconds = str(round(self.seconds * 1000))
        return {
            "x-compute-type": "cpu",
            "x-compute-time": milliseconds,
            "x-compute-characters": str(self.characters),
            "x-compute-tokens": str(self.tokens),
            "x-total-time": milliseconds,
            "x-tokenization-time": "0",
            "x-queue-time": "0",
            "x-inference-time": milliseconds,
        }


class VectorRoutes:
    """Handlers over one embedder."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def embeddings(self, request: Request) -> Reply:
        """POST /v1/embeddings."""
        body = request.json()
        catalogue.check(body.get("model"), EMBED)
        texts = _texts(body, "input")
        encode = _encoder(body.get("encoding_format"))
        done = await self._embed(texts, "input", dimensions=_dimensions(body))
        usage = {"prompt_tokens": done.tokens, "total_tokens": done.tokens}
        head = wire.dumps({"object": "list", "model": EMBED, "usage": usage})
        # In pieces of their own: this way a big batch does not hold up the loop in one go.
        rows: list[bytes] = []
        for start in range(0, len(texts), _SLICE_TEXTS):
            rows.append(_rows(done.vectors, start, encode))
            await asyncio.sleep(0)
        return Reply(head[:-1] + b',"data":[' + b",".join(rows) + b"]}")

    async def tei_embed(self, request: Request) -> Reply:
        """POST /embed."""
        body = request.json()
        texts = _texts(body, "inputs")
        if body.get("prompt_name") is not None:
            raise ApiError("This model has no prompts.", param="prompt_name")
        done = await self._embed(
            texts,
            "inputs",
            dimensions=_dimensions(body),
            normalise=wire.boolean(body, "normalize", True),
            truncate=wire.boolean(body, "truncate", True),
        )
        return wire.reply_json(done.vectors, done.headers())

    async def tei_rerank(self, request: Request) -> Reply:
        """POST /rerank."""
        body = request.json()
        query = wire.text(body, "query")
        texts = _texts(body, "texts")
        wire.boolean(body, "raw_scores")
        with_text = wire.boolean(body, "return_text")
        truncate = wire.boolean(body, "truncate", True)
        done = await self._embed([query, *texts], "texts", truncate=truncate)
        ranked = [
            {"index": index, "score": score} | ({"text": texts[index]} if with_text else {})
            for index, score in _ranked(done.vectors)
        ]
        return wire.reply_json(ranked, done.headers())

    async def rerank(self, request: Request) -> Reply:
        """POST /v1/rerank."""
        body = request.json()
        catalogue.check(body.get("model"), RERANK, required=False)
        query = wire.text(body, "query")
        texts = _documents(body)
        top = wire.integer(body, "top_n", 0) or len(texts)
        with_documents = wire.boolean(body, "return_documents", True)
        done = await self._embed([query, *texts], "documents", truncate=True)
        results = [
            {"index": index, "relevance_score": score}
            | ({"document": {"text": texts[index]}} if with_documents else {})
            for index, score in _ranked(done.vectors)[:top]
        ]
        return wire.reply_json(
            {
                "id": f"rerank-{uuid.uuid4().hex}",
                "model": RERANK,
                "usage": {"prompt_tokens": done.tokens, "total_tokens": done.tokens},
                "results": results,
            }
        )

    async def info(self, request: Request) -> Reply:
        """GET /info."""
        return wire.reply_json(
            {
                "model_id": EMBED,
                "model_sha": None,
                "model_dtype": "float32",
                "served_model_name": EMBED,
                "model_type": {"embedding": {"pooling": "mean"}},
                "max_concurrent_requests": 512,
                "max_input_length": MAX_TOKENS,
                "max_batch_tokens": MAX_TOKENS * _SLICE_TEXTS,
                "max_batch_requests": _SLICE_TEXTS,
                "max_client_batch_size": MAX_BATCH,
                "auto_truncate": True,
                "tokenization_workers": 1,
                "version": "1.9.3",
                "sha": None,
                "docker_label": None,
            }
        )

    async def _embed(
        self,
        texts: Sequence[str],
        param: str,
        *,
        dimensions: int = DIMENSION,
        normalise: bool = True,
        truncate: bool = False,
    ) -> _Embedded:
        started = time.perf_counter()
        vectors: list[Vectors] = []
        tokens = done = 0
        for part in _slices(texts):
            try:
                embedded = await asyncio.to_thread(
                    self._embedder.embed,
                    part,
                    dimensions=dimensions,
                    normalise=normalise,
                    truncate=truncate,
                )
            except TooLongError as error:
                raise ApiError(
                    f"This model's maximum context length is {MAX_TOKENS} tokens; the text at "
                    f"{done + error.index} has more.",
                    param=param,
                    code="context_length_exceeded",
                ) from error
            vectors.append(embedded.vectors)
            tokens += embedded.tokens
            done += len(part)
        return _Embedded(
            np.concatenate(vectors),
            tokens,
            sum(map(len, texts)),
            time.perf_counter() - started,
        )


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    characters = 0
    for text in texts:
        if part and (len(part) == _SLICE_TEXTS or characters + len(text) > _SLICE_CHARACTERS):
            yield part
            part, characters = [], 0
        part.append(text)
        characters += len(text)
    yield part


def _texts(body: dict[str, Any], name: str) -> list[str]:
    value = body.get(name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ApiError(f"`{name}` must be a text, or a list of texts, not empty.", param=name)
    if len(texts) > MAX_BATCH:
        raise ApiError(f"`{name}` has {len(texts)} texts; at most {MAX_BATCH} are.", param=name)
    for index, text in enumerate(texts):
        if isinstance(text, int | list):
            raise ApiError(
                f"`{name}` holds token ids. Those are of another model's vocabulary: send text.",
                param=name,
                code="token_ids_not_supported",
            )
        if not isinstance(text, str) or not text:
            raise ApiError(f"`{name}[{index}]` must be a text, not an empty one.", param=name)
    return texts


def _documents(body: dict[str, Any]) -> list[str]:
    documents = body.get("documents")
    if isinstance(documents, list):
        texts = [d.get("text") if isinstance(d, dict) else d for d in documents]
        body = {"documents": texts}
        if all(isinstance(text, str) for text in texts):
            return _texts(body, "documents")
    raise ApiError(
        '`documents` must be a list of texts, or of objects like {"text": "..."}.',
        param="documents",
    )


def _dimensions(body: dict[str, Any]) -> int:
    wanted = wire.integer(body, "dimensions", 1, default=DIMENSION)
    if wanted not in DIMENSIONS:
        raise ApiError(
            f"`dimensions` can be {', '.join(map(str, DIMENSIONS))}: what the vectors of this "
            "model were trained to be cut to.",
            param="dimensions",
        )
    return wanted


def _encoder(wanted: object) -> Callable[[Vectors], object]:
    match wanted:
        case None | "float":
            return lambda row: row
        case "base64":
            return lambda row: base64.b64encode(row.astype("<f4").tobytes()).decode()
    raise ApiError('`encoding_format` can be "float" or "base64".', param="encoding_format")


def _rows(vectors: Vectors, start: int, encode: Callable[[Vectors], object]) -> bytes:
    """A slice of `data`, without the brackets."""
    rows = [
        {"object": "embedding", "index": start + index, "embedding": encode(row)}
        for index, row in enumerate(vectors[start : start + _SLICE_TEXTS])
    ]
    return wire.dumps(rows)[1:-1]


def _ranked(vectors: Vectors) -> list[tuple[int, float]]:
    """(index, score) of all rows but the first, by nearness to the first, nearest first."""
    scores = (vectors[1:] @ vectors[0]).astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    return [(int(index), round(float(scores[index]), 6)) for index in order]
