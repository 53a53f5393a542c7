"""The OpenAPI document: true of the running server, complete, and readable offline."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from server.web.application import OPERATIONS
from server.web.operations import Operation
from tests.web.live import Live

ROOT = Path(__file__).parents[2]

# A schema can't say all: what keys a filter takes, which characters a text must not hold. So valid
# data may be refused, and positive_data_acceptance is not among these.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,missing_required_header,"
    "unsupported_method,allow_header_conformance"
)
REJECTION = f"{CHECKS},negative_data_rejection"
BULK = "bulk_documents"


def schemathesis(live: Live, *options: str, checks: str = REJECTION) -> None:
    program = str(Path(sys.executable).parent / "schemathesis")
    done = subprocess.run(
        [
            *(program, "run", f"{live.url}/openapi.json", "--checks", checks, "--no-color"),
            *("--generation-deterministic", "--request-timeout", "20", "--warnings", "off"),
            *options,
        ],
        cwd=live.data,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.web.schemathesis_hooks",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_schemathesis_finds_nothing_by_coverage(live: Live) -> None:
    """Every boundary of every schema; the two calls with filters alone would take a minute."""
    slow = "POST /v1/(search|answer)"
    phases = ("--phases", "examples,coverage")
    schemathesis(live, *phases, "--exclude-operation-id", BULK, "--exclude-name-regex", slow)


def test_schemathesis_finds_nothing_by_fuzzing(live: Live) -> None:
    phases = ("--phases", "examples,fuzzing", "--max-examples", "40")
    schemathesis(live, *phases, "--exclude-operation-id", BULK)


def test_schemathesis_finds_nothing_in_bulk(live: Live) -> None:
    """Every line may be good or bad, so no body is invalid as a whole."""
    phases = ("--phases", "examples,coverage,fuzzing", "--max-examples", "60")
    schemathesis(live, *phases, "--include-operation-id", BULK, checks=CHECKS)


def test_nothing_was_logged_as_a_failure(live: Live) -> None:
    assert [line for line in live.log_lines() if line["level"] in {"warning", "error"}] == []


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert response.content_type == "application/json"
    found: dict[str, Any] = response.json
    return found


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for operation in OPERATIONS:
        made = document["paths"][operation.path][operation.method.lower()]
        assert made["summary"]
        assert made["operationId"] == operation.name
        for parameter in made["parameters"]:
            assert parameter["description"], (operation.name, parameter["name"])
        for status, response in made["responses"].items():
            assert response["description"]
            if int(status) not in operation.answers:
                assert "application/problem+json" in response["content"]
    ids = [operation.name for operation in OPERATIONS]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= document["components"]["schemas"].keys()
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_routes_and_document_agree(operation: Operation, client: FlaskClient) -> None:
    rules = {
        (method, rule.endpoint)
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods or ()
    }
    assert (operation.method, operation.name) in rules


def test_responses_always_carry_every_field(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Retrieval", "Hit", "Answer", "Problem", "BulkResult"):
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"]), name


def test_the_docs_page_needs_no_other_host(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text
    for path in ("/docs/css/swagger-ui.css", "/docs/js/swagger-ui-bundle.js", "/docs/start.js"):
        assert path in page.text
        with client.get(path) as file:
            assert file.status_code == 200
    assert client.get("/docs/js/../plugins.py").status_code == 404
    assert client.get("/docs/js/%2e%2e%2f%2e%2e%2f__init__.py").status_code == 404
