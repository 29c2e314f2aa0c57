"""Equality of JSON bodies under the written canonical form: what "lossless" is tested with.

It reads JSON with Python's own parser (exact integers of any size) and knows nothing of the
codec or the contract. The rules are in `differences`; index.json of the recordings names
the pointers.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any, NamedTuple

Path = tuple[str, ...]

_ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()
_VECTOR_MEMBERS = frozenset({"embedding"})
# Only where the contract has them: the `input` of a custom tool call is not such a list.
_ONE_OR_MANY: dict[str | None, tuple[str, ...]] = {
    None: ("/stop", "/input", "/inputs"),
    "BulkEmbedRequest": ("/request/input",),
}
_KNOWN = frozenset(
    (
        *("mode", "events", "end", "error_event"),
        *("opaque", "ordered", "nulls_required", "null_values", "lexical", "vectors"),
    )
)


class _Int(int):
    text: str


class _Float(float):
    text: str


def loads(text: bytes | str) -> Any:
    """JSON text -> value; integers are exact, a number past the doubles is a Decimal.

    Raises ValueError for what is not JSON (NaN and Infinity among it).
    """
    return json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_refuse)


def _int(text: str) -> int:
    value = _Int(text)
    value.text = text
    return value


def _float(text: str) -> float | Decimal:
    value = _Float(text)
    if math.isinf(value):
        return Decimal(text)
    value.text = text
    return value


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


class _Pointers:
    """RFC 6901 pointers; a token `*` stands for any index of a list."""

    def __init__(self, pointers: Iterable[str]) -> None:
        self._exact: set[Path] = set()
        self._wild: list[Path] = []
        for pointer in pointers:
            if pointer and not pointer.startswith("/"):
                raise ValueError(f"not a JSON pointer: {pointer!r}")
            tokens = tuple(
                token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]
            )
            if "*" in tokens:
                self._wild.append(tokens)
            else:
                self._exact.add(tokens)

    def __contains__(self, path: Path) -> bool:
        return path in self._exact or any(
            len(tokens) == len(path)
            and all(t == p or (t == "*" and p.isdigit()) for t, p in zip(tokens, path, strict=True))
            for tokens in self._wild
        )


class _State(NamedTuple):
    """What holds at a place and below it."""

    opaque: bool = False
    ordered: bool = False
    null_is_value: bool = False
    float32: bool = False
    lexical: bool = False


class _Comparison:
    def __init__(self, compare: Mapping[str, Any], message: str | None) -> None:
        unknown = compare.keys() - _KNOWN
        if unknown:
            raise ValueError(f"unknown rules of comparison: {sorted(unknown)}")
        self._opaque = _Pointers(compare.get("opaque", ()))
        self._ordered = _Pointers(compare.get("ordered", ()))
        self._null_values = _Pointers(compare.get("null_values", ()))
        self._nulls_required = _Pointers(compare.get("nulls_required", ()))
        self._vectors = _Pointers(compare.get("vectors", ()))
        lexical = compare.get("lexical", ())
        self._lexical = _Pointers([""] if lexical is True else lexical or ())
        self._one_or_many = _Pointers(_ONE_OR_MANY.get(message, _ONE_OR_MANY[None]))
        self._found: list[str] = []
        self._stack: list[tuple[Any, Any, Path, _State]] = []

    def run(self, want: Any, got: Any) -> list[str]:
        # A stack of its own: bodies of 512 levels are deeper than Python likes to recurse.
        self._push(want, got, (), _State())
        while self._stack:
            self._visit(*self._stack.pop())
        return self._found

    def _push(self, want: Any, got: Any, path: Path, above: _State) -> None:
        self._stack.append((want, got, path, self._state(path, above)))

    def _state(self, path: Path, above: _State) -> _State:
        return _State(
            opaque=above.opaque or path in self._opaque,
            ordered=above.ordered or path in self._ordered,
            null_is_value=above.null_is_value or path in self._null_values,
            float32=above.float32
            or path in self._vectors
            or bool(path and path[-1] in _VECTOR_MEMBERS),
            lexical=above.lexical or path in self._lexical,
        )

    def _visit(self, want: Any, got: Any, path: Path, state: _State) -> None:
        if path in self._one_or_many and not state.opaque:
            want, got = _many(want), _many(got)
        kinds = _kind(want), _kind(got)
        if kinds[0] != kinds[1]:
            self._note(path, f"expected {_shown(want)}, got {_shown(got)}")
        elif kinds[0] == "object":
            self._objects(want, got, path, state)
        elif kinds[0] == "list":
            self._lists(want, got, path, state)
        elif kinds[0] == "number":
            reason = _numbers(want, got, state)
            if reason:
                self._note(path, f"expected {_shown(want)}, got {_shown(got)} ({reason})")
        elif want != got:
            self._note(path, f"expected {_shown(want)}, got {_shown(got)}")

    def _objects(
        self, want: dict[str, Any], got: dict[str, Any], path: Path, state: _State
    ) -> None:
        children = []
        common: list[str] = []
        for name in {**want, **got}:
            below = (*path, name)
            one, two = want.get(name, _ABSENT), got.get(name, _ABSENT)
            if one is None and below in self._nulls_required and two is not None:
                self._note(below, f"null is required, got {_shown(two)}")
                continue
            inner = self._state(below, state)
            if not (inner.opaque or inner.null_is_value):
                one = _ABSENT if one is None else one
                two = _ABSENT if two is None else two
            if one is _ABSENT and two is _ABSENT:
                continue
            if two is _ABSENT:
                self._note(below, f"missing, expected {_shown(one)}")
            elif one is _ABSENT:
                self._note(below, f"unexpected {_shown(two)}")
            else:
                common.append(name)
                children.append((one, two, below, inner))
        if state.ordered:
            shared = set(common)
            order = [name for name in got if name in shared]
            if [name for name in want if name in shared] != order:
                self._note(path, f"members in another order: {order}")
        self._stack.extend(reversed(children))

    def _lists(self, want: list[Any], got: list[Any], path: Path, state: _State) -> None:
        if len(want) != len(got):
            self._note(path, f"a list of {len(want)} expected, got {len(got)}: {_shown(got)}")
        pairs = enumerate(zip(want, got, strict=False))
        children = [(one, two, (*path, str(index))) for index, (one, two) in pairs]
        for one, two, below in reversed(children):
            self._push(one, two, below, state)

    def _note(self, path: Path, what: str) -> None:
        pointer = "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in path)
        self._found.append(f"{pointer or '(root)'}: {what}")


def differences(
    expected: Any, actual: Any, compare: Mapping[str, Any] | None = None, message: str | None = None
) -> list[str]:
    """How `actual` differs from `expected` under the canonical form, one line each; [] if equal.

    bytes and str are JSON text; anything else is taken as parsed. Rules:

    - a null member equals an absent one, except at and below the pointers `opaque` and
      `null_values`; [] {} "" 0 and false are values, and so is null in a list;
    - at `nulls_required` the actual member must be there as null where the expected one is;
    - a single string `stop`, `input` or `inputs` at the top equals a list of one;
    - numbers are equal by value (1 is 1.0) and exactly (9007199254740993 is not ...992.0);
      below `opaque` 1 is not 1.0; at and below a member `embedding`, or `vectors`, they are
      equal when they round to the same float32;
    - member order counts at and below `ordered`; at and below `lexical` (or everywhere, if that
      is true) a number's text counts too.

    `message` is the contract's name of the body ("BulkEmbedRequest" holds its input deeper).
    """
    return _Comparison(compare or {}, message).run(_parsed(expected), _parsed(actual))


def event_differences(
    expected: Sequence[Any], actual: Sequence[Any], compare: Mapping[str, Any] | None = None
) -> list[str]:
    """How two lists of stream events differ; each line names the event."""
    found = []
    for index, (one, two) in enumerate(zip_longest(expected, actual, fillvalue=_ABSENT)):
        if one is _ABSENT or two is _ABSENT:
            found.append(f"event {index}: expected {_shown(one)}, got {_shown(two)}")
        else:
            found += [f"event {index} {line}" for line in differences(one, two, compare)]
    return found


def assert_same(
    expected: Any, actual: Any, compare: Mapping[str, Any] | None = None, message: str | None = None
) -> None:
    """Fails with the first twenty differences."""
    found = differences(expected, actual, compare, message)
    if found:
        more = f"\n... and {len(found) - 20} more" if len(found) > 20 else ""
        raise AssertionError(f"{message or 'the bodies'} differ:\n" + "\n".join(found[:20]) + more)


def _parsed(value: Any) -> Any:
    return loads(value) if isinstance(value, bytes | str) else value


def _many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "truth value"
        case int() | float() | Decimal():
            return "number"
        case str():
            return "string"
        case dict():
            return "object"
        case list() | tuple():
            return "list"
        case None:
            return "null"
    raise TypeError(f"not a JSON value: {value!r}")


def _numbers(want: Any, got: Any, state: _State) -> str | None:
    if state.lexical and getattr(want, "text", None) != getattr(got, "text", None):
        return "its text changed"
    if state.opaque:
        if isinstance(want, int) != isinstance(got, int):
            return "an integer is not a float here"
        return None if want == got and _sign(want) == _sign(got) else "another number"
    if state.float32:
        return None if _float32(want) == _float32(got) else "another float32"
    return None if want == got else "another number"


def _float32(value: Any) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", float(value)))[0])
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _sign(value: Any) -> float:
    return math.copysign(1.0, value) if isinstance(value, float) else 0.0


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:110]}... ({len(text)} characters)"
