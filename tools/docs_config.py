"""docs/configuration.md from the models of the configuration: each key with all that is known.

Types, bounds, defaults and descriptions are read from `services.config.sections`. What is told
here: units that no type says. Every key needs an example in docs_pages/examples.md.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from services.config import NOT_YET
from services.config.kinds import DAY, Says
from services.config.sections import DEFAULT_URLS, Settings
from tools.docs_text import blocks, filled

UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "attempts": "attempts",
        "budget_ratio": "share of the calls",
        "cost_completion_tokens": "per million tokens",
        "cost_prompt_tokens": "per million tokens",
        "failures": "failures in a row",
        "max_batch": "inputs or documents",
        "max_batch_bytes": "bytes",
        "max_concurrency": "calls",
        "max_in_flight": "calls",
        "max_queue": "calls",
        "Ledger.max_queue": "records",
        "priority": "rank",
        "rpd": "requests a day",
        "rpm": "requests a minute",
        "tpd": "tokens a day",
        "tpm": "tokens a minute",
        "trace_sample_ratio": "share of the traces",
        "weight": "share",
        "workers": "processes",
    }
)
"""Of numbers whose type does not say it, by the key's name."""

_BOUNDS: Final = ((annotated_types.Ge, "ge", "from"), (annotated_types.Gt, "gt", "above"))
_TOPS: Final = ((annotated_types.Le, "le", "to"), (annotated_types.Lt, "lt", "below"))
_SANE: Final = 10**9
_MONTH: Final = 30 * DAY
_SAID_UNITS: Final = {"a number of seconds": "seconds", "a number of bytes": "bytes"}


class Place(NamedTuple):
    """A section: its path in the file ("models[].providers[]", "" for the whole), its model."""

    path: str
    model: type[BaseModel]


def places() -> list[Place]:
    """All sections, the whole file first; one that stands in two places has both."""
    return [*_below(Place("", Settings))]


def _below(place: Place) -> Iterator[Place]:
    yield place
    for name, field in place.model.model_fields.items():
        path = f"{place.path}.{name}" if place.path else name
        for part in _parts(field.annotation):
            many = get_origin(part) is tuple
            for model in _models(part):
                yield from _below(Place(f"{path}[]" if many else path, model))


def page() -> str:
    """The page's text."""
    hosted = ", ".join(f"`{name}` {url}" for name, url in DEFAULT_URLS.items())
    before = filled("configuration.md", hosted=hosted)
    examples = blocks("examples.md")
    return before + "".join(_section(place, examples) for place in places())


def heading(path: str) -> str:
    """The heading of a section."""
    return f"`{path}`" if path else "The whole file"


def anchor(path: str) -> str:
    """What a link to a section's heading ends with."""
    kept = (character for character in path if character.isalnum() or character in "_-")
    return "".join(kept).lower()


def _section(place: Place, examples: Mapping[str, str]) -> str:
    doc = (
        (place.model.__doc__ or "").strip()
        if place.path
        else "Its sections, and what is not in one."
    )
    lines = [f"\n## {heading(place.path)}\n", f"{doc}\n"]
    lines += ["| key | type | default | unit | what it says |", "|---|---|---|---|---|"]
    lines += [_row(place, name, field) for name, field in place.model.model_fields.items()]
    lines += ["", f"```yaml\n{examples[place.path or '.']}```", ""]
    return "\n".join(lines)


def _row(place: Place, name: str, field: FieldInfo) -> str:
    path = f"{place.path}.{name}" if place.path else name
    told = says(field) + _not_yet(path)
    cells = [f"`{name}`", _type(path, field), _default(field), unit(place.model, name), told]
    return f"| {' | '.join(cells)} |"


def _not_yet(path: str) -> str:
    """What is said of a key that is only there so that files may have it."""
    waits = NOT_YET.get(path.replace("[]", "[*]"))
    return f" This version does not have it yet: {waits[1]}." if waits else ""


def says(field: FieldInfo) -> str:
    """A key's description."""
    return (field.description or "").replace("|", "\\|")


def unit(model: type[BaseModel], name: str) -> str:
    """The unit of a number: from its type, else as `UNITS` has it; empty for what is no number.

    KeyError for a number whose unit nobody tells.
    """
    field = model.model_fields[name]
    told = [part.what for part in _all(field) if isinstance(part, Says)]
    known = next((_SAID_UNITS[what] for what in told if what in _SAID_UNITS), "")
    if known or not {"a number", "a whole number"} & set(told):
        return known
    return UNITS.get(f"{model.__name__}.{name}") or UNITS[name]


def _all(field: FieldInfo) -> list[Any]:
    return [*field.metadata, *_parts(field.annotation)]


def _type(path: str, field: FieldInfo) -> str:
    parts = _all(field)
    nullable = type(None) in parts
    many = next((part for part in parts if get_origin(part) is tuple), None)
    inner = [*_parts(get_args(many)[0])] if many is not None else parts
    section = _models(many if many is not None else field.annotation)
    if section:
        target = f"{path}[]" if many is not None else path
        kind = f"{'list of ' if many is not None else ''}[section](#{anchor(target)})"
    else:
        kind = ("list of: " if many is not None else "") + _scalar(inner)
    return f"{kind}, or null" if nullable else kind


def _scalar(parts: list[Any]) -> str:
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    if words:
        return ", ".join(f"`{word}`" for word in words)
    # The last one is the outermost, which says most.
    told = [part.what for part in parts if isinstance(part, Says)][-1]
    return told + _bounds(_limits(parts))


def _limits(parts: list[Any]) -> list[Any]:
    """Metadata that bounds, also that inside a `Field(...)` of an annotation."""
    found: list[Any] = []
    for part in parts:
        found += part.metadata if isinstance(part, FieldInfo) else [part]
    return found


def _bounds(parts: list[Any]) -> str:
    """The tightest bound of each side, but for those that only keep numbers sane."""
    shown = []
    for kinds, tightest in ((_BOUNDS, max), (_TOPS, min)):
        found = [
            (getattr(part, name), word)
            for kind, name, word in kinds
            for part in parts
            if isinstance(part, kind)
        ]
        if found:
            value, word = tightest(found)
            shown += [f"{word} {_number(value)}"] if value < _SANE else []
    return f" {' '.join(shown)}" if shown else ""


def _number(value: float) -> str:
    return "30 days" if value == _MONTH else f"{value:,}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    size = "bytes" in field.description if field.description and isinstance(value, int) else False
    return f"`{_yaml(value)}`" + (f" ({value >> 20} MiB)" if size and value >= 1 << 20 else "")


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml(one) for one in value) + "]"
    if isinstance(value, int | float):
        return str(value)
    return str(value) or '""'


def _parts(annotation: Any) -> list[Any]:
    """An annotation with its unions and its metadata taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = get_args(annotation)
        return [*extras, *_parts(inner)]
    if origin in (Union, types.UnionType):
        return [part for arm in get_args(annotation) for part in _parts(arm)]
    return [annotation]


def _models(annotation: Any) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for part in _parts(annotation):
        if get_origin(part) is tuple:
            found += _models(get_args(part)[0])
        elif isinstance(part, type) and issubclass(part, BaseModel):
            found.append(part)
    return found


def keys() -> Mapping[str, list[str]]:
    """Path of each section -> its keys."""
    return {place.path: list(place.model.model_fields) for place in places()}
