"""A collection's profile through the API."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.retrieval.profile import Profile
from server.web.services import Services

PATH = "/v1/admin/collections/default/profile"
# "b" has the word in its title alone, "a" in its text.
ONLY_TITLES = {
    "field_weights": {
        "words": 0,
        "bigrams": 0,
        "characters": 0,
        "title_words": 1,
        "title_bigrams": 0,
    }
}


@pytest.fixture(autouse=True)
def _filled(put: Callable[..., None]) -> None:
    put("a", "出差报销的流程。", title="流程")
    put("b", "流程和表格。", title="报销")


def get(client: FlaskClient, path: str = "") -> dict[str, Any]:
    response = client.get(PATH + path)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.get_json()
    return found


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.get_json()["code"]


def found(client: FlaskClient) -> list[str]:
    response = client.get("/v1/search?q=报销&mode=bm25&rerank=false").get_json()
    return [hit["document_id"] for hit in response["hits"]]


def soon(client: FlaskClient, wanted: list[str]) -> None:
    deadline = time.monotonic() + 10
    while found(client) != wanted:
        assert time.monotonic() < deadline, found(client)
        time.sleep(0.05)


def test_searches_follow_a_profile_and_its_roll_back(client: FlaskClient) -> None:
    before = found(client)
    assert set(before) == {"a", "b"}
    body = {"profile": ONLY_TITLES, "comment": "titles alone"}
    response = client.put(PATH, json=body)
    assert response.get_json() == {"version": 1, "changed": True}
    assert client.put(PATH, json=body).get_json() == {"version": 1, "changed": False}
    soon(client, ["b"])
    rolled = client.post(f"{PATH}/rollback", json={"version": 0, "comment": "worse"})
    assert rolled.get_json() == {"version": 2, "changed": True}
    soon(client, before)
    assert client.post(f"{PATH}/rollback", json={"version": 1}).get_json()["version"] == 3
    soon(client, ["b"])


def test_a_profile_is_shown_with_who_and_why(client: FlaskClient) -> None:
    empty = get(client)
    assert empty == {
        "version": 0,
        "in_force": 0,
        "profile": Profile().as_dict(),
        "changes": {},
        "at": "",
        "author": "",
        "comment": "",
        "report": None,
    }
    client.put(PATH, json={"profile": {"fusion": {"vector": 2}}, "comment": "by hand"})
    client.put(PATH, json={"profile": {}})
    shown = get(client, "?version=1")
    assert (shown["version"], shown["in_force"]) == (1, 2)
    assert shown["changes"] == {"fusion": {"vector": 2.0}}
    assert shown["profile"]["fusion"] == {**empty["profile"]["fusion"], "vector": 2.0}
    assert (shown["author"], shown["comment"]) == ("local admin", "by hand")
    assert get(client)["changes"] == {}
    versions = get(client, "/versions")
    assert (versions["total"], [each["version"] for each in versions["versions"]]) == (2, [2, 1])
    assert get(client, "/versions?from=1&size=1")["versions"] == versions["versions"][1:]
    assert code(client.get(f"{PATH}?version=3")) == (404, "version_not_found")
    assert code(client.post(f"{PATH}/rollback", json={"version": 3})) == (404, "version_not_found")


def test_a_change_of_what_somebody_else_changed_is_refused(client: FlaskClient) -> None:
    assert client.put(PATH, json={"profile": ONLY_TITLES, "if_version": 0}).status_code == 200
    late = client.put(PATH, json={"profile": {}, "if_version": 0})
    assert code(late) == (409, "note_conflict")
    assert get(client)["version"] == 1


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        ({"fusion": {"windw": 1}}, "fusion.windw: unknown"),
        ({"fusion": {"window": 0}}, "1 to 10,000"),
        ({"field_weights": {"words": "1"}}, "field_weights.words"),
        ([], "JSON object"),
        (None, "JSON object"),
    ],
)
def test_what_is_wrong_is_named(client: FlaskClient, profile: object, named: str) -> None:
    response = client.put(PATH, json={"profile": profile})
    assert code(response) == (400, "invalid_input")
    assert named in response.get_json()["detail"]
    assert get(client)["in_force"] == 0
    missing = client.get("/v1/admin/collections/none/profile")
    assert code(missing) == (404, "collection_not_found")


def test_only_admins_may_and_their_keys_are_named(client: FlaskClient, services: Services) -> None:
    admin = {"Authorization": f"Bearer {services.keys.create(name='anna', role='admin')}"}
    writer = {"Authorization": f"Bearer {services.keys.create(name='bot', role='writer')}"}
    body = {"profile": ONLY_TITLES}
    for refused in (
        client.get(PATH, headers=writer),
        client.get(f"{PATH}/versions", headers=writer),
        client.put(PATH, json=body, headers=writer),
        client.post(f"{PATH}/rollback", json={"version": 0}, headers=writer),
    ):
        assert code(refused) == (403, "forbidden")
    assert client.put(PATH, json=body, headers=admin).status_code == 200
    assert client.get(PATH, headers=admin).get_json()["author"] == "anna"
