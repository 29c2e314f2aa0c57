"""The contract's comments, from the descriptor set that ships beside the generated code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

_MESSAGES, _SERVICES, _FIELDS, _NESTED, _METHODS = 4, 6, 2, 3, 2
"""Field numbers of descriptor.proto that make the paths of locations."""

Path = tuple[int, ...]


@cache
def comments() -> Mapping[str, str]:
    """Texts by full name ("tetrad.v1.ChatRequest.model"); none if the descriptor set is absent."""
    file = resources.files("tetrad.v1").joinpath("tetrad.binpb")
    if not file.is_file():
        return {}
    found: dict[str, str] = {}
    for each in FileDescriptorSet.FromString(file.read_bytes()).file:
        texts = {tuple(at.path): at.leading_comments for at in each.source_code_info.location}
        for path, name in _names(each):
            text = " ".join(texts.get(path, "").split())
            if text:
                found[name] = text
    return found


def _names(file: FileDescriptorProto) -> Iterator[tuple[Path, str]]:
    for index, message in enumerate(file.message_type):
        yield from _in_message((_MESSAGES, index), message, f"{file.package}.{message.name}")
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (_SERVICES, index), name
        for place, method in enumerate(service.method):
            yield (_SERVICES, index, _METHODS, place), f"{name}.{method.name}"


def _in_message(path: Path, message: DescriptorProto, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELDS, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _in_message((*path, _NESTED, index), nested, f"{name}.{nested.name}")
