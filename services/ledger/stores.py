"""Which store a `ledger.url` means."""

from __future__ import annotations

from collections.abc import Callable

from services.ledger.jsonl import JsonLines
from services.ledger.sqlite import Sqlite
from services.ledger.store import Store


def _postgres(url: str) -> Store:
    from services.ledger.postgres import Postgres  # a library that few need

    return Postgres(url)


_STORES: dict[str, Callable[[str], Store]] = {
    "jsonl": lambda url: JsonLines(path(url)),
    "sqlite": lambda url: Sqlite(path(url)),
    "postgresql": _postgres,
}


def scheme(url: str) -> str:
    """jsonl, sqlite or postgresql. Raises ValueError for another."""
    found = url.partition(":")[0]
    if found not in _STORES:
        raise ValueError("a ledger is jsonl:PATH, sqlite:PATH or postgresql://...")
    return found


def path(url: str) -> str:
    """The file of a `jsonl:` or `sqlite:` URL."""
    return url.partition(":")[2]


def store(url: str) -> Store:
    """The store of a URL, not yet opened. Raises ValueError for a scheme that is not known."""
    return _STORES[scheme(url)](url)
