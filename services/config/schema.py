"""What the models of `sections` know about a place: its keys, and the words for its kind."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from services.config.fault import Loc
from services.config.kinds import Says
from services.config.sections import Settings


def keys_at(loc: Loc) -> list[str]:
    """The keys known within the section at `loc`."""
    return [key for model in _models(_walk(loc)) for key in model.model_fields]


def says(loc: Loc) -> Says | None:
    """The words for the kind of value at `loc`."""
    return next((part for part in _parts(_walk(loc)) if isinstance(part, Says)), None)


def choices(loc: Loc) -> list[str]:
    """The words that may stand at `loc`, where it is a choice of words."""
    return [
        word
        for part in _parts(_walk(loc))
        if get_origin(part) is Literal
        for word in get_args(part)
    ]


def homes(key: str) -> list[str]:
    """Where else a key is known, such as `models[]`: for keys in the wrong place."""
    return _homes(Settings, key, "")


def _homes(model: type[BaseModel], key: str, where: str) -> list[str]:
    found = [where or "the top level"] if key in model.model_fields else []
    for name, field in model.model_fields.items():
        path = f"{where}.{name}" if where else name
        if any(get_origin(part) is tuple for part in _parts(field.annotation)):
            path += "[]"
        for child in _models(field.annotation):
            found += _homes(child, key, path)
    return found


def _walk(loc: Loc) -> Any:
    """The annotation at `loc`, or None."""
    annotation: Any = Settings
    for part in loc:
        annotation = _step(annotation, part)
    return annotation


def _step(annotation: Any, part: str | int) -> Any:
    for kind in _parts(annotation):
        if isinstance(part, int) and get_origin(kind) is tuple:
            return get_args(kind)[0]
        if isinstance(part, str) and isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(part)
            if field is not None:
                extras = tuple(field.metadata)
                return Annotated[field.annotation, *extras] if extras else field.annotation
    return None


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
    found = []
    for part in _parts(annotation):
        if get_origin(part) is tuple:
            found += _models(get_args(part)[0])
        elif isinstance(part, type) and issubclass(part, BaseModel):
            found.append(part)
    return found
