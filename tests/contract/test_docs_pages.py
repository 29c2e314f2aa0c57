"""Every page of docs/: its blocks are read by what would run them, and its links lead somewhere.

Configurations are parsed as `tetrad check` does, commands by the command line's own parser, bodies
of calls by the codec, scripts by Python; what is shown of a client stands in that client.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from google.protobuf import json_format

from services import cli, codec
from services.config import Settings, parse

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SHELLS = ("", "sh", "bash", "console", "shell")
FOREIGN = ("LiteLLM", "lumen")
"""What stands after `yaml` of a file that is another program's, or has a kind made up there."""


class Block(NamedTuple):
    """A fenced block: its page, line, language, what else its first line says, its text."""

    page: Path
    line: int
    language: str
    about: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], found[2], found[3])


def named(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


# --- configurations -----------------------------------------------------------------------------


def is_ours(block: Block) -> bool:
    """Whether a block is a configuration of the gateway, or a part of one."""
    if block.about in FOREIGN:
        return False
    first = next(yaml.safe_load_all(block.text))
    return (
        isinstance(first, dict)
        and "apiVersion" not in first
        and not set(first).isdisjoint(Settings.model_fields)
    )


CONFIGURATIONS = [block for block in blocks("yaml") if is_ours(block)]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=named)
def test_a_configuration_is_one_that_check_finds_good(block: Block) -> None:
    text = block.text.replace('"..."', HASH)
    given: dict[str, Any] = yaml.safe_load(text)
    keys = (given.get("auth") or {}).get("keys") or []
    model = {
        "name": "base",
        "type": "text-generation",
        "aliases": sorted({name for key in keys for name in key.get("models") or []}),
        "providers": [{"url": "http://127.0.0.1:9"}],
    }
    # A block may be a part of a file: what every file needs stands in for the rest.
    base = {"required_types": [], "auth": {"open": True}, "models": [model]}
    lines = [f"{name}: {json.dumps(part)}\n" for name, part in base.items() if name not in given]
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "secret")
    parse(text + "".join(lines), named(block), variables)


def test_most_pages_that_tell_of_the_configuration_show_some() -> None:
    assert len(CONFIGURATIONS) > 30
    assert {"quickstart.md", "limits.md", "tls.md", "routing.md", "litellm.md"} <= {
        block.page.name for block in CONFIGURATIONS
    }


# --- commands -----------------------------------------------------------------------------------

COMMAND = re.compile(
    r"^(?:.*\| *)?(?:\S*/)?tetrad +((?=[a-z-])(?:[^|<>#\n\"']|\"[^\"]*\"|'[^']*')+)"
)
INLINE = re.compile(r"`tetrad ([a-z-]+)")


def commands() -> list[Any]:
    """The arguments of `tetrad` in each line of a shell block."""
    found = []
    for block in blocks(*SHELLS):
        for line in block.text.replace("\\\n", " ").splitlines():
            match = COMMAND.match(line.strip())
            if match:
                name = f"{named(block)} {match[1].strip()}"
                found.append(pytest.param(shlex.split(match[1]), id=name))
    return found


@pytest.mark.parametrize("arguments", commands())
def test_a_command_is_one_that_the_program_takes(arguments: list[str]) -> None:
    assert cli._parser().parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_named_in_the_text_is_there(page: Path) -> None:
    for command in set(INLINE.findall(page.read_text(encoding="utf-8"))):
        with pytest.raises(SystemExit) as ended:
            cli._parser().parse_args([command, "--help"])
        assert ended.value.code == 0


def test_a_target_of_make_that_is_named_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        used = re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, re.MULTILINE)
        assert {one or other for one, other in used} <= targets, page.name


# --- bodies of calls ----------------------------------------------------------------------------

ROUTES = {
    route.path: method.request
    for service in codec.service_plans()
    for method in service.methods
    if method.rest
    for route in method.rest.routes
}
CALLS = [
    (block, *call)
    for block in blocks(*SHELLS)
    for call in re.findall(r"curl[^\n]*?(/\S+).*?-d '(\{.*?\})'", block.text, re.DOTALL)
]
GRPC_CALLS = [
    (block, *call)
    for block in blocks(*SHELLS)
    for call in re.findall(r"grpcurl.*?-d '(\{.*?\})'.*?tetrad\.v1\.(\w+/\w+)", block.text, re.S)
]


def test_the_body_of_a_call_by_curl_is_one_that_the_contract_takes() -> None:
    for block, url, body in CALLS:
        path = "/" + url.partition("/v1/")[2]
        name = ROUTES[f"/v1{path}"]
        assert json.loads(codec.decode(name, codec.encode(name, body.encode()))), named(block)
    assert CALLS


def test_the_message_of_a_call_by_grpcurl_is_one_of_the_contract() -> None:
    plans = {plan.name: plan for plan in codec.service_plans()}
    for _, body, method in GRPC_CALLS:
        service, _, name = method.partition("/")
        request = plans[f"tetrad.v1.{service}"].method(name).request
        json_format.Parse(body, codec.message_class(request)())
    assert GRPC_CALLS


@pytest.mark.parametrize("block", blocks("json"), ids=named)
def test_a_block_of_json_is_json(block: Block) -> None:
    json.loads(block.text)


# --- programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"), ids=named)
def test_a_python_block_is_a_program(block: Block) -> None:
    ast.parse(block.text)


SNIPPETS = [block for page in PAGES for block in _blocks(page) if "clients/" in block.about]


@pytest.mark.parametrize("block", SNIPPETS, ids=named)
def test_what_is_shown_of_a_client_stands_in_it(block: Block) -> None:
    if block.language == "python":
        source = (ROOT / "clients/python/README.md").read_text(encoding="utf-8")
    else:
        source = (ROOT / block.about).read_text(encoding="utf-8")
    there = {line.strip() for line in source.splitlines()}
    lines = [line.strip() for line in block.text.splitlines()]
    assert [line for line in lines if line not in there] == []


def test_every_language_that_has_a_client_is_shown() -> None:
    folders = {path.name for path in (ROOT / "clients").iterdir() if path.is_dir()}
    assert {block.about.split("/")[1] for block in SNIPPETS} == folders


# --- the site -----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What links to a page's headings end with."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (DOCS / target) if target else page
        assert file.is_file(), link
        assert file.is_relative_to(DOCS), f"{link} is not part of the site"
        assert not anchor or anchor in anchors(file), link


def test_every_page_has_one_place_in_the_navigation() -> None:
    navigation = runpy.run_path(str(DOCS / "conf.py"))["NAVIGATION"]
    listed = [name for names in navigation.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    assert {page.stem for page in PAGES} - {"index"} <= set(listed)


def test_a_page_shows_no_image_of_another_host() -> None:
    for page in PAGES:
        for image in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
            assert (DOCS / image).is_file(), f"{page.name}: {image}"
    for image in (DOCS / "images").glob("*.svg"):
        assert not re.search(r"(?:href|src)=|url\((?!#)|<script", image.read_text("utf-8"))
