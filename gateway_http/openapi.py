"""The OpenAPI document of the REST face, made from the same plans as the codec and the routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from gateway_http.comments import comments
from gateway_http.form import TYPE, file_name
from gateway_http.openapi_bodies import EXAMPLES
from gateway_http.openapi_examples import put
from gateway_http.request import MAX_TIMEOUT_MS, TIMEOUT
from gateway_http.routes import Operation, operations, variables
from gateway_http.schemas import Schema, Schemas, ref
from services import codec, metadata
from services.codec.plan import Body as Carries
from services.codec.plan import Shape
from services.error_table import INVALID_STATUSES, TABLE, Reason

_ABOUT: Final = (
    "Chat, embeddings, transcription and reranking under the paths and bodies that OpenAI's"
    " clients use. The same services are offered over gRPC, with the same messages. Members that"
    " this document does not name travel to the model's server and back unchanged."
)

_NOT_SHOWN: Final = {Reason.CANCELLED, Reason.METHOD_UNKNOWN, Reason.METHOD_NOT_ALLOWED}
"""Reasons that no answer to an existing path and verb has."""

_OUT: Final = {
    metadata.REQUEST_ID: "Id of the request: the caller's, or one of ours.",
    "x-tetrad-model": "Name of the model that answered.",
    "x-tetrad-endpoint": "The model's server that answered.",
}
_IN: Final[Mapping[str, Schema]] = {
    metadata.REQUEST_ID: {
        "schema": {"type": "string", "maxLength": 128},
        "description": "Id of the request, for logs and traces; at most 128 printable characters.",
    },
    TIMEOUT: {
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
        "description": "Milliseconds after which the call is given up with status 504.",
    },
}
_ERROR: Final[Schema] = {
    "description": "What went wrong. Members that a model's server added stand beside these.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The member at fault."},
                "code": {"type": ["string", "integer", "null"]},
            },
            "additionalProperties": True,
        }
    },
}
_BOUNDS: Final[Mapping[str, Schema]] = {"page_size": {"minimum": 0}}
"""What the service refuses beyond the type of a parameter."""

_WORD = re.compile(r"\W+")


def document(services: Mapping[str, object], version: str) -> bytes:
    """The OpenAPI 3.1 document of the paths that these services have, as JSON."""
    texts = comments()
    schemas = Schemas(texts)
    schemas.found["Error"] = _ERROR
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, Schema] = {}
    for operation in operations(services):
        service = operation.method.service
        tag = service.rpartition(".")[2].removesuffix("Service")
        tags.setdefault(tag, _described({"name": tag}, texts.get(service)))
        path = re.sub(r"=\*\*\}", "}", operation.route.path)
        shown = _operation(operation, schemas, tag, texts)
        paths.setdefault(path, {})[operation.route.verb.lower()] = shown
    paths |= _health()
    put(paths, EXAMPLES)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Tetrad", "version": version, "description": _ABOUT},
        "security": [{"bearer": []}, {}],
        "tags": [*tags.values(), {"name": "Health"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.found.items())),
            "responses": {str(int(s)): _failure(s, why) for s, why in _statuses().items()},
            "parameters": {
                name: {"name": name, "in": "header", "required": False, **shape}
                for name, shape in _IN.items()
            },
            "headers": {
                name: {"schema": {"type": "string"}, "description": text}
                for name, text in _OUT.items()
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of the gateway; none is needed where it has no keys.",
                }
            },
        },
    }
    return codec.dumps(made)


def _operation(
    operation: Operation, schemas: Schemas, tag: str, texts: Mapping[str, str]
) -> Schema:
    method, rest, route = operation.method, operation.rest, operation.route
    name = method.name
    if route is not rest.routes[0]:
        name += "_" + _WORD.sub("_", route.path).strip("_")
    shown: Schema = {
        "operationId": name,
        "tags": [tag],
        "summary": rest.summary,
        "parameters": _parameters(operation, schemas),
        "responses": {"200": _answer(operation, schemas)},
    }
    if rest.body is not Carries.NONE:
        shown["requestBody"] = _request(operation, schemas)
    for status in _statuses():
        shown["responses"][str(int(status))] = {"$ref": f"#/components/responses/{int(status)}"}
    return _described(shown, texts.get(f"{method.service}.{method.name}"))


def _parameters(operation: Operation, schemas: Schemas) -> list[Schema]:
    found: list[Schema] = [{"$ref": f"#/components/parameters/{name}"} for name in _IN]
    if operation.rest.body is not Carries.NONE:
        return found
    in_path = variables(operation.route.path)
    properties, _ = schemas.texts(operation.method.request)
    for name, schema in properties.items():
        text = schema.pop("description", None)
        schema |= _BOUNDS.get(name, {})
        place: Schema = {"name": name, "in": "path" if name in in_path else "query"}
        place["required"] = name in in_path
        found.append(_described({**place, "schema": schema}, text))
    return found


def _request(operation: Operation, schemas: Schemas) -> Schema:
    message = operation.method.request
    if operation.rest.body is Carries.MULTIPART:
        return {"required": True, "content": {TYPE: {"schema": _form(operation, schemas)}}}
    dialect = operation.dialect
    forms = [dict(form.request) for form in dialect.forms] if dialect else []
    if dialect is None or dialect.also_ours:
        forms.insert(0, schemas.add(message))
    return {"required": True, "content": {"application/json": {"schema": _one_of(forms)}}}


def _form(operation: Operation, schemas: Schemas) -> Schema:
    """The form: the file, and the members that the path does not set."""
    message = operation.method.request
    plan = codec.plan(message)
    properties, required = schemas.texts(message, leave_out=operation.constants)
    file = file_name(message)
    upload = next(field for field in plan.fields if field.shape is Shape.UPLOAD)
    content: Schema = {"type": "string", "format": "binary"}
    described = schemas.described(f"{plan.full_name}.{upload.name}", content)
    return {
        "type": "object",
        "properties": {file: described, **properties},
        "required": [file, *required],
        "additionalProperties": plan.remainder is not None,
    }


def _answer(operation: Operation, schemas: Schemas) -> Schema:
    method, dialect = operation.method, operation.dialect
    response = codec.plan(method.response)
    forms = [dict(form.reply) for form in dialect.forms] if dialect else []
    if dialect is None or dialect.also_ours:
        member = operation.rest.response_member
        ours = response.field(member).message if member else response.name
        forms.insert(0, schemas.add(ours or response.name))
    content: Schema = {"application/json": {"schema": _one_of(forms)}}
    if any(field.shape is Shape.DOCUMENT for field in response.fields):
        content["text/plain"] = {"schema": {"type": "string"}}
        content["text/vtt"] = {"schema": {"type": "string"}}
    if operation.stream is not None:
        content["text/event-stream"] = {"schema": schemas.add(operation.event)}
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _OUT}
    return {"description": _about_answer(operation), "headers": headers, "content": content}


def _about_answer(operation: Operation) -> str:
    if operation.stream is None:
        return "The answer."
    ending = "the last is `[DONE]`" if operation.ending else "the last one says that it is"
    return (
        f"The answer. With `{operation.rest.stream_member}: true`, events with one JSON text each; "
        f"{ending}. A stream that fails ends with an event that holds `error`."
    )


def _statuses() -> dict[HTTPStatus, list[Reason]]:
    """The statuses of errors, by the table, and the reasons of each."""
    found: dict[HTTPStatus, list[Reason]] = {}
    for reason, row in TABLE.items():
        if reason in _NOT_SHOWN:
            continue
        for status in INVALID_STATUSES if row.http is None else (row.http,):
            found.setdefault(HTTPStatus(status), []).append(reason)
    return dict(sorted(found.items()))


def _failure(status: HTTPStatus, reasons: list[Reason]) -> Schema:
    codes = [TABLE[reason].code or TABLE[reason].type for reason in reasons]
    told = ", ".join(dict.fromkeys(f"`{code}`" for code in codes))
    return {
        "description": f"{status.phrase}: {told}.",
        "content": {"application/json": {"schema": ref("Error")}},
    }


def _health() -> dict[str, dict[str, Any]]:
    def page(name: str, summary: str, *statuses: tuple[int, str]) -> dict[str, Any]:
        content = {"application/json": {"schema": {"type": "object"}}}
        answers = {str(status): {"description": t, "content": content} for status, t in statuses}
        get = {"operationId": name, "tags": ["Health"], "summary": summary, "security": [{}]}
        return {"get": {**get, "responses": answers}}

    return {
        "/health": page("Health", "Whether the process lives", (200, "It does.")),
        "/ready": page(
            "Ready",
            "Whether it should be sent calls",
            (200, "It should; details for each model."),
            (503, "It drains, or has no valid configuration."),
        ),
    }


def _one_of(forms: list[Schema]) -> Schema:
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _described(schema: Schema, text: str | None) -> Schema:
    return {**schema, "description": text} if text else schema
