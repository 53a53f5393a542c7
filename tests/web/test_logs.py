"""Logs and headers: one line a request with its id, and nothing secret in it."""

import io
import json
import logging
import uuid
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from server.errors import StoreUnavailable
from server.web.logs import JsonFormatter, accept_request_id
from server.web.services import Services


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server would write to stderr, at info."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("server")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(before)


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().split("\n") if line]


def test_a_request_is_one_line_with_its_id(client: FlaskClient, log: io.StringIO) -> None:
    with client.get("/healthz", headers={"X-Request-ID": "portal-42/a"}) as response:
        assert response.headers["X-Request-ID"] == "portal-42/a"
    (line,) = lines(log)
    assert line["request_id"] == "portal-42/a"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/healthz", 200)
    assert line["took_ms"] >= 0
    assert line["level"] == "info"


def test_every_line_of_a_request_carries_its_id(
    client: FlaskClient, services: Services, log: io.StringIO
) -> None:
    services.store.fault = StoreUnavailable("The store is away.")
    with client.get("/v1/collections", headers={"X-Request-ID": "abc"}) as response:
        assert response.json["request_id"] == "abc"
    assert [line["request_id"] for line in lines(log)] == ["abc", "abc"]
    assert [line["level"] for line in lines(log)] == ["warning", "info"]


def test_no_secret_and_no_text_is_logged(
    client: FlaskClient, services: Services, log: io.StringIO
) -> None:
    token = services.keys.create(name="portal", role="portal")
    headers = {"Authorization": f"Bearer {token}", "X-Tanyuan-User": "li.lei"}
    admin = {"Authorization": f"Bearer {services.keys.create(name='a', role='admin')}"}
    with client.put(
        "/v1/collections/default/documents/d", json={"text": "机密正文"}, headers=admin
    ):
        pass
    with client.get("/v1/search?q=工资单", headers=headers):
        pass
    with client.post("/v1/answer", json={"question": "工资单在哪"}, headers=headers):
        pass
    with client.get("/v1/collections", headers={"Authorization": "Bearer ty_guessed"}):
        pass
    written = log.getvalue()
    for secret in (token, "机密正文", "工资单", "ty_guessed"):
        assert secret not in written
    assert {line.get("key") for line in lines(log)} == {"a", "portal", None}
    assert {line.get("user") for line in lines(log)} == {"li.lei", None}


def test_a_path_can_not_forge_a_line(client: FlaskClient, log: io.StringIO) -> None:
    with client.get('/v1/collections/x%0A{"level":"error"}'):
        pass
    (line,) = lines(log)
    assert line["level"] == "info"


@pytest.mark.parametrize("offered", [None, "", "a b", "x" * 129, "\n", "é", "-a"])
def test_strange_ids_are_replaced(offered: str | None) -> None:
    assert uuid.UUID(accept_request_id(offered))


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/collections", "/nothing", "/openapi.json"])
def test_security_headers_are_on_every_response(client: FlaskClient, path: str) -> None:
    with client.get(path) as response:
        headers = response.headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        scripts = policy.partition("script-src")[2].partition(";")[0]
        assert "unsafe" not in scripts
        if path.startswith("/v1/"):
            assert headers["Cache-Control"] == "no-store"
