"""The guards of the contract hold, and each bites: a removed field both, an option its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from services.codec import surface
from tools import guards

ROOT = Path(__file__).resolve().parent.parent.parent
BASELINE = ROOT / guards.BASELINE

# What protoc writes for Python, so that a changed copy needs no generator.
MODULE = """
from google.protobuf import descriptor_pool
from google.protobuf.internal import builder
{imports}
DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({data!r})
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, {name!r}, globals())
"""


class Copy:
    """The contract in a folder of its own, to be changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "proto", root / "proto")
        shutil.copyfile(ROOT / "buf.yaml", root / "buf.yaml")
        (root / "build").mkdir()
        (root / "build" / "include").symlink_to(ROOT / "build" / "include")
        (root / "gen" / "tetrad" / "v1").mkdir(parents=True)

    def change(self, file: str, before: str, after: str) -> None:
        """Replace the one place that reads `before`, and make the descriptors and listing anew."""
        path = self.root / "proto" / "tetrad" / "v1" / file
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in {file}"
        path.write_text(text.replace(before, after), encoding="utf-8")
        self.generate()

    def generate(self) -> None:
        built = self.root / "gen" / guards.DESCRIPTORS
        assert guards.buf(self.root, "build", "proto", "-o", str(built)) == []
        for file in FileDescriptorSet.FromString(built.read_bytes()).file:
            if file.package == "tetrad.v1":
                name = file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
                modules = [
                    each.removesuffix(".proto").replace("/", ".") + "_pb2"
                    for each in file.dependency
                ]
                code = MODULE.format(
                    imports="\n".join(f"import {each}" for each in modules),
                    data=file.SerializeToString(),
                    name=name,
                )
                (self.root / "gen" / f"{name.replace('.', '/')}.py").write_text(code)
        listing = subprocess.run(
            [sys.executable, "-m", "services.codec.surface"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(self.root / "gen")},
            capture_output=True,
            check=True,
        ).stdout
        (self.root / "gen" / guards.SURFACE).write_bytes(listing)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_both_baselines_are_there() -> None:
    for name in (guards.DESCRIPTORS, guards.SURFACE):
        assert (BASELINE / name).is_file(), f"{name} is missing: run `make release`"


@pytest.mark.parametrize("name", guards.GUARDS)
def test_a_guard_is_content_with_the_contract_as_it_is(name: str) -> None:
    assert guards.GUARDS[name](ROOT) == []


def test_the_listing_in_gen_is_the_one_that_the_descriptors_make() -> None:
    listing = (ROOT / "gen" / guards.SURFACE).read_text(encoding="utf-8").splitlines()
    assert listing == surface.lines()
    assert listing == sorted(set(listing))
    assert "ChatRequest.messages list ChatMessage required" in listing
    assert any(line.startswith("POST /v1/chat/completions ") for line in listing)


def test_a_copy_without_changes_is_as_good_as_the_original(copy: Copy) -> None:
    copy.generate()
    assert [guards.GUARDS[name](copy.root) for name in guards.GUARDS] == [[], [], []]
    listing = (copy.root / "gen" / guards.SURFACE).read_bytes()
    assert listing == (ROOT / "gen" / guards.SURFACE).read_bytes()


def test_a_removed_field_fails_both_guards(copy: Copy) -> None:
    copy.change("chat.proto", "  optional string tool_call_id = 5;\n", "")
    (fault,) = guards.breaking(copy.root)
    assert 'field "5" with name "tool_call_id"' in fault
    assert guards.surface(copy.root) == [
        "gone from the JSON surface: ChatMessage.tool_call_id string"
    ]


def test_a_removed_method_fails_both_guards(copy: Copy) -> None:
    text = (copy.root / "proto/tetrad/v1/rerank_service.proto").read_text(encoding="utf-8")
    start = text.index("service RerankService {")
    service = text[start : text.index("\n}\n", start) + 3]
    copy.change("rerank_service.proto", service, "")
    assert guards.breaking(copy.root)
    gone = guards.surface(copy.root)
    assert len(gone) == 3
    assert all("/rerank tetrad.v1.RerankService.Rerank" in line for line in gone)


@pytest.mark.parametrize(
    ("file", "before", "after", "line"),
    [
        (
            "model_service.proto",
            'repeated Model models = 2 [(json_field).name = "data"];',
            "repeated Model models = 2;",
            "ListModelsResponse.data list Model renamed_from models",
        ),
        (
            "chat_service.proto",
            "optional string verbosity = 34;",
            'optional string verbosity = 34 [(json_field).name = "verbose"];',
            "ChatRequest.verbosity string",
        ),
        (
            "chat_service.proto",
            "Usage usage = 6 [(json_field).null_when = NULL_WHEN_USAGE_ASKED];",
            "Usage usage = 6;",
            "StreamChatResponse.usage Usage null_when_usage_asked",
        ),
        (
            "chat_service.proto",
            "repeated string stop = 10 [(json_field).shape = FIELD_SHAPE_ONE_OR_MANY];",
            "repeated string stop = 10;",
            "ChatRequest.stop list string one_or_many",
        ),
        (
            "chat_service.proto",
            'path: "/v1/chat/completions"',
            'path: "/v1/chats"',
            "POST /v1/chat/completions tetrad.v1.ChatService.Chat JSON stream=StreamChat",
        ),
    ],
    ids=["name", "new name", "null", "shape", "path"],
)
def test_a_changed_option_fails_the_listing_alone(
    copy: Copy, file: str, before: str, after: str, line: str
) -> None:
    copy.change(file, before, after)
    assert guards.breaking(copy.root) == []
    assert guards.surface(copy.root) == [f"gone from the JSON surface: {line}"]


def test_an_added_field_fails_no_guard(copy: Copy) -> None:
    field = "  // Members that no field holds.\n  JsonText extra = 100"
    text = (copy.root / "proto/tetrad/v1/usage.proto").read_text(encoding="utf-8")
    message = text[text.index("message InputTokenDetails {") :]
    copy.change(
        "usage.proto",
        message,
        message.replace(field, "  // New.\n  optional int32 image_tokens = 3;\n" + field),
    )
    assert [guards.GUARDS[name](copy.root) for name in guards.GUARDS] == [[], [], []]
    listing = (copy.root / "gen" / guards.SURFACE).read_text(encoding="utf-8").splitlines()
    assert "InputTokenDetails.image_tokens int32" in listing


def test_a_field_without_a_comment_fails_the_lint(copy: Copy) -> None:
    copy.change(
        "usage.proto",
        "optional int32 prompt_tokens = 1;",
        "optional int32 prompt_tokens = 1;\n  optional int32 other_tokens = 50;",
    )
    (fault,) = guards.lint(copy.root)
    assert "other_tokens" in fault


@pytest.mark.parametrize("name", [guards.DESCRIPTORS, guards.SURFACE])
def test_a_missing_baseline_is_a_fault(copy: Copy, name: str) -> None:
    copy.generate()
    (copy.root / guards.BASELINE / name).unlink()
    faults = guards.breaking(copy.root) + guards.surface(copy.root)
    assert faults == [f"{guards.BASELINE / name} is missing; `make release` writes it"]
