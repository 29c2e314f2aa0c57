"""Makes text of upstreams fit for callers: no keys of ours, no tags, no stack traces.

Pure functions over text and parsed JSON; every one of them is linear in its input, since an
upstream chooses what they are given. Knows nothing of statuses or reasons.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

EXCERPT_CHARACTERS: Final = 200
REDACTED: Final = "[redacted]"
TRACE_REMOVED: Final = "[stack trace removed]"

_WINDOW = 16384
_MAX_DEPTH = 64
_SHORT_SECRET = 6
_MASKABLE_SECRET = 8
_SURROGATES = re.compile("[\ud800-\udfff]")
_MASK = re.compile(r"\*\*|\.\.\.|…|••|x{4}", re.IGNORECASE)
_PAGE = re.compile(r"<!doctype html|<html[\s>]|<body[\s>]|<pre[\s>]", re.IGNORECASE)
_TRACE = re.compile(
    r"""Traceback\ \(most\ recent\ call\ last\)
      | ^[ \t\xa0]*File\ "[^"\n]{1,300}",\ line\ \d
      | ^[ \t\xa0]*at\ (?:async\ )?[\w.$<>/]{1,300}\ ?
        \([^()\n]{0,300}(?::\d+|Native\ Method|Unknown\ Source)\)
      | ^[ \t\xa0]*at\ (?:async\ )?[^\s()]{1,300}:\d+:\d
      | \bpanicked\ at\ \S
      | \bgoroutine\ \d+\ \[
      | \bstack\ backtrace:""",
    re.MULTILINE | re.VERBOSE,
)
_UNSEEN_ELEMENTS = re.compile(r"<(script|style)\b", re.IGNORECASE)
_UNSEEN_ENDS = {
    "script": re.compile(r"</script[^>]{0,80}>", re.IGNORECASE),
    "style": re.compile(r"</style[^>]{0,80}>", re.IGNORECASE),
}

Redact = Callable[[str], str]


def redactor(secrets: Iterable[str]) -> Redact:
    """A function that replaces every given key in a text by "[redacted]".

    Keys are also found URL-quoted and JSON-escaped, and masked by the upstream ("sk-****wxyz").
    A key of less than six characters is only replaced where it stands as a word of its own.
    """
    keys = sorted({key for key in secrets if key.strip()}, key=len, reverse=True)
    if not keys:
        return lambda text: text
    whole = re.compile("|".join(_spellings(key) for key in keys))
    ends = {end for key in keys if len(key) >= _MASKABLE_SECRET for end in (key[:4], key[-4:])}

    def unmask(word: re.Match[str]) -> str:
        text = word[0]
        is_masked_key = any(end in text for end in ends) and _MASK.search(text)
        return REDACTED if is_masked_key else text

    def redact(text: str) -> str:
        text = whole.sub(REDACTED, text)
        return re.sub(r"\S+", unmask, text) if any(end in text for end in ends) else text

    return redact


def _spellings(key: str) -> str:
    forms = {key, quote(key, safe=""), json.dumps(key)[1:-1], html.escape(key)}
    ordered = sorted(forms, key=len, reverse=True)
    pattern = "|".join(map(re.escape, ordered))
    return pattern if len(key) >= _SHORT_SECRET else rf"(?<!\w)(?:{pattern})(?!\w)"


def parse_json(text: bytes) -> Any:
    """The value of a JSON text; NaN and numbers past double's range become null.

    Raises ValueError when it is not JSON, or nested deeper than 64 levels.
    """
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def print_json(value: Any) -> str:
    """Compact JSON text, members in their order, characters unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def clean(value: Any, redact: Redact, depth: int = 0) -> Any:
    """A copy of a parsed JSON value whose texts and member names are fit for callers.

    Raises ValueError when it is nested deeper than 64 levels.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("JSON nested too deeply")
    if isinstance(value, str):
        return clean_text(value, redact)
    if isinstance(value, list):
        return [clean(item, redact, depth + 1) for item in value]
    if isinstance(value, dict):
        return {
            redact(valid_utf8(name)): clean(item, redact, depth + 1) for name, item in value.items()
        }
    return value


def clean_text(text: str, redact: Redact) -> str:
    """The text without keys, lone surrogates and stack traces; an HTML page becomes an excerpt."""
    text = redact(valid_utf8(text))
    return excerpt(text, redact) if _PAGE.search(text) else _without_trace(text)


def valid_utf8(text: str) -> str:
    """The text with U+FFFD for every lone surrogate, so that it can be encoded."""
    return _SURROGATES.sub("\ufffd", text)


def describe(body: bytes, media_type: str, redact: Redact) -> str:
    """What a body that is not JSON is to a caller: media type, size, and at most 200 characters."""
    if not body:
        return "an empty body"
    kind = media_type.partition(";")[0].strip().lower() or "no media type"
    summary = f"{clean_text(kind, redact)[:80]}, {len(body)} bytes"
    shown = _readable(body, redact)
    return f"{summary}: {shown}" if shown else summary


def excerpt(text: str, redact: Redact) -> str:
    """At most 200 characters on one line, without tags, scripts, stack traces and keys."""
    # Before the tags go, since "<anonymous>" of a trace would go with them, and after it.
    text = _without_tags(_without_trace(redact(text)))
    # Escaped tags would come back as tags, and escaped keys as keys.
    text = _without_trace(redact(_without_tags(html.unescape(text))))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= EXCERPT_CHARACTERS else text[: EXCERPT_CHARACTERS - 3] + "..."


def _without_trace(text: str) -> str:
    trace = _TRACE.search(text)
    return f"{text[: trace.start()].rstrip()} {TRACE_REMOVED}".lstrip() if trace else text


def _readable(body: bytes, redact: Redact) -> str:
    text = body[:_WINDOW].decode("utf-8", "replace")
    odd = sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in text)
    if odd * 10 > len(text):
        return ""
    if len(body) > _WINDOW:
        # A key that the window cuts in two would not be recognised.
        text = text.rpartition(" ")[0]
    return excerpt(text, redact)


def _without_tags(text: str) -> str:
    shown: list[str] = []
    at = 0
    while (start := text.find("<", at)) >= 0:
        shown.append(text[at:start])
        following = text[start + 1 : start + 2]
        if not (following.isalpha() or following in ("/", "!", "?")):
            shown.append("<")
            at = start + 1
            continue
        shown.append("\n")
        end = _end_of_markup(text, start)
        if end < 0:
            return "".join(shown)
        at = end
    shown.append(text[at:])
    return "".join(shown)


def _end_of_markup(text: str, start: int) -> int:
    """Where the markup from `start` ends, an unseen element as a whole; -1 if it never does."""
    unseen = _UNSEEN_ELEMENTS.match(text, start)
    if unseen:
        closing = _UNSEEN_ENDS[unseen[1].lower()].search(text, start)
        return closing.end() if closing else -1
    closer = "-->" if text.startswith("<!--", start) else ">"
    end = text.find(closer, start)
    return end + len(closer) if end >= 0 else -1


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
