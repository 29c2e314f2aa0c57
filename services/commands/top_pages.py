"""The two pages that `tetrad top` looks at, /metrics and /ready, read over one connection.

Knows HTTP and text formats, and nothing of what the figures mean.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

_MOST: Final = 64 * 1024 * 1024
"""Bytes of a page; a gateway's has some thousands for each model."""

_SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)$', re.M)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = Mapping[str, str]
Samples = Mapping[str, list[tuple[Labels, float]]]
"""Labels and value of each sample, by the sample's name."""


class Unreachable(Exception):
    """There is no gateway to be read there, or not now; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What a gateway said. `read_at` is of our monotonic clock, `told_at` of its own clock in
    seconds since 1970, so that ages are right also where the two machines disagree."""

    samples: Samples
    ready: Mapping[str, Any]
    read_at: float
    told_at: float


class Source:
    """The REST address of a gateway, with or without a path before its own."""

    def __init__(
        self, url: str, key: str = "", timeout: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> None:
        """Raises ValueError for what is no http or https URL."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is no URL such as http://127.0.0.1:8080")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._path = parts.path.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._connection = _connection(parts, timeout, tls)

    def read(self) -> Pages:
        """Both pages, now. Raises Unreachable."""
        ready = self._ready()
        answer, body = self._get("/metrics")
        if answer.status != HTTPStatus.OK:
            raise Unreachable(f"{self.url}/metrics answers {answer.status} {answer.reason}")
        at = time.monotonic()
        return Pages(parse(body.decode("utf-8", "replace")), ready, at, _date(answer))

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _ready(self) -> Mapping[str, Any]:
        answer, body = self._get("/ready")
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        # 503 says as much: a gateway that drains has a state, too.
        if not isinstance(found, dict) or not isinstance(found.get("models"), dict):
            raise Unreachable(
                f"{self.url}/ready answers {answer.status} {answer.reason}: that is no gateway, "
                "or something stands in front of it"
            )
        return found

    def _get(self, path: str) -> tuple[HTTPResponse, bytes]:
        kept = self._connection.sock is not None
        try:
            return self._once(path)
        except (HTTPException, ConnectionError) as error:
            self._connection.close()
            if not kept:
                raise self._unreachable(error) from error
        except OSError as error:
            self._connection.close()
            raise self._unreachable(error) from error
        # A kept connection may have been closed by the other side since.
        try:
            return self._once(path)
        except (HTTPException, OSError) as error:
            self._connection.close()
            raise self._unreachable(error) from error

    def _once(self, path: str) -> tuple[HTTPResponse, bytes]:
        self._connection.request("GET", self._path + path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read(_MOST + 1)
        if len(body) > _MOST:
            raise HTTPException(f"{path} has more than {_MOST} bytes")
        return answer, body

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, ssl.SSLError):
            return Unreachable(f"{self.url}: {error.reason or error}; see --ca, --cert")
        if isinstance(error, HTTPException) and not isinstance(error, ConnectionError):
            return Unreachable(
                f"{self.url} does not speak HTTP ({type(error).__name__}); "
                "give the REST address, not the one of gRPC"
            )
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(
            f"{self.url}: {said.lower()}\n"
            f"Is a gateway running at {self.url}? Start one with `tetrad demo`."
        )


def _connection(
    parts: SplitResult, timeout: float, tls: ssl.SSLContext | None
) -> HTTPConnection | HTTPSConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = tls or ssl.create_default_context()
        return HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    return HTTPConnection(host, parts.port, timeout=timeout)


def _date(answer: HTTPResponse) -> float:
    try:
        return parsedate_to_datetime(answer.getheader("date", "")).timestamp()
    except ValueError:  # there is none
        return time.time()


def parse(page: str) -> Samples:
    """Samples of Prometheus's text format; a line that is none is left out."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    for name, labels, value in _SAMPLE.findall(page):
        try:
            number = float(value)
        except ValueError:
            continue
        found.setdefault(name, []).append((_labels(labels), number))
    return found


def _labels(text: str) -> Labels:
    return {
        name: re.sub(r"\\.", lambda found: _ESCAPED.get(found[0], found[0]), value)
        for name, value in _LABEL.findall(text)
    }
