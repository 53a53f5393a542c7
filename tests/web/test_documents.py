"""Documents one by one: ids of every kind, revisions, and what is refused."""

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.documents import check_document_id
from server.errors import InvalidInput, StoreFull, StoreUnavailable
from server.web.services import Services

DOCUMENTS = "/v1/collections/default/documents"


def path_of(document_id: str) -> str:
    return f"{DOCUMENTS}/{quote(document_id, safe='')}"


def test_a_document_is_created_left_alone_updated_and_deleted(client: FlaskClient) -> None:
    body = {
        "title": "差旅",
        "text": "每晚 500 元。",
        "metadata": {"year": 2024, "tags": ["a", "b"]},
    }
    created = client.put(path_of("a"), json=body)
    assert (created.status_code, created.json["status"]) == (201, "created")
    again = client.put(path_of("a"), json=body)
    assert (again.status_code, again.json["status"]) == (200, "unchanged")
    updated = client.put(path_of("a"), json={**body, "text": "每晚 600 元。"})
    assert (updated.status_code, updated.json["status"]) == (200, "updated")
    assert updated.json["revision"] == 2
    whole = client.get(path_of("a")).json
    assert whole["text"] == "每晚 600 元。"
    assert whole["metadata"] == {"year": 2024, "tags": ["a", "b"]}
    assert (whole["acl"], whole["revision"]) == (["public"], 2)
    assert client.delete(path_of("a")).json == {"id": "a", "revision": 3, "chunks": 1}
    assert client.get(path_of("a")).json["code"] == "document_not_found"
    assert client.delete(path_of("a")).status_code == 404


@pytest.mark.parametrize(
    "document_id",
    [
        "hr/差旅报销.md",
        "https://intranet/x?y=1#z",
        "a//b/",
        "/etc/handbook",
        "100%",
        "%41",
        "%2F",
        "a:b:3",
        "documents:bulk",
        "é e\u0301",
        "a+b c",
        ".hidden",
        "…/😀",
    ],
)
def test_every_id_comes_back_as_it_was(client: FlaskClient, document_id: str) -> None:
    assert client.put(path_of(document_id), json={"text": "x"}).json["id"] == document_id
    assert client.get(path_of(document_id)).json["id"] == document_id
    assert client.delete(path_of(document_id)).json["id"] == document_id


def test_slashes_may_stay_raw(client: FlaskClient) -> None:
    client.put(path_of("hr/a//b.md"), json={"text": "x"})
    assert client.get(f"{DOCUMENTS}/hr/a//b.md").json["id"] == "hr/a//b.md"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document_id=st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()))
def test_an_id_is_kept_or_refused_never_changed(client: FlaskClient, document_id: str) -> None:
    response = client.put(path_of(document_id), json={"text": "x"})
    try:
        check_document_id(document_id)
    except InvalidInput:
        assert response.status_code == 400
    else:
        assert response.json["id"] == document_id


@pytest.mark.parametrize("document_id", ["..", "a/../b", " a", "a\x00b", "a\nb", "x" * 401])
def test_bad_ids_are_refused(client: FlaskClient, document_id: str) -> None:
    response = client.put(path_of(document_id), json={"text": "x"})
    assert response.status_code == 400, response.text
    assert response.json["errors"][0]["field"] == "document_id"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": 1}, "text"),
        ({"text": None}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"text": "a", "title": ["b"]}, "title"),
        ({"text": "a", "titel": "b"}, "titel"),
        ({"text": "a", "acl": "public"}, "acl"),
        ({"text": "a", "acl": ["a,b"]}, "acl"),
        ({"text": "a", "metadata": {"acl": "x"}}, "metadata"),
        ({"text": "a", "metadata": {"k": {"deep": 1}}}, "metadata.k"),
        ({"text": "a", "metadata": {"k": 2**60}}, "metadata"),
        ({"text": "a", "metadata": [1]}, "metadata"),
        ({"text": "a", "id": "b"}, "id"),
        ([], "body"),
        ("text", "body"),
    ],
)
def test_a_refused_part_is_named(client: FlaskClient, body: object, field: str) -> None:
    response = client.put(path_of("a"), json=body)
    assert response.status_code == 400
    assert response.json["code"] == "invalid_input"
    assert response.json["errors"][0]["field"].startswith(field), response.json


def test_revisions_guard_against_lost_updates(client: FlaskClient) -> None:
    def put(text: str, revision: int) -> tuple[int, str]:
        response = client.put(f"{path_of('a')}?if_revision={revision}", json={"text": text})
        return response.status_code, response.json.get("code", "")

    assert put("one", 0) == (201, "")
    assert put("two", 0) == (409, "revision_conflict")
    assert put("two", 1) == (200, "")
    assert put("three", 1) == (409, "revision_conflict")
    assert client.delete(f"{path_of('a')}?if_revision=1").status_code == 409
    assert client.delete(f"{path_of('a')}?if_revision=2").status_code == 200


@pytest.mark.parametrize(
    "query",
    ["if_revision=-1", "if_revision=x", "if_revision=1.0", "refresh=yes", "refresh=", "other=1"],
)
def test_bad_parameters_are_refused(client: FlaskClient, query: str) -> None:
    response = client.put(f"{path_of('a')}?{query}", json={"text": "x"})
    assert response.status_code == 400
    assert response.json["errors"][0]["field"] == query.partition("=")[0]


def test_only_the_default_collection_is_made_by_writing(
    client: FlaskClient, services: Services
) -> None:
    response = client.put("/v1/collections/other/documents/a", json={"text": "x"})
    assert (response.status_code, response.json["code"]) == (404, "collection_not_found")
    assert "PUT /v1/collections/other" in response.json["detail"]
    assert services.store.collections() == []
    assert client.get(path_of("a")).json["code"] == "collection_not_found"
    assert client.put(path_of("a"), json={"text": "x"}).status_code == 201


def test_a_store_in_trouble_is_a_503_that_says_when_to_come_back(
    client: FlaskClient, services: Services
) -> None:
    for error in (StoreUnavailable("The store is away."), StoreFull("The disk is full.")):
        services.store.fault = error
        response = client.put(path_of("a"), json={"text": "x"})
        assert (response.status_code, response.json["code"]) == (503, error.code)
        assert response.json["detail"] == error.message
        assert response.headers["Retry-After"] == "5"


def test_an_unforeseen_error_tells_nothing_but_its_id(
    client: FlaskClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    services.store.fault = RuntimeError("password=hunter2")
    response = client.get(path_of("a"))
    assert (response.status_code, response.json["code"]) == (500, "internal_error")
    assert "hunter2" not in response.text
    assert response.json["request_id"] in response.json["detail"]
    assert "hunter2" in caplog.text
