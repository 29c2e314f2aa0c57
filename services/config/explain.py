"""What pydantic found, in the words of the file: place, what was expected, what was found.

Pydantic's own messages never reach a user as they are, and no value does that may be a secret.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from services.config.address import Malformed
from services.config.fault import NOWHERE, Loc, Report, quoted
from services.config.schema import choices, homes, keys_at, says
from services.config.source import Node

# Words that others use, where spelling alone does not lead to ours.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "api_base": ("url",),
    "api_key": ("key",),
    "api_url": ("url",),
    "auto-detect": ("auto",),
    "base_url": ("url",),
    "chat": ("text-generation",),
    "completion": ("text-generation",),
    "embed": ("text-embeddings-inference",),
    "embedding": ("text-embeddings-inference",),
    "embeddings": ("text-embeddings-inference",),
    "host": ("address",),
    "id": ("name",),
    "llm": ("text-generation", "vllm"),
    "llama.cpp": ("llamacpp",),
    "max_retries": ("attempts",),
    "model": ("model_name",),
    "port": ("address",),
    "rerank": ("text-classification",),
    "reranker": ("text-classification",),
    "speech": ("automatic-speech-recognition",),
    "strategy": ("load_balancing_strategy",),
    "transcribe": ("automatic-speech-recognition",),
    "transcription": ("automatic-speech-recognition",),
    "whisper": ("automatic-speech-recognition", "whisper"),
}

_EXPECTED: dict[str, str] = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dataclass_type": "host:port",
}
_LIMITS: dict[str, tuple[str, str]] = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_UNITS: dict[str, dict[str, float]] = {
    "a number of seconds": {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600},
    "a number of bytes": {
        **{f"{prefix}b": 1000**power for power, prefix in enumerate(("", "k", "m", "g"))},
        **{f"{prefix}ib": 1024**power for power, prefix in enumerate(("", "k", "m", "g"))},
    },
}
_QUANTITY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([A-Za-z]{1,3})")


def explain(errors: Iterable[ErrorDetails], root: Node | None, report: Report) -> None:
    """Report every error at its line; without a tree (command line) at no line."""
    listed = list(errors)
    misspelt = {
        (*one["loc"][:-1], nearest(str(one["loc"][-1]), keys_at(tuple(one["loc"][:-1]))))
        for one in listed
        if one["type"] == "extra_forbidden"
    }
    for error in listed:
        loc: Loc = tuple(error["loc"])
        if error["type"] == "missing" and loc in misspelt:
            continue
        if error["type"] == "too_short" and error["input"]:
            continue  # it counts the items that are right; the others have faults of their own
        node, deepest, written = (root or Node({})).find(loc)
        at = deepest.at
        if error["type"] == "extra_forbidden" and node is not None:
            at = node.key_at
        message, hint = _words(error, loc, node)
        report.fault(loc, at if root else NOWHERE, message, hint, written)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    words = list(known)
    for synonym in SYNONYMS.get(word.lower(), ()):
        if synonym in words:
            return synonym
    close = difflib.get_close_matches(word[:80].lower(), words, n=1, cutoff=0.6)
    return close[0] if close else None


def _words(error: ErrorDetails, loc: Loc, node: Node | None) -> tuple[str, str]:
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", _unknown_key_hint(loc)
    if kind == "missing":
        return "missing key", _missing_hint(loc)
    if kind == "value_error" and isinstance(context.get("error"), Malformed):
        malformed: Malformed = context["error"]
        hidden = malformed.repeats and node is not None and node.variables
        return malformed.message, "" if hidden else malformed.hint
    if kind in _LIMITS:
        word, member = _LIMITS[kind]
        return f"must be {word} {_number(context[member])}, {_found(error, loc, node)}", ""
    if kind == "finite_number":
        return f"must be a finite number, {_found(error, loc, node)}", ""
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", "write at least one"
    if kind == "string_too_long":
        return f"longer than {context['max_length']} characters", ""
    if kind == "literal_error":
        return _choice(error, loc, node)
    if kind in _EXPECTED:
        known = says(loc)
        expected = known.what if known else _EXPECTED[kind]
        return f"expected {expected}, {_found(error, loc, node)}", _type_hint(kind, expected, error)
    return str(error["msg"]), ""


def _unknown_key_hint(loc: Loc) -> str:
    key = str(loc[-1])
    known = keys_at(loc[:-1])
    near = nearest(key, known)
    if near:
        return f"did you mean '{near}'?"
    elsewhere = homes(key)
    if elsewhere:
        return f"it belongs in {' or '.join(elsewhere)}"
    if "${" in key:
        return "variables are expanded in values only"
    return f"known here: {', '.join(known)}"


def _missing_hint(loc: Loc) -> str:
    known = says(loc)
    options = choices(loc)
    if options:
        return f"one of {', '.join(options)}"
    return f"add '{loc[-1]}: ' and {known.what}" if known else f"add '{loc[-1]}:'"


def _choice(error: ErrorDetails, loc: Loc, node: Node | None) -> tuple[str, str]:
    options = choices(loc)
    known = says(loc)
    what = known.what if known else "one of these words"
    message = f"expected {what} ({', '.join(options)}), {_found(error, loc, node)}"
    near = nearest(error["input"], options) if isinstance(error["input"], str) else None
    return message, f"did you mean '{near}'?" if near else ""


def _found(error: ErrorDetails, loc: Loc, node: Node | None) -> str:
    """`found text 'soon'`, without the value where it may be secret or came from a variable."""
    value: Any = error["input"]
    source = f" (from {', '.join(node.variables)})" if node is not None and node.variables else ""
    if value is None:
        return f"found nothing{source}"
    if isinstance(value, bool):
        return f"found {'true' if value else 'false'}{source}"
    if isinstance(value, dict):
        return "found a mapping"
    if isinstance(value, list | tuple):
        return "found a list"
    known = says(loc)
    hidden = bool(source) or (known is not None and known.secret) or loc[:1] == ("auth",)
    if isinstance(value, int | float):
        shown = "" if hidden else quoted(f"{value}").replace("'", "")
        return f"found a number{source}" if not shown else f"found{shown}"
    return f"found text{source or ('' if hidden else quoted(str(value)))}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _type_hint(kind: str, expected: str, error: ErrorDetails) -> str:
    value = error["input"]
    if kind == "tuple_type":
        return "begin each item with '- ', or write [a, b]" if value else "write [] for none"
    if not isinstance(value, str) or kind in ("string_type", "model_type"):
        return ""
    quantity = _QUANTITY.fullmatch(value.strip())
    if quantity:
        factor = _UNITS.get(expected, {}).get(quantity.group(2).lower())
        return f"write {float(quantity.group(1)) * factor:.12g}" if factor else ""
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?|true|false", value):
        return "leave out the quotes"
    return ""
