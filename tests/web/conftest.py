"""Applications in this process for what is quick, and live servers for what only a socket shows."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from server.settings import Settings
from server.web.application import build
from server.web.services import Services
from tests.web.fakes import ScriptedGenerator, make_services
from tests.web.live import Live, live_server


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """Without a key and with a generator that answers."""
    return make_services(
        Settings(data=tmp_path), generator=ScriptedGenerator("每晚 ", "500 元 [1]。")
    )


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return build(services).test_client()


@pytest.fixture
def put(client: FlaskClient) -> Callable[..., None]:
    """Put a document through the API."""

    def send(document_id: str, text: str, *, collection: str = "default", **fields: object) -> None:
        path = f"/v1/collections/{collection}/documents/{document_id}"
        response = client.put(path, json={"text": text, **fields})
        assert response.status_code in {200, 201}, response.text

    return send


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("live")) as server:
        yield server
