"""The configuration file: `load` and `parse` make a Config, or raise every fault at once.

The way of a text: source (YAML, lines, variables) -> opengatellm (its keys become ours) ->
sections (pydantic) -> checks (between values). Knows nothing of servers, models or networks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from services.config.address import Address, Malformed, base_url
from services.config.checks import NOT_YET, problems, unknown_models
from services.config.config import MODEL_TYPES, Config, read_upstreams
from services.config.explain import explain
from services.config.fault import ConfigError, Fault, Loc, Mark, Report
from services.config.kinds import LogFormat, ModelType, ProviderType, Strategy, TransportKind
from services.config.opengatellm import adopt
from services.config.sections import (
    Auth,
    Breaker,
    Compat,
    Drain,
    Grpc,
    Heartbeat,
    Http,
    Key,
    KeyLimits,
    Ledger,
    Limits,
    Metadata,
    Model,
    Probes,
    Provider,
    Retry,
    Section,
    Settings,
    State,
    Telemetry,
    Timeouts,
    Tls,
)
from services.config.source import EXAMPLE, MAX_BYTES, Node, read

__all__ = [
    "MODEL_TYPES",
    "NOT_YET",
    "Address",
    "Auth",
    "Breaker",
    "Compat",
    "Config",
    "ConfigError",
    "Drain",
    "Fault",
    "Grpc",
    "Heartbeat",
    "Http",
    "Key",
    "KeyLimits",
    "Ledger",
    "Limits",
    "LogFormat",
    "Malformed",
    "Metadata",
    "Model",
    "ModelType",
    "Probes",
    "Provider",
    "ProviderType",
    "Retry",
    "Section",
    "Settings",
    "State",
    "Strategy",
    "Telemetry",
    "Timeouts",
    "Tls",
    "TransportKind",
    "base_url",
    "load",
    "parse",
]


def load(path: Path, environ: Mapping[str, str], *, upstreams: Sequence[str] = ()) -> Config:
    """Read a file. With `upstreams` (of `--upstream`) it may list no models.

    Raises ConfigError, also where the file cannot be read.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError([_unreadable(name, error)]) from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([_not_utf8(name, raw, error.start)]) from None
    return parse(text, name, environ, upstreams=upstreams)


def parse(
    text: str, name: str, environ: Mapping[str, str], *, upstreams: Sequence[str] = ()
) -> Config:
    """Read a text; `name` is the file's name in messages. Raises ConfigError."""
    report = Report(name)
    urls = read_upstreams(upstreams, report)
    settings: Settings | None = None
    root = read(text, environ, report)
    if root is not None and not isinstance(root.value, dict):
        report.fault((), root.at, "expected a mapping of keys (key: value)", EXAMPLE)
    elif root is not None:
        adopt(root, report)
        _blank_sections(root, report)
        settings = _validate(root, report)
        _compare(root, report, models_needed=not urls)
    if settings is None or report.faults:
        raise ConfigError(report.faults)
    return Config(**dict(settings), upstreams=urls, source=name, warnings=report.warnings)


def _validate(root: Node, report: Report) -> Settings | None:
    try:
        return Settings.model_validate(root.data())
    except ValidationError as error:
        errors = error.errors(include_url=False)
    # Where text is wanted, an unquoted 0123, 1.10 or yes is that text, as it was written.
    texts = [tuple(one["loc"]) for one in errors if one["type"] == "string_type"]
    if sum(_as_written(root, loc) for loc in texts):
        return _validate(root, report)
    explain((one for one in errors if not report.touches(tuple(one["loc"]))), root, report)
    return None


def _as_written(root: Node, loc: Loc) -> bool:
    """Make an unquoted scalar the text it was; False if there is nothing to gain."""
    node, _, _ = root.find(loc)
    if node is None or not node.plain or isinstance(node.value, str | list | dict):
        return False
    if node.value is None and not node.variables:
        return False
    node.value = node.text
    return True


def _blank_sections(root: Node, report: Report) -> None:
    """A section left blank has its defaults; only `http` has a meaning for null."""
    members = root.mapping()
    for key, node in list(members.items()):
        if node.value is not None or key not in Settings.model_fields:
            continue
        if key != "http":
            del members[key]
        elif not node.text:
            report.fault(
                (key,), node.at, "blank", "write http: null for no REST face, or leave it out"
            )


def _compare(root: Node, report: Report, *, models_needed: bool) -> None:
    data = root.data()
    for problem in problems(data):
        if report.touches(problem.loc):
            continue
        _, place, written = root.find(problem.loc)
        first = root.find(problem.other)[0] if problem.other else None
        message = f"{problem.message}, first on line {first.at.line}" if first else problem.message
        report.fault(problem.loc, place.at, message, problem.hint, written)
    if models_needed and not report.touches(("models",)) and not data.get("models"):
        at = root.mapping()["models"].at if "models" in data else Mark(1, 1)
        report.fault(("models",), at, "there are no models", EXAMPLE)
    for problem in () if not models_needed else unknown_models(data):
        _, place, written = root.find(problem.loc)
        report.warn(problem.loc, place.at, problem.message, problem.hint, written)


def _unreadable(name: str, error: OSError | ValueError) -> Fault:
    hints: dict[type[Exception], str] = {
        FileNotFoundError: "name one with --config FILE, or start on a server with --upstream URL",
        IsADirectoryError: "name the file in it",
        PermissionError: "let this user read it",
    }
    reason = error.strerror if isinstance(error, OSError) else None
    message = f"cannot be read: {(reason or 'not the name of a file').lower()}"
    return Fault(name, 0, 0, "", message, hints.get(type(error), ""))


def _not_utf8(name: str, raw: bytes, position: int) -> Fault:
    before = raw[:position]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    hint = "it looks like UTF-16; save it as UTF-8" if utf16 else "save it as UTF-8"
    return Fault(name, line, column, "", "not UTF-8 text", hint)
