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
def make(tmp_path: Path) -> Iterator[Callable[..., Services]]:
    """Services whose generator, if any, says a script."""
    made: list[Services] = []

    def services(*script: object) -> Services:
        generator = ScriptedGenerator(*script) if script else None
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(make_services(Settings(data=folder), generator=generator))
        return made[-1]

    yield services
    for one in made:
        one.store.close()


@pytest.fixture
def services(make: Callable[..., Services]) -> Services:
    """Without a key and with a generator that answers."""
    return make("每晚 ", "500 元 [1]。")


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return build(services).test_client()


@pytest.fixture
def put(client: FlaskClient) -> Callable[..., None]:
    """Put a document through the API."""

    def send(document_id: str, text: str, *, collection: str = "default", **fields: object) -> None:
        path = f"/v1/collections/{collection}/documents/{document_id}?refresh=true"
        response = client.put(path, json={"text": text, **fields})
        assert response.status_code in {200, 201}, response.text

    return send


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("live")) as server:
        yield server
