"""buf curl, by gRPC, gRPC-Web's sibling protocols left out: reflection v1."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import answers
from tests.interop.test_grpcurl import HI, each
from tests.lib.process import Program
from tests.lib.tetrad import Done, Served, done

pytestmark = [pytest.mark.ci, pytest.mark.asyncio(loop_scope="package")]

BUF = Path(sys.executable).with_name("buf")
PLAIN = ("curl", "--protocol", "grpc", "--http2-prior-knowledge")


async def buf(served: Served, method: str, data: Any, *flags: str) -> Done:
    url = f"http://{served.gate.address}/{method}"
    return await done(Program(BUF, *PLAIN, *flags, "-d", json.dumps(data), url))


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
async def test_a_chat_is_answered_with_either_reflection(served: Served, version: str) -> None:
    told = await buf(
        served, "tetrad.v1.ChatService/Chat", HI, "--reflect", "--reflect-protocol", version
    )
    assert (told.code, told.stderr) == (0, "")
    assert told.json()["choices"][0]["finishReason"] == "stop"


async def test_a_chat_is_streamed(served: Served) -> None:
    told = await buf(served, "tetrad.v1.ChatService/StreamChat", HI)
    assert (told.code, told.stderr) == (0, "")
    chunks = list(each(told.stdout))
    assert len(chunks) > 2
    assert chunks[-1]["choices"][0]["finishReason"] == "stop"


async def test_the_contract_in_the_repository_serves_as_schema_too(served: Served) -> None:
    told = await buf(
        served,
        "tetrad.v1.EmbedService/Embed",
        {"input": {"texts": {"texts": ["quay"]}}},
        "--schema",
        "gen/tetrad.binpb",
    )
    assert (told.code, told.stderr) == (0, "")
    values = told.json()["data"][0]["embedding"]["floats"]["values"]
    assert values == pytest.approx(answers.vector("quay"), rel=1e-6)


async def test_a_failure_is_shown_with_its_code(served: Served) -> None:
    told = await buf(served, "tetrad.v1.ChatService/Chat", {**HI, "model": "nobody"})
    assert told.code != 0
    shown = json.loads(told.stderr)
    assert shown["code"] == "not_found"
    assert shown["message"] == "the model `nobody` does not exist"
    assert any(one["type"] == "google.rpc.ErrorInfo" for one in shown["details"])


async def test_methods_are_listed(served: Served) -> None:
    url = f"http://{served.gate.address}"
    told = await done(Program(BUF, *PLAIN, "--list-methods", url))
    assert told.code == 0
    assert {"tetrad.v1.ChatService/Chat", "tetrad.v1.EmbedService/BulkEmbed"} <= set(
        told.stdout.split()
    )
