"""Parts of several workers: the addresses they share, what they say, and their pages as one."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway_http.settings import PageAnswer
from services import worker_channel as say
from services import worker_pages
from services.config import Address, Config, ConfigError, parse
from services.rest_server import RestServer
from services.supervisor import workers_of
from services.supervisor_ports import PortError, Ports
from services.telemetry import snapshot
from services.worker_channel import Channel
from services.worker_seat import Seat, Told
from tests.lib.ports import free_port, is_free

MODEL = "models: [{name: a, type: text-generation, providers: [{url: 'http://h'}]}]\n"


def config(grpc: str = "127.0.0.1:0", http: str = "127.0.0.1:0") -> Config:
    return parse(MODEL, "t.yaml", {}).with_overrides(grpc=grpc, http=http)


# The addresses.


def listening(port: int, *options: int) -> socket.socket:
    """A program that listens, with these options of a socket. Raises OSError."""
    listener = socket.socket()
    try:
        for option in options:
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_a_held_port_is_kept_from_others_and_gets_no_connection() -> None:
    with Ports(config()) as ports:
        assert ports.http is not None
        found = (ports.grpc.port, ports.http.port)
        assert len({0, *found}) == 3
        for port in found:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
            for options in ((), (socket.SO_REUSEADDR,)):
                with pytest.raises(OSError, match="already in use"):
                    listening(port, *options)
            with (
                listening(port, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as worker,
                listening(port, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as other,
            ):
                callers = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(40)]
                accepted = [0, 0]
                for index, one in enumerate((worker, other)):
                    one.setblocking(False)
                    while True:
                        try:
                            one.accept()[0].close()
                        except BlockingIOError:
                            break
                        accepted[index] += 1
                for caller in callers:
                    caller.close()
                # Each by chance: none gets nothing but once in 2**39 times.
                assert sum(accepted) == 40
                assert min(accepted) > 0
    assert all(map(is_free, found))


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,)])
def test_a_port_that_somebody_listens_on_is_a_clash(options: tuple[int, ...]) -> None:
    """Also when that one would share: it is no worker of ours."""
    free = free_port()
    with listening(0, *options) as holder:
        taken = holder.getsockname()[1]
        for face, one in (
            ("gRPC", config(grpc=f"127.0.0.1:{taken}")),
            ("REST", config(grpc=f"127.0.0.1:{free}", http=f"127.0.0.1:{taken}")),
        ):
            said = f"^{face} cannot listen on 127.0.0.1:{taken}: address already in use$"
            with pytest.raises(PortError, match=said):
                Ports(one)
            assert is_free(free)


def test_a_rest_socket_file_is_held_for_all_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rest"
    with Ports(config(http=f"unix:{path}")) as ports:
        assert ports.listener is not None
        assert str(ports.http) == f"unix:{path}"
        assert path.exists()
    assert not path.exists()


def test_a_grpc_socket_file_cannot_be_shared() -> None:
    file = "grpc: {address: 'unix:/run/grpc'}\n"
    for workers in (0, 2):
        with pytest.raises(ConfigError, match=r"t.yaml:1:17: grpc.address: several workers cannot"):
            parse(f"{file}workers: {workers}\n{MODEL}", "t.yaml", {})
    assert parse(file + MODEL, "t.yaml", {}).workers == 1
    with pytest.raises(ConfigError, match="--grpc: several workers cannot share"):
        parse(f"workers: 2\n{MODEL}", "t.yaml", {}).with_overrides(grpc="unix:/run/grpc")


def test_workers_get_the_addresses_that_were_found() -> None:
    with Ports(config()) as ports:
        placed = ports.placed(config())
        assert placed.http is not None
        assert (placed.grpc.address, placed.http.address) == (ports.grpc, ports.http)
        without = ports.placed(config(http="none"))
        assert without.http is None


def test_0_workers_are_one_for_each_core() -> None:
    assert workers_of(config().with_overrides(workers=0)) >= 1
    assert workers_of(config().with_overrides(workers=3)) == 3


async def test_a_rest_face_whose_stop_is_cut_short_closes_its_port_all_the_same() -> None:
    """A second signal, while the first has it wait for its connections."""
    server = RestServer(nothing)
    port = server.bind(Address("127.0.0.1"))
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    stopping = asyncio.create_task(server.stop(60))
    done, _ = await asyncio.wait({stopping}, timeout=0.3)
    assert not done
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, 10)
    assert is_free(port)
    writer.close()


async def nothing(scope: object, receive: object, send: object) -> None:
    """An application that never answers."""
    await asyncio.Event().wait()


# What supervisor and worker say.


@asynccontextmanager
async def seated(**start: Any) -> AsyncIterator[tuple[Channel, Seat, asyncio.Task[None]]]:
    """The supervisor's end, and a seat that obeys."""
    one, other = socket.socketpair()
    supervisor, worker = await Channel.on(one), await Channel.on(other)
    first = {"number": 1, "generation": 4, "config": json.loads(config().model_dump_json())}
    seat = Seat(worker, {**first, "faults": [], **start}, None)
    obeying = asyncio.create_task(seat.obey(worker.lines()))
    try:
        yield supervisor, seat, obeying
    finally:
        obeying.cancel()
        await asyncio.gather(obeying, return_exceptions=True)
        supervisor.close()
        worker.close()


async def test_a_configuration_reaches_a_worker_as_it_was() -> None:
    """Secrets and command line included; nothing is read again."""
    file = (
        "auth: {keys: [{name: k, sha256: " + "ab" * 32 + "}]}\n"
        "models: [{name: a, type: text-generation, providers: [{type: openai, key: s3cret}]}]"
    )
    one = parse(file, "t.yaml", {}, upstreams=["http://h:1"]).with_overrides(http="none")
    async with seated(config=json.loads(json.dumps(one.model_dump(mode="json")))) as (_, seat, _):
        assert seat.config == one


async def test_a_worker_whose_supervisor_is_gone_drains() -> None:
    async with seated() as (supervisor, seat, obeying):
        seat.ready("welcome")
        supervisor.close()
        await asyncio.wait_for(obeying, 10)
        assert seat.stop.is_set()
        assert not seat.at_once.is_set()
        seat.answers("ready", lambda: b"mine")
        assert [one.body for one in await seat.ask("ready")] == [b"mine"]


async def test_a_worker_that_has_not_begun_to_serve_ends_at_once() -> None:
    async with seated() as (supervisor, seat, _):
        supervisor.say(say.DRAIN)
        await asyncio.wait_for(seat.at_once.wait(), 10)
        assert not seat.stop.is_set()


async def test_a_worker_takes_reloads_in_their_order_and_tells() -> None:
    async with seated(faults=[]) as (supervisor, seat, _):
        lines, changes = supervisor.lines(), seat.source.changes()
        dump = config().model_dump(mode="json")
        supervisor.say(say.RELOAD, generation=5, config=dump)
        fault = {"file": "f", "line": 1, "column": 2, "key": "k", "message": "m", "hint": ""}
        supervisor.say(say.FAULTS, generation=5, faults=[fault])
        good = await anext(changes)
        assert (good.generation, good.config) == (5, config())
        assert seat.source.generation == 4
        seat.source.applied(5, None)
        assert seat.source.generation == 5
        bad = await anext(changes)
        assert bad.config is None
        assert [str(one) for one in bad.faults] == ["f:1:2: k: m"]
        seat.source.applied(6, "no")
        said = [await anext(lines), await anext(lines)]
        assert said == [
            {"do": "applied", "generation": 5, "error": None},
            {"do": "applied", "generation": 6, "error": "no"},
        ]


async def test_a_new_worker_is_told_what_is_wrong_with_the_file() -> None:
    fault = {"file": "f", "line": 0, "column": 0, "key": "", "message": "m", "hint": ""}
    async with seated(faults=[fault]) as (_, seat, _):
        assert [str(one) for one in (await anext(seat.source.changes())).faults] == ["f: m"]


async def test_a_supervisor_that_does_not_answer_leaves_a_worker_its_own_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.worker_seat.PATIENCE", 0.05)
    async with seated() as (_, seat, _):
        seat.ready("welcome")
        page = worker_pages.ready(seat, lambda: (True, {"models": {}}))
        body = json.loads((await page()).body)
        assert body["status"] == "ready"
        assert [one["state"] for one in body["workers"]] == ["ready"]


# One page of all.


def told(number: int, _generation: int = 1, _state: str = "ready", **says: Any) -> Told:
    body = json.dumps(says).encode() if says else None
    return Told(number, 100 + number, _state, _generation, body)


def model(*, ready: bool, **providers: bool) -> dict[str, Any]:
    return {"type": "text-generation", "ready": ready, "providers": providers}


def test_all_are_ready_when_one_is_and_a_model_when_one_reaches_it() -> None:
    merged = worker_pages.merge_ready(
        [
            told(2, good=True, draining=False, models={"a": model(ready=True, x=True, y=False)}),
            told(1, good=True, draining=False, models={"a": model(ready=False, x=False, y=True)}),
            told(3, 1, "not answering"),
        ]
    )
    assert merged == {
        "status": "ready",
        "draining": False,
        "models": {"a": model(ready=True, x=True, y=True)},
        "workers": [
            {"number": 1, "pid": 101, "state": "ready", "generation": 1},
            {"number": 2, "pid": 102, "state": "ready", "generation": 1},
            {"number": 3, "pid": 103, "state": "not answering", "generation": 1},
        ],
    }


def test_workers_that_disagree_show_it_and_the_newest_speaks() -> None:
    old, new = {"a": model(ready=True, x=True)}, {"b": model(ready=False, x=False)}
    merged = worker_pages.merge_ready(
        [told(1, 2, good=True, generation=2, models=new), told(2, good=True, models=old)]
    )
    assert merged["generation"] == 2
    assert merged["models"] == new
    assert [one["generation"] for one in merged["workers"]] == [2, 1]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([told(1, good=False, draining=True), told(2, 1, "starting")], "draining"),
        ([told(1, good=False, draining=True), told(2, good=True, draining=False)], "ready"),
        ([told(1, 1, "draining", good=True, draining=False)], "draining"),
        ([told(1, good=False), told(2, 1, "down")], "not ready"),
    ],
)
def test_what_the_page_says_when_not_all_serve(states: list[Told], status: str) -> None:
    assert worker_pages.merge_ready(states)["status"] == status


async def test_the_page_of_all_metrics_holds_those_of_workers_that_ended() -> None:
    family = snapshot.Family("calls_total", "counter", "Calls.", "sum", {"calls_total": 2.0})
    async with seated() as (supervisor, seat, _):
        page = worker_pages.metrics(
            seat,
            lambda: snapshot.pack([family]),
            lambda bodies: PageAnswer(snapshot.MEDIA_TYPE, snapshot.merge(bodies)),
        )
        asking = asyncio.ensure_future(page())
        lines = supervisor.lines()
        asked = await anext(lines)
        supervisor.say(say.TELL, what=asked["what"], id=7)
        answer = await anext(lines)
        assert (answer["do"], answer["id"]) == (say.ANSWER, 7)
        row = {"pid": 1, "state": "ready", "generation": 1, "body": answer["body"]}
        rows = [{"number": number, **row} for number in (0, 1, 2)]
        silent = {"number": 3, **row, "body": None}
        supervisor.say(say.TOLD, id=asked["id"], workers=[*rows, silent])
        assert b"calls_total 6.0" in (await asking).body
