"""Rebuilds through the API."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.errors import StoreUnavailable
from server.web.services import Services
from tests.web.fakes import ObservedStore

PATH = "/v1/admin/collections/default"


def ended(client: FlaskClient, record: dict[str, Any]) -> dict[str, Any]:
    """The record when its work is done."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"{PATH}/rebuilds/{record['id']}").get_json()
        if found["state"] in {"promoted", "failed", "abandoned"} and not found["running"]:
            return found
        time.sleep(0.05)
    raise AssertionError("the rebuild does not end")


@pytest.fixture
def filled(put: Callable[..., None]) -> None:
    for number in range(20):
        put(f"d{number}", f"第{number}条 差旅报销标准")


@pytest.mark.usefixtures("filled")
def test_a_rebuild_is_started_watched_and_undone(client: FlaskClient) -> None:
    started = client.post(f"{PATH}/rebuilds")
    assert started.status_code == 202
    record = started.get_json()
    assert (record["state"], record["total"], record["by"]) == ("filling", 20, "local admin")
    done = ended(client, record)
    assert (done["state"], done["done"], done["error"]) == ("promoted", 20, "")
    assert client.get(f"{PATH}/rebuilds").get_json()["rebuilds"] == [done]
    generations = client.get(f"{PATH}/generations").get_json()["generations"]
    assert [each["state"] for each in generations] == ["kept", "live"]
    assert client.get("/v1/search?q=差旅报销&rerank=false").get_json()["total"] == 20

    back = client.post(f"{PATH}/rollback?generation={generations[0]['id']}")
    assert back.status_code == 202
    assert ended(client, back.get_json())["kind"] == "rollback"
    generations = client.get(f"{PATH}/generations").get_json()["generations"]
    assert [each["state"] for each in generations] == ["live", "kept"]
    assert client.get("/v1/search?q=差旅报销&rerank=false").get_json()["total"] == 20


@pytest.mark.usefixtures("filled")
def test_what_can_t_be_done_is_refused(client: FlaskClient, services: Services) -> None:
    def code(response: Any) -> tuple[int, str]:
        return response.status_code, response.get_json()["code"]

    assert code(client.post(f"{PATH}/rollback")) == (404, "generation_not_found")
    assert code(client.post(f"{PATH}/rollback?generation=x")) == (400, "invalid_input")
    assert code(client.get(f"{PATH}/rebuilds/nope")) == (404, "rebuild_not_found")
    assert code(client.post("/v1/admin/collections/none/rebuilds")) == (404, "collection_not_found")
    held = services.rebuilder.rebuild("default", by="another")
    assert code(client.post(f"{PATH}/rebuilds")) == (409, "rebuild_running")
    assert client.get(f"{PATH}/rebuilds").get_json()["rebuilds"][0]["running"] is True
    held.close()
    given_up = client.delete(f"{PATH}/rebuilds").get_json()["rebuilds"]
    assert [(each["id"], each["state"]) for each in given_up] == [(held.record.id, "abandoned")]


@pytest.mark.usefixtures("filled")
def test_only_admins_may(client: FlaskClient, services: Services) -> None:
    services.keys.create(name="admin", role="admin")
    writer = services.keys.create(name="writer", role="writer")
    for method, path in (
        ("POST", "rebuilds"),
        ("GET", "rebuilds"),
        ("DELETE", "rebuilds"),
        ("GET", "rebuilds/x"),
        ("GET", "generations"),
        ("POST", "rollback"),
    ):
        asked = client.open(
            f"{PATH}/{path}", method=method, headers={"Authorization": f"Bearer {writer}"}
        )
        assert asked.status_code == 403, path


@pytest.mark.usefixtures("filled")
def test_a_store_that_fails_leaves_the_collection_as_it_was(
    client: FlaskClient, services: Services
) -> None:
    store = services.store
    assert isinstance(store, ObservedStore)
    store.fault = StoreUnavailable("gone")
    assert client.post(f"{PATH}/rebuilds").status_code == 503
    store.fault = None
    assert client.get("/v1/search?q=差旅报销&rerank=false").get_json()["total"] == 20
