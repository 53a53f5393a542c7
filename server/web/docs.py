"""``/openapi.json`` and a page over it that works offline (Swagger UI's files come in a wheel)."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, send_from_directory

# Swagger UI sets style attributes, and its icons are data: images.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tanyuan (探源): API</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/docs/css/swagger-ui.css">
<main id="ui"></main>
<script src="/docs/js/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null,
  defaultModelsExpandDepth: 0, tryItOutEnabled: true,
});
"""


def blueprint(make_document: Callable[[], dict[str, Any]]) -> Blueprint:
    """The two routes and the page's files. The document is made when it is first asked for."""
    document = cache(make_document)
    made = Blueprint("docs", __name__)
    folder = Path(str(files("flask_openapi3_swagger"))) / "templates" / "swagger"

    @made.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document())

    @made.get("/docs")
    def page() -> Response:
        response = Response(_PAGE, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    @made.get("/docs/start.js")
    def start() -> Response:
        return Response(_START, content_type="text/javascript; charset=utf-8")

    @made.get("/docs/<any(css,js):kind>/<name>")
    def asset(kind: str, name: str) -> Response:
        return send_from_directory(folder / kind, name, max_age=3600)

    return made
