"""Alive and ready."""

from flask.testing import FlaskClient

from server.errors import StoreUnavailable
from server.web.services import Services


def test_readiness_follows_the_store_alone(client: FlaskClient, services: Services) -> None:
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["ready"]) == (200, True)
    assert ready.json["components"]["embedder"]["ready"] is False
    assert ready.json["version"]
    services.store.fault = StoreUnavailable("The store is away.")
    away = client.get("/readyz")
    assert (away.status_code, away.json["ready"]) == (503, False)
    assert away.json["components"]["store"]["detail"] == "The store is away."
    assert client.get("/healthz").status_code == 200
