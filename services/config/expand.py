"""`${NAME}` and `${NAME:-default}` in a text; `$${` stands for a literal `${`.

Works on the text of one scalar, after YAML was parsed: what a variable holds can never become
structure. A default may hold further variables; `:-` also replaces an empty one, as in a shell.
`hide` and `restore` let `{key: ${NAME}}` through the YAML parser. Faults never tell values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_NESTED = 8

# One level of nesting is hidden; deeper ones need quotes within [] and {}.
_REFERENCE = re.compile(r"(?<!\$)\$\{[A-Za-z_][A-Za-z0-9_]*(:-([^{}\n]|\$\{[^{}\n]*\})*)?\}")
_STRUCTURE = "{}[],:#"
_HIDDEN = "".join(chr(0x10F700 + index) for index in range(len(_STRUCTURE)))
_HIDE = str.maketrans(_STRUCTURE, _HIDDEN)
_RESTORE = str.maketrans(_HIDDEN, _STRUCTURE)


@dataclass(slots=True)
class Expansion:
    """The text, the variables it named, and what was wrong as (message, hint)."""

    text: str
    variables: tuple[str, ...] = ()
    faults: list[tuple[str, str]] = field(default_factory=list)


def hide(text: str) -> str:
    """The same text, as long, without characters of YAML's structure in its variables."""
    if "${" not in text or any(char in text for char in _HIDDEN):
        return text
    return _REFERENCE.sub(lambda match: match.group().translate(_HIDE), text)


def restore(text: str) -> str:
    """What `hide` was given."""
    return text.translate(_RESTORE)


def expand(text: str, environ: Mapping[str, str], max_length: int) -> Expansion:
    """Expand one text. Where there is a fault, the text is empty."""
    if "${" not in text:
        return Expansion(text)
    reader = _Reader(text, environ, max_length)
    try:
        expanded, _ = reader.run(0, 0, needed=True)
    except _Malformed as error:
        reader.faults.append((error.message, "write $${ for a literal ${"))
        expanded = ""
    if reader.faults:
        expanded = ""
    return Expansion(expanded, tuple(dict.fromkeys(reader.names)), reader.faults)


class _Malformed(Exception):
    """A `${` that begins no variable."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass
class _Reader:
    text: str
    environ: Mapping[str, str]
    max_length: int
    names: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def run(self, at: int, depth: int, *, needed: bool) -> tuple[str, int]:
        """Read from `at` to the end, or (within a default) to the closing brace."""
        if depth > _MAX_NESTED:
            raise _Malformed(f"variables nested deeper than {_MAX_NESTED}")
        parts: list[str] = []
        length = 0
        stops = re.compile(r"\$\$\{|\$\{|\}") if depth else re.compile(r"\$\$\{|\$\{")
        while stop := stops.search(self.text, at):
            parts.append(self.text[at : stop.start()])
            at = stop.end()
            if stop.group() == "}":
                return "".join(parts), at
            if stop.group() == "$${":
                parts.append("${")
            else:
                value, at = self._variable(at, depth, needed=needed)
                parts.append(value)
                length += len(value)
                if length > self.max_length:
                    raise _Malformed("the variables of this text make it too long")
        if depth:
            raise _Malformed("a '${' without its '}'")
        return "".join((*parts, self.text[at:])), len(self.text)

    def _variable(self, at: int, depth: int, *, needed: bool) -> tuple[str, int]:
        name_match = _NAME.match(self.text, at)
        if not name_match:
            raise _Malformed("a '${' without the name of a variable")
        name, at = name_match.group(), name_match.end()
        value = self.environ.get(name)
        self.names.append(name)
        if self.text.startswith("}", at):
            if value is None and needed:
                self.faults.append(
                    (f"the variable {name} is not set", f"set it, or write ${{{name}:-default}}")
                )
            return value or "", at + 1
        if not self.text.startswith(":-", at):
            raise _Malformed("a '${' without its '}'" if at >= len(self.text) else _ONLY)
        default, at = self.run(at + 2, depth + 1, needed=needed and not value)
        return value or default, at


_ONLY = "only ${NAME} and ${NAME:-default} are known"
