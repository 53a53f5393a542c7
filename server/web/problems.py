"""Problem documents (RFC 9457): the one table of statuses, and every error as a response."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated

from flask import Response
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import HTTPException

from server.errors import (
    CollectionExists,
    CollectionNotFound,
    DocumentNotFound,
    Forbidden,
    GenerationNotFound,
    InvalidInput,
    ModelUnavailable,
    NoteConflict,
    PayloadTooLarge,
    RebuildFailed,
    RebuildNotFound,
    RebuildRunning,
    RecipeMismatch,
    RevisionConflict,
    StoreUnavailable,
    TanyuanError,
    Unauthorized,
    VersionNotFound,
)
from server.web.logs import request_id

MEDIA_TYPE = "application/problem+json"

# The status of an error's class, or else of its nearest base's. Everything else is a 500.
STATUSES: Mapping[type[TanyuanError], HTTPStatus] = MappingProxyType(
    {
        InvalidInput: HTTPStatus.BAD_REQUEST,
        Unauthorized: HTTPStatus.UNAUTHORIZED,
        Forbidden: HTTPStatus.FORBIDDEN,
        CollectionNotFound: HTTPStatus.NOT_FOUND,
        DocumentNotFound: HTTPStatus.NOT_FOUND,
        CollectionExists: HTTPStatus.CONFLICT,
        RevisionConflict: HTTPStatus.CONFLICT,
        GenerationNotFound: HTTPStatus.NOT_FOUND,
        RebuildNotFound: HTTPStatus.NOT_FOUND,
        VersionNotFound: HTTPStatus.NOT_FOUND,
        RebuildRunning: HTTPStatus.CONFLICT,
        RebuildFailed: HTTPStatus.CONFLICT,
        NoteConflict: HTTPStatus.CONFLICT,
        PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        RecipeMismatch: HTTPStatus.SERVICE_UNAVAILABLE,
        StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        ModelUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)

# The codes of what is refused before any operation runs: by routing, by negotiation, by the server.
HTTP_CODES: Mapping[int, str] = MappingProxyType(
    {
        400: "invalid_input",
        404: "not_found",
        405: "method_not_allowed",
        406: "not_acceptable",
        411: "length_required",
        413: "payload_too_large",
        414: "uri_too_long",
        415: "unsupported_media_type",
        431: "headers_too_large",
    }
)

# What Werkzeug says of these is for people who type addresses into a browser.
_DETAILS: Mapping[int, str] = MappingProxyType(
    {
        404: "There is nothing at this path; /docs shows the calls.",
        405: "This path does not take this method; the Allow header names those that it takes.",
    }
)

RETRY_SECONDS = 5

_log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One part of the request that can't be accepted."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Where: a path into the body, or a parameter's name.")
    message: str


class Problem(BaseModel):
    """Why a request failed (RFC 9457). Programs may rely on `code`; `detail` is for people."""

    model_config = ConfigDict(frozen=True)

    type: Annotated[str, Field(examples=["urn:tanyuan:problem:invalid_input"])]
    title: Annotated[str, Field(examples=["Bad Request"])]
    status: Annotated[int, Field(ge=400, le=599, examples=[400])]
    detail: str
    code: Annotated[str, Field(examples=["invalid_input"])]
    request_id: Annotated[str, Field(description="Also in X-Request-ID and in the server's log.")]
    errors: list[FieldError] = Field(default=[], description="The refused fields, if any.")


class InvalidFields(InvalidInput):
    """Several parts of a request can't be accepted."""

    def __init__(self, errors: list[FieldError]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first.field}: {first.message}{more}", field=first.field)
        self.errors = errors


def status_of(kind: type[TanyuanError]) -> HTTPStatus:
    """The status of an error's class."""
    for base in kind.__mro__:
        if base in STATUSES:
            return STATUSES[base]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: Exception) -> Problem:
    """Any error as a problem document; an unforeseen one is logged and tells nothing."""
    if isinstance(error, TanyuanError):
        status = status_of(type(error))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.warning("%s: %s", error.code, error.message)
        return make_problem(status, error.code, error.message, _fields(error))
    if isinstance(error, HTTPException) and error.code and error.code in HTTP_CODES:
        detail = _DETAILS.get(error.code) or error.description or HTTPStatus(error.code).description
        return make_problem(error.code, HTTP_CODES[error.code], detail)
    _log.error("Unforeseen error", exc_info=error)
    detail = f"An unforeseen error; the server's log has it under request id {request_id.get()}."
    return make_problem(HTTPStatus.INTERNAL_SERVER_ERROR, TanyuanError.code, detail)


def make_problem(
    status: int, code: str, detail: str, errors: list[FieldError] | None = None
) -> Problem:
    return Problem(
        type=f"urn:tanyuan:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=int(status),
        detail=detail,
        code=code,
        request_id=request_id.get(),
        errors=errors or [],
    )


def respond(error: Exception) -> Response:
    """Any error as a response."""
    problem = problem_of(error)
    response = Response(problem.model_dump_json(), status=problem.status, content_type=MEDIA_TYPE)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="tanyuan"'
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    valid_methods = getattr(error, "valid_methods", None)
    if valid_methods:
        response.headers["Allow"] = ", ".join(sorted(valid_methods))
    return response


def _fields(error: TanyuanError) -> list[FieldError]:
    if isinstance(error, InvalidFields):
        return error.errors
    field = getattr(error, "field", None)
    return [FieldError(field=field, message=error.message)] if field else []
