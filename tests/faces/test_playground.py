"""The playground: how it is served, what its files may hold, and that what they compute is right.

Its JavaScript runs in node where there is one; elsewhere the tests look at the sources only.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from gateway_http.pages import POLICY
from services import codec
from tests.fakes.upstream import Cut, Sse
from tests.lib import recordings
from tests.lib.gateway import gateway
from tests.lib.world import World, configuration

pytestmark = pytest.mark.asyncio(loop_scope="package")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "gateway_http" / "page"
FILES = sorted(FOLDER.iterdir())
MODULES = [file for file in FILES if file.suffix == ".js"]
TEXTS = {file: file.read_text(encoding="utf-8") for file in FILES}
INDEX = TEXTS[FOLDER / "index.html"]
NODE = shutil.which("node")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
STREAM = recordings.get("chat/openai-usage-stream.sse")
HI = [{"role": "user", "content": 'it\'s 100% \\ "quoted"'}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
CALLS: dict[str, dict[str, Any]] = {
    "Chat": {"kind": "chat", "body": {"model": "vllm", "messages": HI}},
    "StreamChat": {
        "kind": "chat",
        "body": {
            "model": "vllm",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]},
                {"role": "assistant", "content": "", "tool_calls": [CALLED]},
                {"role": "tool", "tool_call_id": "c", "content": "7"},
            ],
            "tools": [TOOL],
            "response_format": FORMAT,
        },
    },
    "Embed": {"kind": "embed", "body": {"model": "acme/lab/tei", "input": ["a", "it's b"]}},
    "Rerank": {
        "kind": "rerank",
        "body": {"model": "tei-rerank", "query": "q", "documents": ["a", "b"], "top_n": 1},
    },
    "Transcribe": {
        "kind": "transcribe",
        "body": {"model": "whisper", "prompt": "100% \\ it's"},
        "file": "my sound.wav",
    },
    "StreamTranscribe": {
        "kind": "transcribe",
        "body": {"model": "openai-speech", "stream": True},
        "file": "my sound.wav",
    },
}


class Tags(HTMLParser):
    """The elements of a page, with their attributes; `labelled` are controls inside a label."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.labelled: list[dict[str, str | None]] = []
        self._in_label = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if self._in_label:
            self.labelled.append(dict(attrs))
        self._in_label = self._in_label or tag == "label"

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self._in_label = False


def path_of(file: Path) -> str:
    return "/" if file.name == "index.html" else f"/playground/{file.name}"


async def output(*command: str, cwd: Path, **env: str) -> str:
    """Standard output of a program that must end well."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={**os.environ, **env}, stdout=pipe, stderr=pipe
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, f"{command}\n{out.decode()}\n{err.decode()}"
    return out.decode()


async def in_node(folder: Path, script: str, *given: Any, page: str = "http://x/") -> Any:
    """What `script` (the body of an async function of `given`) returns; files are at `./`."""
    assert NODE is not None
    if not (folder / "package.json").exists():
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
        (folder / "package.json").write_text('{"type": "module"}')
    head = f"globalThis.document = {{ baseURI: {json.dumps(page)} }};\n"
    call = f"(async (given) => {{ {script} }})({json.dumps(given)})"
    (folder / "test.js").write_text(
        f"{head}const told = await {call};\nconsole.log(JSON.stringify(told));\n"
    )
    return json.loads(await output(NODE, "test.js", cwd=folder))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_each_file_is_served_with_its_type_and_a_strict_policy(
    world: World, file: Path
) -> None:
    answer = await world.relaying.rest.get(path_of(file))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[file.suffix]
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if file.name != "index.html":
        assert answer.text == TEXTS[file]


async def test_the_policy_lets_nothing_in_but_the_gateway_itself() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("img-src") == "'self' data: blob:"
    assert rules.pop("media-src") == "blob:"
    for name in ("script-src", "style-src", "connect-src"):
        assert rules.pop(name) == "'self'"
    assert rules == dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'")


async def test_head_tells_the_same_without_the_body(world: World) -> None:
    get = await world.relaying.rest.get("/")
    head = await world.relaying.rest.head("/")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "etag", "content-security-policy"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_file_that_the_browser_has_is_not_sent_again(world: World, form: str) -> None:
    rest = world.relaying.rest
    etag = (await rest.get("/playground/page.js")).headers["etag"]
    again = await rest.get("/playground/page.js", headers={"if-none-match": form.format(etag)})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    # The connection is whole after it.
    other = await rest.get("/playground/page.js", headers={"if-none-match": '"other"'})
    assert other.status_code == 200
    assert other.text == TEXTS[FOLDER / "page.js"]


async def test_other_verbs_are_refused(world: World) -> None:
    answer = await world.relaying.rest.post("/", content=b"x")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/playground/nothing.js", "/playground/../pages.py"])
async def test_there_is_nothing_beside_the_files(world: World, path: str) -> None:
    assert (await world.relaying.rest.get(path)).status_code == 404


async def test_it_is_not_there_when_it_is_turned_off(world: World) -> None:
    config = configuration({"scripted": world.scripted.url}, http={"playground": False})
    async with gateway(config) as gate:
        for file in FILES:
            assert (await gate.rest.get(path_of(file))).status_code == 404
        assert (await gate.rest.get("/health")).status_code == 200


async def test_the_page_knows_where_grpc_is(world: World) -> None:
    page = (await world.relaying.rest.get("/")).text
    assert 'data-grpc="127.0.0.1:50051" data-grpc-tls="false"' in page
    assert "{{" not in page


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_no_file_names_another_host(file: Path) -> None:
    text = TEXTS[file]
    assert re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+", text) == []
    assert not re.search(r"https?://|@import|\burl\(", text)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.name)
async def test_no_text_from_outside_becomes_markup_or_program(file: Path) -> None:
    text = TEXTS[file]
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|"
        r"localStorage|sessionStorage|\.cookie|\.style\b|setAttribute\(.(?:on|style)"
    )
    assert re.findall(forbidden, text) == []
    assert text.count("\n") < 500


async def test_nothing_in_the_page_runs_or_styles_inline() -> None:
    for tag, attributes in Tags(INDEX).found:
        inline = [name for name in attributes if name.startswith("on") or name == "style"]
        assert inline == []
        assert tag != "style"
        assert tag != "script" or attributes["src"]


async def test_every_control_has_a_label() -> None:
    tags = Tags(INDEX)
    for tag, attributes in tags.found:
        if tag in ("input", "select", "textarea"):
            assert attributes in tags.labelled, attributes
        elif tag in ("audio", "img"):
            assert attributes.get("aria-label") or attributes.get("alt")


async def test_what_the_program_looks_for_is_in_the_page() -> None:
    tags = Tags(INDEX).found
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    names = {attributes["name"] for _, attributes in tags if "name" in attributes}
    assert len(ids) == len(set(ids))
    for file in MODULES:
        text = TEXTS[file]
        assert set(re.findall(r'byId\("([\w-]+)"\)', text)) <= set(ids), file.name
        fields = re.findall(r"\bfields\.(\w+)", text)
        fields += re.findall(r'op\.(?:json|number)\("(\w+)"', text)
        assert set(fields) <= names, file.name
        for imported in re.findall(r'from "\./([\w.]+)"', text):
            assert (FOLDER / imported).is_file()


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.name)
async def test_the_program_is_well_formed(file: Path, tmp_path: Path) -> None:
    text = TEXTS[file]
    assert text.startswith("// ")
    if NODE:
        module = tmp_path / f"{file.stem}.mjs"
        module.write_text(text)
        await output(NODE, "--check", str(module), cwd=tmp_path)


EVENTS = (
    ": hello\n\ndata: one\n\ndata:two\r\ndata: lines\r\n\r\nevent: x\nid: 7\ndata:  é\n\n"
    "data\n\ndata: [DONE]\n\ndata: cut off"
)
EXPECTED = ["one", "two\nlines", " é", "", "[DONE]"]


async def test_events_are_read_however_they_are_cut(tmp_path: Path) -> None:
    if not NODE:
        return
    script = """
      const { EventParser } = await import("./sse.js");
      const [text] = given;
      const all = [];
      for (let at = 0; at <= text.length; at += 1) {
        const parser = new EventParser();
        all.push([...parser.feed(text.slice(0, at)), ...parser.feed(text.slice(at))]);
      }
      const parser = new EventParser();
      all.push([...text].flatMap((character) => parser.feed(character)));
      return all;
    """
    found = await in_node(tmp_path, script, EVENTS)
    assert found == [EXPECTED] * (len(EVENTS) + 2)


FOLLOW = """
  const { call } = await import("./call.js");
  const [path, body] = given;
  const told = [];
  const streamed = (event) => { told.push(event); return event === "[DONE]"; };
  const outcome = await call(path, { body, streamed });
  return { ...outcome, told, id: outcome.headers.get("x-request-id") };
"""


async def follow(world: World, folder: Path, **body: Any) -> Any:
    """What the page makes of a streamed chat."""
    request = {"model": "scripted-chat", "messages": HI, "stream": True, **body}
    path, page = "v1/chat/completions", f"{world.relaying.url}/"
    return await in_node(folder, FOLLOW, path, request, page=page)


async def test_a_stream_is_followed_to_its_end(world: World, tmp_path: Path) -> None:
    world.script(Sse(STREAM.bytes))
    if not NODE:
        return
    outcome = await follow(world, tmp_path, stream_options={"include_usage": True})
    assert outcome["failure"] is None
    assert outcome["told"][-1] == "[DONE]"
    assert outcome["told"][-2]["usage"]["total_tokens"] > 0
    assert outcome["id"].startswith("req_")
    assert 0 < outcome["first"] <= outcome["total"]


async def test_a_stream_that_broke_is_said_to_have_broken(world: World, tmp_path: Path) -> None:
    """G1: what was cut is never shown as a whole answer."""
    world.script(Cut(Sse(STREAM.bytes), STREAM.bytes.index(b'"finish_reason":"')))
    if not NODE:
        return
    outcome = await follow(world, tmp_path)
    assert outcome["failure"]["title"] == "The stream broke off with an error"
    assert outcome["failure"]["rest"]["code"] == "upstream_truncated"
    assert outcome["told"]


async def test_a_connection_that_ends_early_is_no_end(tmp_path: Path) -> None:
    """G1: an answer without its last event is not whole, whoever cut it."""
    if not NODE:
        return
    script = """
      const { call } = await import("./call.js");
      const body = 'data: {"choices": []}\\n\\n';
      const headers = { "content-type": "text/event-stream" };
      globalThis.fetch = async () => new Response(body, { headers });
      return (await call("x", { body: {}, streamed: () => false })).failure;
    """
    assert "broke off" in (await in_node(tmp_path, script))["title"]


async def test_an_error_is_shown_as_the_gateway_told_it(world: World, tmp_path: Path) -> None:
    if not NODE:
        return
    outcome = await follow(world, tmp_path, model="nobody")
    request = {"model": "nobody", "messages": HI}
    answer = await world.relaying.rest.post("/v1/chat/completions", json=request)
    error = answer.json()["error"]
    assert outcome["status"] == 404
    assert outcome["failure"]["message"] == error.pop("message")
    assert outcome["failure"]["rest"] == error


async def test_similarity_is_the_cosine(tmp_path: Path) -> None:
    if not NODE:
        return
    script = 'return (await import("./vectors.js")).similarities(given[0]);'
    found = await in_node(tmp_path, script, [[1, 0], [3, 4], [-2, 0]])
    assert found == [[1, 0.6, -1], [0.6, 1, -0.6], [-1, -0.6, 1]]


async def copied(world: World, folder: Path, operation: str, **more: Any) -> dict[str, str]:
    """The calls that the page offers to copy."""
    place = {"url": f"{world.relaying.url}/", "grpc": world.relaying.address, "tls": False}
    script = 'return (await import("./snippets.js")).snippets(...given);'
    (folder / "my sound.wav").write_bytes(b"RIFF\x00\xff sound")
    found: dict[str, str] = await in_node(folder, script, {**CALLS[operation], **more}, place)
    return found


@pytest.mark.parametrize("operation", CALLS)
async def test_the_calls_to_copy_run(world: World, tmp_path: Path, operation: str) -> None:
    if not NODE:
        return
    texts = await copied(world, tmp_path, operation)
    path = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    for name in ("Python gRPC", "OpenAI SDK"):
        out = await output(sys.executable, "-c", texts[name], cwd=tmp_path, PYTHONPATH=path)
        assert out.strip()
    curl = texts["curl"].replace("curl -N", "curl -sSfN")
    if shutil.which("curl"):
        assert (await output("sh", "-c", curl, cwd=tmp_path)).strip()


@pytest.mark.parametrize("operation", CALLS)
async def test_grpcurl_is_given_the_same_request(
    world: World, tmp_path: Path, operation: str
) -> None:
    if not NODE:
        return
    call = CALLS[operation]
    text = (await copied(world, tmp_path, operation))["grpcurl"]
    if "file" in call:
        sound, text = text.split(" |\n")
        sent = await output("sh", "-c", sound, cwd=tmp_path)
    words = shlex.split(text.replace("\\\n", ""))
    if "file" not in call:
        sent = words[words.index("-d") + 1]
    service = words[-1].rpartition("/")[0]
    assert words[-1] == f"{service}/{operation}"
    plan = next(s for s in codec.service_plans() if s.name == service).method(operation)
    message = json_format.Parse(sent, codec.message_class(plan.request)())
    if "file" in call:
        assert message.file.data == b"RIFF\x00\xff sound"  # type: ignore[attr-defined]
        message.ClearField("file")
    body = {name: value for name, value in call["body"].items() if name != "stream"}
    assert json.loads(codec.to_json(plan.request, message)) == body


async def test_a_key_is_named_in_the_calls_to_copy_but_never_shown(
    world: World, tmp_path: Path
) -> None:
    if not NODE:
        return
    for name, text in (await copied(world, tmp_path, "Chat", keyed=True)).items():
        assert "TETRAD_API_KEY" in text, name
    for name, text in (await copied(world, tmp_path, "Chat", keyed=False)).items():
        assert "TETRAD_API_KEY" not in text, name
