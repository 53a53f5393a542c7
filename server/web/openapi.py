"""The OpenAPI 3.1 document, generated from the operations' own types."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from server import __version__
from server.errors import StoreUnavailable
from server.web.access import GROUPS_HEADER, USER_HEADER
from server.web.operations import Operation
from server.web.payloads import JSON, NDJSON
from server.web.problems import MEDIA_TYPE, Problem, status_of
from server.web.schemas import EVENTS
from server.web.sse import MEDIA_TYPE as EVENT_STREAM

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTION = f"""Private search and question answering over a company's own documents.

**Keys.** Until the first API key is made (`scripts/keys create`), the server answers only its own machine, \
as admin. Afterwards every call under `/v1` needs `Authorization: Bearer ty_…`. Roles: `admin` may do \
everything and sees everything; `writer` may put and delete every document, and sees its key's groups; \
`reader` sees its key's groups; `portal` states the groups of the person it speaks for in \
`{GROUPS_HEADER}: a,b` (and the name in `{USER_HEADER}`), request by request. Documents for `public` are \
seen by all. What a caller may not see is not found.

**Errors** are problem documents (RFC 9457) with a stable `code`. Every invalid part of a request gives 400 \
and is named in `errors`: unknown fields and parameters, wrong types, control characters, lone surrogates.

**Request ids.** `X-Request-ID` is taken over if it is a plain word, else made, returned, and logged."""

_PROBLEMS: Mapping[int, str] = {
    400: "The request can't be accepted; `errors` names the parts.",
    401: "A key is needed, or it is not known.",
    403: "The key's role does not allow this.",
    404: "There is no such collection or document, or the caller may not see it.",
    406: "The call does not answer in the media type that `Accept` wants.",
    409: "The document's revision is not the one that was named, or another write won.",
    413: "The body is larger than the server accepts (TANYUAN_MAX_BODY).",
    415: "The body has another media type than the call takes.",
    500: "An unforeseen error; the server's log has it under the request id.",
    503: "The store or a model can't serve now; trying again later may work.",
}


class _Generator(GenerateJsonSchema):
    """Responses always carry every field, whether or not it has a default."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return self.mode == "serialization" or super().field_is_required(field, total)


def document(operations: Sequence[Operation]) -> Json:
    """The whole document as JSON values."""
    schemas = _Schemas(operations)
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, schemas
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tanyuan (探源)",
            "version": __version__,
            "summary": "Private search and question answering over a company's own documents.",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key made by `scripts/keys create`.",
                }
            },
        },
    }


class _Schemas:
    """The schemas of all types, made together so that names are unique."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        wanted: list[tuple[Any, JsonSchemaMode]] = [
            (kind, "serialization") for kind in (Problem, *EVENTS.values())
        ]
        for one in operations:
            wanted += [(answer.type, "serialization") for answer in one.answers.values()]
            wanted += [(kind, "validation") for kind in one.path_types.values()]
            wanted += [
                (kind, "validation")
                for kind in (one.query_type, one.body_type, one.line_type)
                if kind
            ]
        inputs = [
            (str(index), mode, TypeAdapter(kind)) for index, (kind, mode) in enumerate(wanted)
        ]
        made, definitions = TypeAdapter.json_schemas(
            inputs, ref_template=_REFERENCE, schema_generator=_Generator
        )
        self._made = {
            (_key(kind), mode): made[(str(index), mode)]
            for index, (kind, mode) in enumerate(wanted)
        }
        self.components: Json = definitions.get("$defs", {})

    def of(self, kind: Any, mode: Literal["validation", "serialization"]) -> Json:
        return self._made[_key(kind), mode]

    def resolve(self, kind: Any) -> Json:
        """An input type's schema itself rather than a reference to it."""
        schema = self.of(kind, "validation")
        reference = schema.get("$ref", "")
        return self.components[reference.rpartition("/")[2]] if reference else schema


def _key(kind: Any) -> str:
    return repr(kind)


def _operation(operation: Operation, schemas: _Schemas) -> Json:
    summary, _, description = (inspect.getdoc(operation.view) or "").partition("\n")
    made: Json = {
        "operationId": operation.name,
        "summary": summary.rstrip("."),
        "description": description.strip(),
        "tags": [operation.tag],
        "parameters": [
            *_path_parameters(operation, schemas),
            *_query_parameters(operation, schemas),
        ],
        "responses": _responses(operation, schemas),
        "security": [{"key": []}, {}] if operation.permission else [],
    }
    if operation.body_type:
        made["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schemas.of(operation.body_type, "validation")}},
        }
    elif operation.line_type:
        made["requestBody"] = {
            "required": True,
            "description": "One JSON object a line, as `itemSchema` of later OpenAPI versions has it.",
            "content": {
                NDJSON: {
                    "schema": {"type": "string", "contentMediaType": NDJSON},
                    "x-item-schema": schemas.of(operation.line_type, "validation"),
                }
            },
        }
    return made


def _path_parameters(operation: Operation, schemas: _Schemas) -> list[Json]:
    return [
        _parameter("path", name, schemas.of(kind, "validation"), required=True)
        for name, kind in operation.path_types.items()
    ]


def _query_parameters(operation: Operation, schemas: _Schemas) -> list[Json]:
    if operation.query_type is None:
        return []
    schema = schemas.resolve(operation.query_type)
    required = schema.get("required", [])
    return [
        _parameter("query", name, value, required=name in required)
        for name, value in schema["properties"].items()
    ]


def _parameter(place: str, name: str, schema: Json, *, required: bool) -> Json:
    inner = {key: value for key, value in schema.items() if key not in {"description", "title"}}
    made = {"name": name, "in": place, "required": required, "schema": inner}
    if "description" in schema:
        made["description"] = schema["description"]
    return made


def _responses(operation: Operation, schemas: _Schemas) -> Json:
    responses: Json = {}
    for status, answer in operation.answers.items():
        content: Json = {JSON: {"schema": schemas.of(answer.type, "serialization")}}
        if answer.events:
            content[EVENT_STREAM] = {"schema": _event(answer.events, schemas)}
        responses[str(status)] = {"description": answer.description, "content": content}
    problem = {MEDIA_TYPE: {"schema": schemas.of(Problem, "serialization")}}
    for status in sorted(problem_statuses(operation)):
        code = str(status)
        if code in responses:
            responses[code]["content"] |= problem
        else:
            responses[code] = {
                "description": _PROBLEMS[status],
                "content": problem,
            }
    return responses


def _event(events: Mapping[str, Any], schemas: _Schemas) -> Json:
    """The schema of one server-sent event; its data is JSON in a string."""
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "enum": list(events)},
            "data": {"type": "string", "contentMediaType": JSON},
        },
        "oneOf": [
            {
                "properties": {
                    "event": {"const": name},
                    "data": {"contentSchema": schemas.of(kind, "serialization")},
                }
            }
            for name, kind in events.items()
        ],
    }


def problem_statuses(operation: Operation) -> set[int]:
    """Every status that an operation may answer with a problem document."""
    statuses = {400, 403, 406, 500}
    if operation.permission:
        statuses |= {401, int(status_of(StoreUnavailable))}
    if operation.body_type or operation.line_type:
        statuses |= {413, 415}
    return statuses | {int(status_of(kind)) for kind in operation.raises}
