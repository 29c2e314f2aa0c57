"""The demo's process: its models, its errors, how it starts and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.lib.process import ROOT, Program
from tests.unit.demo_process import CHAT, EAR, EMBED, RERANK, connected, error, running, url_of

OFFLINE = """
import sys
def caught(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(caught)
from demo.vectors import Embedder
print(Embedder().embed(["a ship"]).vectors.shape)
from demo import recogniser
recogniser.main()
"""


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with connected(program) as opened:
        yield opened


def test_models_are_listed_with_their_types(client: httpx.Client) -> None:
    answer = client.get("/v1/models").json()
    assert answer["object"] == "list"
    assert {item["id"]: item["type"] for item in answer["data"]} == {
        CHAT: "text-generation",
        EMBED: "text-embeddings-inference",
        EAR: "automatic-speech-recognition",
        RERANK: "text-classification",
    }
    for item in answer["data"]:
        assert item["object"] == "model"
        assert isinstance(item["created"], int)
        assert item["owned_by"]
        assert item["capabilities"]


def test_one_model_says_what_it_is(client: httpx.Client) -> None:
    model = client.get("/v1/models/eliza").json()
    assert model["id"] == CHAT
    assert "not a language model" in model["owned_by"]
    assert error(client.get("/v1/models/a/b"), 404)["code"] == "model_not_found"


def test_health_is_empty(client: httpx.Client) -> None:
    answer = client.get("/health")
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_unknown_model_is_not_found(client: httpx.Client) -> None:
    for path in ("chat/completions", "embeddings", "rerank"):
        answer = client.post(f"/v1/{path}", json={"model": "gpt-9"})
        assert error(answer, 404)["code"] == "model_not_found"


def test_paths_methods_and_bodies_that_are_wrong(client: httpx.Client) -> None:
    error(client.get("/v1/nothing"), 404)
    wrong = client.get("/v1/embeddings")
    error(wrong, 405)
    assert wrong.headers["allow"] == "POST"
    error(client.post("/v1/models"), 405)
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 5000):
        assert error(client.post("/v1/embeddings", content=body), 400)["code"] == "invalid_json"


def test_a_body_that_is_too_large_is_refused(client: httpx.Client, program: Program) -> None:
    piece = bytes(1024 * 1024)
    answer = client.post("/v1/embeddings", content=(piece for _ in range(65)))
    assert error(answer, 413)["code"] == "request_too_large"
    # And before it comes, if its length is told.
    host, port = url_of(program).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 67108865\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


# The process.


def test_it_says_one_line_and_answers_at_once() -> None:
    with running() as program, connected(program) as client:
        assert client.get("/health").status_code == 200
        assert len(program.stdout) == 1


def test_ctrl_c_ends_it_quietly_even_in_the_middle_of_a_stream() -> None:
    with running() as program, connected(program) as client:
        said = {"role": "user", "content": "count to 2000"}
        body = {"model": CHAT, "messages": [said], "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
            assert program.end(signal.SIGINT) == 0
        assert len(program.group()) == 0


def test_it_ends_with_its_input_when_told_to() -> None:
    command = [sys.executable, "-m", "demo", "--port", "0", "--exit-with-stdin"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b"demo listening on ")
        process.stdin.close()
        assert process.wait(10) == 0
        assert b"Traceback" not in process.stderr.read()


def test_nothing_of_it_outlives_it_even_when_it_is_killed() -> None:
    with Program("python", "-m", "demo") as program:
        program.wait_for("models loaded")
        assert len(program.group()) == 2
        program.end(signal.SIGKILL)
        program.assert_gone()


def test_a_port_that_is_taken_is_told_from_other_failures(program: Program) -> None:
    port = url_of(program).rpartition(":")[2]
    with Program("python", "-m", "demo", "--port", port) as second:
        assert second.wait() == 3
        assert "cannot listen" in second.output
    with Program("python", "-m", "demo", "--pace", "-1") as third:
        assert third.wait() == 2


def test_the_models_never_reach_for_the_network() -> None:
    """Whatever opens a socket outward in a process that loads and uses them is caught."""
    with Program("python", "-c", OFFLINE) as program:
        assert program.wait() == 0, program.output
        assert program.stdout == ["(1, 256)", '{"ready": true}']
