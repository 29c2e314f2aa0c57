"""/docs and the examples of /openapi.json: what they are made of, and that every example works."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from openapi_schema_validator import OAS31Validator

from gateway_http.openapi import document
from gateway_http.openapi_bodies import EXAMPLES
from services import codec
from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.canonical import assert_same
from tests.lib.gateway import Gateway, gateway
from tests.unit.rest_server import Unused

FOLDER = Path(__file__).resolve().parents[2] / "gateway_http" / "docs"
OURS = sorted(file for file in FOLDER.iterdir() if file.is_file())
BUNDLE = FOLDER / "swagger-ui"
ABOUT = (BUNDLE / "README.md").read_text(encoding="utf-8")
SUMS = dict(re.findall(r"^\| `([\w.-]+)` \| `([0-9a-f]{64})` \|$", ABOUT, re.MULTILINE))
(VERSION,) = re.findall(r"^# Swagger UI ([\d.]+)$", ABOUT, re.MULTILINE)
FORM = "multipart/form-data"
JSON = "application/json"
EVENTS = "text/event-stream"


class Body(NamedTuple):
    """An example in the document: where it stands, its schema, its value."""

    verb: str
    path: str
    place: str
    schema: Any
    value: Any


@cache
def reference() -> Any:
    """The document of all services."""
    services = {service.name: Unused() for service in codec.service_plans()}
    return json.loads(document(services, "1.0"))


def operations() -> Iterator[tuple[str, str, Any]]:
    """Verb, path and operation."""
    for path, verbs in reference()["paths"].items():
        for verb, operation in verbs.items():
            yield verb, path, operation


def bodies() -> Iterator[Body]:
    """All examples of bodies, with the media type as place of a request's."""
    for verb, path, operation in operations():
        answers = operation["responses"].items()
        places = [("request", operation.get("requestBody", {}))]
        places += [(f"answer {status}", answer) for status, answer in answers]
        for place, holder in places:
            for media_type, content in holder.get("content", {}).items():
                values = [one["value"] for one in content.get("examples", {}).values()]
                values += [content["example"]] if "example" in content else []
                for value in values:
                    yield Body(verb, path, f"{place} {media_type}", content["schema"], value)


def requests() -> Iterator[Body]:
    return (body for body in bodies() if body.place.startswith("request"))


@asynccontextmanager
async def gateways() -> AsyncIterator[list[Gateway]]:
    """Two gateways whose models have the names of the examples: one relays, one recodes."""
    async with AsyncExitStack() as stack:
        chat, embed, speech, rerank = [
            await stack.enter_async_context(FakeUpstream()) for _ in range(4)
        ]
        profiles.vllm(chat)
        profiles.tei(embed)
        profiles.openai(speech)
        profiles.tei(rerank, kind="reranker")
        models = [
            ("chat", "text-generation", "vllm", chat, "qwen3-8b"),
            ("embeddings", "text-embeddings-inference", "tei", embed, ""),
            ("speech", "automatic-speech-recognition", "openai", speech, "whisper-1"),
            ("rerank", "text-classification", "tei", rerank, ""),
        ]
        config = {
            "probes": {"interval": 3600},
            "models": [
                {
                    "name": name,
                    "type": type,
                    "providers": [{"type": kind, "url": fake.url, "model_name": theirs}],
                }
                for name, type, kind, fake, theirs in models
            ],
        }
        yield [
            await stack.enter_async_context(gateway(json.dumps({**config, "relay": relay})))
            for relay in (True, False)
        ]


def problems(body: Body) -> list[str]:
    """What the schema of an example's place has against it."""
    schema = {**body.schema, "components": reference()["components"]}
    return [error.message for error in OAS31Validator(schema).iter_errors(body.value)]


def test_every_operation_has_an_example_of_all_that_it_takes_and_gives() -> None:
    lacking = []
    for verb, path, operation in operations():
        answered = operation["responses"]["200"]["content"]
        takes = operation.get("requestBody", {}).get("content", {})
        lacking += [
            (verb, path, media_type)
            for media_type, content in {**takes, **answered}.items()
            if not content.get("examples") and "example" not in content
        ]
        for parameter in operation.get("parameters", []):
            if parameter.get("required") and "example" not in parameter:
                lacking.append((verb, path, parameter["name"]))
    assert lacking == []


def test_no_example_belongs_to_an_operation_that_is_not_there() -> None:
    assert set(EXAMPLES) == {(verb, path) for verb, path, _ in operations()}


def test_every_example_is_as_its_schema_says() -> None:
    assert len([*bodies()]) > 40
    wrong = [(body.path, body.place, found) for body in bodies() if (found := problems(body))]
    assert wrong == []


def test_every_example_of_ours_goes_through_the_codec_and_back() -> None:
    through = 0
    for body in bodies():
        schemas = [body.schema, *body.schema.get("anyOf", [])]
        named = [one["$ref"].rpartition("/")[2] for one in schemas if "$ref" in one]
        if not named or {"title"} & set(body.schema):
            continue
        if problems(body._replace(schema={"$ref": f"#/components/schemas/{named[0]}"})):
            continue  # the form of another system, which stands beside ours
        text = json.dumps(body.value)
        printed = codec.decode(named[0], codec.encode(named[0], text.encode()))
        assert_same(text, printed, {}, named[0])
        through += 1
    assert through > 25


async def send(gate: Gateway, body: Body) -> httpx.Response:
    """The example, as a reader of the page sends it."""
    if FORM in body.place:
        fields = {name: value for name, value in body.value.items() if name != "file"}
        file = {"file": (body.value["file"], b"RIFF sound")}
        return await gate.rest.request(body.verb, body.path, data=fields, files=file)
    return await gate.rest.request(body.verb, body.path, json=body.value)


async def test_the_gateway_takes_every_example() -> None:
    sent = 0
    async with gateways() as gates:
        for gate in gates:
            for body in requests():
                answer = await send(gate, body)
                assert answer.status_code == 200, (body, answer.text)
                kind = answer.headers["content-type"].partition(";")[0]
                content = reference()["paths"][body.path][body.verb]["responses"]["200"]["content"]
                assert kind in content
                if kind == JSON:
                    shown = Body(body.verb, body.path, kind, content[kind]["schema"], answer.json())
                    assert problems(shown) == []
                sent += 1
            for verb, path, operation in operations():
                if verb != "get":
                    continue
                given = (
                    {p["name"]: p["example"] for p in operation["parameters"] if "example" in p}
                    if "parameters" in operation
                    else {}
                )
                answer = await gate.rest.get(path.format(**given), params=given)
                assert answer.status_code == 200, (path, answer.text)
    assert sent == 2 * len([*requests()]) > 40


# --- the page -----------------------------------------------------------------------------------


def address(file: Path) -> str:
    """Where a file is served."""
    if file.parent == BUNDLE:
        return f"/docs/swagger-ui-{VERSION}/{file.name}"
    return "/docs" if file.name == "index.html" else f"/docs/{file.name}"


SERVED = [*OURS, *(BUNDLE / name for name in ("swagger-ui-bundle.js", "swagger-ui.css"))]
MODEL = {"name": "m", "type": "text-generation", "providers": [{"url": "http://127.0.0.1:9"}]}
LEAST = {"required_types": [], "probes": {"interval": 3600}, "models": [MODEL]}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


async def test_the_page_comes_from_the_gateway_alone_under_a_strict_policy() -> None:
    async with gateway(json.dumps(LEAST)) as gate:
        for file in SERVED:
            answer = await gate.rest.get(address(file))
            assert answer.status_code == 200
            assert answer.headers["content-type"] == f"{TYPES[file.suffix]}; charset=utf-8"
            policy = dict(
                part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
            )
            assert policy["default-src"] == "'none'"
            for kind in ("script-src", "style-src", "connect-src"):
                assert policy[kind] == "'self'"
            assert answer.headers["x-content-type-options"] == "nosniff"
            if file.name != "index.html":
                assert answer.content == file.read_bytes()
        page = (await gate.rest.get("/docs")).text
        for link in re.findall(r'(?:src|href)="([^"]+)"', page):
            if not link.startswith("data:"):
                assert (await gate.rest.get(f"/{link.removeprefix('./')}")).status_code == 200
        moved = await gate.rest.get("/docs/")
        assert (moved.status_code, moved.headers["location"]) == (308, "../docs")


async def test_a_browser_keeps_the_bundle_and_asks_again_for_the_rest() -> None:
    async with gateway(json.dumps(LEAST)) as gate:
        for file in SERVED:
            answer = await gate.rest.get(address(file))
            kept = "immutable" in answer.headers["cache-control"]
            assert kept == (file.parent == BUNDLE)
            etag = {"if-none-match": answer.headers["etag"]}
            again = await gate.rest.get(address(file), headers=etag)
            assert (again.status_code, again.content) == (304, b"")


async def test_the_playground_s_switch_turns_it_off_too() -> None:
    config = json.dumps({**LEAST, "http": {"playground": False}})
    async with gateway(config) as gate:
        for path in ("/docs/", *map(address, SERVED)):
            assert (await gate.rest.get(path)).status_code == 404
        assert (await gate.rest.get("/openapi.json")).status_code == 200


async def test_the_playground_leads_to_it() -> None:
    async with gateway(json.dumps(LEAST)) as gate:
        assert '<a href="docs">' in (await gate.rest.get("/")).text


def test_the_bundle_is_the_published_one_with_its_licences() -> None:
    held = {file.name: file for file in BUNDLE.iterdir() if file.name != "README.md"}
    sums = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in held.items()}
    assert sums == SUMS
    assert {"LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} < set(held)


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_our_files_name_no_other_host_and_run_nothing_inline(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|\burl\(", text)
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", text)
    assert not re.search(r"innerHTML|\beval\(|new Function|localStorage|\.cookie", text)
