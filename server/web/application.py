"""The Flask application over the services."""

import logging
import re
import time
from collections.abc import Callable

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from server.web import (
    access,
    answers,
    collections,
    docs,
    documents,
    feedback,
    health,
    openapi,
    profiles,
    rebuilds,
    search,
    suggest,
    vocabulary,
)
from server.web.access import Caller
from server.web.logs import accept_request_id, request_id
from server.web.operations import Context, Operation
from server.web.page import page_blueprint
from server.web.payloads import BROKEN_TRANSFER, check_path
from server.web.problems import respond
from server.web.services import Services

OPERATIONS: tuple[Operation, ...] = (
    *search.OPERATIONS,
    *suggest.OPERATIONS,
    *answers.OPERATIONS,
    *feedback.OPERATIONS,
    *documents.OPERATIONS,
    *collections.OPERATIONS,
    *rebuilds.OPERATIONS,
    *vocabulary.OPERATIONS,
    *profiles.OPERATIONS,
    *health.OPERATIONS,
)

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)

# A client that is still sending reads no answer, and closing on it makes the answer vanish. So what
# is left of a refused body is read and thrown away, up to this much and this long.
DRAIN_BYTES = 96 * 1024 * 1024
DRAIN_SECONDS = 10.0

NOBODY = Caller(name="", role="reader", groups=frozenset())

_PIECE = 64 * 1024
_log = logging.getLogger("server.access")


class _Rest(BaseConverter):
    """The rest of the path: a document's id, with every slash and blank it has."""

    regex = "(?s:.+)"
    part_isolating = False


def build(services: Services) -> Flask:
    """The application: every operation behind keys, limits, problem documents and the log."""
    app = Flask(__name__)
    app.url_map.converters["rest"] = _Rest
    app.url_map.merge_slashes = False
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.before_request(_begin)
    app.before_request(lambda: _admit(services))
    app.after_request(_finish)
    app.register_error_handler(Exception, respond)
    for operation in OPERATIONS:
        app.add_url_rule(
            _rule(operation.path),
            endpoint=operation.name,
            view_func=_view(operation, services),
            methods=[operation.method],
            provide_automatic_options=False,
        )
    app.register_blueprint(docs.blueprint(lambda: openapi.document(OPERATIONS)))
    app.register_blueprint(page_blueprint())
    return app


def _rule(path: str) -> str:
    """OpenAPI's path as Werkzeug's rule."""
    return re.sub(r"\{(\w+)\}", r"<\1>", path).replace("<document_id>", "<rest:document_id>")


def _view(operation: Operation, services: Services) -> Callable[..., Response]:
    handle = operation.handler()

    def view(**path: str) -> Response:
        return handle(Context(services, g.caller, request), path)

    return view


def _begin() -> None:
    g.began = time.perf_counter()
    g.caller = NOBODY
    request_id.set(accept_request_id(request.headers.get("X-Request-ID")))
    check_path(request)


def _admit(services: Services) -> None:
    """Who calls, before anything else is told, even which paths there are."""
    if request.path.startswith("/v1/"):
        g.caller = access.identify(request, services.keys)


def _finish(response: Response) -> Response:
    headers = response.headers
    headers["X-Request-ID"] = request_id.get()
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Frame-Options"] = "DENY"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    if request.path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store")
    if response.status_code >= 400:
        _drain()
    _log_when_done(response)
    return response


def _log_when_done(response: Response) -> None:
    """One line a request, when its last byte is out; neither query strings nor bodies are in it."""
    began, caller, method, path = g.began, g.caller, request.method, request.path
    identity = request_id.get()

    def log() -> None:
        request_id.set(identity)
        fields = {
            "method": method,
            "path": path,
            "status": response.status_code,
            "took_ms": round((time.perf_counter() - began) * 1000, 1),
            "key": caller.name,
            "user": caller.user,
        }
        _log.info("request", extra={"fields": {k: v for k, v in fields.items() if v != ""}})

    response.call_on_close(log)


def _drain() -> None:
    left, until = DRAIN_BYTES, time.monotonic() + DRAIN_SECONDS
    try:
        while left > 0 and time.monotonic() < until:
            piece = request.stream.read(min(_PIECE, left))
            if not piece:
                return
            left -= len(piece)
    except (*BROKEN_TRANSFER, HTTPException):
        return  # nobody sends any more
