"""The one rule: imports point one way. Read from the sources with `ast`; nothing is imported.

Beside it: where grpc, HTTP clients and bare statuses may stand, and that no cancellation is
swallowed. The tests at the end prove that each check bites.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the lowest to the highest. A module may import its own layer and those before it.
LAYERS: list[tuple[str, str]] = [
    ("gen", "tetrad"),
    ("codec", "services.codec"),
    (
        "base",
        "services.errors services.error_base services.error_table services.error_text"
        " services.upstream_error services.body services.upload services.call services.inflight"
        " services.metadata services.sse services.multipart services.form services.config"
        " services.auth services.usage services.estimate services.telemetry services.ledger"
        " services.limits services.languages services.transcript services.certificates"
        " services.version",
    ),
    ("providers", "services.upstream services.routing"),
    (
        "services",
        "services.dispatch services.chat services.embed services.transcribe services.rerank"
        " services.parts services.embed_parts services.rerank_parts services.bulk"
        " services.bulk_pack services.models",
    ),
    ("faces", "services.server gateway_http"),
    (
        "app",
        "services.app services.runtime services.life services.named services.reload"
        " services.assembly services.watch"
        " services.rest_server services.socket_file services.worker_channel services.worker_seat"
        " services.worker_pages",
    ),
    (
        "cli",
        "services.cli services.client services.commands services.__main__ services.worker"
        " services.supervisor services.supervisor_child services.supervisor_ports",
    ),
]
RANKS = {name: rank for rank, (_, names) in enumerate(LAYERS) for name in names.split()}
OURS = ("services", "gateway_http", "demo", "tetrad")

NEVER = [
    ("services.server", "gateway_http", "the faces never import each other"),
    ("gateway_http", "services.server", "the faces never import each other"),
    ("services.routing", "services.upstream", "routing is handed callables"),
    ("demo", "services", "demo is an ordinary upstream"),
    ("demo", "gateway_http", "demo is an ordinary upstream"),
    ("demo", "tetrad", "demo is an ordinary upstream"),
    ("tetrad", "services", "gen stands alone"),
    ("tetrad", "gateway_http", "gen stands alone"),
    ("tetrad", "demo", "gen stands alone"),
    ("services", "demo", "demo is a process of its own"),
    ("services.supervisor", "services.app", "the supervisor never loads grpc"),
    ("services.supervisor_child", "services.app", "the supervisor never loads grpc"),
    ("gateway_http", "demo", "demo is a process of its own"),
]

GRPC = ("grpc", "grpc_health", "grpc_reflection", "grpc_status", "grpc_channelz")
GRPC_HOMES = (
    "services.server",
    "services.app",
    "services.assembly",
    "services.watch",
    "services.client",
    "tetrad",
)
HTTP_CLIENTS = (
    "httpx",
    "httpcore",
    "aiohttp",
    "requests",
    "urllib.request",
    "urllib3",
    "http.client",
    "websockets",
)
HTTP_HOMES = ("services.upstream", "services.client", "services.commands.top_pages")

# Errors are what statuses are made of; the REST face writes them on the wire.
STATUS_HOMES = (
    "services.errors",
    "services.error_base",
    "services.error_table",
    "services.error_text",
    "services.upstream_error",
    "gateway_http",
)


class Module(NamedTuple):
    """A source file; `package` is what its relative imports start from."""

    name: str
    package: str
    tree: ast.Module


def module(name: str, source: str, *, is_package: bool = False) -> Module:
    package = name if is_package else name.rpartition(".")[0]
    return Module(name, package, ast.parse(source))


def modules() -> list[Module]:
    """Every module of ours."""
    found = []
    for folder in (
        ROOT / "services",
        ROOT / "gateway_http",
        ROOT / "demo",
        ROOT / "gen" / "tetrad",
    ):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found.append(module(name, path.read_text(encoding="utf-8"), is_package=is_package))
    return found


def under(name: str, *homes: str) -> bool:
    """Whether a dotted name is one of `homes` or inside one."""
    return any(name == home or name.startswith(f"{home}.") for home in homes)


def imports(this: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a module imports, wherever it does.

    `from a import b` gives a.b, which is a module or a name in one.
    """
    for node in ast.walk(this.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                parts = this.package.split(".")
                above = parts[: len(parts) - node.level + 1]
                start = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def rank(name: str) -> int | None:
    """The layer of a module, or of a name in one; None if it has none."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        found = RANKS.get(".".join(parts[:length]))
        if found is not None:
            return found
    return None


# --- the checks: each gives lines of faults ------------------------------------------------------


def order(this: Module) -> Iterator[str]:
    """Imports point downwards."""
    mine = rank(this.name)
    if this.name in ("services", "demo") or under(this.name, "demo"):
        mine = mine or 0
    elif mine is None:
        yield f"{this.name}: has no layer; give it one in tests/test_layers.py"
        return
    for line, name in imports(this):
        theirs = rank(name)
        if under(name, *OURS) and theirs is not None and theirs > mine:
            yield f"{this.name}:{line}: imports {name}, which is above it"


def strangers(this: Module) -> Iterator[str]:
    """Parts that never meet."""
    for importer, imported, why in NEVER:
        if under(this.name, importer):
            for line, name in imports(this):
                if under(name, imported):
                    yield f"{this.name}:{line}: imports {name}: {why}"


def engines(this: Module) -> Iterator[str]:
    """grpc and HTTP clients have their homes."""
    for names, homes in ((GRPC, GRPC_HOMES), (HTTP_CLIENTS, HTTP_HOMES)):
        for line, name in imports(this):
            if under(name, *names) and not under(this.name, *homes):
                yield f"{this.name}:{line}: imports {name}"


def statuses(this: Module) -> Iterator[str]:
    """HTTP statuses are names of http.HTTPStatus."""
    if under(this.name, *STATUS_HOMES) or under(this.name, "tetrad"):
        return
    for node in ast.walk(this.tree):
        for bare in _bare_statuses(node):
            line = getattr(node, "lineno", 0)  # defaults of arguments have none
            yield f"{this.name}:{line}: the status {bare} has a name in http.HTTPStatus"


def _bare_statuses(node: Any) -> Iterator[int]:
    """Statuses that a node compares, passes, sets or makes out of a number."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        if any(map(_is_status, sides)):
            for side in sides:
                yield from _numbers(side)
    elif isinstance(node, ast.keyword) and node.arg and "status" in node.arg:
        yield from _numbers(node.value)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is not None and any(map(_is_status, targets)):
            yield from _numbers(node.value)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and "status" in str(key.value):
                yield from _numbers(value)
    elif isinstance(node, ast.Match) and _is_status(node.subject):
        yield from (number for case in node.cases for number in _numbers(case.pattern))
    elif isinstance(node, ast.arguments):
        named = [*node.posonlyargs, *node.args]
        pairs = [*zip(named[len(named) - len(node.defaults) :], node.defaults, strict=True)]
        both = zip(node.kwonlyargs, node.kw_defaults, strict=True)
        pairs += [(arg, value) for arg, value in both if value]
        yield from (n for arg, value in pairs if "status" in arg.arg for n in _numbers(value))
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("HTTPStatus"):
        yield from (number for argument in node.args for number in _numbers(argument))


def _is_status(node: ast.expr) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return "status" in name.lower() and "HTTPStatus" not in name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return "status" in name
    return False


def _numbers(node: ast.AST) -> Iterator[int]:
    """Numbers from 100 to 599 in an expression, but for those inside calls and slices."""
    match node:
        case ast.Constant(value=int(number)) if 100 <= number <= 599:
            yield number
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                yield from _numbers(part)
        case ast.Call(func=ast.Name(id="range" | "frozenset" | "set"), args=parts):
            for part in parts:
                yield from _numbers(part)
        case ast.MatchValue(value=value):
            yield from _numbers(value)
        case ast.MatchOr(patterns=patterns):
            for pattern in patterns:
                yield from _numbers(pattern)
        case ast.IfExp(body=body, orelse=orelse):
            yield from _numbers(body)
            yield from _numbers(orelse)


def cancellations(this: Module) -> Iterator[str]:
    """Whoever catches a cancellation raises.

    A handler that returns instead leaks a native array a stream (grpc/grpc#43360), and a task
    that swallows its cancellation cannot be stopped.
    """
    for node in ast.walk(this.tree):
        if isinstance(node, ast.ExceptHandler) and _catches(node.type) and not _raises(node.body):
            yield f"{this.name}:{node.lineno}: catches CancelledError and does not raise"


def _catches(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    if isinstance(kind, ast.Tuple):
        return any(map(_catches, kind.elts))
    return ast.unparse(kind).rpartition(".")[2] in ("CancelledError", "BaseException")


def _raises(body: list[ast.stmt]) -> bool:
    """Whether a `raise` stands in it, outside of functions that it defines."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Raise):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))
    return False


CHECKS = [order, strangers, engines, statuses, cancellations]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_our_sources_keep_to_it(check: Callable[[Module], Iterator[str]]) -> None:
    assert [fault for this in modules() for fault in check(this)] == []


def test_all_our_sources_are_looked_at() -> None:
    names = {this.name for this in modules()}
    assert len(names) > 80
    assert {"services", "services.app", "services.codec", "services.codec.plan"} <= names
    assert {"gateway_http.app", "demo.wire", "tetrad.v1.chat_pb2"} <= names


def test_every_layer_names_modules_that_exist() -> None:
    names = {this.name for this in modules()} | {"tetrad"}
    assert RANKS.keys() - names == set()


# --- that the checks bite -----------------------------------------------------------------------

GOOD = [
    ("services.codec.leaves", "import orjson\nfrom services.codec.jsontext import loads"),
    ("services.body", "from services import codec, errors"),
    ("services.upstream.openai", "import httpx\nfrom services.body import Body"),
    ("services.chat", "from services.dispatch import Dispatch"),
    ("services.server.bind", "import grpc\nfrom services import codec"),
    (
        "services.app",
        "import grpc\nfrom gateway_http import RestApp\nfrom services.server import face",
    ),
    ("services.client", "import grpc, httpx, urllib.request"),
    ("services.commands.serve", "from services import app"),
    ("gateway_http.app", "from services import errors\nfrom http import HTTPStatus"),
    ("gateway_http.errors", "async def f(): await send({'status': 200})"),
    ("demo.wire", "from demo import sound\nimport json"),
    ("tetrad.v1.chat_pb2", "from google.protobuf import message\nfrom tetrad.v1 import json_pb2"),
    ("services.upstream.probe", "from http import HTTPStatus\nok = status == HTTPStatus.OK"),
    ("services.upstream.probe", "if size > 200 and status in seen: pass"),
    ("services.error_table", "ODD = {498, 529}\nif status == 404: pass"),
    ("services.call", "from urllib.parse import urlsplit"),
    (
        "services.server.bind",
        "try: f()\nexcept asyncio.CancelledError:\n    if x:\n        note()\n    raise",
    ),
    ("services.server.bind", "try: f()\nexcept Exception: pass"),
]

BAD: list[tuple[Callable[[Module], Iterator[str]], str, str]] = [
    (order, "services.codec.plan", "from services import errors"),
    (order, "services.codec.plan", "def f():\n    import services.body"),
    (order, "services.errors", "from services.routing import table"),
    (order, "services.errors", "from .routing.table import Table"),
    (order, "services.routing.table", "from ..chat import ChatService"),
    (order, "services.upstream.openai", "from services.dispatch import Dispatch"),
    (order, "services.chat", "from services.server.status import details"),
    (order, "services.chat", "import gateway_http.app"),
    (order, "services.server.bind", "from services import app"),
    (order, "services.app", "from services import cli"),
    (order, "gateway_http.app", "import importlib\nimportlib.import_module('services.app')"),
    (
        order,
        "services.telemetry.logs",
        "if TYPE_CHECKING:\n    from services.chat import ChatService",
    ),
    (order, "services.brand_new", "import json"),
    (strangers, "services.server.bind", "from gateway_http import errors"),
    (strangers, "gateway_http.app", "from services.server import status"),
    (strangers, "gateway_http.app", "from services import server"),
    (strangers, "services.routing.balance", "from services.upstream.base import Endpoint"),
    (strangers, "services.routing.balance", "from services import upstream"),
    (strangers, "services.routing.balance", "from .. import upstream"),
    (strangers, "demo.wire", "from services import sse"),
    (strangers, "demo", "import services.sse"),
    (strangers, "services.commands.serve", "import demo"),
    (strangers, "tetrad.v1.chat_pb2", "from services.codec import plan"),
    (engines, "services.errors", "import grpc"),
    (engines, "services.errors", "from grpc import StatusCode"),
    (engines, "services.embed", "from grpc_health.v1 import health"),
    (engines, "gateway_http.app", "import grpc.aio"),
    (engines, "demo.wire", "import grpc"),
    (engines, "services.commands.check", "import httpx"),
    (engines, "services.app", "import urllib.request"),
    (engines, "services.app", "from urllib import request"),
    (engines, "services.telemetry.logs", "from http.client import HTTPConnection"),
    (engines, "services.telemetry.logs", "from http import client"),
    (engines, "gateway_http.app", "import aiohttp"),
    (engines, "demo.wire", "import requests"),
    (statuses, "services.upstream.probe", "if response.status == 404: pass"),
    (statuses, "services.upstream.probe", "if 200 <= status < 300: pass"),
    (statuses, "services.upstream.probe", "if response.status_code in (200, 204): pass"),
    (statuses, "services.upstream.probe", "if status in range(500, 600): pass"),
    (statuses, "services.server.status", "raise Fault(http_status=502)"),
    (statuses, "services.chat", "status = 404"),
    (statuses, "services.chat", "status: int = 404"),
    (statuses, "services.chat", "answer.status = 200 if good else 503"),
    (statuses, "services.chat", "start = {'type': 'start', 'status': 200}"),
    (statuses, "services.chat", "def f(status=200): pass"),
    (statuses, "services.chat", "def f(*, http_status: int = 200): pass"),
    (statuses, "services.chat", "match response.status:\n    case 404 | 410: pass"),
    (statuses, "services.chat", "x = HTTPStatus(404)"),
    (statuses, "services.chat", "x = message['status'] != 200"),
    (cancellations, "services.chat", "try: f()\nexcept CancelledError: pass"),
    (cancellations, "services.chat", "try: f()\nexcept asyncio.CancelledError: return"),
    (cancellations, "services.chat", "try: f()\nexcept (ValueError, asyncio.CancelledError): x()"),
    (cancellations, "services.chat", "try: f()\nexcept BaseException as error: note(error)"),
    (cancellations, "services.chat", "try: f()\nexcept: pass"),
    (
        cancellations,
        "services.chat",
        "try: f()\nexcept asyncio.CancelledError:\n    def g(): raise ValueError",
    ),
]


@pytest.mark.parametrize(("name", "source"), GOOD)
def test_what_is_right_passes_every_check(name: str, source: str) -> None:
    assert [fault for check in CHECKS for fault in check(module(name, source))] == []


@pytest.mark.parametrize(("check", "name", "source"), BAD)
def test_a_check_finds_what_it_is_for(
    check: Callable[[Module], Iterator[str]], name: str, source: str
) -> None:
    assert list(check(module(name, source))) != []
