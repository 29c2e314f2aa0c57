"""Reads what upstreams say when they fail: twelve shapes of bodies, one verdict.

Judges only: it names the reason and makes the upstream's words fit for callers; the exception is
made in `errors`. The shapes are those of OpenAI, vLLM, llama.cpp, Ollama, TEI, FastAPI servers,
Cohere, Mistral, OpenRouter and Groq, plain text, HTML and nothing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from services.error_table import (
    INVALID_STATUSES,
    MAX_WAIT,
    QUOTA_CODES,
    Reason,
    reason_of_status,
    status_of_words,
)
from services.error_text import (
    clean,
    describe,
    parse_json,
    print_json,
    redactor,
)

Clock = Callable[[], float]


class Violation(NamedTuple):
    """One member of a request that is wrong: its path ("messages[0].content"), and why."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class UpstreamFault:
    """What an upstream said, fit for callers: keys redacted, no HTML, no stack trace.

    `http_status` is what it answered with: 200 for an error inside an answer, 0 for no answer.
    `type`, `code` and `param` are its own, numbers in decimal. `body` is its JSON text, or a
    description of a body that is not JSON. `error` is its own error object, in OpenAI's form
    as far as it goes, with all extra members; None when it sent none.
    """

    endpoint: str
    http_status: int
    type: str | None = None
    code: str | None = None
    param: str | None = None
    body: str = ""
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an upstream's failure is to us. `status` is the HTTP status that it stands for."""

    reason: Reason
    message: str
    status: int
    fault: UpstreamFault
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None
    quota: str | None = None


_MAX_VIOLATIONS = 32
_SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
_CHUNK_MEMBERS = ("choices", "data", "results", "x_groq")
_NESTED_TEXTS = ("message", "msg", "detail", "error", "title")

_WRONG_OPERATION = re.compile(r"\bmodel is not an? [\w-]{1,40} model\b", re.IGNORECASE)
"""TEI answers 424 both when its backend fails and when the model has another type."""

_CONTEXT_OVERFLOW = re.compile(
    r"maximum context length|context length is only|longer than the maximum model length"
    r"|longer than the model's context length|exceeds? the (?:available )?context (?:size|length)"
    r"|`inputs` must have less than \d|maximum prompt length is \d",
    re.IGNORECASE,
)
_OVERFLOW_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})

_FIGURES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"context length (?:is|of) (?:only )?(\d+)", "context_length"),
        (r"maximum model length of (\d+)", "context_length"),
        (r"context length \((\d+) tokens", "context_length"),
        (r"context size \((\d+) tokens", "context_length"),
        (r"(\d{1,18}) maximum context length", "context_length"),
        (r"must have less than (\d+) tokens", "context_length"),
        (r"maximum prompt length is (\d+)", "context_length"),
        (r"passed (\d+) input tokens and requested (\d+) output", "requested_tokens"),
        (r"too large: (\d+)\..{1,80} has (\d+) input tokens", "requested_tokens"),
        (r"requested (?:a total of )?(\d+) tokens", "requested_tokens"),
        (r"resulted in (\d+) tokens", "requested_tokens"),
        (r"(?:request|input|prompt) \((?:length )?(\d+)", "requested_tokens"),
        (r"(?:prompt|request) contains (?:at least )?(\d+)", "requested_tokens"),
        (r"less than \d+ tokens\. Given: (\d+)", "requested_tokens"),
        (r"batch size (\d+) > maximum allowed", "batch_size"),
        (r"maximum allowed batch size (\d+)", "max_batch_size"),
    )
)
"""The figures of known texts and their names in ErrorInfo.metadata; several groups are added up."""

_FIGURE_MEMBERS: Final = {"n_ctx": "context_length", "n_prompt_tokens": "requested_tokens"}


def judge(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    endpoint: str,
    secrets: Iterable[str] = (),
    now: Clock = time.time,
) -> Verdict:
    """The verdict on a whole answer that is an error by its status, or that cannot be read."""
    redact = redactor(secrets)
    fields = {name.lower(): value for name, value in headers.items()}
    wait = retry_after(fields, now)
    try:
        value = clean(parse_json(body), redact)
    except ValueError:
        seen = describe(body, fields.get("content-type", ""), redact)
        fault = UpstreamFault(endpoint, status, body=seen)
        message = f"{endpoint or 'the upstream'} answered {status} with {seen}"
        reason = _reason(status, fault, seen)
        return Verdict(reason, message, status, fault, _figures(seen, {}), (), wait)
    if status >= HTTPStatus.BAD_REQUEST:
        return _judge_clean(value, status, status, endpoint, wait)
    if is_error(value):
        return judge_value(value, endpoint=endpoint, status=status, wait=wait)
    fault = UpstreamFault(endpoint, status, body=print_json(value))
    message = f"{endpoint or 'the upstream'} answered {_phrase(status)} with JSON that is no answer"
    return Verdict(_reason(status, fault, ""), message, status, fault, retry_after=wait)


def judge_value(
    value: Any,
    *,
    endpoint: str,
    status: int = 200,
    secrets: Iterable[str] = (),
    wait: float | None = None,
) -> Verdict:
    """The verdict on an error object (or text) inside an answer or a stream that began well.

    Its code or type stands for the status that it lacks; 500 when they say nothing.
    """
    try:
        value = clean(value, redactor(secrets))
    except ValueError:
        value = {"message": "an error nested too deeply to be shown"}
    own = own_error(value) or {}
    meant = status_of_words(
        own.get("code"), own.get("status"), own.get("status_code"), own.get("type")
    )
    return _judge_clean(value, status, meant, endpoint, wait)


def is_error(value: Any) -> bool:
    """Whether the parsed JSON of a 200, or of one stream event, is an error and not an answer."""
    if not isinstance(value, dict):
        return False
    groq = value.get("x_groq")
    return bool(
        value.get("error")
        or value.get("object") == "error"
        or value.get("success") is False
        or (isinstance(groq, dict) and groq.get("error"))
    )


def own_error(value: Any) -> dict[str, Any] | None:
    """An upstream's error in the form {message, type, param, code, and its other members}.

    Only what it said: members that it left out stay out. None for JSON that is no object or text.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return {"message": value}
    if not isinstance(value, dict):
        return None
    own = _unwrapped(value)
    if isinstance(own.get("message"), dict):
        own = own.pop("message") | own
    if not own.get("type") and isinstance(own.get("error_type"), str):
        own["type"] = own.pop("error_type")
    violations = _violations(own)
    message = next((text for name in _NESTED_TEXTS if (text := _text_of(own.get(name)))), "")
    if own.get("detail") == message:
        del own["detail"]
    own["message"] = message
    if not own.get("param") and violations:
        own["param"] = violations[0].field
    first = {name: own.pop(name) for name in ("message", "type", "param", "code") if name in own}
    return first | own


def retry_after(headers: Mapping[str, str], now: Clock = time.time) -> float | None:
    """Seconds that an upstream wants to be left alone: `retry-after-ms`, else `retry-after` in
    seconds or as an HTTP date, at least 0 and at most a year. `headers` has lower-case names."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _SECONDS.fullmatch(milliseconds):
        return min(float(milliseconds) / 1000, MAX_WAIT)
    wait = headers.get("retry-after", "").strip()
    if not wait:
        return None
    if _SECONDS.fullmatch(wait):
        return min(float(wait), MAX_WAIT)
    try:
        date = parsedate_to_datetime(wait)
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - now(), 0.0), MAX_WAIT)


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """The error object itself, with what stands beside it, unless that is an answer's chunk."""
    error = value.get("error")
    groq = value.get("x_groq")
    if not error and isinstance(groq, dict):
        error = groq.get("error")
    is_chunk = any(name in value for name in _CHUNK_MEMBERS)
    beside = {} if is_chunk else {name: item for name, item in value.items() if name != "error"}
    if isinstance(error, dict):
        return beside | error
    text = _text_of(error)
    if text and _text_of(beside.get("message")):
        # {"error": "Not Found", "message": "no handler for ..."}: the longer story is the message.
        return {"type": text} | beside
    return beside | {"message": text} if text else beside


def _text_of(value: Any) -> str:
    """The message in a text, in a list of FastAPI's or others' complaints, or in an object."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_text_of, value[:_MAX_VIOLATIONS])))
    if not isinstance(value, dict):
        return ""
    text = next((text for name in _NESTED_TEXTS if (text := _text_of(value.get(name)))), "")
    place = _place(value.get("loc"))
    return f"{place}: {text}" if text and place else text or (print_json(value) if value else "")


def _violations(own: dict[str, Any]) -> tuple[Violation, ...]:
    """FastAPI's list of complaints under `detail`, as violations."""
    details = own.get("detail")
    if not isinstance(details, list):
        return ()
    return tuple(
        Violation(_place(item.get("loc")), _text_of(item.get("msg")))
        for item in details[:_MAX_VIOLATIONS]
        if isinstance(item, dict) and item.get("loc")
    )


def _place(loc: Any) -> str:
    """["body", "messages", 0, "content"] -> "messages[0].content"."""
    if not isinstance(loc, list) or not loc:
        return ""
    steps = loc[1:] if len(loc) > 1 and loc[0] in ("body", "query", "path", "header") else loc
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".")


def _judge_clean(value: Any, status: int, meant: int, endpoint: str, wait: float | None) -> Verdict:
    own = own_error(value)
    told = own or {}
    fault = UpstreamFault(
        endpoint=endpoint,
        http_status=status,
        type=_scalar(told.get("type")),
        code=_scalar(told.get("code")),
        param=_scalar(told.get("param")),
        body=print_json(value),
        error=own,
    )
    message = told.get("message") or f"{endpoint or 'the upstream'} answered {_phrase(status)}"
    reason = _reason(meant, fault, message)
    quota = f"account at {endpoint or 'the upstream'}" if reason is Reason.QUOTA_EXHAUSTED else None
    figures = _figures(message, told)
    return Verdict(reason, message, meant, fault, figures, _violations(told), wait, quota)


def _reason(status: int, fault: UpstreamFault, text: str) -> Reason:
    """The table's reason for a status, made more exact where the body tells more."""
    reason = reason_of_status(status)
    words = {fault.code, fault.type}
    head = text[:4096]
    if words & QUOTA_CODES and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Reason.QUOTA_EXHAUSTED
    if status == HTTPStatus.FAILED_DEPENDENCY and _WRONG_OPERATION.search(head):
        return Reason.NOT_OFFERED
    if status in INVALID_STATUSES and (words & _OVERFLOW_CODES or _CONTEXT_OVERFLOW.search(head)):
        return Reason.CONTEXT_LENGTH_EXCEEDED
    return reason


def _figures(message: str, own: dict[str, Any]) -> dict[str, str]:
    found = {
        name: str(own[member])
        for member, name in _FIGURE_MEMBERS.items()
        if isinstance(own.get(member), int)
    }
    for pattern, name in _FIGURES:
        match = None if name in found else pattern.search(message[:4096])
        if match:
            found[name] = str(sum(int(figure[:18]) for figure in match.groups()))
    return found


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
