"""The demo's process for tests, and the shape of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.lib.process import Program

CHAT, EMBED, RERANK, EAR = "eliza", "wordllama", "wordllama-rerank", "pocketsphinx-en-us"


@contextmanager
def running(*options: str) -> Iterator[Program]:
    """The process, listening; that it then ends well is checked."""
    with Program("python", "-m", "demo", "--port", "0", *options) as program:
        url_of(program)
        yield program
        assert program.end() == 0
        program.assert_gone()
        assert "Traceback" not in program.output, program.output


def url_of(program: Program) -> str:
    """Where it listens, once it says so."""
    return program.wait_for(r"^demo listening on (http://127\.0\.0\.1:\d+)$")[1]


def connected(program: Program) -> httpx.Client:
    """A client of it."""
    return httpx.Client(base_url=url_of(program), timeout=30, trust_env=False)


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error object of an answer, whose shape is checked."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    assert found["message"]
    return found
