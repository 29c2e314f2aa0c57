"""Where to listen and where to call: addresses and upstream base URLs, as typed values.

Pure text work: no name is resolved and no socket opened. What is wrong is raised as
`Malformed`, with a message that never repeats what may hold a secret.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?")
_LIKE_A_HOST = re.compile(r"(localhost|[A-Za-z0-9-]{1,40}[.:])[A-Za-z0-9_.:/-]{0,80}")
_MAX_SOCKET_PATH = 107  # bytes in sockaddr_un.sun_path, without its final zero

# Tails of URLs that name one operation instead of the server.
_OPERATIONS = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/embed",
    "/rerank",
    "/audio/transcriptions",
    "/audio/translations",
    "/models",
)


class Malformed(ValueError):
    """A text that is no address or URL: `message` says why, `hint` what to write instead.

    With `repeats` the hint holds the text itself.
    """

    def __init__(self, message: str, hint: str = "", *, repeats: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.repeats = repeats


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: host and port, or (with `path`) a unix socket. `str()` round trips."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port`, `[v6]:port` or `unix:/path`; port 0 lets the system choose.

        Raises Malformed.
        """
        if text.startswith("unix:"):
            return cls(path=_socket_path(text.removeprefix("unix:")))
        if "://" in text:
            raise Malformed("expected host:port, found a URL", "leave out what stands before '//'")
        host, colon, port = text.rpartition(":")
        if not colon:
            if _port_number(text) is not None:
                raise Malformed("no host", f"write 127.0.0.1:{text}, or 0.0.0.0:{text} for all")
            raise Malformed("no port", "write host:port, such as 127.0.0.1:50051")
        number = _port_number(port)
        if host in ("", "*"):
            shown = number if number is not None else "PORT"
            raise Malformed("no host", f"write 127.0.0.1:{shown}, or 0.0.0.0:{shown} for all")
        if ":" in host and not host.startswith("["):
            raise Malformed("an IPv6 address needs brackets", "write it like [::1]:50051")
        if number is None:
            raise Malformed("the port must be a number from 0 to 65535")
        return cls(host=_host(host), port=number)

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket."""
        return bool(self.path)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; a host name other than localhost never counts."""
        if self.is_unix or self.host.rstrip(".").lower() == "localhost":
            return True
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback

    def with_port(self, port: int) -> "Address":
        """The same host at another port: what was bound when the port was 0."""
        return Address(host=self.host, port=port, path=self.path)

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def base_url(text: str) -> str:
    """A server's base URL without a trailing slash and without `/v1`.

    Raises Malformed: not http or https, no host, a bad port, credentials, a query, or the path
    of one operation.
    """
    if not text:
        raise Malformed("the URL is empty")
    if not text.isprintable() or " " in text:
        raise Malformed("a URL holds no spaces or control characters")
    if "://" not in text:
        hint = f"write http://{text}" if _LIKE_A_HOST.fullmatch(text) else ""
        raise Malformed("a URL begins with http:// or https://", hint, repeats=True)
    try:
        parts = urlsplit(text)
        name, port = parts.hostname, parts.port
    except ValueError:
        raise Malformed("not a URL: its host or port cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise Malformed("a URL begins with http:// or https://")
    if "@" in parts.netloc:
        raise Malformed("a URL must not hold a user name or password", "put the key in 'key'")
    if not name:
        raise Malformed("the URL has no host")
    if port == 0 or parts.netloc.endswith(":"):
        raise Malformed("the port must be a number from 1 to 65535")
    if "?" in text or "#" in text:
        raise Malformed("a base URL has no '?' and no '#'")
    host = _host(f"[{name}]" if ":" in name else name).lower()
    path = parts.path.rstrip("/")
    for operation in _OPERATIONS:
        if path.endswith(operation):
            raise Malformed(
                "expected the base URL of a server, found the path of one operation",
                f"leave out {operation}",
            )
    path = path.removesuffix("/v1").rstrip("/")
    where = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{where}{'' if port is None else f':{port}'}{path}"


def _socket_path(path: str) -> str:
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    if not path.startswith("/") or path == "/":
        raise Malformed("the path of a unix socket must be absolute", "write unix:/run/name.sock")
    if not path.isprintable():
        raise Malformed("the path of a unix socket holds control characters")
    if len(path.encode("utf-8", "surrogateescape")) > _MAX_SOCKET_PATH:
        raise Malformed(f"the path of a unix socket is longer than {_MAX_SOCKET_PATH} bytes")
    return path


def _port_number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return int(text) if int(text) <= 65535 else None


def _host(text: str) -> str:
    """An IP address in its canonical form, or a host name as it is."""
    if text.startswith("["):
        try:
            return ipaddress.IPv6Address(text[1:-1] if text.endswith("]") else "").compressed
        except ValueError:
            raise Malformed("what stands in brackets is not an IPv6 address") from None
    if not text.strip("0123456789."):
        try:
            return ipaddress.IPv4Address(text).compressed
        except ValueError:
            raise Malformed("the host is not an IPv4 address") from None
    if not _HOST_NAME.fullmatch(text):
        raise Malformed("the host is neither an IP address nor a host name")
    return text
