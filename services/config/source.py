"""YAML text to a tree of values that know their lines, with `${NAME}` expanded.

Knows nothing of what the keys mean. Composes nodes only (no object is ever constructed), caps
depth, size and what anchors may multiply, and reports everything wrong instead of the first.
Plain scalars follow YAML 1.2 (no octal by a leading zero, no base 60), plus yes/no/on/off.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from services.config.expand import Expansion, expand, hide, restore
from services.config.fault import NOWHERE, Loc, Mark, Report, join, key_text

MAX_BYTES = 4 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000

Scalar = str | int | float | bool | None

EXAMPLE = (
    "the least is models: [{name: e5, type: text-embeddings-inference, providers: [{url: URL}]}]"
)
_PLAIN = "?"  # our tag of an untagged, unquoted scalar
_YAML = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]{0,300}")
_BASED = re.compile(r"0x[0-9a-fA-F]{1,100}|0o[0-7]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, bool | float | None] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "yes": True,
    "on": True,
    "false": False,
    "no": False,
    "off": False,
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}
_WORDS = {
    form: value
    for word, value in _CONSTANTS.items()
    for form in (word, word.upper(), word.capitalize())
}
_TAGGED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}
_QUOTE = "text that begins with one of * & ! % @ ` { [ > | needs quotes"

# What PyYAML says -> what we say, and what helps. Its own text may repeat the file's.
_PROBLEMS: tuple[tuple[str, str, str], ...] = (
    ("found character '\\t'", "a tab cannot stand here", "indent with spaces"),
    ("found character", "a character that cannot begin a value", _QUOTE),
    ("found undefined alias", "an alias (*name) without an anchor (&name)", _QUOTE),
    ("second occurrence", "an anchor (&name) that was used before", _QUOTE),
    ("found undefined tag", "a tag (!name) that is not known", _QUOTE),
    ("mapping values are not allowed", "a ':' that cannot stand here", "quote text with ': '"),
    ("could not find expected ':'", "a line without ':'", ""),
    ("expected <block end>", "the indentation does not fit, or a quote or bracket is missing", ""),
    ("expected ',' or", "a ',' or a closing bracket is missing", ""),
    ("found unexpected end of stream", "the text ends within quotes", "close the quotes"),
    ("but found another document", "a second document ('---')", "keep one document in the file"),
    ("found unknown escape", "an unknown escape after '\\'", "use 'single quotes' for a bare '\\'"),
)


@dataclass(slots=True)
class Node:
    """A value and where it stands. Lists hold nodes, mappings hold nodes by key."""

    value: "Scalar | list[Node] | dict[str, Node]"
    at: Mark = NOWHERE
    key_at: Mark = NOWHERE
    text: str = ""  # a scalar as it was written, variables expanded
    plain: bool = False  # a scalar without quotes
    variables: tuple[str, ...] = ()
    written: str = ""  # the key of the file, where the tree has another

    def data(self) -> Any:
        """The value as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.data() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value

    def mapping(self) -> "dict[str, Node]":
        """Its members; none if it is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    def items(self) -> "list[Node]":
        """Its items; none if it is no list."""
        return self.value if isinstance(self.value, list) else []

    def find(self, loc: Loc) -> "tuple[Node | None, Node, str]":
        """The node at `loc` or None, the deepest one that is there, and the place as written."""
        node, shown = self, ""
        for index, part in enumerate(loc):
            child = node._child(part)
            if child is None:
                return None, node, join(shown, key_text(loc[index:]))
            node = child
            shown = join(shown, child.written or key_text((part,)))
        return node, node, shown

    def _child(self, part: str | int) -> "Node | None":
        if isinstance(part, int):
            items = self.items()
            return items[part] if part < len(items) else None
        return self.mapping().get(part)


def read(text: str, environ: Mapping[str, str], report: Report) -> Node | None:
    """The tree of one document; None (with a fault) where there is no usable text."""
    if len(text) > MAX_BYTES:
        report.fault((), Mark(1, 1), f"the file is larger than {MAX_BYTES >> 20} MiB")
        return None
    root = _compose(text, report)
    if root is None:
        return None
    try:
        return _Builder(environ, report).node(root, ())
    except _TooMuch:
        at = _mark(root.start_mark)
        report.fault((), at, f"anchors and aliases make more than {MAX_VALUES} values of this file")
        return None


class _Nested(yaml.MarkedYAMLError):
    """Nested deeper than any configuration is."""


class _Loader(yaml.SafeLoader):
    """Composes only; marks untagged plain scalars, and counts depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
            mark: Any = event.start_mark
            raise _Nested(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


def _compose(text: str, report: Report) -> yaml.Node | None:
    loader: _Loader | None = None
    try:
        loader = _Loader(hide(text))
        root: yaml.Node | None = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        at = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        code = ord(error.character) if isinstance(error.character, str) else error.character
        report.fault((), at, f"a character that YAML does not allow (U+{code:04X})")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message, hint = _problem(error)
        report.fault((), _mark(mark) if mark else Mark(1, 1), message, hint)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        # PyYAML lets chr() and int() fail on absurd escapes and directives.
        at = Mark(loader.line + 1, loader.column + 1) if loader else Mark(1, 1)
        report.fault((), at, "bad YAML: a number or an escape that is out of range")
    else:
        if root is None or (root.tag == _PLAIN and not root.value):
            report.fault((), Mark(1, 1), "the file is empty", EXAMPLE)
            return None
        return root
    return None


def _problem(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    if isinstance(error, _Nested):
        return str(error.problem), ""
    for begins, message, hint in _PROBLEMS:
        if begins in (error.problem or ""):
            return f"bad YAML: {message}", hint
    context = error.context or ""
    return f"bad YAML: error {context if context.startswith('while ') else 'from here on'}", ""


class _TooMuch(Exception):
    """The aliases of the file multiply without bounds."""


@dataclass
class _Builder:
    environ: Mapping[str, str]
    report: Report
    count: int = 0
    open: list[int] = field(default_factory=list)
    expanded: dict[int, Expansion] = field(default_factory=dict)

    def node(self, node: yaml.Node, loc: Loc) -> Node:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _TooMuch
        at = _mark(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, loc, at)
        if id(node) in self.open or len(self.open) > MAX_DEPTH:
            self.report.fault(loc, at, "an alias that stands within its own anchor, or too deep")
            return Node(None, at)
        self.open.append(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self._untagged(node, "seq", loc, at)
                return Node([self.node(item, (*loc, i)) for i, item in enumerate(node.value)], at)
            self._untagged(node, "map", loc, at)
            return Node(self._mapping(node, loc), at)
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.Node, loc: Loc) -> dict[str, Node]:
        members: dict[str, Node] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            at = _mark(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.report.fault(loc, at, "a key must be text, found a list or mapping")
                continue
            key = restore(key_node.value)
            here = (*loc, key)
            if key_node.tag == _PLAIN and key == "<<":
                merged.append(value_node)
            elif key in members:
                first = members[key].key_at.line
                self.report.fault(here, at, f"duplicate key, first on line {first}", "remove one")
            else:
                members[key] = self.node(value_node, here)
                members[key].key_at = at
        for source in self._merge_sources(merged, loc):
            for key, member in source.mapping().items():
                members.setdefault(key, member)
        return members

    def _merge_sources(self, merged: list[yaml.Node], loc: Loc) -> Iterator[Node]:
        for value in merged:
            tree = self.node(value, loc)
            for source in tree.items() or [tree]:
                if not isinstance(source.value, dict):
                    self.report.fault((*loc, "<<"), source.at, "expected a mapping to merge")
                yield source

    def _scalar(self, node: yaml.ScalarNode, loc: Loc, at: Mark) -> Node:
        known = self.expanded.get(id(node))
        if known is None:
            text = restore(node.value)
            known = self.expanded[id(node)] = expand(text, self.environ, MAX_BYTES)
        for message, hint in known.faults:
            self.report.fault(loc, at, message, hint)
        if any("\ud800" <= char <= "\udfff" for char in known.text):
            self.report.fault(loc, at, "text with half of a surrogate pair, which is no character")
        plain = node.tag == _PLAIN
        value: Scalar = known.text
        tag = node.tag.removeprefix(_YAML)
        if plain or tag in _TAGGED:
            value = resolve(known.text)
        if tag in _TAGGED:
            if type(value) not in _TAGGED[tag]:
                self.report.fault(loc, at, f"the tag !!{tag} does not fit its value")
        elif not plain and tag != "str":
            self.report.fault(loc, at, "a tag (!name) that is not known", _QUOTE)
        return Node(value, at, text=known.text, plain=plain, variables=known.variables)

    def _untagged(self, node: yaml.Node, tag: str, loc: Loc, at: Mark) -> None:
        if node.tag != _YAML + tag:
            self.report.fault(loc, at, "a tag (!name) that is not known", _QUOTE)


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar: null, a boolean, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if _BASED.fullmatch(text):
        return int(text, 0)
    if len(text) <= 300 and _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return text


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)
