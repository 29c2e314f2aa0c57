"""`tetrad top` against a gateway: one look, and the live view on a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.commands.top_pages import Source
from tests.fakes import profiles
from tests.fakes.upstream import DelayedUntil, FakeUpstream, Json, Raw
from tests.lib import tls
from tests.lib.refusing import refusing_port
from tests.lib.terminal import Terminal
from tests.lib.tetrad import Served, configuration, done, model, serving, tetrad, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, EMBED, RERANK = "text-generation", "text-embeddings-inference", "text-classification"
HI = [{"role": "user", "content": "hi"}]


class Scene:
    """A gateway with a model that answers, one that is held, and one that nobody serves."""

    def __init__(self, served: Served, go_on: asyncio.Event) -> None:
        self.served, self.url, self._go_on = served, served.gate.url, go_on

    async def ask(self, path: str, **body: Any) -> int:
        answer = await self.served.gate.rest.post(path, json=body)
        return answer.status_code

    @asynccontextmanager
    async def one_held(self) -> AsyncIterator[None]:
        """A call of `held` is under way."""
        self._go_on.clear()
        call = asyncio.create_task(
            self.ask("/v1/rerank", model="held", query="q", documents=["a", "b"])
        )

        async def under_way() -> bool:
            page = await self.served.gate.rest.get("/metrics")
            return 'tetrad_model_in_flight{gen_ai_request_model="held"} 1.0' in page.text

        await until(under_way)
        try:
            yield
        finally:
            self._go_on.set()
            await call

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Calls, one after the other: chats, failures, and a mistake."""

        async def calls() -> None:
            while True:
                await self.ask("/v1/chat/completions", model="chat", messages=HI, stream=True)
                await self.ask("/v1/embeddings", model="gone", input="x")
                await self.ask("/v1/embeddings", model="nobody", input="x")

        task = asyncio.create_task(calls())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        chat, held = [await stack.enter_async_context(FakeUpstream()) for _ in range(2)]
        profiles.vllm(chat)
        profiles.tei(held, kind="reranker")
        go_on = asyncio.Event()
        ranked = Json([{"index": 0, "score": 0.9}, {"index": 1, "score": 0.1}])
        held.on("POST", "/rerank", DelayedUntil(go_on, ranked))
        nobody = f"http://127.0.0.1:{stack.enter_context(refusing_port())}"
        models = [
            model("chat", CHAT, "vllm", chat.url, "qwen3-8b"),
            model("held", RERANK, "tei", held.url),
            model("gone", EMBED, "tei", nobody),
        ]
        config = configuration(tmp_path_factory.mktemp("top"), models, probes={"interval": 3600})
        served = await stack.enter_async_context(serving("--config", config))
        yield Scene(served, go_on)


async def test_one_look_as_json_tells_calls_failures_latency_and_what_is_under_way(
    scene: Scene,
) -> None:
    async with scene.load(), scene.one_held():
        looked = await done(tetrad("top", "--json", "--interval", "0.5", TETRAD_URL=scene.url))
    assert (looked.code, looked.stderr) == (0, "")
    told = looked.json()
    models = {one["name"]: one for one in told["models"]}
    chat, gone, held = models["chat"], models["gone"], models["held"]
    assert (told["status"], told["generation"], told["workers"]) == ("ready", 1, 1)
    assert 0.5 <= told["seconds"] < 10
    assert chat["calls"] > 0
    assert chat["failed"] == 0
    assert 0 < chat["p50"] <= chat["p95"]
    assert chat["first_p95"] > 0
    assert chat["tokens_out"] > 0
    assert [one["calls"] for one in chat["providers"]] == [chat["calls"]]
    assert (gone["failed"], gone["ready"]) == (1, False)
    assert (held["in_flight"], held["calls"], held["p50"]) == (1, 0, None)
    assert {"UPSTREAM_UNAVAILABLE", "MODEL_NOT_FOUND"} == told["errors"].keys()
    assert 0 < told["failed"] < 1
    assert told["overhead"] > 0
    assert told["memory"] > 1e7


async def test_one_look_as_text_is_what_a_pipe_gets_and_without_colour(scene: Scene) -> None:
    async with scene.load():
        looked = await done(tetrad("top", "--interval", "0.3", "--url", scene.url, COLUMNS="80"))
    assert (looked.code, looked.stderr) == (0, "")
    rows = looked.stdout.splitlines()
    assert "\x1b" not in looked.stdout
    assert max(map(len, rows)) <= 80
    assert f"at {scene.url}: ready, up" in rows[0]
    assert [row.split()[0] for row in rows if row[:1].isalpha()][-3:] == ["chat", "gone", "held"]
    gone = next(row.split() for row in rows if row.startswith("gone"))
    assert gone[1] == "down"
    assert "100 %" in " ".join(gone)


async def test_who_cannot_be_read_is_told_in_words(scene: Scene, tmp_path: Path) -> None:
    with refusing_port() as port:
        runs = [
            ("--url", f"http://127.0.0.1:{port}"),
            ("--url", scene.served.gate.address),
            ("--url", f"{scene.url}/elsewhere"),
            ("--url", "ftp://127.0.0.1"),
            ("--url", "https://127.0.0.1", "--ca", tmp_path / "no.pem"),
            ("--interval", "0"),
            ("--cert", tmp_path / "one.pem"),
        ]
        told = await asyncio.gather(*(done(tetrad("top", "--once", *run)) for run in runs))
    assert [one.code for one in told] == [1, 1, 1, 2, 2, 2, 2]
    assert [one.stdout for one in told] == [""] * len(told)
    refused, grpc, elsewhere, scheme, file, interval, pair = (one.stderr for one in told)
    assert f"Is a gateway running at http://127.0.0.1:{port}? Start one with" in refused
    assert "give the REST address, not the one of gRPC" in grpc
    assert f"{scene.url}/elsewhere/ready answers 404" in elsewhere
    assert "is no URL such as http://127.0.0.1:8080" in scheme
    assert "no.pem: no such file or directory" in file
    assert "--interval needs" in interval
    assert "--cert and --key-file go together" in pair


def live(url: str, **env: str | None) -> Terminal:
    """The live view on a terminal of 80 columns."""
    return Terminal(
        sys.executable, "-m", "services", "top", "--url", url, "--interval", "0.1", env=env
    )


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
async def test_the_live_view_draws_anew_until_a_key_and_puts_the_terminal_back(
    scene: Scene, key: bytes
) -> None:
    def watched() -> tuple[int, bool, bytes]:
        with live(scene.url) as terminal:
            before = terminal.modes()
            terminal.until(rb"since its start")
            terminal.until(rb"over \d+ s")
            assert terminal.modes() != before
            terminal.send(key)
            code = terminal.wait()
            return code, terminal.modes() == before, terminal.output

    async with scene.load():
        code, put_back, drawn = await asyncio.to_thread(watched)
    assert (code, put_back) == (0, True)
    assert drawn.startswith(b"\x1b[?1049h\x1b[?25l")
    assert drawn.endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"Traceback" not in drawn
    assert b"\x1b[31m" in drawn


async def test_a_terminal_that_wants_no_colour_gets_none(scene: Scene) -> None:
    def watched(**env: str | None) -> bytes:
        with live(scene.url, **env) as terminal:
            terminal.until(rb"q leaves|^tetrad")
            terminal.send(b"q")
            assert terminal.wait() == 0
            return terminal.output

    no_colour, dumb = await asyncio.gather(
        asyncio.to_thread(watched, NO_COLOR="1"), asyncio.to_thread(watched, TERM="dumb")
    )
    assert b"\x1b[31m" not in no_colour
    assert b"\x1b[1m" not in no_colour
    assert b"\x1b[?1049h" in no_colour
    assert b"\x1b" not in dumb


def pretend(fake: FakeUpstream, started: float) -> None:
    """Answers as a gateway that was started then."""
    page = f"process_start_time_seconds {started}\ntetrad_config_generation 1\n"
    fake.on("GET", "/metrics", Raw(page.encode(), "text/plain"))
    fake.on("GET", "/ready", Json({"status": "ready", "models": {}}))


async def test_a_gateway_that_goes_and_comes_back_is_watched_on() -> None:
    now = time.time()
    with ExitStack() as stack:
        async with FakeUpstream() as first:
            pretend(first, now - 1000)
            terminal = stack.enter_context(await asyncio.to_thread(live, first.url))
            await asyncio.to_thread(terminal.until, rb"up 1\d m[^;]*; over \d+ s")
        await asyncio.to_thread(terminal.until, rb"connection refused; trying again")
        async with FakeUpstream(port=first.port) as second:
            pretend(second, now - 100)
            await asyncio.to_thread(terminal.until, rb"up 1[.]\d m[^;]*; since its start")
            await asyncio.to_thread(terminal.until, rb"up 1[.]\d m[^;]*; over \d+ s")
            terminal.send(b"q")
            assert await asyncio.to_thread(terminal.wait) == 0


async def test_a_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    served: list[int] = []

    async def two_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(0)
        for body in (b'{"status": "ready", "models": {}}', b"process_start_time_seconds 1\n"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            served[-1] += 1
        writer.close()

    async with await asyncio.start_server(two_requests, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        source = Source(f"{host}:{port}")
        for _ in range(3):
            assert (await asyncio.to_thread(source.read)).ready["status"] == "ready"
        source.close()
    assert served == [2, 2, 2]


async def test_a_key_is_shown_to_whoever_stands_in_front() -> None:
    async with FakeUpstream() as fake:
        pretend(fake, time.time() - 1000)
        flags = ("--interval", "0.1", "--key", "tk-x")
        told = await done(tetrad("top", "--once", "--url", f"{fake.url}/", *flags))
        assert (told.code, told.stderr) == (0, "")
        shown = {one.headers["authorization"] for one in fake.requests}
        assert shown == {"Bearer tk-x"}
        assert fake.connections.total == 1


async def test_tls_is_checked_against_the_given_authority() -> None:
    async with FakeUpstream(tls=tls.server_context(require_client=True)) as fake:
        pretend(fake, time.time() - 1000)
        once = ("top", "--once", "--interval", "0.1", "--url", fake.url)
        cert, key = tls.CLIENT
        trusted = ("--ca", tls.CA, "--cert", cert, "--key-file", key)
        well, unknown, other = await asyncio.gather(
            done(tetrad(*once, *trusted)),
            done(tetrad(*once)),
            done(tetrad(*once, "--ca", tls.OTHER_CA)),
        )
    assert (well.code, well.stderr) == (0, "")
    for one in (unknown, other):
        assert (one.code, one.stdout) == (1, "")
        assert "see --ca, --cert" in one.stderr
