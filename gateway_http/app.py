"""The ASGI application: finds what a request is for, hands it on, and answers every failure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from inspect import isawaitable

from gateway_http import errors as shown
from gateway_http import health
from gateway_http.asgi import Headers, Receive, Scope, Send, header_map
from gateway_http.caller import HungUp
from gateway_http.calls import RestCall
from gateway_http.cors import Cors
from gateway_http.exchange import Exchange, cancelled
from gateway_http.openapi import document
from gateway_http.request import passing, request_id
from gateway_http.routes import Router, allowed
from gateway_http.settings import Page, PageAnswer, RestSettings
from services import errors
from services.codec.plan import Body as Carries
from services.errors import TetradError

_PAGE_ALLOW = allowed(["GET"])


class RestApp:
    """Serves `services` (by full name, "tetrad.v1.ChatService"; one left out has no paths).

    A service has a coroutine `(Body, Call) -> Body` for each unary RPC, in snake case, and for
    each streaming one a function that returns an async generator of lists of bodies.
    """

    def __init__(self, services: Mapping[str, object], settings: RestSettings) -> None:
        self._services = services
        self._router = Router(services)
        self._reference = b""
        self._full: tuple[TetradError, int, bytes] | None = None
        self.configure(settings)

    @property
    def settings(self) -> RestSettings:
        """What it runs on."""
        return self._settings

    def configure(self, settings: RestSettings) -> None:
        """Take new settings, for the requests to come."""
        self._settings = settings
        self._passes = passing(settings.pass_in)
        self._cors = Cors(settings.cors, settings.pass_out)
        self._error_body = shown.with_detail if settings.opengatellm else shown.standard
        self._pages: dict[str, Page] = {
            "/health": health.alive,
            "/ready": lambda: health.ready(settings.state),
            "/openapi.json": self._openapi,
            **settings.pages,
        }

    def refusal(self, method: bytes, target: bytes, headers: Headers) -> tuple[int, bytes] | None:
        """The answer to a call that a full gateway refuses, for our own server: its status, and
        what follows the first line. None for what is handed on."""
        full = self._settings.overload()
        if full is None or self._settings.cors or method != b"POST":
            return None
        found = self._router.find(target.partition(b"?")[0].decode("latin-1"))
        names = dict(headers)
        if found is None or "POST" not in found[0].verbs or b"expect" in names:
            return None
        if self._full is None or self._full[0] is not full:
            status, told, body = shown.response(full, "", self._error_body)
            told.append((b"content-length", b"%d" % len(body)))
            lines = [name + b": " + value + b"\r\n" for name, value in told]
            self._full = full, status, b"".join(lines) + b"\r\n" + body
        _, status, rest = self._full
        return status, b"x-request-id: %b\r\n%b" % (request_id(names).encode(), rest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Websockets are refused, lifespan is accepted."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = header_map(scope)
        state = self._settings.state
        exchange = Exchange(scope, headers, receive, send, request_id(headers), state)
        exchange.error_body = self._error_body
        exchange.extra = self._cors.answer(headers)
        path, verb = scope["path"], scope["method"]
        found = self._router.find(path)
        if found is None:
            await self._beside(path, verb, exchange)
            return
        operation = found[0].verbs.get("GET" if verb == "HEAD" else verb)
        if operation is None:
            await self._other_verb(verb, found[0].allow, exchange)
            return
        if operation.rest.body is not Carries.NONE:
            full = self._settings.overload()
            if full is not None:
                await exchange.fail(full, {}, [])
                return
        call = RestCall(operation, exchange, self._settings)
        try:
            await call.run(found[1], self._passes)
        except HungUp:
            self._ended(call, "CANCELLED")
            return
        except BaseException as raised:
            if exchange.started:
                raise  # half an answer, or a stream that said so: the server closes the connection
            error = exchange.as_error(raised, operation.method.name)
            self._ended(call, error.grpc_code, error.reason)
            await exchange.fail(error, call.call.out if call.call else {}, [])
            if cancelled(raised):
                raise

    def _ended(self, call: RestCall, outcome: str, reason: str = "") -> None:
        """Also a call that no service has seen has a record: its key, body or size was no good."""
        if call.call is not None:
            call.call.error = call.call.error or reason
            self._settings.ended(call.call, outcome)

    async def _beside(self, path: str, verb: str, exchange: Exchange) -> None:
        """What is no path of the contract."""
        page = self._pages.get(path)
        if page is None:
            error = errors.NotFound(f"there is no path {path[:200]}")
            await exchange.fail(error, {}, [])
            return
        if verb not in ("GET", "HEAD"):
            await self._other_verb(verb, _PAGE_ALLOW, exchange)
            return
        try:
            asked = page()
            answer = await asked if isawaitable(asked) else asked
        except Exception as raised:
            await exchange.fail(exchange.as_error(raised, path), {}, [])
            return
        media_type, body, status, headers = answer
        etag = dict(headers).get(b"etag")
        if etag is not None and _has(etag, exchange.headers.get(b"if-none-match", b"")):
            await exchange.answer(HTTPStatus.NOT_MODIFIED, [*headers], b"")
            return
        kind = (b"content-type", media_type.encode())
        await exchange.answer(int(status), [kind, *headers], body)

    async def _other_verb(self, verb: str, allow: str, exchange: Exchange) -> None:
        if verb == "OPTIONS":
            exchange.extra = []
            headers = self._cors.preflight(exchange.headers, allow)
            await exchange.answer(HTTPStatus.NO_CONTENT, headers, b"")
            return
        more: Headers = [(b"allow", allow.encode())]
        error = errors.MethodNotAllowed(f"this path does not have {verb}; it has {allow}")
        await exchange.fail(error, {}, more)

    def _openapi(self) -> PageAnswer:
        if not self._reference:
            self._reference = document(self._services, self._settings.version)
        return PageAnswer("application/json", self._reference)


def _has(etag: bytes, asked: bytes) -> bool:
    """Whether a caller's if-none-match names this ETag, be it as a weak one."""
    tags = [tag.strip().removeprefix(b"W/") for tag in asked.split(b",")]
    return etag in tags or b"*" in tags


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop: the application's owner does that."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
