"""A small value that fits a JSON schema: the first choice, a number within, a word that was said.

Covers what tools and answer formats usually use. Raises SchemaError where it cannot fit, so that
nobody is handed a value that does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MOST_VALUES: Final = 2000
MOST_CHARACTERS: Final = 2000
DEEPEST: Final = 32

_FORMATS: Final = {
    "date-time": "2001-02-03T04:05:06Z",
    "date": "2001-02-03",
    "time": "04:05:06Z",
    "duration": "PT1M",
    "email": "eliza@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uuid": "01234567-89ab-4cde-8f01-23456789abcd",
}
_TRIES: Final = ("a", "A", "0", "ab", "abc", "Abc", "a1", "123", "1234", "12345", "a@b.org")
_MOST_READ: Final = 4000
_LONGEST_TRIED: Final = 16
"""Characters: a pattern may take exponential time."""

_NOT_HANDLED: Final = frozenset(
    {
        "not",
        "if",
        "dependentRequired",
        "dependentSchemas",
        "contains",
        "minProperties",
        "propertyNames",
        "patternProperties",
        "$dynamicRef",
    }
)


class SchemaError(ValueError):
    """No value is found for this schema; the text says why."""


@dataclass(slots=True)
class Hints:
    """What was said, to be used where the schema leaves a choice."""

    words: Sequence[str] = ()
    numbers: Sequence[float] = ()

    @classmethod
    def of(cls, text: str) -> Hints:
        """Names first (capital letters inside a sentence), then long words from the end."""
        text = text[-_MOST_READ:]
        words = re.findall(r"[^\W\d_][\w'-]*", text)
        names = [w for index, w in enumerate(words) if index and w[0].isupper() and len(w) > 1]
        long = [w for w in reversed(words) if len(w) > 3]
        numbers = [float(n) for n in re.findall(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,9})?", text)]
        return cls([*names, *long], numbers)


def example(schema: object, hints: Hints | None = None) -> Any:
    """A value that fits. Booleans are schemas, too; None is any value."""
    return _Maker(schema, hints or Hints()).make({} if schema is None else schema, 0)


@dataclass(slots=True)
class _Maker:
    root: object
    hints: Hints
    values: int = field(default=0)

    def make(self, schema: object, depth: int) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            raise SchemaError("the schema asks for too many values")
        if depth > DEEPEST:
            raise SchemaError("the schema is too deep, or has no end")
        if schema is True:
            schema = {}
        if not isinstance(schema, dict):
            raise SchemaError("a schema must be an object")
        schema = self._resolved(schema)
        if strange := _NOT_HANDLED & schema.keys():
            raise SchemaError(f"`{min(strange)}` is not handled here")
        for word in ("const", "enum", "anyOf", "oneOf"):
            if word in schema:
                return self._chosen(word, schema, depth)
        kind = _kind(schema)
        maker = _MAKERS.get(kind)
        if maker is None:
            raise SchemaError(f"the type {kind!r} is not known")
        return maker(self, schema, depth)

    def _chosen(self, word: str, schema: Mapping[str, Any], depth: int) -> Any:
        told = schema[word]
        if word == "const":
            return told
        if not isinstance(told, list) or not told:
            raise SchemaError(f"`{word}` must be a list, not an empty one")
        if word == "enum":
            kind = schema.get("type")
            fitting = [one for one in told if kind is None or _is(one, kind)]
            if not fitting:
                raise SchemaError("no value of `enum` is of the type")
            return fitting[0]
        rest = {name: value for name, value in schema.items() if name != word}
        # What is said beside the choice holds for each of its arms; null is the last resort.
        arms = [_merged([rest, arm]) if isinstance(arm, dict) else arm for arm in told]
        arms.sort(key=lambda arm: isinstance(arm, dict) and arm.get("type") == "null")
        failed: SchemaError | None = None
        for arm in arms:
            try:
                return self.make(arm, depth + 1)
            except SchemaError as error:
                failed = failed or error
        assert failed is not None  # noqa: S101  (the list is not empty)
        raise failed

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Without $ref and allOf."""
        steps = 0
        while "$ref" in schema or "allOf" in schema:
            steps += 1
            if steps > DEEPEST:
                raise SchemaError("the schema refers to itself without end")
            if "$ref" in schema:
                target = self._target(schema["$ref"])
                schema = _merged([target, {k: v for k, v in schema.items() if k != "$ref"}])
            else:
                parts = schema["allOf"]
                if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
                    raise SchemaError("`allOf` must be a list of schemas")
                whole = [self._resolved(part) for part in parts]
                schema = _merged([*whole, {k: v for k, v in schema.items() if k != "allOf"}])
        return schema

    def _target(self, reference: object) -> dict[str, Any]:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(f"`$ref` {reference!r} leads out of the schema")
        found: Any = self.root
        for step in filter(None, reference[1:].split("/")):
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise SchemaError(f"`$ref` {reference!r} leads nowhere")
        return found

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SchemaError("`properties` must be an object, `required` a list")
        more = schema.get("additionalProperties", True)
        made: dict[str, Any] = {}
        for name in [*properties, *(name for name in required if name not in properties)]:
            try:
                made[name] = self.make(properties.get(name, more), depth + 1)
            except SchemaError:
                if name in required:
                    raise
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            raise SchemaError("`prefixItems` must be a list")
        least = _number(schema, "minItems", 0)
        most = _number(schema, "maxItems", math.inf)
        count = int(min(max(least, len(first), 1), most))
        if count < least or (schema.get("uniqueItems") and least > max(1, len(first))):
            raise SchemaError("a list of so many different items is not made here")
        items = schema.get("items", {})
        if items is False:
            count = min(count, len(first))
        try:
            return [
                self.make(first[index] if index < len(first) else items, depth + 1)
                for index in range(count)
            ]
        except SchemaError:
            if least:
                raise
            return []

    def _string(self, schema: Mapping[str, Any], depth: int) -> str:
        least = _number(schema, "minLength", 0)
        most = _number(schema, "maxLength", math.inf)
        if least > min(most, MOST_CHARACTERS):
            raise SchemaError(f"a string of {least:g} characters is not made here")
        said = _FORMATS.get(str(schema.get("format")))
        choices = [said] if said else [*self.hints.words[:20], "example", *_TRIES]
        if not said and "pattern" not in schema:
            return str(choices[0]).ljust(int(least), ".")[: int(min(most, MOST_CHARACTERS))]
        fits = _pattern(schema.get("pattern"))
        for choice in choices:
            if least <= len(choice) <= min(most, _LONGEST_TRIED) and fits(choice):
                return choice
        raise SchemaError("no string is found for its pattern, format and length")

    def _numeric(self, schema: Mapping[str, Any], depth: int) -> float | int:
        whole = _kind(schema) == "integer"
        step = _number(schema, "multipleOf", 1 if whole else 0)
        if step < 0 or (whole and (step != int(step) or not step)):
            raise SchemaError(f"`multipleOf` {step:g} is not handled here")
        least, most = _bounds(schema, step or 1e-6)
        wanted = next((n for n in self.hints.numbers if least <= n <= most), 1)
        try:
            value = _stepped(min(max(wanted, least), most), least, most, step, whole)
        except OverflowError as error:
            raise SchemaError("its numbers are too large") from error
        if not least <= value <= most:
            raise SchemaError("no number is within the bounds")
        return value


def _stepped(value: float, least: float, most: float, step: float, whole: bool) -> float | int:
    """The multiple of the step next to the value, upward if that is still within the bounds."""
    if whole:
        # In whole numbers throughout: bounds may be beyond what a float tells apart.
        up, by = math.ceil(value), int(step)
        stepped = -(-up // by) * by
        return stepped if stepped <= most else math.floor(most) // by * by
    if not step:
        return int(value) if value == int(value) else value
    multiple = math.ceil(value / step) * step
    return multiple if multiple <= most else math.floor(most / step) * step


def _bounds(schema: Mapping[str, Any], step: float) -> tuple[float, float]:
    """Least and greatest value; excluded bounds are moved inward by a step."""
    least = _number(schema, "minimum", -math.inf)
    most = _number(schema, "maximum", math.inf)
    over, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    # Older drafts mark the bound itself as excluded.
    if over is True:
        least += step
    elif over not in (None, False):
        least = max(least, _number(schema, "exclusiveMinimum", 0) + step)
    if under is True:
        most -= step
    elif under not in (None, False):
        most = min(most, _number(schema, "exclusiveMaximum", 0) - step)
    return least, most


_MAKERS: Final[Mapping[str, Callable[[_Maker, Mapping[str, Any], int], Any]]] = {
    "object": _Maker._object,
    "array": _Maker._array,
    "string": _Maker._string,
    "integer": _Maker._numeric,
    "number": _Maker._numeric,
    "boolean": lambda maker, schema, depth: True,
    "null": lambda maker, schema, depth: None,
}

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}

_SIGNS: Final = (
    ("properties", "object"),
    ("required", "object"),
    ("items", "array"),
    ("prefixItems", "array"),
    ("minItems", "array"),
    ("minimum", "number"),
    ("maximum", "number"),
    ("multipleOf", "number"),
)


def _kind(schema: Mapping[str, Any]) -> str:
    """The type, the first that is not null, or what other members tell; else a string."""
    told = schema.get("type")
    if isinstance(told, list):
        told = next((one for one in told if one != "null"), "null")
    return str(told or next((kind for sign, kind in _SIGNS if sign in schema), "string"))


def _is(value: object, kind: object) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return any(
        isinstance(value, _TYPES.get(str(one), ()))
        and (one == "boolean" or not isinstance(value, bool))
        for one in kinds
    )


def _merged(schemas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One schema for all of them: their properties together, else the last one counts."""
    merged: dict[str, Any] = {}
    for schema in schemas:
        for name, value in schema.items():
            before = merged.get(name)
            if name == "properties" and isinstance(before, dict) and isinstance(value, dict):
                merged[name] = {**before, **value}
            elif name == "required" and isinstance(before, list) and isinstance(value, list):
                merged[name] = [*before, *(one for one in value if one not in before)]
            else:
                merged[name] = value
    return merged


def _number(schema: Mapping[str, Any], name: str, default: float) -> float:
    value = schema.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SchemaError(f"`{name}` must be a number")
    return value


def _pattern(told: object) -> Callable[[str], bool]:
    if told is None:
        return lambda text: True
    try:
        pattern = re.compile(str(told))
    except re.error as error:
        raise SchemaError(f"`pattern` cannot be read: {error}") from error
    return lambda text: pattern.search(text) is not None
