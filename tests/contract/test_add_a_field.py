"""What is added to a .proto is in gRPC, in the REST JSON and in OpenAPI, with no other edit.

In a copy of the repository: fields, an arm of a union and a method are added, `tools/gen.py` runs,
and tests/lib/grown.py looks for them with the copy's own code. The generator needs `make setup`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services import codec
from tests.lib import grown
from tools import guards

ROOT = Path(__file__).resolve().parent.parent.parent
GENERATOR = ROOT / ".venv-gen" / "bin" / "python"
COPIED = ("gen", "proto", "services", "gateway_http", "tests/lib", "tests/fakes", "tools")
JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info")

# File, line after which something is added, what is added. One line of proto, and its comment.
FIELDS = [
    (
        "chat_service.proto",
        "  optional string cache_salt = 60;\n",
        "  // How warm the answer is, in degrees.\n  optional double heat = 61;\n",
    ),
    (
        "chat_service.proto",
        "  JsonText prompt_logprobs = 12;\n",
        "  // How warm it was.\n  optional int64 warmth = 13;\n",
    ),
    (
        "chat.proto",
        "  repeated Annotation annotations = 9;\n",
        "  // The mood of what is new.\n  optional string mood = 10;\n",
    ),
    (
        "chat.proto",
        "    MediaUrl audio_url = 7;\n",
        "    // A smell, by URL.\n    MediaUrl smell_url = 9;\n",
    ),
]
METHOD = (
    "rerank_service.proto",
    "      body: REST_BODY_JSON\n    };\n  }\n",
    """
  // Says why an order is as it is.
  rpc Explain(ExplainRequest) returns (ExplainResponse) {
    option (google.api.http) = {
      post: "/tetrad/v1:explain"
      body: "*"
    };
    option (rest) = {
      summary: "Explain an order"
      routes: [{
        verb: "POST"
        path: "/v1/explain"
      }]
      body: REST_BODY_JSON
    };
  }
""",
)
MESSAGES = (
    "rerank_service.proto",
    "// A query and the documents to order.\n",
    """// What is to be explained.
message ExplainRequest {
  // A question.
  string question = 1 [(google.api.field_behavior) = REQUIRED];
}

// Why.
message ExplainResponse {
  // The answer.
  optional string answer = 1;
}

// A query and the documents to order.
""",
)
# The only Python: what the method does.
COROUTINE = '''
    async def explain(self, request: Body, call: Call) -> Body:
        """ExplainRequest to ExplainResponse."""
        return Body.from_value("ExplainResponse", {"answer": f"by {request.get('question')}"})
'''


class Copy:
    """The repository in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            shutil.copytree(ROOT / name, root / name, ignore=JUNK, symlinks=True)
        for name in ("buf.yaml", "tests/__init__.py"):
            shutil.copy(ROOT / name, root / name)
        (root / "build").mkdir()
        (root / "build" / "include").symlink_to(ROOT / "build" / "include")
        (root / "tests" / "recordings").symlink_to(ROOT / "tests" / "recordings")
        (root / ".venv").symlink_to(sys.prefix)

    def add(self, file: str, after: str, text: str) -> None:
        """Puts text behind the one place that reads `after`."""
        path = self.root / "proto" / "tetrad" / "v1" / file
        before = path.read_text(encoding="utf-8")
        assert before.count(after) == 1, f"{after!r} stands {before.count(after)} times in {file}"
        path.write_text(before.replace(after, after + text), encoding="utf-8")

    def run(self, *command: str | Path) -> str:
        """Runs a program there, with the copy's code; gives its standard output."""
        roots = os.pathsep.join([str(self.root), str(self.root / "gen")])
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def files(self) -> dict[str, bytes]:
        """Every file that is not generated, by its path."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for name in COPIED
            if name != "gen"
            for path in (self.root / name).rglob("*")
            if path.is_file()
        }


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy with everything added and generated."""
    assert GENERATOR.exists(), "the generator is missing: run `make setup`"
    made = Copy(tmp_path_factory.mktemp("grown") / "tetrad")
    before = made.files()
    for addition in FIELDS:
        made.add(*addition)
    made.add(METHOD[0], METHOD[1], METHOD[2])
    made.add(MESSAGES[0], MESSAGES[1], "")
    path = made.root / "proto" / "tetrad" / "v1" / MESSAGES[0]
    path.write_text(path.read_text(encoding="utf-8").replace(MESSAGES[1], MESSAGES[2]))
    with (made.root / "services" / "rerank.py").open("a", encoding="utf-8") as module:
        module.write(COROUTINE)
    after = made.files()
    assert {name for name in after if after[name] != before.get(name)} == {
        "proto/tetrad/v1/chat.proto",
        "proto/tetrad/v1/chat_service.proto",
        "proto/tetrad/v1/rerank_service.proto",
        "services/rerank.py",
    }
    made.run(GENERATOR, "tools/gen.py")
    return made


@pytest.fixture(scope="module")
def found(copy: Copy) -> Any:
    """What the copy's own code finds."""
    found = json.loads(copy.run(sys.executable, "-m", "tests.lib.grown").splitlines()[-1])
    for file in found["code"].values():
        assert Path(file).is_relative_to(copy.root)
    return found


def test_without_the_additions_the_members_travel_in_the_remainder() -> None:
    request: Any = codec.message_class("ChatRequest").FromString(
        codec.encode_value("ChatRequest", grown.REQUEST)
    )
    assert json.loads(request.extra.json) == {"heat": 0.7}
    part = request.messages[0].content.parts.parts[0]
    assert part.WhichOneof("part") == "other"


def test_a_field_is_in_the_generated_code_and_read_by_the_codec(found: Any) -> None:
    assert found["messages"] == {
        "made": 0.7,
        "number": 61,
        "from_json": 0.7,
        "in_extra": False,
        "warmth": 7,
        "arm": "smell_url",
        "smell": "https://harbour.example/tar",
        "same_again": True,
    }


def test_a_stub_of_the_field_s_type_is_written(copy: Copy) -> None:
    stub = (copy.root / "gen/tetrad/v1/chat_service_pb2.pyi").read_text(encoding="utf-8")
    assert "heat: _builtins.float" in stub
    assert "How warm the answer is, in degrees." in stub


@pytest.mark.parametrize("gate", ["relaying", "recoding"])
def test_fields_travel_both_ways_over_grpc(found: Any, gate: str) -> None:
    assert found[f"grpc {gate}"] == {
        "sent": {name: grown.REQUEST[name] for name in ("heat", "messages")},
        "warmth": 7,
        "in_extra": False,
        "mood": "calm",
    }


@pytest.mark.parametrize("gate", ["relaying", "recoding"])
def test_fields_travel_both_ways_over_rest(found: Any, gate: str) -> None:
    assert found[f"rest {gate}"] == {
        "sent": {name: grown.REQUEST[name] for name in ("heat", "messages")},
        "warmth": 7,
        "mood": "calm",
    }


def test_fields_are_in_the_openapi_document_with_their_comments(found: Any) -> None:
    shown = found["document"]
    assert shown["heat"]["type"] == ["number", "null"]
    assert shown["heat"]["description"] == "How warm the answer is, in degrees."
    assert shown["warmth"]["type"] == ["integer", "null"]
    assert shown["mood"]["description"] == "The mood of what is new."
    assert "smell_url" in shown["arms"]


def test_a_method_needs_its_coroutine_and_nothing_else(found: Any) -> None:
    assert found["method"] == {
        "grpc": "by the tide",
        "rest": {"answer": "by the tide"},
        "without_its_member": [400, "question", "INVALID_ARGUMENT"],
    }
    assert found["document"]["summary"] == "Explain an order"
    assert found["document"]["answers"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/ExplainResponse"}}
    }


def test_no_guard_minds_what_is_added(copy: Copy) -> None:
    assert {name: guard(copy.root) for name, guard in guards.GUARDS.items()} == {
        "lint": [],
        "breaking": [],
        "surface": [],
    }
    listing = (copy.root / "gen" / guards.SURFACE).read_text(encoding="utf-8").splitlines()
    assert "ChatRequest.heat double" in listing
    assert any(line.startswith("POST /v1/explain ") for line in listing)
