"""Transcription servers: speaches ("whisper"), whisper.cpp and etalab's whisper-openai-api."""

from __future__ import annotations

from tests.fakes.connection import Reply
from tests.fakes.http1 import Received
from tests.fakes.replies import Json, Record, Sse
from tests.fakes.routes import Refusal, Site, Upload, plain, truthy
from tests.fakes.upstream import FakeUpstream
from tests.lib import recordings

_TEXTS = {
    "text": "transcriptions/openai-text-response.json",
    "srt": "transcriptions/openai-srt-response.json",
    "vtt": "transcriptions/openai-vtt-response.json",
}


class FastApiShape:
    """{"detail": text or list}; a wrong key is 403."""

    def unknown_path(self, received: Received) -> Reply:
        return Json({"detail": "Not Found"}, 404)

    def unknown_model(self, model: str) -> Reply:
        return Json({"detail": f"Model '{model}' is not installed locally."}, 404)

    def invalid(self, message: str, param: str | None = None) -> Reply:
        if param is None:
            return Json({"detail": message}, 400)
        fault = {"type": "missing", "loc": ["body", param], "msg": message, "input": None}
        return Json({"detail": [fault]}, 422)

    def unauthorized(self) -> Reply:
        return Record("errors/fastapi-detail-string.json")


def _known_format(site: Site, form: Upload, *allowed: str) -> str:
    wanted = form.first("response_format", "json")
    if wanted not in allowed:
        fault = {
            "type": "enum",
            "loc": ["body", "response_format"],
            "msg": f"Input should be one of {', '.join(allowed)}",
            "input": wanted,
        }
        raise Refusal(Json({"detail": [fault]}, 422))
    return wanted


def whisper(
    up: FakeUpstream, *, model: str = "Systran/faster-whisper-small", key: str | None = None
) -> str:
    """speaches: both audio routes, every format, OpenAI's events when streamed."""
    site = Site(up, FastApiShape(), key)
    listing = recordings.get("models/speaches-list-response.json").json()
    first, *rest = listing["data"]
    listing["data"] = [{**first, "id": model}, *rest]
    site.get("/v1/models", Json(listing))
    site.get(f"/v1/models/{model}", Json(listing["data"][0]))
    site.open("/health", Json({"message": "OK"}))

    def transcribe(form: Upload) -> Reply:
        wanted = _known_format(site, form, "json", "text", "verbose_json", "srt", "vtt")
        if truthy(form.first("stream")):
            return Sse(recordings.get("transcriptions/speaches-deltas-stream.sse").bytes)
        if wanted in _TEXTS:
            return Record(_TEXTS[wanted])
        if wanted == "verbose_json":
            return Record("transcriptions/speaches-verbose-response.json")
        return Json({"text": "Quay four.", "logprobs": None, "usage": None})

    def translate(form: Upload) -> Reply:
        wanted = _known_format(site, form, "json", "text", "verbose_json", "srt", "vtt")
        if wanted in _TEXTS:
            return Record(_TEXTS[wanted])
        if wanted == "verbose_json":
            return Record("translations/openai-verbose-response.json")
        return Json({"text": "Quay four."})

    site.upload("/v1/audio/transcriptions", transcribe, "model", model=model)
    site.upload("/v1/audio/translations", translate, "model", model=model)
    return model


def etalab(
    up: FakeUpstream, *, model: str = "openai/whisper-large-v3", key: str | None = None
) -> str:
    """whisper-openai-api: json and text only; its health check needs the key too."""
    site = Site(up, FastApiShape(), key)
    item = {**recordings.get("models/etalab-get-response.json").json(), "id": model}
    site.get("/v1/models", Json({"object": "list", "data": [item]}))
    site.get(f"/v1/models/{model}", Json(item))
    site.get("/health", Json({"status": "OK"}))

    def transcribe(form: Upload) -> Reply:
        if _known_format(site, form, "json", "text") == "text":
            return Record(_TEXTS["text"])
        return Json({"text": "Quay four.", "logprobs": None})

    site.upload("/v1/audio/transcriptions", transcribe, model=model)
    return model


class WhisperCppShape:
    """{"error": text}; wrong paths are plain text."""

    def unknown_path(self, received: Received) -> Reply:
        return plain(f"File Not Found ({received.path})", 404, "text/plain")

    def unknown_model(self, model: str) -> Reply:
        raise AssertionError("whisper.cpp ignores the model's name")

    def invalid(self, message: str, param: str | None = None) -> Reply:
        return Record("errors/whispercpp-error.json")

    def unauthorized(self) -> Reply:
        raise AssertionError("whisper.cpp has no keys")


def whispercpp(up: FakeUpstream) -> str:
    """whisper.cpp's server: one path of its own, no model list; the name returned is empty."""
    site = Site(up, WhisperCppShape())
    site.open("/health", Json({"status": "ok"}))
    site.open("/", plain("<html><body>Whisper.cpp Server</body></html>", media_type="text/html"))

    def infer(form: Upload) -> Reply:
        wanted = form.first("response_format", "json")
        subtitles = {"srt": "application/x-subrip", "vtt": "text/vtt"}
        if wanted == "text":
            return plain(" Quay four.\n", media_type="text/html; charset=utf-8")
        if wanted in subtitles:
            _, text = recordings.get(_TEXTS[wanted]).text_body()
            return plain(text, media_type=subtitles[wanted])
        if wanted == "verbose_json":
            return Record("transcriptions/openai-verbose-response.json")
        return Json({"text": " Quay four.\n"})

    site.upload("/inference", infer, model=None)
    return ""
